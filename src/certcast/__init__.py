"""certcast: one host renews a certificate, every nginx takes it over, proves it, serves it.

Each room may import from those named before it:

    report/           how certcast speaks: errors, console, secrets struck out
    host/             this machine: files, processes, clock, network
    release/          what both sides agree on: manifest, certificate, signature, seal
    config/           the one configuration file
    credentials.py    where the AccessKey of an account comes from
    storage/          the bucket through which releases reach the hosts
    dns01/            TXT records for the CA, and whether its resolvers can see them
    acme/             orders at a CA
    certbot/          for a host that has a certbot: its lineages, its hooks
    publisher/        signs, seals and publishes a release
    renewal/          what is wanted, and when
    notify/           mails
    consumer/         fetches a release, puts it into service, proves it
    access/           RAM policies
    commands/         one file for each command
    cli.py            arguments → commands/
"""
