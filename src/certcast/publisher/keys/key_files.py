"""Where the publisher's keys lie, beside its signing key.

/etc/certcast/publisher                the signing key
/etc/certcast/publisher.pub            its public half
/etc/certcast/publisher-spare.pub      the spare key's public half
/etc/certcast/publisher-former.pub     the public half of the key before the last `certcast publisher rotate`
/etc/certcast/publisher-recovery.pub   the recovery kit's age recipient

Not here: what they are for (signer.py, keyring.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def all_files(signing_key: Path) -> tuple[Path, ...]:
    """Return every one of them, there or not."""
    beside = (public_file, spare_file, former_file, recovery_file)
    return (signing_key, *(path(signing_key) for path in beside))


def public_file(signing_key: Path) -> Path:
    """Where the public half of the signing key lies."""
    return signing_key.with_name(f"{signing_key.name}.pub")


def spare_file(signing_key: Path) -> Path:
    """Where the public half of the spare key lies; its private half is in the recovery kit only."""
    return signing_key.with_name(f"{signing_key.name}-spare.pub")


def former_file(signing_key: Path) -> Path:
    """Where the public half of the key lies that signed before the last `certcast publisher rotate`."""
    return signing_key.with_name(f"{signing_key.name}-former.pub")


def recovery_file(signing_key: Path) -> Path:
    """Where the recovery kit's age recipient lies."""
    return signing_key.with_name(f"{signing_key.name}-recovery.pub")


def is_set_up(signing_key: Path) -> bool:
    """Whether this host has, or had, a signing key: without one it has never published anything."""
    return signing_key.exists() or public_file(signing_key).exists()
