"""A local cloud for certcast: what is real runs as itself, the two cloud APIs are emulated.

cli.py             certcast-lab up, show, demo
lab.py             everything together: one object that starts, resets and stops it
configuration.py   certcast.toml for the lab's hosts
trust.py           the keys, identities and hosts file that administrators make
mailbox.py         a mail server that keeps every message
show.py            zone, bucket and mailbox of a running lab, over HTTP
demo.py            the whole journey, told and checked

acme/              the CA, and what stands before it
aliyun/            the cloud account: users and rights, Alidns, STS
dns/               zone data, nameservers, resolvers
oss/               the bucket
serving/           how a server of the lab runs, and how it fails
web/               hosts with nginx
"""
