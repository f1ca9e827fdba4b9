"""A text that a passphrase opens: an age file with one scrypt recipient, in armor.

    age-encryption.org/v1
    -> scrypt SALT 17                    17: scrypt with N = 2^17, r = 8, p = 1
    BODY                                 the file key, under what scrypt makes of the passphrase
    --- MAC                              over the lines above, by the file key
    nonce and text                       ChaCha20-Poly1305, one chunk

Written here after C2SP's specification (https://c2sp.org/age), because pyrage lets nobody choose N: it takes
what lasts a second on this machine, up to a GiB, and aborts where the memory is not there. N = 2^17 takes
128 MiB, OWASP's least for scrypt. It is opened by pyrage, in `encrypt` too: a text is handed out only after
another implementation has read it. Plain `age -d` opens it as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import textwrap

LOG_N = 17
BEGIN = "-----BEGIN AGE ENCRYPTED FILE-----"
END = "-----END AGE ENCRYPTED FILE-----"
# The largest text of one chunk (C2SP age, "Payload").
_CHUNK = 64 * 1024
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def generate() -> str:
    """Return a passphrase of 120 random bits, in groups that a person can copy by hand.

    The letters of base32: no 0 or 1 to be taken for o or l.
    """
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(6))


def encrypt(text: bytes, passphrase: str) -> str:
    """Return the armored age file that `passphrase` opens. ValueError if the text is over 64 KiB."""
    if len(text) > _CHUNK:
        raise ValueError(f"{len(text):,} octets; one chunk has at most {_CHUNK:,}")
    armored = _armor(_age_file(text, passphrase.encode()))
    if decrypt(armored, passphrase) != text:
        raise AssertionError("what was encrypted does not open to the same text")
    return armored


def decrypt(armored: str, passphrase: str) -> bytes:
    """Return the text. Raises ValueError, in words: a wrong passphrase, or a text that is not whole.

    Any age file with a passphrase is taken; `age -p` makes one too.
    """
    import pyrage

    # Copied from a screen or a sheet: surrounding blanks and CR say nothing.
    lines = [line.strip() for line in armored.splitlines()]
    body = "\n".join(line for line in lines if line)
    if not body.startswith(BEGIN) or not body.endswith(END):
        raise ValueError(f"it does not begin with {BEGIN} and end with {END}")
    try:
        opened: bytes = pyrage.passphrase.decrypt(f"{body}\n".encode(), passphrase)
    except pyrage.DecryptError as error:
        raise ValueError(_in_words(str(error))) from None
    return opened


def _in_words(error: str) -> str:
    """pyrage's error; "Decryption failed" is what it says of a wrong passphrase."""
    if error == "Decryption failed":
        return "the passphrase is a wrong one, or the text was changed"
    return f"the text is not whole ({error})"


def _age_file(text: bytes, passphrase: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    file_key, salt, nonce = secrets.token_bytes(16), secrets.token_bytes(16), secrets.token_bytes(16)
    salted = b"age-encryption.org/v1/scrypt" + salt
    wrap_key = Scrypt(salt=salted, length=32, n=2**LOG_N, r=8, p=1).derive(passphrase)
    # A nonce of zeros is right: the key is used for this one message.
    wrapped = ChaCha20Poly1305(wrap_key).encrypt(bytes(12), file_key, None)
    header = b"\n".join(
        (b"age-encryption.org/v1", b"-> scrypt %b %d" % (_base64(salt), LOG_N), _base64(wrapped), b"---")
    )
    mac = hmac.digest(_derived(file_key, b"", b"header"), header, hashlib.sha256)
    # Counter 0, and 1 for the last chunk.
    chunk = ChaCha20Poly1305(_derived(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\1", text, None)
    return b"%b %b\n%b%b" % (header, _base64(mac), nonce, chunk)


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(key)


def _base64(octets: bytes) -> bytes:
    return base64.b64encode(octets).rstrip(b"=")


def _armor(octets: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(octets).decode(), 64)
    return "\n".join((BEGIN, *lines, END, ""))
