"""nginx: what it says, what it sees, how it is told, and what its processes do.

control.py         one nginx: test, reload, workers; the line of sudoers that is missing
configuration.py   the text of `nginx -T`: server blocks, listeners, certificates in effect
server_names.py    which server block a name leads to, and which names can be asked
processes.py       masters and workers in /proc
containers.py      an nginx in a container: its paths, its masters, its mounts
"""
