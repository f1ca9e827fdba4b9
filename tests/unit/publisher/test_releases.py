"""Publishing as a story of versions: what the store holds after good, bad and interrupted runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest

from certcast.acme.issued import Issued
from certcast.config.model import CertificateConfig, CertificateName, DnsName, StoreConfig, StoreUrl
from certcast.publisher import record as records
from certcast.publisher.hosts import sealed_keys
from certcast.publisher.publication import Published
from certcast.publisher.record import KEPT_RELEASES
from certcast.publisher.releases import Releases, take_away
from certcast.publisher.signer import Signer
from certcast.release import host_identity, manifest, sealing, signing
from certcast.release.host_identity import Identity
from certcast.release.manifest import Manifest
from certcast.release.sealing import Recipient
from certcast.release.source import Release
from certcast.report.errors import (
    DigestMismatch,
    IssuedUnusable,
    LineageUnusable,
    LocalFault,
    ManifestInvalid,
    ManifestReplayed,
    SignatureInvalid,
    SigningFailed,
    StoreDenied,
    StoreUnreachable,
)
from certcast.storage import open_store
from certcast.storage.store import Object
from certcast_lab.serving.authority import Authority
from held import issued

if TYPE_CHECKING:
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


class Undeletable:
    """A store that lets nothing whose name has `word` in it be deleted: a retention policy, say."""

    def __init__(self, inner: Store, word: str) -> None:
        self._inner, self._word, self.url = inner, word, inner.url

    def purge(self, key: str) -> bool:
        if self._word in key:
            raise StoreDenied("the object is immutable")
        return self._inner.purge(key)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class Overfull:
    """A store in which more lies below `flooded` than can be listed in time."""

    def __init__(self, inner: Store, flooded: str = manifest.releases_prefix("example.test")) -> None:
        self._inner, self._flooded, self.url = inner, flooded, inner.url

    def list(self, prefix: str) -> list[str]:
        if self._flooded.startswith(prefix):
            raise StoreUnreachable("no complete answer within 30 s")
        return self._inner.list(prefix)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class Publisher:
    """A renewal host with one certificate, at a clock that the test moves; web1 is enrolled."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store, self.now = folder, store, NOW
        self.ca = Authority("Lab")
        self.working = host_identity.make(folder / "publisher", "working")
        self.signer = Signer(
            publisher="renewal-1",
            signing_key=self.working.path,
            working=self.working.public,
            pinned=(self.working.public,),
            recovery=None,
            hosts_file=folder / "hosts",
            state_dir=folder / "state",
            certbot_config_dir=folder / "letsencrypt",
            encryption="age",
        )
        self.hosts: dict[str, Identity] = {}
        self.enrol("web1")

    def enrol(self, name: str) -> Identity:
        """Make an identity for a host and write it into the list."""
        self.hosts[name] = host_identity.make(self.folder / f"identity-{name}", name)
        self._write_hosts()
        return self.hosts[name]

    def remove(self, name: str) -> None:
        """Take a host off the list."""
        del self.hosts[name]
        self._write_hosts()

    def _write_hosts(self) -> None:
        lines = [f"{name} {who.public.bare}\n" for name, who in self.hosts.items()]
        self.signer.hosts_file.write_text("".join(lines))

    def issue(self, *, names: tuple[str, ...] = NAMES) -> Release:
        """Return a certificate that was issued now, and keep it as this host does."""
        return issued(self.signer.state_dir, "example.test", self.ca.issue(*names, not_before=self.now))

    def lose(self, release: Release) -> None:
        """Forget a version altogether, as a host does that was restored from a backup."""
        shutil.rmtree(self.folder_of(release))

    def folder_of(self, release: Release) -> Path:
        return Issued(self.signer.state_dir, "example.test").place / release.version

    def releases(self, store: Store | None = None) -> Releases:
        return Releases(WANTED, store or self.store, self.signer)

    def publish(self, release: Release, store: Store | None = None, **options: Any) -> Published:
        return self.releases(store).publish(release, now=self.now, **options)

    def step_back(self, release: Release) -> Published:
        return self.releases().step_back(release.leaf.sha256, now=self.now)

    def published(self) -> Manifest:
        """Return what a consumer reads, which trusts the working key."""
        found = self.store.get(POINTER, limit=manifest.LIMIT)
        assert isinstance(found, Object)
        verified = signing.verify(found.body, [self.signer.working], what="it")
        return manifest.read(verified.document, store=self.store.url, certificate="example.test")

    def opened_by(self, name: str, release: Release) -> bytes | None:
        """Return the private key that a host gets for a release, None if nothing is sealed to it."""
        found = self.store.get(self.sealed_key(name, release), limit=sealing.LIMIT)
        who = self.hosts[name]
        return sealing.unseal(found.body, who, what="it", again="") if isinstance(found, Object) else None

    def sealed_key(self, name: str, release: Release) -> str:
        """Return where the private key of a release lies for a host."""
        recipient = Recipient.of_host(name, self.hosts[name].public)
        return recipient.object_key("example.test", release.leaf.sha256)

    def sealed_keys(self, release: Release) -> list[str]:
        """Return for whom the store has a sealed key of a release."""
        prefix = sealing.sealed_prefix("example.test", release.leaf.sha256)
        return [key.removeprefix(prefix).rsplit(".", 2)[0] for key in self.store.list(prefix)]


