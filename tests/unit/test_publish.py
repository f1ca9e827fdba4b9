"""Publishing as a story of versions: what the store holds after good, bad and interrupted runs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from certcast import manifest
from certcast.certificate import describe, read_chain
from certcast.config import CertificateConfig, CertificateName, DnsName, StoreConfig, StoreUrl
from certcast.errors import LineageUnusable, ManifestInvalid, StoreUnreachable
from certcast.manifest import Manifest
from certcast.renewal.lineage import Lineage
from certcast.renewal.publish import KEPT_RELEASES, Published, publish
from certcast.storage import open_store
from certcast.storage.store import Object
from certcast_lab.ca import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from certcast.storage.store import Store

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
NAMES = ("example.test", "*.example.test")
WANTED = CertificateConfig(CertificateName("example.test"), tuple(DnsName(name) for name in NAMES))
POINTER = manifest.manifest_key("example.test")


class Cut:
    """A store whose connection is cut at the put number `at`, counted from 1; nothing arrives."""

    def __init__(self, inner: Store, at: int) -> None:
        self._inner, self._left, self.url = inner, at, inner.url

    def put(self, key: str, body: bytes) -> str:
        self._left -= 1
        if self._left == 0:
            raise StoreUnreachable("the cable was pulled")
        return self._inner.put(key, body)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class Publisher:
    """A renewal host with one certificate, at a clock that the test moves."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store, self.now = folder, store, NOW
        self.ca = Authority("Lab")

    def issue(self, *, names: tuple[str, ...] = NAMES) -> Lineage:
        """Return a lineage whose certificate was issued now."""
        pair = self.ca.issue(*names, not_before=self.now)
        leaf = describe(read_chain(pair.fullchain_pem).leaf)
        return Lineage("example.test", 1, pair.fullchain_pem, pair.key_pem, leaf)

    def publish(self, lineage: Lineage, store: Store | None = None) -> Published:
        return publish(
            WANTED,
            lineage,
            store or self.store,
            state_dir=self.folder,
            publisher="renewal-1",
            now=self.now,
        )

    def published(self) -> Manifest:
        """Return what a consumer reads."""
        found = self.store.get(POINTER, limit=manifest.LIMIT)
        assert isinstance(found, Object)
        return manifest.read(found.body, store=self.store.url, certificate="example.test")


@pytest.fixture
def host(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "state", open_store(StoreConfig(StoreUrl(f"memory://{tmp_path.name}"))))


def test_the_first_release_has_sequence_one_and_both_files(host: Publisher) -> None:
    """After the first run a consumer finds a manifest and the two files it names, bit for bit."""
    lineage = host.issue()
    assert "published" == host.publish(lineage).result
    pointer = host.published()
    assert (1, lineage.leaf) == (pointer.sequence, pointer.leaf)
    for name, body in ((manifest.FULLCHAIN, lineage.fullchain), (manifest.PRIVKEY, lineage.privkey)):
        key = manifest.release_key("example.test", lineage.leaf.sha256, name)
        found = host.store.get(key, limit=manifest.FILE_LIMIT)
        assert isinstance(found, Object)
        assert body == found.body


def test_publishing_again_changes_nothing(host: Publisher) -> None:
    """A second run, an hour later, leaves the very same manifest: no consumer downloads anything."""
    lineage = host.issue()
    host.publish(lineage)
    first = host.published()
    host.now += timedelta(hours=1)
    assert "unchanged" == host.publish(lineage).result
    assert first == host.published()


def test_a_manifest_that_ages_is_dated_anew_under_its_sequence(host: Publisher) -> None:
    """Half-way to its expiry the manifest gets a new one; it stays the same release."""
    lineage = host.issue()
    host.publish(lineage)
    first = host.published()
    host.now += 4 * DAY
    assert "re-dated" == host.publish(lineage).result
    again = host.published()
    assert first.same_release(again)
    assert host.now + manifest.EXPIRES_AFTER == again.expires


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_cut_at_any_put_leaves_the_old_release_whole_and_the_next_run_finishes(
    host: Publisher, at: int
) -> None:
    """Objects come first and the manifest last, so a consumer never sees a half-published release."""
    host.publish(host.issue())
    first = host.published()
    host.now += DAY
    renewed = host.issue()
    with pytest.raises(StoreUnreachable):
        host.publish(renewed, Cut(host.store, at))  # type: ignore[arg-type]  # __getattr__ gives the rest
    assert first == host.published()
    assert "published" == host.publish(renewed).result
    assert renewed.leaf == host.published().leaf
    assert host.published().sequence > first.sequence


