"""Somebody may write anything to the bucket, and gets nothing installed.

Mallory has a key to the bucket, every manifest that ever lay there, certificates of the same CA for names
of her own, a CA of her own, and the hosts' public keys, so that she can seal to them. She has no pinned
key. In some stories it is the publisher itself who was led to sign something odd.

Each story ends in a refusal with its own code; what is served is served on, by the same workers, no
version is new, and nothing is left of the attempt.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from by_hand import BEGIN
from certcast.config.model import AbsolutePath
from certcast.release import host_identity
from certcast.release.manifest import FILE_LIMIT, FULLCHAIN, LIMIT, Manifest, manifest_key, release_key, write
from certcast.release.sealing import LIMIT as SEALED_LIMIT
from certcast.release.sealing import Recipient, seal
from certcast.report.errors import (
    CertcastError,
    DigestMismatch,
    GateRefused,
    ManifestExpired,
    ManifestInvalid,
    ManifestMissing,
    ManifestReplayed,
    NotEnrolled,
    SealedInvalid,
    SignatureInvalid,
    StoreTooLarge,
)
from certcast.storage.store import Object, Unchanged
from certcast_lab.serving.authority import Authority, Pair
from consuming import DAY, NAME, NAMES, Consumer, Wrapped, consumer
from publishing import Publisher, release

IN_WINDOW = DAY + timedelta(days=60)
OLD, SERVED, NEW = 4, 5, 6  # sequences


@dataclass
class Site:
    """A host that serves release A (sequence 5), its bucket, and Mallory. `old` is a manifest of before A."""

    web: Consumer
    mallory: Publisher
    old: bytes

    def repels(
        self, error: type[CertcastError], found: str = "", **pull: object
    ) -> pytest.ExceptionInfo[CertcastError]:
        """Pull in the window: it ends in `error` (that very class), and nothing has changed."""
        before = self._seen()
        with pytest.raises(CertcastError) as caught:
            self.web.pull(**{"now": IN_WINDOW, **pull})  # type: ignore[arg-type]
        refusal = caught.value
        assert error is type(refusal), refusal.report()
        assert found in f"{refusal.what}\n{refusal.found}", refusal.report()
        assert refusal.next
        assert before == self._seen()
        assert [] == self.web.leftovers()
        return caught

    def _seen(self) -> tuple[object, ...]:
        web = self.web
        return web.served(), web.workers(), web.versions(), web.folder.snippet.read_bytes()

    def publish_new(self, pair: Pair | None = None, **changes: object) -> Manifest:
        """Let the real publisher publish a good new release; return its manifest."""
        pair = self.web.publish("B", pair, sequence=NEW, **changes)
        return self.manifest(pair)

    def manifest(self, pair: Pair, **changes: object) -> Manifest:
        changes.setdefault("expires", DAY + timedelta(days=365))
        return release(self.web.store, NAME, pair, **{"sequence": NEW, "now": DAY, **changes})  # type: ignore[arg-type]

    def get(self, key: str) -> bytes:
        found = self.web.store.get(key, limit=10**6)
        assert isinstance(found, Object)
        return found.body

    def keys(self, manifest: Manifest) -> dict[str, str]:
        """Return the object keys of a release, by a word for each."""
        leaf = manifest.leaf.sha256
        web1, web2 = (one.object_key(NAME, leaf) for one in self.web.publisher.recipients)
        fullchain = release_key(NAME, leaf, FULLCHAIN)
        return {"manifest": manifest_key(NAME), "fullchain": fullchain, "sealed": web1, "web2": web2}

    def put_manifest(self, body: bytes) -> None:
        self.web.store.put(manifest_key(NAME), body)

    def seal_to_host(self, manifest: Manifest, privkey: bytes) -> None:
        """What everybody can do who knows the host's public key."""
        sealed = seal(privkey, self.web.publisher.recipients[0])
        self.web.store.put(self.keys(manifest)["sealed"], sealed)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One nginx for all stories: none of them changes what it serves."""
    folder = tmp_path_factory.mktemp("hostile")
    with consumer(folder) as web:
        web.publisher.enrol("web2", folder / "web2")
        web.publish("O", sequence=OLD, revoked=("cd" * 32,))
        old = web.store.get(manifest_key(NAME), limit=LIMIT)
        assert isinstance(old, Object)
        web.publish("A", sequence=SERVED)
        web.first_pull()
        (folder / "mallory").mkdir()
        mallory = Publisher(folder / "mallory")
        mallory.recipients = web.publisher.recipients
        yield Site(web, mallory, old.body)


@pytest.fixture
def site(standing: Site, tmp_path: Path) -> Iterator[Site]:
    """The same day again: bucket and state as they were before the story."""
    places = [standing.web.config.state_dir, Path(standing.web.store.url.removeprefix("file://"))]
    for number, place in enumerate(places):
        shutil.copytree(place, tmp_path / str(number), symlinks=True)
    config, sequence = standing.web.config, standing.web.sequence
    yield standing
    standing.web.config, standing.web.sequence = config, sequence
    for number, place in enumerate(places):
        shutil.rmtree(place)
        shutil.copytree(tmp_path / str(number), place, symlinks=True)


def test_a_good_release_is_taken(site: Site) -> None:
    """What is refused below is refused for what is wrong with it: a good release passes every check."""

    class Checked(Exception):
        pass

    def stop(step: str) -> None:
        if step == "checked":
            raise Checked

    site.publish_new()
    with pytest.raises(Checked):
        site.web.pull(IN_WINDOW, after=stop)


# -- who signed


def test_another_publishers_valid_release(site: Site) -> None:
    """A good release, well signed, of the right CA and sealed to this host: but not our publisher's."""
    site.mallory.publish(site.web.store, NAME, site.web.issue(days_ago=0), sequence=NEW, now=DAY)
    site.repels(SignatureInvalid, f"signed by another key: {site.mallory.public.fingerprint}")


