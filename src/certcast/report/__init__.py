"""How certcast speaks: to a terminal, in mails, in logs.

errors.py       every failure: its code, its exit status, the lines of its report
console.py      what a person sees of a run, and on which stream
names.py        internationalised names, for machines and for people
redaction.py    secrets are struck out of whatever is printed, mailed and logged
"""
