"""Seeing TXT records as the CA will see them: in DNS itself, from this host.

    delegation.py    where a validation's record belongs: CNAMEs, then the zone
    waiting.py       when the CA may look: nameservers, else resolvers, else the API's word and a fixed wait
    watching.py      the polling for one name
    reach.py         what the answers amount to; which addresses cannot be reached
    listing.py       the last check: the API still lists the values
    nameservers.py   a zone's own servers, and one question to one of them
    resolvers.py     recursive resolvers, by DNS or by HTTPS
    exchange.py      one question to one address, by UDP and TCP

All but reach.py and listing.py import dnspython, which takes a tenth of a second: import them where they
are used.
"""
