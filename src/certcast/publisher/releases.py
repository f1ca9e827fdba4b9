"""Move the store towards what this host holds.

    live leaf, published manifest → nothing | seal, re-date, re-sign | a new release

Idempotent: it looks at what is published, not at what happened. A hook that never ran, a crash between two
PUTs and a second run at once all end in the same state. A certificate that is older than the published one
is never published: a renewal host restored from a backup must not roll the fleet back. An administrator may,
with `step_back`; then the leaf that was left is held off, and no run publishes it again.

Not here: what is due (renewal/), in which order the store is written (publication.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.publisher import record as records
from certcast.publisher.hosts import sealed_keys
from certcast.publisher.publication import Publication, Published, open_publication
from certcast.release import certificate
from certcast.release.lifetime import utc_text
from certcast.release.sealing import Recipient
from certcast.report.errors import LineageUnusable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from certcast.config.model import CertificateConfig
    from certcast.publisher.signer import Signer
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release
    from certcast.release.ssh_keys import PublicKey
    from certcast.storage.store import Store


@dataclass(frozen=True)
class Releases:
    """The releases of one certificate in the store, for whoever signs there.

    Every method raises StoreError, ManifestInvalid or SignatureInvalid (what is published cannot be read),
    SigningFailed, Busy, LocalFault, and LineageUnusable for a release that cannot be published: it is older
    than the published one, outside its life or revoked, it lacks a name, or its key is lost.
    """

    wanted: CertificateConfig
    store: Store
    signer: Signer

    def publish(
        self, release: Release, *, now: datetime, revoke: tuple[str, ...] = (), at_least: int = 0
    ) -> Published:
        """Make `release` the published one, if it is newer and not held off.

        `revoke` are leaves that no host may serve any more. `at_least` is a sequence that hosts are
        known to have seen, where neither this host nor the store remembers it.
        """
        _require_publishable(self.wanted, release, now)
        with self._open() as publication:
            current = publication.current
            if current is not None and release.leaf.sha256 in {current.leaf.sha256, *current.held_off}:
                following = current
            else:
                if current is not None:
                    _require_newer(self.wanted, release, current)
                following = publication.manifest_for(release, now)
            following = replace(following, revoked=_join(following.revoked, revoke))
            _require_not_revoked(self.wanted, following)
            return publication.put(following, release, now, at_least)

    def step_back(self, leaf_sha256: str, *, now: datetime, at_least: int = 0) -> Published:
        """Publish an earlier release that this host keeps; the current one is held off from now on."""
        wanted, source = self.wanted, self.signer.source(self.wanted)
        release = source.find(leaf_sha256)
        if release is None:
            raise sealed_keys.not_held(wanted.name, leaf_sha256, source.place, "every host")
        _require_publishable(wanted, release, now)
        with self._open() as publication:
            current = publication.current
            if current is None or current.leaf.sha256 == leaf_sha256:
                raise LineageUnusable(
                    f"{wanted.name}: there is nothing to step back from",
                    expected="another release published at present",
                    found="this one" if current else "none at all",
                    next=f"`certcast renew {wanted.name}`",
                )
            held_off = _join(current.held_off, (current.leaf.sha256,))
            following = replace(
                publication.manifest_for(release, now),
                step_back=True,
                held_off=tuple(leaf for leaf in held_off if leaf != leaf_sha256),
            )
            _require_not_revoked(wanted, following)
            return replace(publication.put(following, release, now, at_least), result="stepped back")

    def current(self) -> Manifest | None:
        """Return the manifest that counts, or None if nothing is published yet."""
        with self._open() as publication:
            return publication.current

    def published_by_another(self) -> Manifest | None:
        """Return what counts in the store if another renewal host has published it, and this one has not.

        A second renewal host has an order book of its own; together they would order more than the CA allows.
        """
        with self._open() as publication:
            current, own = publication.current, publication.recorded
            if current is None or current.publisher == self.signer.publisher:
                return None
            return None if own is not None and own.leaf == current.leaf else current

    def seal_to(self, hosts: frozenset[str]) -> Published | None:
        """Seal the current release to hosts that lack it, and anew to `hosts`; None without a release."""
        with self._open() as publication:
            if publication.current is None:
                return None
            sealed_to, warnings = publication.seal(publication.current.leaf.sha256, None, anew=hosts)
            return Published("unchanged", publication.current, sealed_to, warnings)

    def _open(self) -> AbstractContextManager[Publication]:
        return open_publication(self.wanted, self.store, self.signer)


def take_away(
    wanted: CertificateConfig, store: Store, folder: Path, host: str, *, key: PublicKey | None = None
) -> bool:
    """Remove what is sealed to `host` in every release; False if older versions of it may be left.

    With its `key`, also what an earlier try has deleted, but not its older versions. `folder` is where the
    publisher remembers: nothing is signed here. Raises StoreError, Busy, LocalFault.
    """
    with files.lock(folder / f"{wanted.name}.lock", wait=60.0):
        leaves = records.read(folder, wanted.name).leaves if key else ()
        hidden = [Recipient.of_host(host, key).object_key(wanted.name, leaf) for leaf in leaves if key]
        return sealed_keys.take_away(store, wanted.name, host, hidden)


def _join(leaves: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return (*leaves, *(leaf for leaf in dict.fromkeys(more) if leaf not in leaves))


def _require_publishable(wanted: CertificateConfig, release: Release, now: datetime) -> None:
    leaf = release.leaf
    if not leaf.life.is_valid(now):
        raise LineageUnusable(
            f"{wanted.name}: the certificate is not valid now",
            expected=f"a life that holds {utc_text(now)}",
            found=f"valid from {utc_text(leaf.not_before)} to {utc_text(leaf.not_after)}",
            next=f"check this host's clock with `date -u`, then run `certcast renew {wanted.name}`",
        )
    missing = certificate.missing_names(leaf, wanted.names)
    if missing:
        raise LineageUnusable(
            f"{wanted.name}: the certificate lacks a configured name",
            expected=", ".join(wanted.names),
            found=", ".join(leaf.names),
            next=f"compare `names` in the configuration; {_another(wanted)}",
        )


def _require_newer(wanted: CertificateConfig, release: Release, current: Manifest) -> None:
    leaf = release.leaf
    kept = f"sequence {current.sequence} stays published, valid until {utc_text(current.leaf.not_after)}"
    if leaf.not_before < current.leaf.not_before:
        raise LineageUnusable(
            f"{wanted.name}: the certificate is older than the published one",
            expected=f"issued after {utc_text(current.leaf.not_before)}",
            found=f"issued {utc_text(leaf.not_before)}, serial {leaf.serial}",
            kept=kept,
            next=f"was this host restored from a backup? {_another(wanted)}",
        )


def _require_not_revoked(wanted: CertificateConfig, following: Manifest) -> None:
    if following.leaf.sha256 in following.revoked:
        raise LineageUnusable(
            f"{wanted.name}: this release is revoked, and no host may serve it",
            expected="another certificate",
            found=f"serial {following.leaf.serial}",
            next=_another(wanted),
        )


def _another(wanted: CertificateConfig) -> str:
    """Return how to get another certificate."""
    if wanted.source == "certbot":
        return (
            f"`certbot renew --cert-name {wanted.name} --force-renewal`, then `certcast renew {wanted.name}`"
        )
    return f"`certcast renew --replace {wanted.name} --reason superseded` orders another one"