@pytest.fixture
def host(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "first", open_store(StoreConfig(StoreUrl(f"memory://{tmp_path.name}"))))


def test_the_first_release_is_whole(host: Publisher) -> None:
    """After the first run a consumer finds a signed manifest, the chain bit for bit, and its private key."""
    release = host.issue()
    assert "published" == host.publish(release).result
    pointer = host.published()
    assert (1, release.leaf) == (pointer.sequence, pointer.leaf)
    key = manifest.release_key("example.test", release.leaf.sha256, manifest.FULLCHAIN)
    found = host.store.get(key, limit=manifest.FILE_LIMIT)
    assert isinstance(found, Object)
    assert release.fullchain == found.body
    assert release.privkey == host.opened_by("web1", release)


def test_publishing_again_changes_nothing(host: Publisher) -> None:
    """A second run, an hour later, leaves the very same manifest: no consumer downloads anything."""
    release = host.issue()
    host.publish(release)
    first = host.published()
    host.now += timedelta(hours=1)
    assert "unchanged" == host.publish(release).result
    assert first == host.published()


def test_an_ageing_manifest_keeps_its_sequence(host: Publisher) -> None:
    """Half-way to its expiry the manifest gets a new one; it stays the same release."""
    release = host.issue()
    host.publish(release)
    first = host.published()
    host.now += 4 * DAY
    assert "re-dated" == host.publish(release).result
    again = host.published()
    assert first.same_release(again)
    assert host.now + manifest.EXPIRES_AFTER == again.expires


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_cut_at_any_put_leaves_the_old_release_whole(host: Publisher, at: int) -> None:
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
    release = host.issue()
    host.now += days * DAY
    with pytest.raises(LineageUnusable, match="not valid now"):
        host.publish(release)


def test_a_certificate_that_lacks_a_name_is_not_published(host: Publisher) -> None:
    """What consumers would refuse is not offered to them."""
    with pytest.raises(LineageUnusable, match="lacks a configured name"):
        host.publish(host.issue(names=("example.test",)))


@pytest.mark.parametrize("damage", [None, b"", b"not a manifest", b"x" * 100_000])
def test_a_lost_or_garbled_manifest_is_put_right(host: Publisher, damage: bytes | None) -> None:
    """Whoever deletes or overwrites it finds it restored under its sequence; overwriting is an alarm."""
    release = host.issue()
    host.publish(release)
    first = host.published()
    if damage is None:
        host.store.delete(POINTER)
    else:
        host.store.put(POINTER, damage)
    done = host.publish(release)
    assert "repaired" == done.result
    assert first == host.published()
    assert (damage is None) == (done.alarm is None)


def test_a_bucket_set_back_to_an_older_state_is_put_right(host: Publisher) -> None:
    """An old manifest put back by somebody is an alarm, and replaced by the right one, not taken as true."""
    host.publish(host.issue())
    old = host.store.get(POINTER, limit=manifest.LIMIT)
    assert isinstance(old, Object)
    host.now += DAY
    renewed = host.issue()
    assert host.publish(renewed).alarm is None
    host.store.put(POINTER, old.body)
    done = host.publish(renewed)
    assert (2, renewed.leaf) == (host.published().sequence, host.published().leaf)
    assert isinstance(done.alarm, ManifestReplayed)
    assert "sequence 1, published 2026-11-23T12:00:00Z: an earlier one" in done.alarm.report()
    assert host.publish(renewed).alarm is None


def test_an_earlier_date_of_the_same_sequence_alarms(host: Publisher) -> None:
    """Whoever puts back the manifest of before it was dated anew would have hosts call this one silent."""
    release = host.issue()
    host.publish(release)
    old = host.store.get(POINTER, limit=manifest.LIMIT)
    assert isinstance(old, Object)
    host.now += 4 * DAY
    assert "re-dated" == host.publish(release).result
    dated = host.published()
    host.store.put(POINTER, old.body)
    assert isinstance(host.publish(release).alarm, ManifestReplayed)
    assert dated == host.published()


