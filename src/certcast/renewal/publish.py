"""Move the store towards what certbot holds: objects first, manifest last.

    live leaf, published manifest → nothing | re-date it | a new release

Idempotent: it looks at what is published, not at what happened, so a hook that
never ran, a crash between two PUTs or a second run at once all end in the same
state. Never publishes a certificate that is older than the published one: a
renewal host restored from a backup must not roll the fleet back.

OSS has no conditional PUT, so one flock on the renewal host covers the manifest's
read and write; two renewal hosts for one certificate are not supported.

Not here: what is due and who is told (renew.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from certcast import certificate, files, manifest
from certcast.errors import LineageUnusable, ManifestInvalid, StoreTooLarge
from certcast.lifetime import utc_text
from certcast.manifest import FULLCHAIN, PRIVKEY, Digest, Manifest
from certcast.storage.store import Object, Unchanged

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from certcast.config import CertificateConfig
    from certcast.renewal.lineage import Lineage
    from certcast.storage.store import Store

# The current release and five older ones; held-off ones besides.
KEPT_RELEASES = 6

Result = Literal["unchanged", "re-dated", "repaired", "published"]


@dataclass(frozen=True)
class Published:
    """What `publish` found or did."""

    result: Result
    manifest: Manifest


@dataclass(frozen=True)
class Record:
    """What this publisher remembers of one certificate, besides the store.

    `sequence` is the highest it has written; `leaves` the releases it has
    published, oldest first: what may one day be deleted from the store; `manifest`
    the last one it wrote there, which puts right a store that lost or garbled it.
    """

    sequence: int = 0
    leaves: tuple[str, ...] = ()
    manifest: Manifest | None = None


def publish(
    wanted: CertificateConfig,
    lineage: Lineage,
    store: Store,
    *,
    state_dir: Path,
    publisher: str,
    now: datetime,
) -> Published:
    """Make `lineage` the published release of `wanted`, if it is newer.

    `publisher` is this host's name, written into the manifest. Raises
    LineageUnusable (older, outside its life, held off, names missing), StoreError,
    ManifestInvalid (the published one cannot be read), Busy, LocalFault.
    """
    _require_publishable(wanted, lineage, now)
    folder = state_dir / "publisher"
    with files.lock(folder / f"{wanted.name}.lock", wait=60.0):
        record = _read_record(folder, wanted.name, store.url)
        found = _read_manifest(wanted, store, record)
        current = _latest(found, record.manifest)
        if current is not None and current.leaf.sha256 == lineage.leaf.sha256:
            result, following = _keep(wanted, lineage, store, current, now)
        else:
            if current is not None:
                _require_newer(wanted, lineage, current)
            _put_release(wanted, lineage, store)
            result = "published"
            following = Manifest(
                store=store.url,
                certificate=wanted.name,
                sequence=max(record.sequence, current.sequence if current else 0) + 1,
                published_at=now,
                expires=now + manifest.EXPIRES_AFTER,
                publisher=publisher,
                leaf=lineage.leaf,
                files={name: Digest.of(body) for name, body in _files(lineage).items()},
                held_off=current.held_off if current else (),
                revoked=current.revoked if current else (),
            )
        if following != found:
            # The sequence is remembered before it is used: a crash after the PUT must not use it twice.
            sequence = max(record.sequence, following.sequence)
            record = Record(sequence, _appended(record.leaves, following), following)
            _write_record(folder, wanted.name, record)
            store.put(manifest.manifest_key(wanted.name), manifest.write(following))
            if result == "unchanged":
                result = "published" if found is not None and found.leaf != following.leaf else "repaired"
        _prune(wanted, store, record, following, folder)
    return Published(result, following)


def _require_publishable(wanted: CertificateConfig, lineage: Lineage, now: datetime) -> None:
    leaf = lineage.leaf
    if not leaf.life.is_valid(now):
        raise LineageUnusable(
            f"{wanted.name}: certbot's certificate is not valid now",
            expected=f"a life that holds {utc_text(now)}",
            found=f"valid from {utc_text(leaf.not_before)} to {utc_text(leaf.not_after)}",
            kept="what was published before stays",
            next=f"check this host's clock with `date -u`, then run `certcast renew {wanted.name}`",
        )
    missing = certificate.missing_names(leaf, wanted.names)
    if missing:
        raise LineageUnusable(
            f"{wanted.name}: certbot's certificate lacks a configured name",
            expected=", ".join(wanted.names),
            found=", ".join(leaf.names),
            kept="what was published before stays",
            next=f"compare `names` with `certbot certificates --cert-name {wanted.name}`",
        )


def _require_newer(wanted: CertificateConfig, lineage: Lineage, current: Manifest) -> None:
    leaf = lineage.leaf
    kept = f"sequence {current.sequence} stays published, valid until {utc_text(current.leaf.not_after)}"
    force = f"`certbot renew --cert-name {wanted.name} --force-renewal`"
    if leaf.sha256 in current.held_off or leaf.sha256 in current.revoked:
        raise LineageUnusable(
            f"{wanted.name}: certbot's certificate is held off or revoked",
            found=f"serial {leaf.serial}",
            kept=kept,
            next=f"{force} gets another one, then `certcast renew {wanted.name}`",
        )
    if leaf.not_before < current.leaf.not_before:
        raise LineageUnusable(
            f"{wanted.name}: certbot's certificate is older than the published one",
            expected=f"issued after {utc_text(current.leaf.not_before)}",
            found=f"issued {utc_text(leaf.not_before)}, serial {leaf.serial}",
            kept=kept,
            next=f"was this host restored from a backup? {force} gets a newer one",
        )


def _keep(
    wanted: CertificateConfig, lineage: Lineage, store: Store, current: Manifest, now: datetime
) -> tuple[Result, Manifest]:
    """The right release is published: mend what was deleted or damaged, and re-date an ageing manifest."""
    result: Result = "unchanged"
    if not _stands(wanted, lineage, store):
        _put_release(wanted, lineage, store)
        result = "repaired"
    if current.expires - now < manifest.EXPIRES_AFTER / 2:
        return "re-dated", replace(current, published_at=now, expires=now + manifest.EXPIRES_AFTER)
    return result, current


def _stands(wanted: CertificateConfig, lineage: Lineage, store: Store) -> bool:
    """Whether the store holds the release byte for byte: a consumer sends its operator here otherwise."""
    for name, body in _files(lineage).items():
        try:
            found = store.get(manifest.release_key(wanted.name, lineage.leaf.sha256, name), limit=len(body))
        except StoreTooLarge:
            return False
        if not isinstance(found, Object) or found.body != body:
            return False
    return True


def _put_release(wanted: CertificateConfig, lineage: Lineage, store: Store) -> None:
    for name, body in _files(lineage).items():
        store.put(manifest.release_key(wanted.name, lineage.leaf.sha256, name), body)


def _files(lineage: Lineage) -> dict[str, bytes]:
    return {FULLCHAIN: lineage.fullchain, PRIVKEY: lineage.privkey}


def _read_manifest(wanted: CertificateConfig, store: Store, record: Record) -> Manifest | None:
    """Return what is published; None if there is nothing, or nothing legible but our own record."""
    try:
        found = store.get(manifest.manifest_key(wanted.name), limit=manifest.LIMIT)
        if found is None:
            return None
        assert not isinstance(found, Unchanged)  # no condition was sent
        return manifest.read(found.body, store=store.url, certificate=wanted.name)
    except (ManifestInvalid, StoreTooLarge) as error:
        if record.manifest is not None:
            return None
        key = manifest.manifest_key(wanted.name)
        raise ManifestInvalid(
            f"{wanted.name}: the published manifest is not legible, and this host did not write it",
            found=error.found or error.what,
            kept="nothing was published",
            next=f"look at {store.url}/{key}; if nobody needs it, delete it and run again",
        ) from None


def _latest(found: Manifest | None, recorded: Manifest | None) -> Manifest | None:
    """The store may have been set back to an older state; the sequence tells."""
    known = [manifest for manifest in (found, recorded) if manifest is not None]
    return max(known, key=lambda manifest: manifest.sequence, default=None)


def _prune(wanted: CertificateConfig, store: Store, record: Record, current: Manifest, folder: Path) -> None:
    """Delete releases that nobody may step back to; only such as this host published."""
    old = [leaf for leaf in record.leaves[:-KEPT_RELEASES] if leaf not in current.held_off]
    if not old:
        return
    for leaf in old:
        for key in store.list(manifest.release_key(wanted.name, leaf, "")):
            store.delete(key)
    kept = tuple(leaf for leaf in record.leaves if leaf not in old)
    _write_record(folder, wanted.name, replace(record, leaves=kept))


def _appended(leaves: tuple[str, ...], following: Manifest) -> tuple[str, ...]:
    current = following.leaf.sha256
    return (*(leaf for leaf in leaves if leaf != current), current)


def _read_record(folder: Path, name: str, store_url: str) -> Record:
    document = files.read_json(folder / f"{name}.json")
    if document is None:
        return Record()
    with files.understood(folder / f"{name}.json"):
        try:
            last = manifest.read(document["manifest"].encode(), store=store_url, certificate=name)
        except ManifestInvalid:
            last = None  # store.url was changed: what stood at the other place says nothing of this one
        return Record(int(document["sequence"]), tuple(document["leaves"]), last)


def _write_record(folder: Path, name: str, record: Record) -> None:
    document = {
        "sequence": record.sequence,
        "leaves": list(record.leaves),
        "manifest": manifest.write(record.manifest).decode() if record.manifest else "",
    }
    with files.reported(f"save {folder / name}.json", kept="what was published before stays"):
        files.write_json(folder / f"{name}.json", document)
