"""What the store says is current, and whether this host may believe it.

    state.seen ── last_trusted ───> the manifest that was accepted last
    store ─────── fetch_trusted ──> the one that is published now, or the same (304)

Refused is a manifest
- that no pinned publisher has signed, before anything of it is read;
- with a lower sequence than this host's state, its version directories (a state may be away) or `at_least`
  say. What was signed by a key that is pinned no more doesn't count: its thief may have counted to the end;
- with an equal sequence, unless only `published_at` and a later `expires` differ.

After a 304 the accepted manifest's `expires` counts, so that no store freezes a host by answers of 304.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release import manifest as manifests
from certcast.release.lifetime import utc_text
from certcast.report.errors import ManifestInvalid, ManifestMissing, ManifestReplayed
from certcast.storage.store import Unchanged

if TYPE_CHECKING:
    from certcast.config.model import CertificateConfig, Config
    from certcast.consumer.disk.versions import Folder
    from certcast.consumer.state import State
    from certcast.release.manifest import Manifest
    from certcast.release.ssh_keys import PublicKey
    from certcast.storage.store import Reader


@dataclass(frozen=True)
class TrustedManifest:
    """A manifest that may be believed, its document as text, who signed it, and the ETag it came with.

    `former` are the version directories that count no more.
    """

    manifest: Manifest
    text: str
    signed_by: str
    etag: str | None
    former: tuple[str, ...] = ()


def _pinned(config: Config) -> tuple[PublicKey, ...]:
    """Return the publishers that this host believes; on the renewal host its own keys count as well."""
    if config.renewal is None:
        return config.store.publishers
    from certcast.publisher.signer import own_keys

    return (*own_keys(config.renewal), *config.store.publishers)


def _is_pinned(fingerprint: str, config: Config) -> bool:
    return fingerprint in {key.fingerprint for key in _pinned(config)}


def last_trusted(state: State, config: Config, certificate: str) -> TrustedManifest | None:
    """Return the manifest that was accepted last, or None if there is none for this store.

    Its signature was verified then; what counts now is whether its key is still pinned. `etag` is
    that of the state: None as long as the release is not proved.
    """
    if state.seen is None or state.seen_by is None or not _is_pinned(state.seen_by, config):
        return None
    try:
        manifest = manifests.read(state.seen.encode(), store=state.store, certificate=certificate)
    except ManifestInvalid:
        return None  # written by a certcast of another format: read it anew, without an ETag
    return TrustedManifest(manifest, state.seen, state.seen_by, state.etag, state.former)


def fetch_trusted(
    store: Reader, config: Config, certificate: CertificateConfig, state: State, folder: Folder
) -> TrustedManifest:
    """Ask the store for the manifest; nothing is transferred if it is the one of the state's ETag.

    Raises StoreError, ManifestMissing, SignatureInvalid, ManifestInvalid and ManifestReplayed.
    """
    name = certificate.name
    key = manifests.manifest_key(name)
    last = last_trusted(state, config, name)
    found = store.get(key, limit=manifests.LIMIT, unless=last.etag if last else None)
    if isinstance(found, Unchanged):
        assert last is not None  # without one no ETag was sent
        return last
    if found is None:
        raise ManifestMissing(
            f"{name}: nothing has been published",
            expected=f"an object {config.store.read_from or state.store}/{key}",
            found="no such object",
            next=f"run `certcast renew {name}` on the renewal host, and compare store.url on both",
        )
    from certcast.release import signing

    verified = signing.verify(found.body, _pinned(config), what=f"{name}: the published manifest")
    manifest = manifests.read(verified.document, store=state.store, certificate=name)
    counts = state.seen_by is None or _is_pinned(state.seen_by, config)
    versions = folder.list_versions()
    former = state.former if counts else tuple(versions)
    releases = [release for version, release in versions.items() if version not in former]
    _require_one_release_a_sequence(manifest, last, releases)
    sequences = [state.sequence if counts else 0, *(sequence for sequence, _ in releases)]
    _require_not_older(manifest, last, max(*sequences, 0), certificate.at_least)
    return TrustedManifest(manifest, verified.document.decode(), verified.publisher, found.etag, former)


def _require_one_release_a_sequence(
    manifest: Manifest, last: TrustedManifest | None, releases: list[tuple[int, str]]
) -> None:
    # Without the state the version directories still know 16 digits of the leaf.
    known = {leaf for sequence, leaf in releases if sequence == manifest.sequence}
    differs = bool(known) and manifest.leaf.sha256[:16] not in known
    if last is not None and last.manifest.sequence == manifest.sequence:
        differs = not manifest.same_release(last.manifest)
    if differs:
        name = manifest.certificate
        raise ManifestInvalid(
            f"{name}: two different manifests have sequence {manifest.sequence}",
            expected="the manifest that was seen before, at most with a later expiry",
            found=f"leaf {manifest.leaf.sha256[:16]}…, published {utc_text(manifest.published_at)} "
            f"by {manifest.publisher}",
            next=f"does a second renewal host publish {name}? Only one may",
        )


def _require_not_older(manifest: Manifest, last: TrustedManifest | None, highest: int, at_least: int) -> None:
    name = manifest.certificate
    if manifest.sequence < at_least > highest:
        raise ManifestReplayed(
            f"{name}: the store shows an older manifest than this host is to accept",
            expected=f"sequence {at_least} or higher, by at_least in [[certificate]]",
            found=f"sequence {manifest.sequence}",
            next="compare at_least with what `certcast publisher show` says on the renewal host; if that is "
            "right, somebody shows this host what was published before",
        )
    expected = None
    if manifest.sequence < highest:
        expected = f"sequence {highest} or higher"
    elif last and last.manifest.sequence == manifest.sequence and manifest.expires < last.manifest.expires:
        expected = f"sequence {highest} that expires {utc_text(last.manifest.expires)} or later"
    if expected:
        raise ManifestReplayed(
            f"{name}: the store shows an older manifest than before",
            expected=expected,
            found=f"sequence {manifest.sequence} that expires {utc_text(manifest.expires)}",
            next="was the bucket or the renewal host set back to an earlier day? "
            f"There run `certcast renew {name}`",
        )
