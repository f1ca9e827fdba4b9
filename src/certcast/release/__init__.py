"""What the renewal host and the hosts that serve agree on.

manifest.py         the pointer to the current release
certificate.py      what a certificate and its key say, and whether it may be trusted
lifetime.py         when a certificate is due, from its own dates
signing.py          the publisher's signature under a manifest
sealing.py          a private key in the bucket, readable for one host only
host_identity.py    the SSH key of a host, to which private keys are sealed
ssh_keys.py         OpenSSH key files, as far as a poll must understand them
source.py           where the versions of a certificate lie on the renewal host
documents.py        JSON documents, read and written by their types
"""
