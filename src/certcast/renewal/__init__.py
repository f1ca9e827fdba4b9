"""The renewal host: from "renew" to a published release.

reconcile.py          all certificates of a run, reconciled; begin reading here
candidate.py           one certificate on its way through a run
due.py            whether another certificate is to be ordered now
ordering.py       what is due, ordered together
publishing.py    a release published, with what is revoked by it
overdue.py        what is told of a certificate that is late
last_look.py         what the last good look has found: nothing to ask
source.py         where the releases of a certificate lie on this host
publish.py        what is newer, into the store
publication.py           in which order the store is written
signer.py          who signs, and who may read
record.py         what was published, as this host remembers it
sealed_keys.py         the private key, sealed to each host
enrolled_hosts.py       the hosts that get the key
replacement.py    what is to be replaced before its time
revocation.py     and revoked at the CA
key_files.py, keyring.py, recovery_kit.py, passphrase.py    the signing keys and the recovery kit

Ordering is in certcast/acme, a certbot's files in certcast/certbot.
"""
