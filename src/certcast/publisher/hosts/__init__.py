"""Who gets the private key.

enrolled_hosts.py  the file that lists hosts and their keys
host_lists.py      hosts from known_hosts, from lines, from Ansible's facts
host_scan.py       a host's key, asked of its SSH server and confirmed
sealed_keys.py     the private key in the store, sealed to each host
enrolment.py       a host more or fewer in the list, carried into the store
"""
