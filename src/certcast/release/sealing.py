"""A private key in the bucket, readable for one host only: age, as `age` itself writes it.

    releases/{leaf}/keys/web1.0f3a….age        to the host's SSH identity
    releases/{leaf}/keys/recovery.77c1….age    to the recovery kit

- One object for each host: an age header costs the square of its recipients to read (600 took 6 s).
- The name carries `recipient16`: a host with a new identity finds no object, and can say why.
- age authenticates nobody: anyone who may write to the bucket can seal something to a host. An unsealed key
  counts only once it fits the leaf of a signed manifest (consumer/incoming/gate.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release.manifest import release_key
from certcast.report.errors import SealedInvalid

if TYPE_CHECKING:
    from certcast.release.host_identity import Identity
    from certcast.release.ssh_keys import PublicKey

# An RSA-4096 key has 3.3 KB in PEM, age adds 0.3 KB.
LIMIT = 4096
_INTRO = b"age-encryption.org/v1\n"
RECOVERY = "recovery"


@dataclass(frozen=True)
class Recipient:
    """The reader of a sealed key: a host's name, its recipient for age, and 16 hex digits of that."""

    host: str
    age: str
    recipient16: str

    @classmethod
    def of_host(cls, host: str, key: PublicKey) -> Recipient:
        """The recipient that opens with a host's identity."""
        return cls(host, key.bare, hashlib.sha256(key.blob).hexdigest()[:16])

    @classmethod
    def of_kit(cls, age: str) -> Recipient:
        """The recipient that opens with the recovery kit; `age` is its `age1…`."""
        return cls(RECOVERY, age, hashlib.sha256(age.encode()).hexdigest()[:16])

    @property
    def file(self) -> str:
        """The name of the key that is sealed to it, in each release."""
        return f"{self.host}.{self.recipient16}.age"

    def object_key(self, certificate: str, leaf_sha256: str) -> str:
        """Return the object key of its sealed private key, relative to the prefix."""
        return sealed_prefix(certificate, leaf_sha256) + self.file


def sealed_prefix(certificate: str, leaf_sha256: str) -> str:
    """Return what the object keys of a release's sealed keys begin with."""
    return release_key(certificate, leaf_sha256, "keys/")


def require_sealable(key: PublicKey) -> PublicKey:
    """Return the key of a host if age seals to it. Raises ValueError, in words.

    Half of all 32 octets are no point of the curve, so a key may be damaged in copying. Once enrolled, such a
    key would stop each publication.
    """
    try:
        seal(b"-", Recipient.of_host("", key))
    except ValueError:
        raise ValueError("its key is damaged: age seals nothing to it") from None
    return key


def seal(privkey: bytes, recipient: Recipient) -> bytes:
    """Encrypt a private key (PEM) to one recipient. Raises ValueError if the recipient is none for age."""
    import pyrage

    kind = pyrage.x25519.Recipient if recipient.host == RECOVERY else pyrage.ssh.Recipient
    try:
        sealed: bytes = pyrage.encrypt(privkey, [kind.from_str(recipient.age)])
    except (pyrage.RecipientError, pyrage.EncryptError) as error:
        raise ValueError(str(error)) from None
    if len(sealed) > LIMIT:
        raise ValueError(f"the sealed key has {len(sealed):,} octets; readers stop at {LIMIT:,}")
    return sealed


def unseal(sealed: bytes, identity: Identity, *, what: str, again: str) -> bytes:
    """Return what was sealed to `identity`, at least one octet. Raises SealedInvalid.

    Only age's binary form is taken, as `seal` writes it: its text form ("armor") may have blanks around it.
    `what` is the object, `again` the command that seals it anew, both for the error.
    """
    import pyrage

    try:
        if len(sealed) > LIMIT:  # also checked when it is fetched; the header's cost is quadratic
            raise ValueError(f"{len(sealed):,} octets; at most {LIMIT:,} are read")
        if not sealed.startswith(_INTRO):
            raise ValueError("not a binary age file")
        opened: bytes = pyrage.decrypt(sealed, [pyrage.ssh.Identity.from_buffer(identity.private)])
        if not opened:
            raise ValueError("nothing is in it")
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError) as error:
        raise SealedInvalid(
            f"{what} does not open with this host's identity",
            expected=f"an age file for {identity.public.fingerprint}",
            found=str(error),
            next=again,
        ) from None
    return opened
