"""One command, one file; cli.py imports it when it is asked for.

run.py         the frame of them all: configuration, store, and how a failure ends
renew.py       renew what is due, publish it; adopt, replace
hook.py        certbot's hooks
pull.py        take over what is published, on each host that serves
publish.py     step back, or publish under a higher sequence
publisher.py   the signing key and the recovery kit
host.py        who gets the private key
identity.py    this host's own key
policy.py      what an AccessKey must be allowed
check.py       what this host would do with its configuration
"""
