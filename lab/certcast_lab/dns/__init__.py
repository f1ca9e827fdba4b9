"""DNS, as the API writes it and the world reads it.

zones.py           the zone data, with their past
dns_answers.py     what the zone data say, as DNS messages
nameservers.py     nameservers and resolvers, over UDP and TCP
doh.py             the resolver by HTTPS
"""
