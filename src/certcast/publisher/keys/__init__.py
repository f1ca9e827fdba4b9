"""The key that signs, and the recovery kit that replaces it.

key_files.py      where the key files lie
keyring.py        the key files, in the order in which they may change
recovery_kit.py   the kit as a text
passphrase.py     a text that a passphrase opens
kit_handover.py   the kit and its passphrase, out of `certcast publisher` and back in
"""
