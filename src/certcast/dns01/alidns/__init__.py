"""Alibaba Cloud DNS (Alidns, API version 2015-01-09), one implementation of dns01/provider.py.

alidns.py       the provider: which calls there are, and what a refusal means
alidns_api.py   one call: signed, sent under a deadline, repeated where that helps
acs3.py         the signature of a call
"""
