"""This machine: its files, processes, clock and network.

files.py            files that survive a crash, and locks
private_files.py    who else may read or write what certcast relies on
children.py         what the programs that certcast starts see of its environment
interrupts.py       signals that must wait for a step to end
clock.py            whether this host's clock is wrong, by a server's Date
transport.py        requests, with a deadline that cuts and a size
"""