def test_a_manifest_that_never_arrived_is_no_alarm(host: Publisher) -> None:
    """After a run that was cut off before the bucket had the manifest, the one of before stands there."""
    host.publish(host.issue())
    host.now += DAY
    renewed = host.issue()
    with pytest.raises(StoreUnreachable):
        host.publish(renewed, Cut(host.store, 3))  # type: ignore[arg-type]  # chain, sealed key, manifest
    assert host.publish(renewed).alarm is None
    assert renewed.leaf == host.published().leaf


@pytest.mark.parametrize("octets", [b"theirs", b"x" * 100_000])
def test_a_chain_that_somebody_has_exchanged_is_an_alarm(host: Publisher, octets: bytes) -> None:
    """What is published is put back, and somebody is told; before it is published it is no news."""
    release = host.issue()
    key = manifest.release_key("example.test", release.leaf.sha256, manifest.FULLCHAIN)
    host.store.put(key, octets)
    assert host.publish(release).alarm is None
    host.store.put(key, octets)
    done = host.publish(release)
    assert isinstance(done.alarm, DigestMismatch)
    assert "fullchain.pem in the store was not what this host had published" in done.alarm.report()
    assert host.publish(release).alarm is None


def test_a_new_renewal_host_overwrites_nothing_unread(host: Publisher, tmp_path: Path) -> None:
    """Without a record of its own, an illegible manifest stops the run: the sequence would be a guess."""
    host.store.put(POINTER, b"not a manifest")
    stranger = Publisher(tmp_path / "new", host.store)
    with pytest.raises(SignatureInvalid, match="this host did not write it"):
        stranger.publish(stranger.issue())


def test_a_new_renewal_host_takes_up_the_sequence(host: Publisher, tmp_path: Path) -> None:
    """A replaced renewal host continues the count, so consumers accept it."""
    host.publish(host.issue())
    successor = Publisher(tmp_path / "new", host.store)
    successor.now += DAY
    successor.signer = replace(successor.signer, pinned=(successor.signer.working, host.signer.working))
    successor.publish(successor.issue())
    assert 2 == successor.published().sequence


def test_a_file_that_somebody_deleted_is_put_back(host: Publisher) -> None:
    """The next run restores a missing file of the current release."""
    release = host.issue()
    host.publish(release)
    key = manifest.release_key("example.test", release.leaf.sha256, manifest.FULLCHAIN)
    host.store.delete(key)
    assert "repaired" == host.publish(release).result
    assert key in host.store.list("")


def test_old_releases_and_their_keys_leave_the_store(host: Publisher) -> None:
    """The current release and five older ones stay; earlier private keys are deleted."""
    leaves = []
    for _ in range(KEPT_RELEASES + 2):
        release = host.issue()
        host.publish(release)
        leaves.append(release.leaf.sha256)
        host.now += DAY
    kept = {key.split("/")[3] for key in host.store.list("certs/example.test/releases/")}
    assert set(leaves[-KEPT_RELEASES:]) == kept


def test_a_new_renewal_host_deletes_what_the_lost_one_left(host: Publisher, tmp_path: Path) -> None:
    """Releases of a host that burned down do not lie in the store for ever."""
    for _ in range(KEPT_RELEASES):
        host.publish(host.issue())
        host.now += DAY
    successor = Publisher(tmp_path / "new", host.store)
    successor.now = host.now
    successor.signer = replace(successor.signer, pinned=(successor.signer.working, host.signer.working))
    latest = host.published().leaf.sha256
    successor.publish(successor.issue())
    kept = {key.split("/")[3] for key in host.store.list("certs/example.test/releases/")}
    assert KEPT_RELEASES == len(kept)
    assert {latest, successor.published().leaf.sha256} <= kept


def test_another_store_starts_with_a_higher_sequence(host: Publisher, tmp_path: Path) -> None:
    """After store.url was changed, nothing of the old place is taken for published at the new one."""
    release = host.issue()
    host.publish(release)
    elsewhere = open_store(StoreConfig(StoreUrl(f"memory://{tmp_path.name}-elsewhere")))
    assert "published" == host.publish(release, elsewhere).result
    host.store = elsewhere
    assert (2, elsewhere.url) == (host.published().sequence, host.published().store)


# -- the sequence (design, section 5)