def test_a_pinned_key_of_before_that_is_pinned_no_more(site: Site) -> None:
    """A publisher whose key was taken out of the configuration is believed no more, in anything."""
    assert "current" == site.web.pull(IN_WINDOW).result
    assert "current" == site.web.pull(IN_WINDOW, store=(asked := Wrapped(site.web.store))).result
    assert "manifest" in asked.unchanged  # with an ETag that still holds, a 304 must not hide the change
    store = replace(site.web.config.store, publishers=(site.mallory.public,))
    site.web.config = replace(site.web.config, store=store)
    site.repels(SignatureInvalid, "signed by another key")


def test_an_unsigned_manifest(site: Site) -> None:
    """A good manifest without its signature is nobody's."""
    site.put_manifest(write(site.publish_new()))
    site.repels(SignatureInvalid, "no SSH signature")


def test_the_signature_of_another_manifest(site: Site) -> None:
    """A genuine signature of ours, put below another text, is refused."""
    manifest = site.manifest(site.web.issue(days_ago=0))
    site.put_manifest(write(manifest) + site.old[site.old.index(BEGIN) :])
    site.repels(SignatureInvalid, "the text was changed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", 10**6),
        ("expires", "2099-01-01T00:00:00Z"),
        ("step_back", True),
        ("revoked", []),
        ("held_off", ["ab" * 32]),
        ("store", "oss://mallory"),
    ],
)
def test_a_field_changed_under_a_genuine_signature(site: Site, field: str, value: object) -> None:
    """A later sequence or expiry, a step back, no revoked leaf: with any change the signature is lost."""
    document, begin, armor = site.old.rpartition(BEGIN)
    changed = {**json.loads(document), field: value}
    site.put_manifest(json.dumps(changed, indent=2).encode() + b"\n" + begin + armor)
    site.repels(SignatureInvalid, "the text was changed")


def test_a_signature_of_ours_for_another_purpose(site: Site) -> None:
    """What the publisher's key has signed as a file or a commit is no manifest, though it reads like one."""
    document = write(site.manifest(site.web.issue(days_ago=0)))
    signed = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", site.web.publisher.signing_key],
        input=document,
        capture_output=True,
        check=True,
    )
    site.put_manifest(document + signed.stdout)
    site.repels(SignatureInvalid, "a signature for 'file'")


# -- nothing is parsed before it is verified

