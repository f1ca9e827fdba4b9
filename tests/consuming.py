"""A host with a real nginx, a store in a folder, and a CA: what stories about `pull` are told with.

with consumer(tmp_path) as web:          nginx serves a placeholder that certcast never saw
    web.publish("A"); web.first_pull()   released, staged, included by the operator, proved
    assert web.served() == web.leaf("A")
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from certcast.config.model import Config
from certcast.config.reading import load
from certcast.consumer.disk.versions import Folder
from certcast.consumer.outcome import Outcome
from certcast.consumer.state import State
from certcast.consumer.takeover import pull
from certcast.release import certificate
from certcast.report.errors import NotIncluded
from certcast.storage import open_store
from certcast.storage.store import Object, Store, Unchanged
from certcast_lab.serving.authority import Authority, Pair
from certcast_lab.web.host_kinds import namespaces_available
from certcast_lab.web.hosts import WebHost
from publishing import Publisher

NAME = "example.test"
NAMES = ("example.test", "*.example.test")
# A long-lived day for every story: certificates are issued around it, no clock is asked.
DAY = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


# For tests that have to do with nginx's version: they run with Debian's and with a current one (conftest.py).
on_both_nginx = pytest.mark.usefixtures("nginx_program")


def program(request: pytest.FixtureRequest) -> str:
    """Return which nginx a test runs: Debian's, or both in turn where it is marked `on_both_nginx`."""
    both = "nginx_program" in request.fixturenames
    return str(request.getfixturevalue("nginx_program")) if both else "nginx"


# A run that is a process of its own, on a day that the test chooses; it may end right after a step.
_RUN = """
import os, sys
from datetime import datetime
from pathlib import Path
from certcast.config import reading
from certcast.consumer.takeover import pull
from certcast.report.errors import CertcastError
from certcast.storage import open_store

path, now, step = sys.argv[1:]
here = reading.load(Path(path))
try:
    outcome = pull(
        here,
        here.certificates[0],
        open_store=lambda: open_store(here.store),
        now=datetime.fromisoformat(now),
        force=True,
        after=lambda done: os._exit(9) if done == step else None,
    )
    if outcome.alarm is not None:
        raise outcome.alarm
except CertcastError as error:
    print(error.report(), file=sys.stderr)
    sys.exit(error.exit_status)
print(outcome.text)
"""