def test_the_sequence_grows_only_where_hosts_must_act(host: Publisher) -> None:
    """A new leaf, a revoked one, a step back: each is one more; dating, sealing and signing anew are none."""
    first = host.issue()
    host.publish(first)
    host.now += 4 * DAY
    assert "re-dated" == host.publish(first).result
    host.enrol("web2")
    host.publish(first)
    assert 1 == host.published().sequence
    second = host.issue()
    host.publish(second)
    assert 2 == host.published().sequence
    host.publish(second, revoke=("a" * 64,))
    assert (3, ("a" * 64,)) == (host.published().sequence, host.published().revoked)
    host.publish(second, revoke=("a" * 64,))
    assert 3 == host.published().sequence
    host.step_back(first)
    assert 4 == host.published().sequence


def test_the_sequence_goes_beyond_at_least(host: Publisher) -> None:
    """After all memory is lost, here and in the store, `--at-least` lets hosts accept what is published."""
    release = host.issue()
    host.publish(release, at_least=41)
    assert 42 == host.published().sequence
    host.publish(release, at_least=41)
    assert 42 == host.published().sequence
    host.publish(release, at_least=50)
    assert 51 == host.published().sequence


def test_what_no_host_would_take_is_not_signed(host: Publisher) -> None:
    """Behind the last sequence that there is comes none: the store and the record stay what they were."""
    release = host.issue()
    host.publish(release)
    with pytest.raises(ManifestInvalid, match="no host would take"):
        host.publish(release, at_least=manifest.LAST_SEQUENCE)
    assert 1 == host.published().sequence
    assert "unchanged" == host.publish(release).result


def test_a_manifest_that_hosts_would_not_read_is_not_signed(host: Publisher) -> None:
    """A list of revoked leaves that has grown too long says so; what is published stays."""
    release = host.issue()
    host.publish(release)
    with pytest.raises(ManifestInvalid, match="larger than hosts read") as caught:
        host.publish(release, revoke=tuple(f"{number:064x}" for number in range(1000)))
    assert "1,000 leaves held off or revoked" in caught.value.report()
    assert (1, ()) == (host.published().sequence, host.published().revoked)


def test_a_thief_who_counted_to_the_end_is_forgotten(host: Publisher) -> None:
    """With another signing key, without the record and without the manifest, publishing begins anew."""
    release = host.issue()
    host.publish(release)
    last = replace(host.published(), sequence=manifest.LAST_SEQUENCE, expires=host.now + DAY)
    host.store.put(POINTER, signing.sign(manifest.write(last), host.signer.signing_key))
    host.publish(release)  # dates it anew, as its own
    other = host_identity.make(host.folder / "spare", "spare")
    host.signer = replace(
        host.signer,
        signing_key=other.path,
        working=other.public,
        pinned=(other.public,),
        former=host.signer.working,
    )
    host.now += DAY
    renewed = host.issue()
    with pytest.raises(ManifestInvalid, match="no host would take"):
        host.publish(renewed)
    (host.signer.folder / "example.test.json").unlink()
    host.store.delete(POINTER)
    assert "published" == host.publish(renewed).result
    assert 1 == host.published().sequence


def test_a_restored_host_goes_beyond_the_stores_sequence(host: Publisher, tmp_path: Path) -> None:
    """A renewal host restored from an old backup never uses a number a second time."""
    host.publish(host.issue())
    backup = (host.signer.folder / "example.test.json").read_bytes()
    for _ in range(3):
        host.now += DAY
        host.publish(host.issue())
    (host.signer.folder / "example.test.json").write_bytes(backup)
    host.now += DAY
    host.publish(host.issue())
    assert 5 == host.published().sequence


def test_a_sequence_is_used_up_before_it_is_published(host: Publisher) -> None:
    """A crash between the record and the bucket never lets one number stand for two manifests."""
    first = host.issue()
    host.publish(first)
    host.now += DAY
    second = host.issue()
    with pytest.raises(StoreUnreachable):
        host.publish(second, Cut(host.store, 3))  # type: ignore[arg-type]  # chain, sealed key, manifest
    host.now += DAY
    host.publish(host.issue())
    assert 3 == host.published().sequence


# -- stepping back


def test_a_step_back_holds_the_newer_release_off(host: Publisher) -> None:
    """`renew` keeps the older release published and dated, without failing, until something newer comes."""
    first = host.issue()
    host.publish(first)
    host.now += DAY
    second = host.issue()
    host.publish(second)
    assert "stepped back" == host.step_back(first).result
    back = host.published()
    assert (first.leaf, True, (second.leaf.sha256,)) == (back.leaf, back.step_back, back.held_off)
    assert "unchanged" == host.publish(second).result
    host.now += 4 * DAY
    assert "re-dated" == host.publish(second).result
    assert first.leaf == host.published().leaf
    third = host.issue()
    host.publish(third)
    forward = host.published()
    assert (third.leaf, False, (second.leaf.sha256,)) == (forward.leaf, forward.step_back, forward.held_off)


