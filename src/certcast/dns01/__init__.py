"""DNS-01 (RFC 8555 section 8.4): show the CA a TXT value, and leave nothing behind.

challenges.py     what callers ask for; begin reading here
presenting.py         the challenges of several orders at once, each order at its own pace
records.py        one record's adding and removal
ledger.py         which records are ours, kept on disk across crashes
delegation.py     where a validation's TXT record belongs: CNAMEs, then the zone
accounts.py       which account holds a zone
provider.py       what a DNS provider must do
alidns.py         Alibaba Cloud DNS doing it
alidns_api.py     one call to its API
acs3.py           the signature of a call
calls.py          ten blocking calls at a time; share.py: how many of them one order may have
once.py           what is looked up once, however many threads ask
waiting.py        from the last value's adding to the moment at which the CA may look
propagation.py    waiting until everybody who can be asked shows the values
watching.py       the polling for one name
reach.py          what the answers amount to; who cannot be reached
unseen.py         what is said where the nameservers cannot be reached
listed.py         the last look: the API still lists the values
nameservers.py    a zone's own servers, and one question to one of them
resolvers.py      recursive resolvers, by DNS or by HTTPS (doh.py)
exchange.py       one question to one address, by UDP and TCP
"""
