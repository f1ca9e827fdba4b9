"""certcast as an ACME client (RFC 8555) on certbot's protocol library, `acme`.

issuance.py       several certificates together: threads, DNS, signals; begin reading here
order.py          one order, in protocol order, from newOrder to the checked certificate
resources.py      the CA's objects, each field looked at
certified.py      the key before the order, the certificate after it
pending.py        an order that is under way, on disk: key and URL before finalize
issued.py         the store of certificates: whole versions, or none
account.py        the account: found, made, bound to an external one
ca.py             one CA by its directory URL
limits.py         how many orders, and not before when: per CA
renewal_info.py   when the CA wants a certificate replaced (ARI, RFC 9773)
revoke.py         a certificate revoked, by the account's or its own key
network.py        the library's network, with what it lacks: signed requests
unsigned.py       the directory and renewal information
answers.py        what comes back: an answer, a refusal, nothing
messages.py       a newOrder with `replaces`
problems.py       what a CA's refusal means, in an operator's words
interrupts.py     signals, held until no TXT record is left
"""
