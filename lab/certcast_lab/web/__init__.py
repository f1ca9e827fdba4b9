"""Hosts with a real nginx.

hosts.py           a host that serves, with the distribution's nginx
host_kinds.py      nginx compiled into a folder, or in a container
relay.py           a read-only relay of the store
"""
