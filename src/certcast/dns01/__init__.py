"""DNS-01 (RFC 8555 section 8.4): show the CA a TXT value, and leave nothing behind.

    challenges.py     what callers ask for; begin reading here
    presentation.py   the challenges of several orders at once, each order at its own pace
    records.py        one record's adding and removal
    ledger.py         which records certcast made, kept on disk across crashes
    threads.py        blocking calls in ten threads; what is looked up once
    visibility/       where a record belongs, and when the CA may look
    provider.py       the contract: what a DNS provider must do
    accounts.py       the provider and account of each zone
    alidns/           one provider: Alibaba Cloud DNS

A second provider is a folder beside alidns/ that keeps the contract, and its choice in accounts.py.
"""