@dataclass
class Consumer:
    """The host, its store, and the releases that were published, by the letter a test gave them."""

    host: WebHost
    config: Config
    store: Store
    publisher: Publisher
    root: Authority
    issuer: Authority
    sequence: int = 0
    pairs: dict[str, Pair] = field(default_factory=dict)
    progress: list[str] = field(default_factory=list)

    def issue(self, *names: str, days_ago: float = 1, life: float = 90, **options: Any) -> Pair:
        """Issue a pair whose life began `days_ago` before DAY, with its intermediate."""
        begin = DAY - timedelta(days=days_ago)
        end = begin + timedelta(days=life)
        return self.issuer.issue(*(names or NAMES), not_before=begin, not_after=end, **options)

    def publish(self, letter: str, pair: Pair | None = None, **changes: Any) -> Pair:
        """Publish a pair (a good new one, if none is given) under the next sequence."""
        self.sequence = changes.pop("sequence", self.sequence + 1)
        # Each is issued a second after the one before: "newer" is a later not_before.
        pair = pair or self.issue(days_ago=1 - self.sequence / 86400)
        changes.setdefault("now", DAY)
        changes.setdefault("expires", DAY + timedelta(days=365))
        self.publisher.publish(self.store, NAME, pair, sequence=self.sequence, **changes)
        self.pairs[letter] = pair
        return pair

    def pull(self, now: datetime = DAY, **options: Any) -> Outcome:
        """Run certcast's pull once; raise the alarm that it ends with, as the command does."""
        outcome = self.outcome(now, **options)
        if outcome.alarm is not None:
            raise outcome.alarm
        return outcome

    def outcome(
        self,
        now: datetime = DAY,
        *,
        store: Store | None = None,
        open_store: Callable[[], Store] | None = None,
        **options: Any,
    ) -> Outcome:
        """Run certcast's pull once; `store` stands before the real one, `open_store` opens it."""
        return pull(
            self.config,
            self.config.certificates[0],
            open_store=open_store or (lambda: store or self.store),
            now=now,
            progress=self.progress.append,
            **options,
        )

    def sealed_name(self) -> str:
        """Return the last part of the object key of what is sealed to this host."""
        return self.publisher.recipients[0].object_key(NAME, "leaf").rpartition("/")[2]

    def command(self, *, now: datetime = DAY, killed_at: str = "") -> list[str]:
        """Return the command of a forced run; it ends with 9, without clean-up, right after `killed_at`."""
        return [sys.executable, "-c", _RUN, str(self.host.certcast_toml), now.isoformat(), killed_at]

    def first_pull(self, **options: Any) -> Outcome:
        """What happens once on each host: staged, then the operator includes the snippet, then proved."""
        with pytest.raises(NotIncluded):
            self.pull(**options)
        self.host.include(self.folder.snippet)
        return self.pull(**options)

    def configure(self, **changes: Any) -> None:
        """Change fields of [consumer]."""
        assert self.config.consumer
        self.config = replace(self.config, consumer=replace(self.config.consumer, **changes))

    def copy_to(self, **entry: object) -> None:
        """Append an entry to the configuration file, where runs of their own read it, too."""
        lines = [f"{key} = {json.dumps(value, default=str)}" for key, value in entry.items()]
        toml = self.host.certcast_toml
        toml.write_text("\n".join([toml.read_text(), "[[consumer.copy_to]]", *lines, ""]))
        self.config = load(toml)

    def name_fixed_paths(self, pair: Pair | None = None) -> tuple[Path, Path]:
        """Let the site name files of its operator's, and copy_to write them; return both paths."""
        pair = pair or self.issue(days_ago=30)
        fullchain, privkey = pair.write(self.host.root / "etc/nginx/ssl")
        self.host.name_files(fullchain, privkey)
        self.reload(until=lambda: self.served() == sha256(pair))
        self.copy_to(fullchain=fullchain, privkey=privkey)
        return fullchain, privkey

    def workers(self) -> set[int]:
        """Return nginx's workers, without those that are shutting down: a reload shows on them."""
        return {pid for pid in self.host.workers() if b"worker process\0" in _title(pid)}

    def reload(self, *, until: Callable[[], bool]) -> None:
        """Reload as the operator does, and wait until it shows and the workers of before have gone."""
        before = self.workers()
        self.host.reload()
        deadline = time.monotonic() + 60
        while before & self.workers() or not until():
            assert time.monotonic() < deadline, "nginx did not reload"
            time.sleep(0.01)

    def leaf(self, letter: str) -> str:
        """Return the SHA-256 of a published leaf."""
        return sha256(self.pairs[letter])

    def served(self, name: str = "www.example.test") -> str:
        """Return the SHA-256 of the leaf that nginx serves."""
        return self.host.served(name).sha256

    @property
    def folder(self) -> Folder:
        """Where certcast keeps this certificate."""
        assert self.config.consumer
        return Folder(self.config.state_dir, NAME, self.config.consumer.nginx_of(NAME))

    @property
    def state(self) -> State:
        """What certcast remembers."""
        return State.read(self.folder.state)

    def versions(self) -> list[int]:
        """Return the sequences of the versions that are kept."""
        return sorted(sequence for sequence, _ in self.folder.list_versions().values())

    def leftovers(self) -> list[str]:
        """Return what a run must not leave behind."""
        expected = {"versions", "nginx.conf", "current", "state.json", "lock"}
        root = self.folder.root
        left = {path.name for path in root.iterdir()} - expected if root.exists() else set()
        return sorted(left | {path.name for path in self.folder.versions.glob(".*")})


# Mount and pid namespaces are given to root only, and not in every container or chroot.
needs_namespaces = pytest.mark.skipif(
    not namespaces_available(), reason="needs mount and pid namespaces: run as root of a machine"
)


def is_full_root() -> bool:
    """Return whether this process may be other users, too; root of `unshare -r` is itself alone."""
    # user_namespaces(7): first id inside, first id outside, how many.
    return os.geteuid() == 0 and int(Path("/proc/self/uid_map").read_text().split()[2]) > 1


def _title(pid: int) -> bytes:
    """Return what a process calls itself; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def sha256(pair: Pair) -> str:
    """Return the SHA-256 of a pair's leaf."""
    return certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf).sha256


