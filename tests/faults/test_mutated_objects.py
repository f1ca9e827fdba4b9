"""A bucket in which everything may be another thing: nothing of it is accepted, and nothing crashes.

A genuine release is published; then one object of it is changed, a thousand times over (`--long`: ten
thousand), and each time a host pulls, by the very code that it always does. It is a host that
knows the least: no state, no version, only its pins and `at_least`. Accepted means that the run
came to the step "checked": from there on nginx would get the files.

The seeds are fixed; keys and certificates are new each time, so a failure shows the body as well.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import pytest

from certcast.config.model import Config
from certcast.config.reading import load
from certcast.consumer.disk.versions import Folder
from certcast.consumer.takeover import pull
from certcast.release.manifest import FULLCHAIN, manifest_key, release_key
from certcast.release.sealing import Recipient
from certcast.report.errors import CertcastError
from certcast.storage import open_store
from certcast.storage.store import Object, Store
from certcast_lab.serving.authority import Authority, Pair
from consuming import DAY, NAME, NAMES
from mutants import Bucket, Mutant, mutants
from publishing import Publisher

EACH = 1_000

# Which refusals an attack on each object may end in. That a code is missing here is a finding, too.
EXPECTED = {
    "manifest": {"SIGNATURE", "MANIFEST-MISSING", "MANIFEST-OLDER", "STORE-TOO-LARGE"},
    FULLCHAIN: {"PULL-DIGEST", "STORE-TOO-LARGE"},
    "sealed": {"SEALED", "NOT-ENROLLED", "PULL-GATE", "STORE-TOO-LARGE"},
}


class Accepted(Exception):
    """The run came to "checked"."""


@dataclass
class Host:
    """A host that has never pulled, and its bucket."""

    config: Config
    store: Store
    bucket: Bucket

    def pull(self) -> str:
        """Pull from the beginning; return the refusal's code, or "accepted"."""
        self.folder.state.unlink(missing_ok=True)
        try:
            pull(
                self.config,
                self.config.certificates[0],
                open_store=lambda: self.store,
                now=DAY,
                after=self._after,
            )
        except Accepted:
            return "accepted"
        except CertcastError as refusal:
            return refusal.code if refusal.next else f"{refusal.code} without a next step"
        return "a run that refused nothing"

    def _after(self, step: str) -> None:
        if step == "checked":
            raise Accepted

    def pull_with(self, mutant: Mutant) -> str:
        """Pull with one object changed, and put the genuine one back."""
        genuine = self.store.get(mutant.key, limit=10**6)
        assert isinstance(genuine, Object)
        if mutant.body is None:
            self.store.delete(mutant.key)
        else:
            self.store.put(mutant.key, mutant.body)
        try:
            return self.pull()
        finally:
            self.store.put(mutant.key, genuine.body)

    def leftovers(self) -> list[str]:
        """Return what a refused run must not leave."""
        return sorted({path.name for path in self.folder.root.iterdir()} - {"lock", "state.json"})

    @property
    def folder(self) -> Folder:
        """Where certcast keeps this certificate."""
        assert self.config.consumer
        return Folder(self.config.state_dir, NAME, self.config.consumer.nginx_of(NAME))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    folder = tmp_path_factory.mktemp("mutated")
    root = Authority("Test Root")
    issuer = Authority("Test Issuer", parent=root)
    (folder / "roots.pem").write_bytes(root.pem)
    publisher, config = Publisher(folder), folder / "certcast.toml"
    publisher.enrol("web1", folder / "identity")
    publisher.enrol("web2", folder / "web2")
    config.write_text(
        f"""\
host = "web1"
identity = "{folder}/identity"
state_dir = "{folder}/state"
store = {{ url = "memory://{folder}", publishers = ["{publisher.public.line}"] }}
certificate = [{{ name = "{NAME}", names = {list(NAMES)}, at_least = 2 }}]
consumer = {{ trust_roots = "{folder}/roots.pem", nginx = [{{ listeners = ["127.0.0.1:1"] }}] }}
"""
    )
    loaded = load(config)
    store = open_store(loaded.store)

    def issue(authority: Authority, seconds: int) -> Pair:
        begin = DAY - timedelta(days=1) + timedelta(seconds=seconds)
        return authority.issue(*NAMES, not_before=begin, not_after=begin + timedelta(days=90))

    def body(key: str) -> bytes:
        found = store.get(key, limit=10**6)
        assert isinstance(found, Object)
        return found.body

    releases = []
    for sequence in (1, 2):
        manifest = publisher.publish(store, NAME, issue(issuer, sequence), sequence=sequence, now=DAY)
        leaf = manifest.leaf.sha256
        keys = [manifest_key(NAME), release_key(NAME, leaf, FULLCHAIN)]
        keys += [recipient.object_key(NAME, leaf) for recipient in publisher.recipients]
        releases.append([(key, body(key)) for key in keys])
    older, current = releases
    manifest_, fullchain, sealed, crossed = [
        (key, now, then) for (key, now), (_, then) in zip(current, older, strict=True)
    ]
    bucket = Bucket(
        manifest=manifest_,
        fullchain=fullchain,
        sealed=sealed,
        crossed=crossed[1],
        host=Recipient("web1", publisher.recipients[0].age, publisher.recipients[0].recipient16),
        foreign_pair=issue(Authority("Somebody"), 3),
        publisher_private=publisher.signing_key.read_bytes(),
    )
    return Host(loaded, store, bucket)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(10 if metafunc.config.getoption("--long") else 1))


def test_the_genuine_release_is_accepted(host: Host) -> None:
    """What was published, unchanged, passes every check: what the others are refused for is their change."""
    assert "accepted" == host.pull()


def test_nothing_changed_is_accepted_and_nothing_crashes(host: Host, seed: int) -> None:
    """
    A thousand changed objects for each seed, noise and forgeries: every one is refused with a code of its
    own, no run ends in anything but a report, and no staged file or version stays behind.
    """
    counts: dict[str, Counter[str]] = {which: Counter() for which in EXPECTED}
    unexpected = []
    for mutant in mutants(random.Random(seed), host.bucket, EACH):
        which = mutant.key.rpartition("/")[2]
        which = which if which in EXPECTED else "sealed"
        code = host.pull_with(mutant)
        counts[which][code] += 1
        if code not in EXPECTED[which]:
            unexpected.append((code, mutant.how, mutant.body))
        assert [] == host.leftovers()
    for which, codes in counts.items():  # shown with -s, and with a failure
        shown = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        print(f"seed {seed}, {which}: {shown}")  # noqa: T201
    assert [] == unexpected
    assert EACH == sum(codes.total() for codes in counts.values())
    seen = set().union(*counts.values())
    assert {"SIGNATURE", "MANIFEST-OLDER", "PULL-DIGEST", "PULL-GATE", "SEALED", "NOT-ENROLLED"} <= seen
    assert "accepted" == host.pull()