def test_a_step_back_to_a_held_off_release_frees_it(host: Publisher) -> None:
    """Changing one's mind works in both directions."""
    first = host.issue()
    host.publish(first)
    host.now += DAY
    second = host.issue()
    host.publish(second)
    host.step_back(first)
    host.step_back(second)
    assert (second.leaf, (first.leaf.sha256,)) == (host.published().leaf, host.published().held_off)


def test_a_step_back_needs_the_old_release_on_this_host(host: Publisher) -> None:
    """What this host has no key of cannot be sealed to anybody; what is published stays."""
    host.publish(host.issue())
    with pytest.raises(LineageUnusable, match="not on this host"):
        host.releases().step_back("b" * 64, now=host.now)


def test_a_revoked_release_is_never_published(host: Publisher) -> None:
    """Neither by renewing nor by stepping back; nor can the current one be revoked without a successor."""
    first = host.issue()
    host.publish(first)
    host.now += DAY
    second = host.issue()
    host.publish(second, revoke=(first.leaf.sha256,))
    with pytest.raises(LineageUnusable, match="revoked"):
        host.step_back(first)
    with pytest.raises(LineageUnusable, match="revoked"):
        host.publish(second, revoke=(second.leaf.sha256,))
    assert second.leaf == host.published().leaf


def test_held_off_releases_stay_in_the_store(host: Publisher) -> None:
    """Retention never takes what somebody may want to go forward to again."""
    first, second = host.issue(), None
    host.publish(first)
    host.now += DAY
    second = host.issue()
    host.publish(second)
    host.step_back(first)
    for _ in range(KEPT_RELEASES + 1):
        host.now += DAY
        host.publish(host.issue())
    kept = {key.split("/")[3] for key in host.store.list("certs/example.test/releases/")}
    assert second.leaf.sha256 in kept
    assert first.leaf.sha256 not in kept


# -- who can read


def test_nothing_in_the_store_is_a_private_key(host: Publisher) -> None:
    """Whoever reads the whole bucket finds no key that is not sealed."""
    release = host.issue()
    host.publish(release)
    bodies = [host.store.get(key, limit=manifest.FILE_LIMIT) for key in host.store.list("")]
    assert bodies
    assert not any(b"PRIVATE KEY" in found.body for found in bodies if isinstance(found, Object))


def test_a_host_that_is_enrolled_later_gets_the_current_key(host: Publisher) -> None:
    """The next `renew` seals what is missing, with the key that this host keeps, and nothing else changes."""
    release = host.issue()
    host.publish(release)
    host.enrol("web2")
    assert ("web2",) == host.publish(release).sealed_to
    assert release.privkey == host.opened_by("web2", release)


def test_adding_a_host_seals_at_once_also_after_a_step_back(host: Publisher) -> None:
    """The key of whichever release is published is found by its leaf."""
    first = host.issue()
    host.publish(first)
    host.now += DAY
    host.publish(host.issue())
    host.step_back(first)
    host.enrol("web2")
    done = host.releases().seal_to(frozenset({"web2"}))
    assert done is not None
    assert ("web2",) == done.sealed_to
    assert first.privkey == host.opened_by("web2", first)


def test_enrolling_again_puts_a_damaged_sealed_key_right(host: Publisher) -> None:
    """What a host reports as SEALED is mended by the command that its report names."""
    release = host.issue()
    host.publish(release)
    (key,) = host.store.list(sealing.sealed_prefix("example.test", release.leaf.sha256))
    host.store.put(key, b"damaged")
    host.releases().seal_to(frozenset({"web1"}))
    assert release.privkey == host.opened_by("web1", release)


def test_a_host_that_left_the_list_is_left_out(host: Publisher) -> None:
    """Its sealed keys go with the next run, of kept releases too, and the next one has none for it."""
    host.enrol("web2")
    former = host.issue()
    host.publish(former)
    host.now += DAY
    release = host.issue()
    host.publish(release)
    host.remove("web2")
    host.publish(release)
    assert ["web1"] == host.sealed_keys(release) == host.sealed_keys(former)
    host.now += DAY
    renewed = host.issue()
    host.publish(renewed)
    assert ["web1"] == host.sealed_keys(renewed)


