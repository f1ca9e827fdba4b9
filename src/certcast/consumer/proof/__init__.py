"""Real handshakes with nginx, before a reload and after: was the new certificate taken into service?

plan.py          which handshakes prove a certificate: every listener, every name
handshake.py     the handshakes, by clients of one TLS version and one type of key
tls_client.py    the process that shakes hands, run by its path
rsa.cnf          its OpenSSL configuration for clients that take RSA keys only
ecdsa.cnf        the same for ECDSA keys
baseline.py      what was seen before a reload, on disk until its verdict
verdict.py       both rounds compared, rule by rule
explanation.py   the verdict in words, and the line of nginx's configuration that is to blame
"""
