"""The recovery kit: what stands in for a lost renewal host, as one text for the safe.

    # certcast recovery kit, made 2026-11-24     what it is, and the commands that use it
    AGE-SECRET-KEY-1…                            opens the private key of every release
    -----BEGIN OPENSSH PRIVATE KEY-----          the spare signing key, which hosts trust from day one

A person can read it, and use it with `age` and `ssh-keygen` alone. It leaves the process encrypted with a
passphrase only (passphrase.py). The renewal host keeps the public halves alone, so a kit cannot be printed
again; there can only be a new one.

Not here: files and the person (kit_handover.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast.publisher.keys import passphrase
from certcast.release.host_identity import new_key
from certcast.release.lifetime import utc_text
from certcast.release.signing import NAMESPACE
from certcast.release.ssh_keys import PublicKey, public_half

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# The kit's own text has 2 KB; with the armor's third more there is room for a person's notes.
LIMIT = 32 * 1024
PRINCIPAL = "certcast"


@dataclass(frozen=True)
class Kit:
    """The two secrets; `store` and `working` (the publisher's key when the kit was made) say whose it is."""

    store: str
    working: PublicKey
    spare: PublicKey
    recovery: str
    spare_private: bytes = field(repr=False)
    recovery_private: str = field(repr=False)


def make(store: str, working: PublicKey) -> Kit:
    """Return a kit with new secrets for the publisher that signs with `working`."""
    import pyrage

    spare_private, spare = new_key("")
    identity = pyrage.x25519.Identity.generate()
    return Kit(
        store=store,
        working=PublicKey(working.blob),
        spare=spare,
        recovery=str(identity.to_public()),
        spare_private=spare_private,
        recovery_private=str(identity),
    )


def allowed_signers(keys: Sequence[PublicKey]) -> str:
    """Return the lines by which `ssh-keygen -Y verify` takes a manifest of these publishers."""
    return "".join(f'{PRINCIPAL} namespaces="{NAMESPACE}" {key.bare}\n' for key in keys)


def write(kit: Kit, made: datetime) -> str:
    """Return the kit's clear text."""
    return f"""\
# certcast recovery kit, made {utc_text(made)}
# store: {kit.store}
# publisher: {kit.working.bare}
#
# For a new renewal host: certcast publisher rotate --kit FILE, with the encrypted kit as FILE.
# All of it stands in docs/runbook.md, "The renewal host burned down".
#
# Without certcast, this text being kit.txt, in a private folder and under umask 077:
#   grep '^AGE-SECRET-KEY-' kit.txt > recovery
#   age -d -i recovery certs/NAME/releases/LEAF/keys/recovery.*.age > privkey.pem
#   sed -n '/^-----BEGIN/,/^-----END/p' kit.txt > publisher
#   sed '/^-----BEGIN SSH SIGNATURE-----$/,$d' manifest > signed
#   sed -n '/^-----BEGIN SSH SIGNATURE-----$/,$p' manifest > signature
#   sed -n 's/^# signer: //p' kit.txt > signers
#   ssh-keygen -Y verify -f signers -I {PRINCIPAL} -n {NAMESPACE} -s signature < signed
#
{"".join(f"# signer: {line}{chr(10)}" for line in allowed_signers([kit.working, kit.spare]).splitlines())}\
#
# Opens what is sealed to {kit.recovery}:
{kit.recovery_private}
# The spare signing key:
{kit.spare_private.decode().strip()}
"""


def encrypt(kit: Kit, made: datetime, words: str) -> str:
    """Return the armored text that the passphrase `words` opens, and that may be printed."""
    return passphrase.encrypt(write(kit, made).encode(), words)


def decrypt(armored: str, words: str) -> Kit:
    """Return the kit of an armored text. Raises ValueError, in words, for what is no kit or does not open."""
    return parse(passphrase.decrypt(armored, words).decode(errors="replace"))


def parse(text: str) -> Kit:
    """Return the kit of a clear text. Raises ValueError, in words."""
    import pyrage

    secret = _only(r"(?m)^(AGE-SECRET-KEY-1[0-9A-Z]+)\s*$", text, "AGE-SECRET-KEY- line")
    private = _only(
        r"(?ms)^(-----BEGIN OPENSSH PRIVATE KEY-----\n.*?^-----END OPENSSH PRIVATE KEY-----)\s*$",
        text,
        "OPENSSH PRIVATE KEY",
    )
    spare_private = f"{private}\n".encode()
    try:
        recovery = str(pyrage.x25519.Identity.from_str(secret).to_public())
    except pyrage.IdentityError as error:
        raise ValueError(f"its AGE-SECRET-KEY- line is damaged ({error})") from None
    return Kit(
        store=_only(r"(?m)^# store: (.+?)\s*$", text, '"# store:" line'),
        working=PublicKey.parse(_only(r"(?m)^# publisher: (.+?)\s*$", text, '"# publisher:" line')),
        spare=public_half(spare_private),
        recovery=recovery,
        spare_private=spare_private,
        recovery_private=secret,
    )


def _only(pattern: str, text: str, what: str) -> str:
    found = re.findall(pattern, text)
    if len(found) != 1:
        raise ValueError(f"it has {len(found) or 'no'} {what}, so it is not a certcast recovery kit")
    return str(found[0])
