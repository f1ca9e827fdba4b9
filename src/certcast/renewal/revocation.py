"""Ask the CA to revoke what was replaced (replacement.py), once it is due.

Hosts give an old leaf up because it is published as revoked; the CA's revocation is against those who
use a stolen key elsewhere. So it is never in a hurry, and never in the way: a CA that fails is asked
again by the next `certcast renew`, and nothing else waits for it.

A request is repeatable: a CA that says "already revoked" has done what was wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast import certificate
from certcast.errors import CertbotFailed, CertcastError, RevocationFailed
from certcast.renewal import certbot, replacement

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from certcast.config import Config, RenewalConfig
    from certcast.renewal.replacement import Old, Replacement
    from certcast.storage.store import Store


def carry_out(
    config: Config,
    renewal: RenewalConfig,
    *,
    open_store: Callable[[], Store],
    now: datetime,
    progress: Callable[[str], None],
) -> tuple[list[str], list[CertcastError]]:
    """Let the CA revoke what is due; return what was done, in words, and what failed.

    Raises LocalFault if the list cannot be read.
    """
    done: list[str] = []
    failures: list[CertcastError] = []
    for asked in replacement.everything(config.state_dir).values():
        if asked.due is None or now < asked.due:
            continue
        for old in asked.olds:
            serial = f"{asked.name}: serial {old.serial}"
            try:
                if old.not_after > now:
                    progress(f"{serial}: asking the CA to revoke it ({asked.reason})")
                    pem = old.pem or _from_store(asked.name, old, open_store())
                    _revoke(config, renewal, asked, old, pem, progress=progress)
                    done.append(f"{serial} is revoked at the CA ({asked.reason})")
                # An expired one is left alone: Boulder refuses it, and clients do, too.
                replacement.forget(config.state_dir, asked.name, old)
            except CertcastError as failure:
                failures.append(failure)
    return done, failures


def _revoke(
    config: Config,
    renewal: RenewalConfig,
    asked: Replacement,
    old: Old,
    pem: str,
    *,
    progress: Callable[[str], None],
) -> None:
    try:
        certbot.revoke(
            config,
            renewal,
            asked.name,
            pem,
            key=_own_key(renewal, asked, old),
            reason=asked.reason.lower(),
            progress=progress,
        )
    except CertbotFailed as failure:
        raise RevocationFailed(
            f"{asked.name}: the CA has not revoked serial {old.serial}",
            found=failure.found or failure.what,
            kept="the new certificate stays published, and this one is on its list of revoked ones",
            next="the next `certcast renew` asks again; if it is the reason that the CA does not take, "
            f"`certcast renew --replace {asked.name} --reason superseded` goes on with another one",
        ) from None


def _own_key(renewal: RenewalConfig, asked: Replacement, old: Old) -> Path | None:
    """Return the private key to sign the request with, or None for the account's.

    A compromised key signs for itself: that proves it is one, needs no account, and lets the CA refuse the
    key ever after (Boulder, ra/ra.go, RevokeCertByKey). It also makes the CA record keyCompromise, whatever
    was asked, so it is not for the other reasons.

    Under the old one's number may be another key by now: after `certbot delete`, certbot counts from 1 again.
    """
    if asked.reason != "keyCompromise" or old.version is None or old.pem is None:
        return None
    path = renewal.config_dir / "archive" / asked.name / f"privkey{old.version}.pem"
    try:
        leaf = certificate.describe(certificate.read_chain(old.pem.encode("ascii")).leaf)
        fits = certificate.key_fits(certificate.read_key(path.read_bytes()), leaf)
    except (OSError, ValueError):
        return None
    return path if fits else None


def _from_store(name: str, old: Old, store: Store) -> str:
    """Return a leaf that was published, and that certbot here does not hold; nothing else that lies there."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from certcast.manifest import FILE_LIMIT, FULLCHAIN, release_key

    key = release_key(name, old.sha256, FULLCHAIN)
    body: bytes = getattr(store.get(key, limit=FILE_LIMIT), "body", b"")
    try:
        leaf = certificate.read_chain(body).leaf
        found = certificate.describe(leaf).sha256
    except ValueError:
        found = None
    if found != old.sha256:
        raise RevocationFailed(
            f"{name}: the certificate with serial {old.serial} is to be revoked, and is not here",
            expected=f"it in the store, {key}",
            found="another certificate" if found else "none",
            kept="the new certificate stays published, and this one is on its list of revoked ones",
            next="find it by its serial in a Certificate Transparency search, revoke it by `certbot revoke "
            "--cert-path FILE`, then take it out of state_dir/revocations.json",
        )
    return leaf.public_bytes(Encoding.PEM).decode("ascii")
