"""Whom certcast tells.

mail.py    one mail to a person: compose it, send it
"""