def test_removing_a_host_takes_its_keys_of_all_releases(host: Publisher) -> None:
    """And only its own: a host whose name begins alike keeps its key."""
    for name in ("web2", "web2.example", "web22"):
        host.enrol(name)
    first = host.issue()
    host.publish(first)
    host.now += DAY
    second = host.issue()
    host.publish(second)
    host.remove("web2")
    assert take_away(WANTED, host.store, host.signer.folder, "web2")
    for release in (first, second):
        assert ["web1", "web2.example", "web22"] == sorted(host.sealed_keys(release))


def test_a_new_identity_gets_a_new_sealed_key(host: Publisher) -> None:
    """One object for each host: what was sealed to a lost identity does not lie about."""
    release = host.issue()
    host.publish(release)
    (host.folder / "identity-web1").unlink()
    host.enrol("web1")
    host.publish(release)
    assert ["web1"] == host.sealed_keys(release)
    assert release.privkey == host.opened_by("web1", release)


def test_a_key_that_this_host_has_lost_is_an_alarm(host: Publisher) -> None:
    """A restored renewal host says that it cannot seal the published release, and what to do."""
    first = host.issue()
    host.publish(first)
    host.now += DAY
    second = host.issue()
    host.publish(second)
    host.step_back(first)
    host.enrol("web2")
    (host.folder_of(first) / "privkey.pem").unlink()
    with pytest.raises(IssuedUnusable, match=first.version):
        host.publish(second)
    host.lose(first)
    with pytest.raises(LineageUnusable, match="private key of the published release is not on this host"):
        host.publish(second)


def test_every_release_is_sealed_to_the_recovery_kit(host: Publisher) -> None:
    """What opens with the kit is the key of the release."""
    import pyrage

    kit = pyrage.x25519.Identity.generate()
    host.signer = replace(host.signer, recovery=str(kit.to_public()))
    release = host.issue()
    assert ("web1", "recovery") == host.publish(release).sealed_to
    recipient = Recipient.of_kit(str(kit.to_public()))
    found = host.store.get(recipient.object_key("example.test", release.leaf.sha256), limit=sealing.LIMIT)
    assert isinstance(found, Object)
    assert release.privkey == pyrage.decrypt(found.body, [kit])


def test_while_no_host_is_enrolled_every_run_warns(host: Publisher) -> None:
    """A release that opens with nothing but the recovery kit reaches no host; one host is enough."""
    import pyrage

    host.signer = replace(host.signer, recovery=str(pyrage.x25519.Identity.generate().to_public()))
    host.signer.hosts_file.write_text("")
    assert any("no host is enrolled" in line for line in host.publish(host.issue()).warnings)
    host.enrol("web2")
    assert () == host.publish(host.issue()).warnings


def test_without_a_kit_every_run_warns(host: Publisher) -> None:
    """Until there is one, losing this host means to set up all others anew."""
    assert any("no recovery kit" in line for line in host.publish(host.issue()).warnings)


def test_keys_lie_open_only_where_somebody_chose_that(host: Publisher) -> None:
    """With encryption = "none" the key is readable; sealing afterwards takes it away, and says so."""
    host.signer = replace(host.signer, encryption="none")
    release = host.issue()
    host.publish(release)
    key = manifest.release_key("example.test", release.leaf.sha256, manifest.PRIVKEY)
    assert key in host.store.list("")
    host.signer = replace(host.signer, encryption="age")
    done = host.publish(release)
    assert key not in host.store.list("")
    assert any("lay open" in line for line in done.warnings)
    assert release.privkey == host.opened_by("web1", release)


def test_a_strangers_object_as_open_key_is_overwritten(host: Publisher) -> None:
    """With encryption = "none", too, nobody who may write to the bucket ends the publisher's runs."""
    host.signer = replace(host.signer, encryption="none")
    release = host.issue()
    key = manifest.release_key("example.test", release.leaf.sha256, manifest.PRIVKEY)
    host.store.put(key, b"x" * 5000)
    host.publish(release)
    found = host.store.get(key, limit=5000)
    assert isinstance(found, Object)
    assert release.privkey == found.body


@pytest.mark.parametrize(
    "name", ["odd name/privkey.pem", "keys/web1 copy.age", "keys/web2.0123456789abcdef.age "]
)
def test_odd_objects_beside_ours_stop_nothing(host: Publisher, name: str) -> None:
    """Whoever may write to the bucket, or clicks in its console, ends no run of the publisher."""
    release = host.issue()
    host.publish(release)
    key = manifest.release_key("example.test", release.leaf.sha256, name)
    obstore.put(host.store._inner, key, b"theirs")  # type: ignore[attr-defined]
    host.enrol("web2")
    assert ("web2",) == host.publish(release).sealed_to
    assert take_away(WANTED, host.store, host.signer.folder, "web2", key=host.hosts["web2"].public)
    assert b"theirs" == bytes(obstore.get(host.store._inner, key).bytes())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["keys/web2.0123456789abcdef.age", "privkey.pem"])
