"""The renewal host: from "renew" to a published release.

    reconcile.py      all certificates of a run, reconciled; begin reading here
    candidate.py      one certificate on its way through a run
    last_look.py      what the last good look has found: nothing to ask
    due.py            whether another certificate is ordered now, or should be here already
    ordering.py       what is due, ordered together
    replacement.py    what is to be replaced before its time, and published as revoked
    revocation.py     and revoked at the CA

Ordering itself is in certcast/acme, a certbot's files in certcast/certbot, the store in certcast/publisher.
"""
