"""OpenSSH key files, as far as a poll must understand them: no X.509 or crypto library here.

    ssh-ed25519 AAAAC3Nza… comment          one line: PublicKey          (RFC 8709 section 4)
    -----BEGIN OPENSSH PRIVATE KEY-----     public_half() of it          (PROTOCOL.key of OpenSSH)

Only Ed25519: one format needs no negotiation, and age opens with these keys too.

Every poll asks which identity this host has, and importing `cryptography` costs more than the rest of the
run. A private key file names its public half unencrypted: base64 and lengths are enough to read that.
Whether the private half belongs to it shows when it is used (sealing.py, signing.py).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

KIND = "ssh-ed25519"
_MAGIC = b"openssh-key-v1\0"
_ARMOR = re.compile(
    rb"-----BEGIN OPENSSH PRIVATE KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END OPENSSH PRIVATE KEY-----\s*"
)


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key; `blob` is its wire form, `comment` what stood behind it."""

    blob: bytes
    comment: str = ""

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Read a line as `ssh-keygen` writes it into a .pub file. Raises ValueError, in words."""
        words = line.split(None, 2)
        if len(words) < 2:
            raise ValueError("a line has a type and a key")
        if words[0] != KIND:
            raise ValueError(f"its type is {words[0][:40]!r}; only {KIND} is taken")
        comment = words[2].strip() if len(words) == 3 else ""
        if not comment.isprintable():
            raise ValueError("its comment holds control characters")
        try:
            blob = base64.b64decode(words[1], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("its key is not base64") from None
        return cls(_checked(blob), comment)

    @classmethod
    def of(cls, blob: bytes) -> PublicKey:
        """Read the wire form. Raises ValueError, in words."""
        return cls(_checked(blob))

    @property
    def line(self) -> str:
        """The line as `ssh-keygen` writes it, the comment left out if there is none."""
        return f"{self.bare} {self.comment}".rstrip()

    @property
    def bare(self) -> str:
        """Type and key alone: what age takes as a recipient."""
        return f"{KIND} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it: SHA256: and base64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def public_half(private: bytes) -> PublicKey:
    """Return the public key that an OpenSSH private key file names. Raises ValueError, in words."""
    match = _ARMOR.fullmatch(private.lstrip())
    if match is None:
        raise ValueError("it is not an OpenSSH private key")
    try:
        rest = base64.b64decode(match[1])
    except binascii.Error:
        raise ValueError("its text is not base64") from None
    if not rest.startswith(_MAGIC):
        raise ValueError("it is not an OpenSSH private key of version 1")
    cipher, rest = field(rest.removeprefix(_MAGIC))
    if cipher != b"none":
        raise ValueError("it has a passphrase, which nobody is there to type")
    _kdf, rest = field(rest)
    _options, rest = field(rest)
    if rest[:4] != b"\0\0\0\1":
        raise ValueError("it does not hold exactly one key")
    blob, rest = field(rest[4:])
    if field(rest)[1]:  # the private half: there, and the end
        raise ValueError("something stands behind the key")
    return PublicKey(_checked(blob))


def _checked(blob: bytes) -> bytes:
    kind, rest = field(blob)
    if kind != KIND.encode():
        raise ValueError(f"its type is {kind[:40].decode('ascii', 'replace')!r}; only {KIND} is taken")
    key, rest = field(rest)
    if len(key) != 32 or rest:
        raise ValueError("it is not an Ed25519 key of 32 octets")
    return blob


def field(octets: bytes) -> tuple[bytes, bytes]:
    """Split off one string of SSH's encoding (RFC 4251 section 5): four octets of length, then it.

    Raises ValueError if there is less.
    """
    length = int.from_bytes(octets[:4], "big")
    if len(octets) < 4 + length:
        raise ValueError("it is cut short")
    return octets[4 : 4 + length], octets[4 + length :]
