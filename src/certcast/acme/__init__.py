"""certcast as an ACME client (RFC 8555) on certbot's protocol library, `acme`.

issuance.py       several certificates together: threads, DNS, signals; begin reading here
order.py          one order, in protocol order, from newOrder to the stored certificate
account.py        the account: found, made, bound to an external one
ca.py             a CA by its directory URL: unsigned requests, revocation
pending.py        an order that is under way, on disk: key and URL before finalize
issued.py         the store of certificates: whole versions, or none
limits.py         how many orders, and not before when: for each CA
renewal_info.py   when the CA wants a certificate replaced (ARI, RFC 9773)
protocol/         requests to a CA and their answers
"""
