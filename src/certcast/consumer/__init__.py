"""The hosts that serve: take a release over, put it into service, see it served.

takeover.py      one run, from the lock to the proof
switch.py        a version into service: switch, test, reload, proof, or rollback
state.py         what a host remembers between runs, and when it asks the store again
outcome.py       what a run came to, in words; the alarms
incoming/        the release on its way: manifest, files, gate
disk/            the certificate's folder: versions, the snippet, fixed paths, which version to go back to
nginx/           one nginx: its commands, configuration, processes and containers
proof/           handshakes before and after, and the verdict
"""