BOMBS = {
    "deep nesting": b"[" * 60_000,
    "nested objects": b'{"a":' * 10_000,
    "a number of 60,000 digits": b'{"sequence": ' + b"9" * 60_000 + b"}",
    "no UTF-8": b"\xff\xfe",
    "an object with 4,000 fields twice": b"{" + b'"a":1,"b":2,' * 4_000 + b'"c":3}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_not_parsed_unless_it_is_signed(site: Site, bomb: bytes) -> None:
    """Unsigned, or signed by Mallory, it never comes to a parser; signed by ours it ends in words there."""
    site.put_manifest(bomb + b"\n" + site.old[site.old.index(BEGIN) :])
    site.repels(SignatureInvalid, "the text was changed")
    site.put_manifest(site.mallory.sign(bomb + b"\n"))
    site.repels(SignatureInvalid, "signed by another key")
    site.put_manifest(site.web.publisher.sign(bomb + b"\n"))
    site.repels(ManifestInvalid, "cannot be used")


def test_a_chain_is_not_parsed_before_its_digest(site: Site) -> None:
    """A chain of Mallory's own never comes to an X.509 parser: its digest is another."""
    manifest = site.publish_new()
    site.web.store.put(site.keys(manifest)[FULLCHAIN.removesuffix(".pem")], b"-----BEGIN CERTIFICATE-----\nA")
    site.repels(DigestMismatch, FULLCHAIN)


# -- replay, freeze, mix-up


def test_an_old_manifest(site: Site) -> None:
    """An earlier manifest, genuine in every letter, is told from the current one by its sequence."""
    site.put_manifest(site.old)
    site.repels(ManifestReplayed, f"sequence {OLD}")


def test_an_old_manifest_after_the_state_is_lost(site: Site) -> None:
    """Without the state file the names of the version directories still know which sequence was served."""
    site.web.folder.state.unlink()
    site.put_manifest(site.old)
    site.repels(ManifestReplayed, f"sequence {OLD}")


def test_an_old_manifest_on_a_new_host(site: Site, tmp_path: Path) -> None:
    """A host that has seen nothing yet refuses what is older than its configuration says (`at_least`)."""
    certificate = replace(site.web.config.certificates[0], at_least=SERVED)
    fresh = replace(site.web.config, state_dir=tmp_path / "state", certificates=(certificate,))
    site.web.config, config = fresh, site.web.config
    site.put_manifest(site.old)
    with pytest.raises(ManifestReplayed, match="older manifest") as caught:
        site.web.pull(IN_WINDOW)
    assert f"sequence {SERVED} or higher, by at_least in [[certificate]]" == caught.value.expected
    site.web.config = config
    assert site.web.leaf("A") == site.web.served()


def test_the_current_manifest_as_it_was_before_it_was_renewed(site: Site) -> None:
    """Of one sequence, the copy that expires earlier is an old one: freezing a host with it is noticed."""
    earlier = site.manifest(site.web.pairs["A"], sequence=SERVED, expires=DAY + timedelta(days=99))
    site.web.publisher.point(site.web.store, earlier)
    site.repels(ManifestReplayed, "expires")


def test_a_store_that_says_unchanged_for_ever(site: Site) -> None:
    """Whoever answers "not modified" for ever freezes nobody in silence: what was accepted expires."""

    class Frozen(Wrapped):
        def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
            return Unchanged.UNCHANGED if unless else super().get(key, limit=limit)

    site.web.pull(IN_WINDOW)
    site.repels(ManifestExpired, store=Frozen(site.web.store), now=DAY + timedelta(days=366))


def test_two_manifests_of_one_sequence(site: Site) -> None:
    """A second release under a sequence that was seen is refused, though our publisher signed both."""
    site.web.publish("B", sequence=SERVED)
    site.repels(ManifestInvalid, f"two different manifests have sequence {SERVED}")


@pytest.mark.parametrize("change", ["revoked", "held_off", "step_back", "publisher"])
def test_the_same_leaf_of_one_sequence_with_another_field(site: Site, change: str) -> None:
    """Under one sequence nothing but the times may differ, also where the leaf is the same."""
    value: object = {"step_back": True, "publisher": "mallory"}.get(change, ("ab" * 32,))
    site.web.publish("A", site.web.pairs["A"], sequence=SERVED, **{change: value})
    site.repels(ManifestInvalid, f"two different manifests have sequence {SERVED}")


@pytest.mark.parametrize("other", ["oss://another/bucket", "{store}/prefix", "{store}/", "memory://test"])
def test_a_manifest_of_another_store(site: Site, other: str) -> None:
    """Our publisher's manifest for another bucket, or another prefix of this one, is not for this host."""
    url = other.format(store=site.web.store.url)
    site.web.publisher.point(site.web.store, replace(site.publish_new(), store=url))
    site.repels(ManifestInvalid, "written for another store")


@pytest.mark.parametrize("other", ["other.test", "www.example.test", "../example.test", "example.test/"])
def test_a_manifest_of_another_certificate(site: Site, other: str) -> None:
    """Our publisher's manifest for another certificate, copied to this one's place, is refused."""
    manifest = replace(site.publish_new(), certificate=other)
    site.put_manifest(site.web.publisher.sign(write(manifest)))
    site.repels(ManifestInvalid, "written for another certificate")


def test_a_rehearsals_release(site: Site) -> None:
    """A rehearsal at a staging CA, published by our own publisher, reaches no trusted root."""
    staging = Authority("Fake LE Intermediate", parent=Authority("Fake LE Root"))
    site.publish_new(staging.issue(*NAMES, not_before=DAY, not_after=DAY + timedelta(days=90)))
    site.repels(GateRefused, "no chain to a trusted root")


# -- chain and key


def test_a_valid_certificate_for_other_names(site: Site) -> None:
    """A certificate of the right CA for names of her own fits under no signature, not even ours."""
    pair = site.web.issue("mallory.test", "*.mallory.test", days_ago=0)
    site.mallory.publish(site.web.store, NAME, pair, sequence=NEW, now=DAY)
    site.repels(SignatureInvalid)
    site.publish_new(pair)
    site.repels(GateRefused, "does not hold example.test")


def test_a_certificate_of_an_untrusted_ca(site: Site) -> None:
    """The right names from a CA that no trusted root vouches for, even if our publisher signed it."""
    pair = Authority("Mallory").issue(*NAMES, not_before=DAY, not_after=DAY + timedelta(days=90))
    site.publish_new(pair)
    site.repels(GateRefused, "no chain to a trusted root")


def test_a_self_made_pair_sealed_to_the_host(site: Site) -> None:
    """Under a genuine manifest: her chain has another digest, and her key is not the certificate's."""
    own = Authority("Mallory").issue(*NAMES, not_before=DAY, not_after=DAY + timedelta(days=90))
    manifest = site.publish_new()
    site.seal_to_host(manifest, own.key_pem)
    site.repels(GateRefused, "privkey.pem is not the key of this certificate")
    site.web.store.put(site.keys(manifest)["fullchain"], own.fullchain_pem)
    site.repels(DigestMismatch, FULLCHAIN)


def test_a_self_made_pair_with_a_manifest_of_her_own(site: Site) -> None:
    """The same with a manifest that fits it, signed with a key of her own."""
    own = Authority("Mallory").issue(*NAMES, not_before=DAY, not_after=DAY + timedelta(days=90))
    site.mallory.publish(site.web.store, NAME, own, sequence=NEW, now=DAY)
    site.repels(SignatureInvalid)


def test_the_chain_of_another_release(site: Site) -> None:
    """The served release's chain under the new manifest has another digest."""
    longest = len(
        site.web.pairs["A"].fullchain_pem
    )  # signatures vary by an octet; a longer one is "too large"
    new = next(
        pair for pair in iter(lambda: site.web.issue(days_ago=0), None) if len(pair.fullchain_pem) >= longest
    )
    manifest = site.publish_new(new)
    served = site.keys(site.manifest(site.web.pairs["A"]))
    site.web.store.put(site.keys(manifest)["fullchain"], site.get(served["fullchain"]))
    site.repels(DigestMismatch, FULLCHAIN)


def test_the_sealed_key_of_another_release(site: Site) -> None:
    """The served release's sealed key, genuine and ours, is not the key of the new certificate."""
    manifest = site.publish_new()
    served = site.keys(site.manifest(site.web.pairs["A"]))
    site.web.store.put(site.keys(manifest)["sealed"], site.get(served["sealed"]))
    site.repels(GateRefused, "privkey.pem is not the key of this certificate")


def test_the_sealed_key_of_another_host(site: Site) -> None:
    """What is sealed to web2 does not open on web1."""
    keys = site.keys(site.publish_new())
    site.web.store.put(keys["sealed"], site.get(keys["web2"]))
    site.repels(SealedInvalid, "does not open")


@pytest.mark.parametrize("curve", ["SM2", "secp160r1", "sect163k1"])
def test_a_key_on_an_unknown_curve_sealed_to_the_host(site: Site, curve: str) -> None:
    """A private key of a kind that the library does not know ends in a report like any other wrong key."""
    odd = subprocess.run(
        ["openssl", "ecparam", "-name", curve, "-genkey", "-noout"], capture_output=True, check=True
    )
    site.seal_to_host(site.publish_new(), odd.stdout)
    site.repels(GateRefused, "it cannot be read")


def test_a_key_with_a_passphrase_sealed_to_the_host(site: Site) -> None:
    """A private key that nginx could not open is refused before nginx sees it."""
    pair = site.web.issue(days_ago=0)
    locked = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-passout", "pass:x"],
        input=pair.key_pem,
        capture_output=True,
        check=True,
    )
    site.seal_to_host(site.publish_new(pair), locked.stdout)
    site.repels(GateRefused, "it cannot be read")