def test_an_undeletable_object_keeps_no_release_back(host: Publisher, name: str) -> None:
    """What should be gone from the bucket and is not is an alarm, after the new release was published."""
    host.publish(host.issue())
    foreign = manifest.release_key("example.test", "0" * 64, name)
    host.store.put(foreign, b"theirs")
    host.store.put(foreign.replace("0", "1"), b"theirs")
    host.now += DAY
    release = host.issue()
    done = host.publish(release, Undeletable(host.store, foreign))  # type: ignore[arg-type]
    assert release.leaf == host.published().leaf
    assert isinstance(done.alarm, StoreDenied)
    assert [foreign] == [key for key in host.store.list("") if "0" * 32 in key or "1" * 32 in key]
    assert host.publish(release).alarm is None
    assert foreign not in host.store.list("")


@pytest.mark.parametrize("new", [False, True], ids=["the same host", "a new host"])
def test_a_flood_of_objects_keeps_no_release_back(host: Publisher, tmp_path: Path, new: bool) -> None:
    """Whoever fills the bucket until listing it takes too long delays no release; somebody is told."""
    host.publish(host.issue())
    publisher = host
    if new:
        publisher = Publisher(tmp_path / "new", host.store)
        publisher.signer = replace(publisher.signer, pinned=(publisher.signer.working, host.signer.working))
    publisher.now = host.now + DAY
    release = publisher.issue()
    done = publisher.publish(release, Overfull(host.store))  # type: ignore[arg-type]
    assert (release.leaf, 2) == (publisher.published().leaf, publisher.published().sequence)
    assert isinstance(done.alarm, StoreUnreachable)


def test_a_flood_in_the_current_release_stops_nothing(host: Publisher) -> None:
    """
    Whoever floods what is published now keeps this host neither from revoking, nor from dating it anew, nor
    from sealing it to who lacks it; somebody is told.
    """
    release = host.issue()
    host.publish(release)
    flooded = Overfull(host.store, manifest.release_key("example.test", release.leaf.sha256, "keys/"))
    host.enrol("web2")
    host.store.put(host.sealed_key("web2", release), b"x" * 100_000)
    done = host.publish(release, flooded, revoke=("a" * 64,))  # type: ignore[arg-type]
    assert ("web2",) == done.sealed_to
    assert ("a" * 64,) == host.published().revoked
    assert isinstance(done.alarm, StoreUnreachable)
    host.now += 4 * DAY
    assert "re-dated" == host.publish(release, flooded, revoke=("a" * 64,)).result  # type: ignore[arg-type]


def test_objects_of_before_the_publication_do_not_count(host: Publisher) -> None:
    """Who puts something in the place of a host's sealed key first keeps no host from the new release."""
    host.publish(host.issue())
    host.now += DAY
    release = host.issue()
    host.store.put(host.sealed_key("web1", release), b"theirs")
    assert ("web1",) == host.publish(release).sealed_to
    assert release.privkey == host.opened_by("web1", release)


