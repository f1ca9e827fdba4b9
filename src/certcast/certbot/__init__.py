"""certbot, where there is one: it renews, and certcast serves its hooks and reads its lineages.

hooks.py       --manual-auth-hook, --manual-cleanup-hook, --deploy-hook
lineage.py     one certificate's files, read and never written
adoption.py    a lineage taken over by certcast, without a new order
"""