def test_an_older_certificate_never_replaces_a_newer_one(host: Publisher) -> None:
    """A renewal host restored from a backup does not roll the fleet back, but says so."""
    old = host.issue()
    host.now += DAY
    new = host.issue()
    host.publish(new)
    with pytest.raises(LineageUnusable, match="older than the published one"):
        host.publish(old)
    assert new.leaf == host.published().leaf


@pytest.mark.parametrize("days", [-1, 91])
def test_a_certificate_outside_its_life_is_not_published(host: Publisher, days: int) -> None:
    """Neither an expired certificate nor one of tomorrow goes to the fleet."""
    lineage = host.issue()
    host.now += days * DAY
    with pytest.raises(LineageUnusable, match="not valid now"):
        host.publish(lineage)


def test_a_certificate_without_a_configured_name_is_not_published(host: Publisher) -> None:
    """What consumers would refuse is not offered to them."""
    with pytest.raises(LineageUnusable, match="lacks a configured name"):
        host.publish(host.issue(names=("example.test",)))


@pytest.mark.parametrize("damage", [None, b"", b"not a manifest", b"x" * 100_000])
def test_a_lost_or_garbled_manifest_is_put_right_by_the_next_run(
    host: Publisher, damage: bytes | None
) -> None:
    """Whoever deletes or overwrites the manifest finds it restored, under the same sequence."""
    lineage = host.issue()
    host.publish(lineage)
    first = host.published()
    if damage is None:
        host.store.delete(POINTER)
    else:
        host.store.put(POINTER, damage)
    assert "repaired" == host.publish(lineage).result
    assert first == host.published()


def test_a_bucket_set_back_to_an_older_state_is_put_right(host: Publisher) -> None:
    """An old manifest put back by somebody is replaced by the right one, not taken as the truth."""
    host.publish(host.issue())
    old = manifest.write(host.published())
    host.now += DAY
    renewed = host.issue()
    host.publish(renewed)
    host.store.put(POINTER, old)
    host.publish(renewed)
    assert (2, renewed.leaf) == (host.published().sequence, host.published().leaf)


def test_a_new_renewal_host_does_not_overwrite_what_it_cannot_read(host: Publisher, tmp_path: Path) -> None:
    """Without a record of its own, an illegible manifest stops the run: the sequence would be a guess."""
    host.store.put(POINTER, b"not a manifest")
    stranger = Publisher(tmp_path / "new", host.store)
    with pytest.raises(ManifestInvalid, match="this host did not write it"):
        stranger.publish(stranger.issue())


def test_a_new_renewal_host_goes_on_from_the_stores_sequence(host: Publisher, tmp_path: Path) -> None:
    """A replaced renewal host continues the count, so consumers accept it."""
    host.publish(host.issue())
    successor = Publisher(tmp_path / "new", host.store)
    successor.now += DAY
    successor.publish(successor.issue())
    assert 2 == host.published().sequence


def test_a_file_that_somebody_deleted_is_put_back(host: Publisher) -> None:
    """The next run restores a missing file of the current release."""
    lineage = host.issue()
    host.publish(lineage)
    key = manifest.release_key("example.test", lineage.leaf.sha256, manifest.PRIVKEY)
    host.store.delete(key)
    assert "repaired" == host.publish(lineage).result
    assert key in host.store.list("")


def test_old_releases_and_their_keys_leave_the_store(host: Publisher) -> None:
    """The current release and five older ones stay; earlier private keys are deleted."""
    leaves = []
    for _ in range(KEPT_RELEASES + 2):
        lineage = host.issue()
        host.publish(lineage)
        leaves.append(lineage.leaf.sha256)
        host.now += DAY
    kept = {key.split("/")[3] for key in host.store.list("certs/example.test/releases/")}
    assert set(leaves[-KEPT_RELEASES:]) == kept


def test_another_store_starts_with_a_higher_sequence(host: Publisher, tmp_path: Path) -> None:
    """After store.url was changed, nothing of the old place is taken for published at the new one."""
    lineage = host.issue()
    host.publish(lineage)
    elsewhere = open_store(StoreConfig(StoreUrl(f"memory://{tmp_path.name}-elsewhere")))
    assert "published" == host.publish(lineage, elsewhere).result
    host.store = elsewhere
    assert (2, elsewhere.url) == (host.published().sequence, host.published().store)
