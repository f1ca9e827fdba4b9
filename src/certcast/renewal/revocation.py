"""Ask the CA to revoke what was replaced (replacement.py), once it is due.

Hosts give an old leaf up because it is published as revoked; the CA's revocation is against those who
use a stolen key elsewhere. So it is never in a hurry, and never in the way: a CA that fails is asked
again by the next `certcast renew`, and nothing else waits for it.

A request is repeatable: a CA that says "already revoked" has done what was wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.release import certificate
from certcast.renewal import replacement
from certcast.report.errors import CertcastError, RenewalError, RevocationFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from certcast.acme.ca import Ca
    from certcast.release.source import Source
    from certcast.renewal.replacement import Old, Replacement
    from certcast.storage.store import Store


def carry_out(
    state_dir: Path,
    *,
    ca_at: Callable[[str | None], Ca],
    source_of: Callable[[str], Source | None],
    open_store: Callable[[], Store],
    now: datetime,
    progress: Callable[[str], None],
) -> tuple[list[str], list[CertcastError]]:
    """Let the CA revoke what is due; return what was done, in words, and what failed.

    `ca_at` takes a directory's URL, None for the configured one; `source_of` the name of a certificate, and
    returns None for one that is configured no more. Raises LocalFault if the list cannot be read.
    """
    done: list[str] = []
    failures: list[CertcastError] = []
    for asked in replacement.everything(state_dir).values():
        if asked.due is None or now < asked.due:
            continue
        for old in asked.olds:
            serial = f"{asked.name}: serial {old.serial}"
            try:
                if old.not_after > now:
                    progress(f"{serial}: asking the CA to revoke it ({asked.reason})")
                    pem = old.pem or _from_store(asked.name, old, open_store())
                    _revoke(ca_at(old.directory), source_of(asked.name), asked, old, pem.encode("ascii"))
                    done.append(f"{serial} is revoked at the CA ({asked.reason})")
                # An expired one is left alone: Boulder refuses it, and clients do, too.
                replacement.forget(state_dir, asked.name, old)
            except CertcastError as failure:
                failures.append(failure)
    return done, failures


def _revoke(ca: Ca, source: Source | None, asked: Replacement, old: Old, pem: bytes) -> None:
    """Sign with the certificate's own key where that is right, or the account has not ordered it.

    A compromised key signs for itself: that proves it is one, needs no account, and lets the CA refuse the
    key ever after (Boulder, ra/ra.go, RevokeCertByKey). It also makes the CA record keyCompromise, whatever
    was asked, so for other reasons the account signs, where there is one.
    """
    from certcast.acme.account import recorded_uri
    from certcast.acme.protocol.answers import Problem, explained

    held = None if source is None else source.find(old.sha256)
    privkey = None if held is None else held.privkey
    by_key = privkey is not None and (asked.reason == "keyCompromise" or recorded_uri(ca.folder) is None)
    try:
        with explained(asked.name, f"revoking serial {old.serial}"):
            try:
                ca.revoke(pem, privkey=privkey if by_key else None, reason=asked.reason)
            except Problem as problem:
                if by_key or privkey is None or problem.type not in {"unauthorized", "accountDoesNotExist"}:
                    raise
                # Another account has ordered it, one whose key is lost, say.
                ca.revoke(pem, privkey=privkey, reason=asked.reason)
    except RenewalError as failure:
        raise RevocationFailed(
            f"{asked.name}: the CA has not revoked serial {old.serial}",
            found=failure.found or failure.what,
            kept="the new certificate stays published, and this one is on its list of revoked ones",
            next="the next `certcast renew` asks again; if it is the reason that the CA does not take, "
            f"`certcast renew --replace {asked.name} --reason superseded` goes on with another one",
        ) from None


def _from_store(name: str, old: Old, store: Store) -> str:
    """Return a leaf that was published, and that this host does not hold; nothing else that lies there."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from certcast.release.manifest import FILE_LIMIT, FULLCHAIN, release_key

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
