"""The emulator of Object Storage Service.

oss_api.py         the service at its endpoint
oss_access.py      the doors: signature, clock, token, rights
oss_signatures.py  the two signatures, recomputed from a request
oss_bucket.py      a bucket's objects, with their past
oss_listing.py     one page of ListObjectsV2
oss_versions.py    versioning: state, listing, headers
oss_errors.py      the error document
"""
