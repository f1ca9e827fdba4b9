"""A release on its way from the bucket to this host: nothing of it is nginx's yet.

current.py       the manifest that the store shows, if this host may believe it
fetch.py         the release's two files: the chain, and the private key that was sealed to this host
gate.py          what must be true of a release before nginx sees it
"""
