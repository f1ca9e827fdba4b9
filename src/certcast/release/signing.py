"""The publisher's signature under a manifest: SSHSIG, Ed25519, one namespace.

    {
      "format": 1, …
    }
    -----BEGIN SSH SIGNATURE-----        the signed bytes are everything before this line,
    U1NIU0lHAAAAAQ…                      its line feed included
    -----END SSH SIGNATURE-----          nothing may follow

`ssh-keygen -Y sign` signs on the renewal host. `sshsig` verifies in the process: OpenSSH before 8.1 has no
-Y. Format: PROTOCOL.sshsig of OpenSSH.

sshsig takes armor anywhere, octets that are no base64, anything behind the end, and any key and hash that the
blob names. So before sshsig sees it, the armor must be letter for letter what ssh-keygen writes, and name a
pinned key: a signed document can be written in one way only, and a foreign key costs no arithmetic.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release.ssh_keys import KIND, PublicKey, field
from certcast.report.errors import SignatureInvalid, SigningFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMESPACE = "certcast-manifest"
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
_LINE = 70  # of ssh-keygen's armor
_MAGIC = b"SSHSIG\0\0\0\1"
_SIGN_SECONDS = 30.0


@dataclass(frozen=True)
class Verified:
    """Bytes that a pinned publisher has signed, and its key's fingerprint."""

    document: bytes
    publisher: str


def sign(document: bytes, signing_key: Path) -> bytes:
    """Return `document` with the signature by the OpenSSH private key in `signing_key` below it.

    The document ends with a line feed. Raises SigningFailed, SecretExposed, LocalFault.
    """
    from certcast.host import children, private_files

    advice = "`certcast publisher init` makes a signing key; a lost one is replaced with the recovery kit"
    try:
        private_files.require_private(signing_key, "the publisher's signing key")
        done = subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(signing_key)],
            input=document,
            capture_output=True,
            timeout=_SIGN_SECONDS,
            env=children.environment(),
            check=False,
        )
    except FileNotFoundError as error:
        missing = error.filename == "ssh-keygen"
        raise SigningFailed(
            "nothing can sign here: ssh-keygen is missing" if missing else "this host has no signing key",
            found=f"no such file: {error.filename}",
            next="install the package openssh-client" if missing else advice,
        ) from None
    except subprocess.TimeoutExpired:
        raise SigningFailed(
            "ssh-keygen did not sign within half a minute",
            found=f"`ssh-keygen -Y sign -f {signing_key}` waits for something",
            next=f"does the key have a passphrase? `ssh-keygen -p -f {signing_key}` takes it off",
        ) from None
    if done.returncode != 0 or not done.stdout.startswith(_BEGIN):
        raise SigningFailed(
            "ssh-keygen did not sign the manifest",
            expected="a signature by OpenSSH 8.1 or newer",
            found=done.stderr.decode(errors="replace").strip()[:500] or f"exit status {done.returncode}",
            next=f"`ssh-keygen -y -f {signing_key}` must print the public key; {advice}",
        )
    return document + done.stdout


def verify(signed: bytes, pinned: Sequence[PublicKey], *, what: str) -> Verified:
    """Return the text above the signature, if one of `pinned` made it. Raises SignatureInvalid.

    Nothing of the document is parsed. `what` names it in the error.
    """
    begin = signed.rfind(b"\n" + _BEGIN) + 1
    document, armor = signed[:begin], signed[begin:]
    try:
        if begin == 0 or _BEGIN in document:
            raise ValueError(_NO_SIGNATURE)
        key = _claimed_key(_blob(armor), pinned)
        _check(document, armor, key)
    except ValueError as error:
        raise _refused(what, pinned, str(error)) from None
    return Verified(document, key.fingerprint)


_NO_SIGNATURE = "no SSH signature as its only last part"


def _blob(armor: bytes) -> bytes:
    """Return what an armor holds. Raises ValueError if ssh-keygen would have written that in another way."""
    text = armor.removeprefix(_BEGIN).removesuffix(_END)
    try:
        blob = base64.b64decode(text)
    except binascii.Error:
        raise ValueError(_NO_SIGNATURE) from None
    letters = base64.b64encode(blob)
    lines = [letters[at : at + _LINE] + b"\n" for at in range(0, len(letters), _LINE)]
    if armor != b"".join([_BEGIN, *lines, _END]):
        raise ValueError(_NO_SIGNATURE)
    return blob


def _claimed_key(blob: bytes, pinned: Sequence[PublicKey]) -> PublicKey:
    """Return the pinned key that the blob names; ValueError if it is none, or a signature of another make."""
    if not blob.startswith(_MAGIC):
        raise ValueError("not a signature of SSHSIG's version 1")
    claimed, rest = field(blob.removeprefix(_MAGIC))
    namespace, rest = field(rest)
    reserved, rest = field(rest)
    digest, rest = field(rest)
    signature, rest = field(rest)
    kind, octets = field(signature)
    octets, behind = field(octets)
    if namespace != NAMESPACE.encode():
        raise ValueError(
            f"a signature for {namespace[:40].decode('ascii', 'replace')!r}, not for {NAMESPACE}"
        )
    signer = next((key for key in pinned if key.blob == claimed), None)
    if signer is None:
        raise ValueError("signed by another key" + _fingerprint(claimed))
    # RFC 8032, 5.1.6: an Ed25519 signature has 64 octets.
    whole = kind == KIND.encode() and len(octets) == 64 and not (reserved or rest or behind)
    if not whole or digest not in (b"sha512", b"sha256"):
        raise ValueError("a signature of another make than ssh-keygen's")
    return signer


def _fingerprint(blob: bytes) -> str:
    try:
        return f": {PublicKey.of(blob).fingerprint}"
    except ValueError:
        return ", of another type"


def _check(document: bytes, armor: bytes, key: PublicKey) -> None:
    import sshsig

    try:
        sshsig.verify(document, armor, [sshsig.PublicKey.from_openssh_str(key.bare)], NAMESPACE)
    except sshsig.InvalidSignature:
        raise ValueError("the text was changed, or the signature") from None


def _refused(what: str, pinned: Sequence[PublicKey], found: str) -> SignatureInvalid:
    return SignatureInvalid(
        f"{what} is not signed by a publisher that this host knows",
        expected="\n".join(key.fingerprint for key in pinned) or "a key in store.publishers",
        found=found,
        next="compare store.publishers here with `certcast publisher show` on the renewal host; "
        "if they agree, somebody else has written to the bucket",
    )