@pytest.mark.parametrize("more", ["key", "fullchain"])
@pytest.mark.parametrize("first", [True, False])
def test_the_right_key_with_something_more_sealed_to_the_host(site: Site, more: str, first: bool) -> None:
    """
    Who has the right key (another host has it) and adds a key or a certificate of hers gets neither into
    privkey.pem, which other programs read as well.
    """
    pair, own = site.web.issue(days_ago=0), Authority("Mallory").issue(*NAMES, not_before=DAY)
    extra = own.key_pem if more == "key" else own.fullchain_pem
    site.seal_to_host(site.publish_new(pair), extra + pair.key_pem if first else pair.key_pem + extra)
    site.repels(GateRefused, "it cannot be read")


@pytest.mark.parametrize("by", ["another host's", "a key of Mallory's", "no key"])
def test_the_served_releases_sealed_key_exchanged(site: Site, by: str) -> None:
    """With nothing new to install, too, a host says at its next look that its sealed key is another."""
    manifest = site.manifest(site.web.pairs["A"])
    keys = site.keys(manifest)
    if by == "another host's":
        site.web.store.put(keys["sealed"], site.get(keys["web2"]))
    else:
        own = Authority("Mallory").issue(*NAMES, not_before=DAY).key_pem
        site.seal_to_host(manifest, own if by == "a key of Mallory's" else b"no key")
    site.repels(
        SealedInvalid, "does not open" if by == "another host's" else "is not the key of the published"
    )


