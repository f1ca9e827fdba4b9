"""The publisher: what this host holds, signed and sealed, into the store.

releases.py       the releases of one certificate: publish, step back, seal to a host
publication.py    one locked change: in which order the store is written
record.py         what was published, as this host remembers it
signer.py         who signs, and who may read
chosen_source.py  where the releases of a certificate lie on this host
hosts/            who gets the private key
keys/             the signing keys and the recovery kit
"""
