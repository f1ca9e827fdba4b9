"""Requests to a CA and their answers.

network.py     signed requests: the library's network, with what it lacks
answers.py     an answer, a problem document, or nothing; and their meaning to an operator
resources.py   orders, authorizations and certificates, each field looked at
"""