def with_serial_zero(authority: Authority) -> bytes:
    """Return a root (PEM) with serial number 0, as some of the nineties have; its signature is wrong now."""
    der = ssl.PEM_cert_to_DER_cert(authority.pem.decode())
    # Certificate and TBSCertificate (each 30 82 and two octets of length), [0] version, then the serial.
    head, version, serial = der[:8], der[8:13], der[13 : 15 + der[14]]
    shorter = len(serial) - 3
    outer, inner = (int.from_bytes(head[at : at + 2], "big") - shorter for at in (2, 6))
    head = b"\x30\x82" + outer.to_bytes(2, "big") + b"\x30\x82" + inner.to_bytes(2, "big")
    return ssl.DER_cert_to_PEM_cert(head + version + b"\x02\x01\x00" + der[15 + der[14] :]).encode()


@contextlib.contextmanager
def consumer(
    folder: Path, *, listeners: int = 1, program: str = "nginx", host: WebHost | None = None
) -> Iterator[Consumer]:
    """Start nginx (`program` says which) with a placeholder; end it whatever happens. Or start `host`."""
    root = Authority("Test Root")
    (folder / "roots.pem").write_bytes(root.pem)
    (folder / "store").mkdir()
    host = host or WebHost(folder, "web1", names=NAMES, listeners=listeners, program=program)
    try:
        host.start()
        publisher = Publisher(folder)
        publisher.enrol("web1", folder / "identity")
        config = configuration(folder, host, publisher)
        yield Consumer(
            host, config, open_store(config.store), publisher, root, Authority("Test Issuer", parent=root)
        )
    finally:
        host.stop()


def configuration(folder: Path, host: WebHost, publisher: Publisher) -> Config:
    """Write the host's certcast.toml, and return what it says."""
    listeners = [f"127.0.0.1:{port}" for port in host.ports]
    host.certcast_toml.write_text(
        f"""\
host = "web1"
identity = "{folder}/identity"
state_dir = "{host.certcast_folder}"

[store]
publishers = ["{publisher.public.line}"]
url = "file://{folder}/store"

[[certificate]]
name = "{NAME}"
names = {json.dumps(NAMES)}

[consumer]
trust_roots = "{folder}/roots.pem"
proof_deadline = "5s"

[[consumer.nginx]]
test = {json.dumps(host.test_command)}
reload = {json.dumps(host.reload_command)}
pid_file = "{host.pid_file}"
listeners = {json.dumps(listeners)}
"""
    )
    return load(host.certcast_toml)


class Wrapped:
    """A store that is another one, but for what a subclass does to what is read."""

    def __init__(self, inner: Store, key_end: str = "") -> None:
        self.url = inner.url
        self.inner = inner
        self.key_end = key_end
        self.asked: list[str] = []
        self.unchanged: list[str] = []

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        self.asked.append(key.rpartition("/")[2])
        found = self.inner.get(key, limit=limit, unless=unless)
        if isinstance(found, Unchanged):
            self.unchanged.append(key.rpartition("/")[2])
        if isinstance(found, Object) and key.endswith(self.key_end):
            return self.changed(found)
        return found

    def changed(self, found: Object) -> Object | None:
        return found

    def put(self, key: str, body: bytes) -> str:
        return self.inner.put(key, body)

    def list(self, prefix: str) -> list[str]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def purge(self, key: str) -> bool:
        return self.inner.purge(key)


class Truncating(Wrapped):
    """The second half of the object is missing."""

    def changed(self, found: Object) -> Object | None:
        return replace(found, body=found.body[: len(found.body) // 2])


class Flipping(Wrapped):
    """One bit in the middle is another one."""

    def changed(self, found: Object) -> Object | None:
        middle = len(found.body) // 2
        flipped = bytes([found.body[middle] ^ 1])
        return replace(found, body=found.body[:middle] + flipped + found.body[middle + 1 :])


class Missing(Wrapped):
    """The object is not there."""

    def changed(self, found: Object) -> Object | None:
        return None


class Failing(Wrapped):
    """Every read fails."""

    def __init__(self, inner: Store, error: Exception) -> None:
        super().__init__(inner)
        self.error = error

    def changed(self, found: Object) -> Object | None:
        raise self.error
