"""The CA that certcast orders from.

pebble.py          Let's Encrypt's own small ACME server, as a child
acme2certifier.py  a CA of another make, as a child
renewal_info.py    a proxy before pebble: renewal information, counts, faults
acme_faults.py     the switches of the faults that only a CA has
nonces.py          which good nonces the proxy refuses
"""
