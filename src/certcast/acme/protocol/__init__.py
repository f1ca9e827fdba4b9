"""What is sent to a CA, and what comes back.

network.py     signed requests: the library's network, with what it lacks
answers.py     an answer, a problem document, or nothing; and what that means to an operator
resources.py   orders, authorizations and certificates, each field looked at
"""
