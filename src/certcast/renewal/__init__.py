"""The renewal host: from "renew" to a published release.

renew.py     one certificate, reconciled; begin reading here
certbot.py   certbot as a child
plugin.py    certcast inside certbot: its authenticator plugin
hooks.py     certcast called by a certbot that is already there
lineage.py   certbot's live files
publish.py   what is newer, into the store
desk.py      in which order the store is written
due.py       whether an order may be placed, or must
ari.py       the CA's own word on when to renew
orders.py    the local cap on orders
replacement.py, revocation.py    before its time: what is to be replaced, and revoked at the CA
"""
