"""What an administrator does by hand, and seldom: one module for each command.

    identity.py    the key of a host, on that host
    publisher.py   the signing key and the recovery kit
    host.py        who gets the private key
    publish.py     step back to an earlier release
    policy.py      the least that an AccessKey must be allowed

Each is imported only when its command is called (cli.py).
"""
