"""What the keys of Alibaba Cloud must be allowed to do, and nothing else: `certcast policy`.

ram_policies.py      what RAM must allow for a configuration
policy_remarks.py    what RAM cannot express, in words
isolation.py         a DNS key that can touch nothing but challenges
"""
