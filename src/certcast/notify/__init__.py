"""Telling a person: mail.py composes and sends."""
