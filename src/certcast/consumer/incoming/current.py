"""What the store says is current, and whether this host may believe it.

    state.seen ── last_seen ──> the manifest that was accepted last
    store ─────── look ───────> the one that is published now, or the same (304)

A manifest is refused when no pinned publisher has signed it, before anything of it is read;
and when its sequence is lower than any that this host has seen: in its state, in the names of its
version directories (a state may be away, or of an earlier day), in its configuration (`at_least`). What was
signed by a key that is pinned no more doesn't count: its thief may have counted to the end. With an
equal sequence only `published_at` and a later `expires` may differ: the renewal host dates an ageing
manifest anew without any change. After a 304 the accepted manifest's `expires` is
what counts, so a store that answers 304 for ever freezes nobody silently.
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
class Published:
    """A manifest that may be believed, its document as text, who signed it, and the ETag it came with.

    `former` are the version directories that count no more.
    """

    manifest: Manifest
    text: str
    signed_by: str
    etag: str | None
    former: tuple[str, ...] = ()


def pinned(config: Config) -> tuple[PublicKey, ...]:
    """Return the publishers that this host believes; on the renewal host its own keys count as well."""
    if config.renewal is None:
        return config.store.publishers
    from certcast.publisher.signer import own_keys

    return (*own_keys(config.renewal), *config.store.publishers)


def last_seen(state: State, config: Config, certificate: str) -> Published | None:
    """Return the manifest that was accepted last, or None if there is none for this store.

    Its signature was verified then; what counts now is whether its key is still pinned. `etag` is
    that of the state: None as long as the release is not proved.
    """
    if state.seen is None or state.seen_by is None:
        return None
    if state.seen_by not in {key.fingerprint for key in pinned(config)}:
        return None
    try:
        manifest = manifests.read(state.seen.encode(), store=state.store, certificate=certificate)
    except ManifestInvalid:
        return None  # written by a certcast of another format: read it anew, without an ETag
    return Published(manifest, state.seen, state.seen_by, state.etag, state.former)


def look(
    store: Reader, config: Config, certificate: CertificateConfig, state: State, folder: Folder
) -> Published:
    """Ask the store for the manifest; nothing is transferred if it is the one of the state's ETag.

    Raises StoreError, ManifestMissing, SignatureInvalid, ManifestInvalid and ManifestReplayed.
    """
    name = certificate.name
    key = manifests.manifest_key(name)
    seen = last_seen(state, config, name)
    found = store.get(key, limit=manifests.LIMIT, unless=seen.etag if seen else None)
    if isinstance(found, Unchanged):
        assert seen is not None  # without one no ETag was sent
        return seen
    if found is None:
        raise ManifestMissing(
            f"{name}: nothing has been published",
            expected=f"an object {config.store.read_from or state.store}/{key}",
            found="no such object",
            next=f"run `certcast renew {name}` on the renewal host, and compare store.url on both",
        )
    from certcast.release import signing

    verified = signing.verify(found.body, pinned(config), what=f"{name}: the published manifest")
    manifest = manifests.read(verified.document, store=state.store, certificate=name)
    counts = state.seen_by is None or state.seen_by in {key.fingerprint for key in pinned(config)}
    held = folder.list_versions()
    former = state.former if counts else tuple(held)
    releases = [release for version, release in held.items() if version not in former]
    _require_one_release_a_sequence(manifest, seen, releases)
    sequences = [state.sequence if counts else 0, *(sequence for sequence, _ in releases)]
    _require_not_older(manifest, seen, max(*sequences, 0), certificate.at_least)
    return Published(manifest, verified.document.decode(), verified.publisher, found.etag, former)


def _require_one_release_a_sequence(
    manifest: Manifest, seen: Published | None, releases: list[tuple[int, str]]
) -> None:
    # Without the state the version directories still know 16 digits of the leaf.
    known = {leaf for sequence, leaf in releases if sequence == manifest.sequence}
    differs = bool(known) and manifest.leaf.sha256[:16] not in known
    if seen is not None and seen.manifest.sequence == manifest.sequence:
        differs = not manifest.same_release(seen.manifest)
    if differs:
        name = manifest.certificate
        raise ManifestInvalid(
            f"{name}: two different manifests have sequence {manifest.sequence}",
            expected="the manifest that was seen before, at most with a later expiry",
            found=f"leaf {manifest.leaf.sha256[:16]}…, published {utc_text(manifest.published_at)} "
            f"by {manifest.publisher}",
            next=f"does a second renewal host publish {name}? Only one may",
        )


def _require_not_older(manifest: Manifest, seen: Published | None, highest: int, at_least: int) -> None:
    name = manifest.certificate
    expected = None
    if manifest.sequence < at_least > highest:
        raise ManifestReplayed(
            f"{name}: the store shows an older manifest than this host is to accept",
            expected=f"sequence {at_least} or higher, by at_least in [[certificate]]",
            found=f"sequence {manifest.sequence}",
            next="compare at_least with what `certcast publisher show` says on the renewal host; if that is "
            "right, somebody shows this host what was published before",
        )
    if manifest.sequence < highest:
        expected = f"sequence {highest} or higher"
    elif seen and seen.manifest.sequence == manifest.sequence and manifest.expires < seen.manifest.expires:
        expected = f"sequence {highest} that expires {utc_text(seen.manifest.expires)} or later"
    if expected:
        raise ManifestReplayed(
            f"{name}: the store shows an older manifest than before",
            expected=expected,
            found=f"sequence {manifest.sequence} that expires {utc_text(manifest.expires)}",
            next="was the bucket or the renewal host set back to an earlier day? "
            f"There run `certcast renew {name}`",
        )
