"""DNS-01 (RFC 8555 section 8.4): show the CA a TXT value, and leave nothing behind.

challenges.py     an order's challenges, in protocol order; begin reading here
delegation.py     where a validation's TXT record belongs: CNAMEs, then the zone
accounts.py       which account holds a zone
provider.py       what a DNS provider must do
alidns.py         Alibaba Cloud DNS doing it
ledger.py         which records are ours, kept on disk across crashes
authoritative.py  a zone's own nameservers, and one question to one of them
propagation.py    waiting until they agree
"""