def test_a_flood_of_objects_is_cleared_in_parts(host: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fills the bucket holds no run up for hours; each takes a part away, old releases at the end."""
    monkeypatch.setattr(sealed_keys, "AT_ONCE", 10)
    for _ in range(KEPT_RELEASES):
        host.publish(host.issue())
        host.now += DAY
    for number in range(15):
        host.store.put(f"certs/example.test/releases/{number:064x}/keys/web9.0123456789abcdef.age", b"theirs")
    release = host.issue()
    host.publish(release)
    assert 5 == len([key for key in host.store.list("") if "/keys/web9." in key])
    host.publish(release)
    kept = {key.split("/")[3] for key in host.store.list("certs/example.test/releases/")}
    assert KEPT_RELEASES == len(kept)


# -- who signs


def test_a_manifest_by_another_key_keeps_its_sequence(host: Publisher) -> None:
    """After the working key was exchanged, hosts see the same release with the new key's signature."""
    release = host.issue()
    host.publish(release)
    before = host.published()
    spare = host_identity.make(host.folder / "spare", "spare")
    host.signer = replace(
        host.signer, signing_key=spare.path, working=spare.public, pinned=(spare.public, host.signer.working)
    )
    host.publish(release)
    assert before.same_release(host.published())


def test_an_exchange_after_a_failed_publication_is_no_alarm(host: Publisher) -> None:
    """
    What the former key had signed before the bucket could not be written is this host's own; after the next
    publication anything else by that key is somebody's.
    """
    first = host.issue()
    host.publish(first)
    before = host.store.get(POINTER, limit=manifest.LIMIT)
    assert isinstance(before, Object)
    host.now += DAY
    second = host.issue()
    with pytest.raises(StoreUnreachable):
        host.publish(second, Cut(host.store, 3))  # type: ignore[arg-type]  # chain, sealed key, manifest
    spare, former = host_identity.make(host.folder / "spare", "spare"), host.signer.working
    host.signer = replace(
        host.signer, signing_key=spare.path, working=spare.public, pinned=(spare.public,), former=former
    )
    assert host.publish(second).alarm is None
    assert (2, second.leaf) == (host.published().sequence, host.published().leaf)
    host.store.put(POINTER, before.body)
    assert isinstance(host.publish(second).alarm, SignatureInvalid)


def test_a_lost_answer_is_made_up_for_by_the_next_run(host: Publisher) -> None:
    """A manifest that arrived, though nobody said so, counts from the next run on: before it is an alarm."""
    host.publish(host.issue())
    before = host.store.get(POINTER, limit=manifest.LIMIT)
    assert isinstance(before, Object)
    host.now += DAY
    second = host.issue()
    host.publish(second)
    record = records.read(host.signer.folder, "example.test")
    records.write(host.signer.folder, "example.test", replace(record, arrived=False))
    assert "unchanged" == host.publish(second).result
    host.store.put(POINTER, before.body)
    assert isinstance(host.publish(second).alarm, ManifestReplayed)


def test_a_manifest_that_somebody_else_signed_is_put_right(host: Publisher) -> None:
    """Write access to the bucket is not enough to make this host go on from a stranger's manifest."""
    release = host.issue()
    host.publish(release)
    right = host.published()
    stranger = host_identity.make(host.folder / "stranger", "stranger")
    forged = manifest.write(replace(right, sequence=99))
    host.store.put(POINTER, signing.sign(forged, stranger.path))
    done = host.publish(release)
    assert "repaired" == done.result
    assert right == host.published()
    assert done.alarm is not None
    assert stranger.public.fingerprint in done.alarm.report()


def test_a_key_that_is_not_the_public_ones_signs_nothing(host: Publisher) -> None:
    """A signing key that was mixed up is noticed here, and not by the whole fleet."""
    other = host_identity.make(host.folder / "other", "other")
    host.signer = replace(host.signer, signing_key=other.path)
    with pytest.raises(SignatureInvalid):
        host.publish(host.issue())
    assert [] == [key for key in host.store.list("") if key == POINTER]


def test_without_a_signing_key_nothing_is_published(host: Publisher) -> None:
    """The error names the command that makes one."""
    host.signer.signing_key.unlink()
    with pytest.raises(SigningFailed) as caught:
        host.publish(host.issue())
    assert "certcast publisher init" in str(caught.value.next)
    assert POINTER not in host.store.list("")


def test_a_record_that_is_on_disk_today_is_read(host: Publisher) -> None:
    """An update forgets neither the sequence nor what may be deleted; 0.1 wrote no `arrived`."""
    host.publish(host.issue())
    path = host.signer.folder / "example.test.json"
    written = json.loads(path.read_text())
    assert ["sequence", "leaves", "manifest", "arrived"] == list(written)
    text = manifest.write(host.published()).decode()
    leaf = host.published().leaf.sha256
    path.write_text(json.dumps({"sequence": 7, "leaves": ["a" * 64, leaf], "manifest": text}))
    record = records.read(host.signer.folder, "example.test")
    assert records.Record(7, ("a" * 64, leaf), text, arrived=False) == record
    assert host.published() == record.last(host.store.url, "example.test")
    assert record.last("oss://elsewhere/tls", "example.test") is None
    records.write(host.signer.folder, "example.test", replace(record, arrived=True))
    assert {"sequence": 7, "leaves": ["a" * 64, leaf], "manifest": text, "arrived": True} == json.loads(
        path.read_text()
    )


@pytest.mark.parametrize(
    "damage", [{}, {"sequence": "7"}, {"leaves": None}, {"manifest": 1}, {"arrived": 1}, {"later": 1}]
)
def test_a_damaged_record_is_reported(host: Publisher, damage: dict[str, object]) -> None:
    """A sequence that cannot be read is never taken for none: it would be used twice."""
    good = {"sequence": 7, "leaves": [], "manifest": "", "arrived": True}
    path = host.signer.folder / "example.test.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**good, **damage} if damage else {}))
    with pytest.raises(LocalFault, match="is damaged"):
        records.read(host.signer.folder, "example.test")
