"""How a server of the lab runs, and how it fails.

asgi.py            an ASGI application at a port
intercept.py       an HTTPS proxy that leads clients of the real cloud to the lab
blocked.py         an address that a firewall seems to stand before
children.py        programs that run beside the lab, and commands that it runs to their end
faults.py          the switches of the faults that every HTTP service has
authority.py       a CA that issues any certificate, the wrong ones too
"""
