"""Where the publisher's keys lie, beside its signing key.

/etc/certcast/publisher                the signing key: 0600, and the only secret here
/etc/certcast/publisher.pub            its public half
/etc/certcast/publisher-spare.pub      the spare key's public half    ┐ their secrets are in the
/etc/certcast/publisher-recovery.pub   the kit's age recipient        ┘ recovery kit, nowhere else
/etc/certcast/publisher-former.pub     the key before the last `certcast publisher rotate`: what it has
                                       signed here counts until it is signed again (publication.py)
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
    """The public half of the signing key."""
    return signing_key.with_name(f"{signing_key.name}.pub")


def spare_file(signing_key: Path) -> Path:
    """The public half of the spare key."""
    return signing_key.with_name(f"{signing_key.name}-spare.pub")


def former_file(signing_key: Path) -> Path:
    """The public half of the key before."""
    return signing_key.with_name(f"{signing_key.name}-former.pub")


def recovery_file(signing_key: Path) -> Path:
    """The recovery kit's age recipient."""
    return signing_key.with_name(f"{signing_key.name}-recovery.pub")


def is_set_up(signing_key: Path) -> bool:
    """Whether this host has, or had, a signing key: without one it has never published anything."""
    return signing_key.exists() or public_file(signing_key).exists()
