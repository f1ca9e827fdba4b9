"""The publisher's signature under a manifest: SSHSIG, Ed25519, one namespace.

    {
      "format": 1, …
    }
    -----BEGIN SSH SIGNATURE-----        the signed bytes are everything before this line,
    U1NIU0lHAAAAAQ…                      its line feed included
    -----END SSH SIGNATURE-----          nothing may follow

`ssh-keygen -Y sign` signs, on the renewal host; `sshsig` verifies, in the process: older
OpenSSH on consumers has no -Y (8.1 brought it). Format: PROTOCOL.sshsig of OpenSSH.

sshsig looks for the armor anywhere in its input, skips what is no base64, takes anything
behind the end, and any key and hash that the blob names; ssh-keygen, too, ignores what
follows. So the armor's shape, and who claims to have signed how, is checked here, before a
library sees it: two texts never pass for one, and only a pinned key costs arithmetic.
"""

from __future__ import annotations

import base64
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.errors import SignatureInvalid, SigningFailed
from certcast.ssh_keys import PublicKey, field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMESPACE = "certcast-manifest"
_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_ARMOR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n"
    rb"(?:[A-Za-z0-9+/]{70}\n)*[A-Za-z0-9+/]{1,70}={0,2}\n"  # ssh-keygen's line length
    rb"-----END SSH SIGNATURE-----\n"
)
_SIGN_SECONDS = 30.0


@dataclass(frozen=True)
class Verified:
    """Bytes that a pinned publisher has signed, and its key's fingerprint."""

    document: bytes
    publisher: str


def sign(document: bytes, signing_key: Path) -> bytes:
    """Return `document` with the signature by the OpenSSH private key in `signing_key` below it.

    Raises SigningFailed, SecretExposed, LocalFault.
    """
    from certcast import children, files

    advice = "`certcast publisher init` makes a signing key; a lost one is replaced with the recovery kit"
    try:
        files.require_private(signing_key, "the publisher's signing key")
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
    signed = document + done.stdout
    if done.returncode != 0 or not _ARMOR.fullmatch(done.stdout):
        raise SigningFailed(
            "ssh-keygen did not sign the manifest",
            expected="a signature by OpenSSH 8.1 or newer",
            found=done.stderr.decode(errors="replace").strip()[:500] or f"exit status {done.returncode}",
            next=f"`ssh-keygen -y -f {signing_key}` must print the public key; {advice}",
        )
    return signed


def verify(signed: bytes, pinned: Sequence[PublicKey], *, what: str) -> Verified:
    """Return what stands above the signature, if one of `pinned` made it. Raises SignatureInvalid.

    Nothing of the document is parsed. `what` is what was signed, for the error.
    """
    begin = signed.rfind(b"\n" + _BEGIN) + 1
    document, armor = signed[:begin], signed[begin:]
    if begin == 0 or _BEGIN in document or not _ARMOR.fullmatch(armor):
        raise _refused(what, pinned, "no SSH signature as its only last part")
    try:
        key = _claimed_key(base64.b64decode(b"".join(armor.splitlines()[1:-1])), pinned)
        _check(document, armor, key)
    except ValueError as error:
        raise _refused(what, pinned, str(error)) from None
    return Verified(document, key.fingerprint)


def _claimed_key(blob: bytes, pinned: Sequence[PublicKey]) -> PublicKey:
    """Return which pinned key says that it signed; ValueError if it is none, or not in our way.

    Before sshsig sees it, which would try any key, with any hash of Python's, as the blob asks.
    """
    if blob[:10] != b"SSHSIG\0\0\0\1":
        raise ValueError("not a signature of SSHSIG's version 1")
    claimed, rest = field(blob[10:])
    namespace, rest = field(rest)
    reserved, rest = field(rest)
    digest, rest = field(rest)
    _signature, rest = field(rest)
    if namespace != NAMESPACE.encode():
        raise ValueError(
            f"a signature for {namespace[:40].decode('ascii', 'replace')!r}, not for {NAMESPACE}"
        )
    if reserved or rest or digest not in (b"sha512", b"sha256"):
        raise ValueError("a signature of another make than ssh-keygen's")
    for key in pinned:
        if key.blob == claimed:
            return key
    raise ValueError("signed by another key" + _fingerprint(claimed))


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
