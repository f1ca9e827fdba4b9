"""The hosts that serve: take a release over, put it into service, see it served.

takeover.py      the run, from the lock to the last step
outcome.py   what it came to, in words
state.py     what a host remembers between runs, and when it looks again
gate.py      what must be true of a release before it is installed
versions.py   the folder: versions, the one snippet, what is swept and pruned
copies.py    fixed paths that sites name: all of them, or none (fixed_path.py: one)
switch.py   switch, test, reload, proof; and the way back
control.py     one nginx: its commands, its master, its workers
plan.py   which handshakes prove a certificate: every listener, every name
server_names.py which server block a name leads to
handshake.py the handshakes, by clients of one key type (tls_client.py: their processes)
verdict.py     handshakes before and after, and the verdict
baseline.py what was seen before a reload, on disk until its verdict
explanation.py  a failed proof in words: who shows another certificate, in which line
"""
