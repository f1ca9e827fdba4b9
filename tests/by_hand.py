"""SSH signatures put together by hand (OpenSSH's PROTOCOL.sshsig), so that each part can be wrong.

ByHand.of(signed)                     the parts of a genuine signature
replace(parts, digest=b"sha1").armor  the same with another part
by_hand(document, key, …)             signed anew, so that the arithmetic is right and the rest isn't
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from certcast.release.ssh_keys import field, public_half

BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"


def string(octets: bytes) -> bytes:
    """Return a string of SSH's encoding (RFC 4251, 5)."""
    return len(octets).to_bytes(4, "big") + octets


def armored(blob: bytes, width: int = 70) -> bytes:
    """Return the armor around a blob."""
    letters = base64.b64encode(blob)
    lines = [letters[at : at + width] + b"\n" for at in range(0, len(letters), width)]
    return b"".join([BEGIN, *lines, END])


@dataclass(frozen=True)
class ByHand:
    """All parts of a signature; `behind` follows the signature proper, `rest` the last field."""

    claimed: bytes
    octets: bytes
    namespace: bytes = b"certcast-manifest"
    reserved: bytes = b""
    digest: bytes = b"sha512"
    kind: bytes = b"ssh-ed25519"
    behind: bytes = b""
    rest: bytes = b""
    magic: bytes = b"SSHSIG\0\0\0\1"

    @classmethod
    def of(cls, signed: bytes) -> ByHand:
        """Take a genuine signature apart."""
        armor = signed[signed.index(BEGIN) :]
        rest = base64.b64decode(b"".join(armor.splitlines()[1:-1]))[10:]
        claimed, rest = field(rest)
        namespace, rest = field(rest)
        _, rest = field(rest)
        digest, rest = field(rest)
        kind, octets = field(field(rest)[0])
        return cls(claimed, field(octets)[0], namespace=namespace, digest=digest, kind=kind)

    @property
    def blob(self) -> bytes:
        signature = string(self.kind) + string(self.octets) + self.behind
        parts = (self.claimed, self.namespace, self.reserved, self.digest, signature)
        return self.magic + b"".join(map(string, parts)) + self.rest

    @property
    def armor(self) -> bytes:
        return armored(self.blob)


def by_hand(document: bytes, private: bytes, **parts: bytes) -> bytes:
    """Return the document with a signature whose arithmetic is right, whatever its parts are."""
    key = load_ssh_private_key(private, None)
    assert isinstance(key, Ed25519PrivateKey)
    made = replace(ByHand(public_half(private).blob, b""), **parts)
    hashed = hashlib.new(made.digest.decode(), document)
    digest = hashed.digest(64) if made.digest.startswith(b"shake") else hashed.digest()  # type: ignore[call-arg]  # an XOF
    text = b"SSHSIG" + b"".join(map(string, (made.namespace, made.reserved, made.digest, digest)))
    return document + replace(made, octets=key.sign(text)).armor
