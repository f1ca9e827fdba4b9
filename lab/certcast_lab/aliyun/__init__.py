"""The customer's account at Alibaba Cloud, and the emulators of its RPC services.

cloud.py           the account on its first day: users, rights, zone, bucket
ram.py             users, roles and policies, and what these allow
rpc_api.py         how an RPC service reads, authenticates and answers a request
signatures.py      the signatures of RPC requests, ACS3 and RPC-SHA1
sts_api.py         Security Token Service: AssumeRole
alidns_api.py      Alidns at its endpoint: rights and faults before the work
alidns_actions.py  the nine actions that certificate clients use
alidns_rules.py    what Alidns takes for a record
alidns_errors.py   what Alidns answers when it refuses
"""