class OneMoment(Wrapped):
    """A relay behind which all sealed keys share an ETag, as nginx makes it: of one size, written at once."""

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        if not key.endswith(".age"):
            return super().get(key, limit=limit, unless=unless)
        if unless == '"one moment"':
            return Unchanged.UNCHANGED
        found = super().get(key, limit=limit)
        return Object(found.body, '"one moment"') if isinstance(found, Object) else found


def test_etag_after_a_change_of_identity(site: Site, tmp_path: Path) -> None:
    """A host with a new identity opens what is sealed to that, whatever it knows of what was before."""
    store = OneMoment(site.web.store)
    assert "current" == site.web.pull(IN_WINDOW, store=store).result
    new = host_identity.make(tmp_path / "identity", "web1")
    recipient = Recipient.of_host(site.web.config.enrolled_as, new.public)
    leaf = site.manifest(site.web.pairs["A"]).leaf.sha256
    site.web.store.put(recipient.object_key(NAME, leaf), seal(b"no key", recipient))
    site.web.config = replace(site.web.config, identity=AbsolutePath(new.path))
    site.repels(SealedInvalid, "not the key of the published", store=store)


# -- objects that are none

BODIES = {
    "empty": b"",
    "a line feed": b"\n",
    "HTML": b"<!DOCTYPE html><html><body>Access denied by policy</body></html>\n",
    "gzip": bytes.fromhex("1f8b0800000000000003cb48cdc9c95728cf2fca49010085114a0d0b000000"),
    "zeros": bytes(1000),
}
TARGETS: dict[str, type[CertcastError]] = {
    "manifest": SignatureInvalid,
    "fullchain": DigestMismatch,
    "sealed": SealedInvalid,
}
TOO_LARGE = {"manifest": LIMIT + 1, "fullchain": FILE_LIMIT + 1, "sealed": SEALED_LIMIT + 1}
GONE: dict[str, type[CertcastError]] = {
    "manifest": ManifestMissing,
    "fullchain": DigestMismatch,
    "sealed": NotEnrolled,
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_object_that_is_something_else(site: Site, target: str, body: bytes) -> None:
    """Empty, blank, compressed, a proxy's page: each is refused as what it should have been."""
    site.web.store.put(site.keys(site.publish_new())[target], body)
    site.repels(TARGETS[target])


@pytest.mark.parametrize("target", TARGETS)
def test_an_oversized_object(site: Site, target: str) -> None:
    """An object that is larger than it may be is not read to its end."""
    site.web.store.put(site.keys(site.publish_new())[target], b"x" * TOO_LARGE[target])
    site.repels(StoreTooLarge)


@pytest.mark.parametrize("target", TARGETS)
def test_an_object_that_is_gone(site: Site, target: str) -> None:
    """A deleted object is named; what is served does not depend on the bucket."""
    site.web.store.delete(site.keys(site.publish_new())[target])
    site.repels(GONE[target])


# -- tricks with paths and texts, under our own publisher's signature

TRICKS: dict[str, tuple[dict[str, object], type[CertcastError]]] = {
    "a leaf that is a path": ({"leaf": {"sha256": "../../../../etc/certcast/identity"}}, ManifestInvalid),
    "a leaf that is a path of 64 letters": ({"leaf": {"sha256": "../" * 21 + "a"}}, ManifestInvalid),
    "a leaf in capitals": ({"leaf": {"sha256": "AB" * 32}}, ManifestInvalid),
    "a leaf with a line feed": ({"leaf": {"sha256": "ab" * 32 + "\n"}}, ManifestInvalid),
    "a file more": ({"files": {"../../../../tmp/x": {}}}, ManifestInvalid),
    "a private key with a digest": ({"files": {"privkey.pem": {}}}, ManifestInvalid),
    "names that are paths": ({"leaf": {"names": ["../../x", "/etc/passwd"]}}, GateRefused),
    "names for a shell": ({"leaf": {"names": ["$(id)", "`id`", "; reboot"]}}, GateRefused),
    "a name with an escape": ({"leaf": {"names": ["a\x1b[2J"]}}, ManifestInvalid),
    "a name with a line feed": ({"leaf": {"names": ["a\nkept     everything is well"]}}, ManifestInvalid),
    "a name with NUL": ({"leaf": {"names": ["example.test\0.mallory.test"]}}, ManifestInvalid),
    "a name written from right to left": ({"leaf": {"names": ["\u202etset.elpmaxe"]}}, ManifestInvalid),
    "a publisher with a line separator": ({"publisher": "renewal\u2028error: none"}, ManifestInvalid),
    "half a surrogate": ({"publisher": "\ud800"}, ManifestInvalid),
    "an endless name": ({"publisher": "x" * 1025}, ManifestInvalid),
    "a sequence beyond any other": ({"sequence": 2**64}, ManifestInvalid),
    "a sequence that is a text": ({"sequence": "6"}, ManifestInvalid),
    "a negative size": ({"files": {FULLCHAIN: {"size": -1}}}, ManifestInvalid),
    "a size without end": ({"files": {FULLCHAIN: {"size": 10**12}}}, ManifestInvalid),
    "the year 0": ({"expires": "0000-01-01T00:00:00Z"}, ManifestInvalid),
    "the year 10000": ({"expires": "10000-01-01T00:00:00Z"}, ManifestInvalid),
    "a format that is true": ({"format": True}, ManifestInvalid),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_in_a_signed_manifest(site: Site, trick: str) -> None:
    """Even signed by our own publisher, no text of a manifest becomes a path, a command or another line."""
    fields, error = TRICKS[trick]
    document = json.loads(write(site.publish_new()))
    for name, value in fields.items():
        nested = isinstance(value, dict)
        document[name] = {**document[name], **value} if nested else value  # type: ignore[dict-item]
    if trick in ("a negative size", "a size without end"):
        document["files"][FULLCHAIN] = {"md5": "a" * 32, "sha256": "a" * 64, **fields["files"][FULLCHAIN]}  # type: ignore[index]
    site.put_manifest(site.web.publisher.sign(json.dumps(document).encode() + b"\n"))
    caught = site.repels(error)
    report = caught.value.report()
    assert not set(report) & {"\x1b", "\u202e", "\u2028", "\0"}
    assert "\nkept     everything is well" not in report


def test_the_last_moment_of_the_calendar(site: Site) -> None:
    """An expiry at the end of the calendar, signed by our publisher, is a date like another: no overflow."""
    pair = site.web.issue(days_ago=0)._replace(key_pem=site.web.issue().key_pem)
    last = DAY.replace(year=9999, month=12, day=31, hour=23, minute=59, second=59)
    site.publish_new(pair, expires=last)
    site.repels(GateRefused, "privkey.pem is not the key of this certificate")
