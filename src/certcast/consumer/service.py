"""Put a version into service on every nginx of this host, or leave the one that serves.

    copies → switch → `nginx -t` → handshakes before → reload → proof
       └───────┴─────────┴──────────────────────────────┴──> the way back

When to go back, and when not:
- the test or the reload fails, or a handshake that worked is broken: the snippet names
  the previous version again, and whatever was reloaded is reloaded once more.
- the old certificate is merely *still* shown: no way back. The new pair has passed every
  check and nobody is worse off than before, but going back would take it from the
  listeners that have it. The run fails, and says what is likely to be the matter.
- nginx does not run: no way back either. The test has passed, and the host may be waiting
  for this very file in order to start.
- there is nothing to go back to: a host's first version stays where it is. Taking
  the snippet away would leave an `include` that leads nowhere, which nginx refuses.
  Copies always have a way back: something, or nothing, stood there before.

Not here: whether the pair may be served at all (gate.py), and remembering that it is (pull.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast.config import Address
from certcast.consumer import copies, nginx, proof
from certcast.errors import CertcastError, InstallError, NotIncluded, NotProved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certcast.config import ConsumerConfig, NginxConfig
    from certcast.consumer.copies import Copies
    from certcast.consumer.install import Folder
    from certcast.consumer.nginx import Worker
    from certcast.consumer.proof import Shown, Target, Verdict


class HandshakesBroke(NotProved):
    """The release broke handshakes that had worked, and was taken back."""


@dataclass(frozen=True)
class Change:
    """What is to happen: which version follows which (directory names), and its leaf's SHA-256.

    `key_types` are that of the proved key (None if there is none) and that of the new one.
    """

    folder: Folder
    copies: Copies
    version: str
    previous: str | None
    release: str
    key_types: tuple[str | None, str | None] = (None, None)

    @property
    def has_way_back(self) -> bool:
        """Whether anything would be as before if it were undone."""
        return self.previous is not None or bool(self.copies.entries)


@dataclass
class _Done:
    """How far the change got: what the way back has to undo."""

    before: dict[Target, Shown] = field(default_factory=dict)
    reloaded: list[NginxConfig] = field(default_factory=list)


def put_into_service(
    change: Change, consumer: ConsumerConfig, names: tuple[str, ...], *, after: Callable[[str], None]
) -> tuple[str, ...]:
    """Switch, test, reload and prove; return where the release was seen, as texts.

    Raises NginxRefused, NginxMissing, ReloadFailed, NotIncluded, HandshakesBroke and
    NotProved, with what the snippet names now in `kept`; LocalFault if a copy cannot be
    written; OSError.
    """
    with change.copies.replaced(change.version):
        return _put_into_service(change, consumer, names, after=after)


def _put_into_service(
    change: Change, consumer: ConsumerConfig, names: tuple[str, ...], *, after: Callable[[str], None]
) -> tuple[str, ...]:
    folder, done = change.folder, _Done()
    folder.switch(change.version)
    after("snippet")
    folder.point_current(change.version)
    after("current")
    with _way_back(change, done, consumer):
        for server in consumer.nginx:
            nginx.test(server)
    if change.previous is None:
        _require_included(change, consumer)
    after("tested")
    with _staying(change):
        workers = _workers(consumer)
    done.before = proof.handshakes(proof.targets(_listeners(consumer), names))
    with _way_back(change, done, consumer):
        for server in consumer.nginx:
            nginx.reload(server)
            done.reloaded.append(server)
        after("reloaded")
        verdict = proof.prove(
            done.before,
            release=change.release,
            ours=[leaf for _, leaf in folder.held().values()],
            workers=workers,
            seconds=consumer.proof_deadline,
        )
        if verdict.broken and change.has_way_back:
            raise _broke(change, verdict)
    if not verdict.proved:
        change.copies.keep()
        raise _not_proved(change, consumer, verdict)
    return tuple(str(target) for target in verdict.shown)


def _require_included(change: Change, consumer: ConsumerConfig) -> None:
    """Raise NotIncluded if an nginx says that it reads neither the snippet nor a copy.

    Asked for a host's first version only: `nginx -T` costs as much as the test, and later
    the handshakes tell.
    """
    folder = change.folder
    for server in consumer.nginx:
        if nginx.includes(server, folder.snippet) is False and not _names_a_copy(server, change):
            change.copies.keep()  # the site that is about to name them must find them
            raise NotIncluded(
                f"{folder.certificate}: the certificate is here, but no site of nginx includes it yet",
                expected=f"include {folder.snippet};"
                + ("\nor an ssl_certificate that copy_to writes" if change.copies.entries else ""),
                found=f"`{' '.join(server.test)}` does not read that file",
                kept="staged; what nginx serves was not touched",
                next=f"in each server block of {folder.certificate}\n"
                f"add     include {folder.snippet};\n"
                "remove  its ssl_certificate and ssl_certificate_key lines\n"
                f"then run `certcast pull {folder.certificate}`",
            )


def _names_a_copy(server: NginxConfig, change: Change) -> bool:
    """Whether a site of this nginx names a target of copy_to; also if its files are past our reading."""
    if not change.copies.entries:
        return False
    try:
        found = nginx.examine(server)
    except ValueError:
        return True  # the handshakes will tell
    named = {certificate.path for site in found.servers for certificate in site.certificates} if found else ()
    return any(str(path) in named for path in copies.targets(change.copies.entries))


def _listeners(consumer: ConsumerConfig) -> list[Address]:
    return [
        listener.address
        for server in consumer.nginx
        for listener in server.listeners
        if isinstance(listener.address, Address)
    ]


def _workers(consumer: ConsumerConfig) -> tuple[Worker, ...]:
    return tuple(worker for server in consumer.nginx for worker in nginx.workers(server))


# -- the way back


@contextlib.contextmanager
def _staying(change: Change) -> Iterator[None]:
    try:
        yield
    except InstallError as error:
        change.copies.keep()
        error.kept = f"version {change.version} is in place and passed the test; nginx will start with it"
        raise


@contextlib.contextmanager
def _way_back(change: Change, done: _Done, consumer: ConsumerConfig) -> Iterator[None]:
    """Undo the change if what is inside fails; the first failure stays the one that is raised."""
    try:
        yield
    except InstallError as error:
        error.kept = _go_back(change, done, consumer.proof_deadline)
        raise


def _go_back(change: Change, done: _Done, seconds: float) -> str:
    """Let the snippet name the previous version again; return how that went."""
    previous = change.previous
    if not change.has_way_back:
        return f"version {change.version} stays in the snippet, since there is no earlier one"
    back = "copies put back" if previous is None else f"switched back to version {previous}"
    try:
        change.copies.put_back()
        if previous is not None:
            change.folder.switch(previous)
            change.folder.point_current(previous)
        if not done.reloaded:
            return f"{back}; nginx was not reloaded"
        workers = tuple(worker for server in done.reloaded for worker in nginx.workers(server))
        for server in done.reloaded:
            nginx.reload(server)
        proof.wait_for_retirement(workers, seconds)
        lost = proof.lost(done.before, proof.handshakes(done.before))
    except (CertcastError, OSError) as second:
        where = f"version {previous}" if previous else "the copies of before"
        return f"going back to {where} failed too: {second}"
    if lost:
        return f"{back}, reloaded; still without a handshake: {', '.join(lost)}"
    return f"{back}, reloaded; what worked before works again"


# -- what went wrong, and the likely why


def _broke(change: Change, verdict: Verdict) -> HandshakesBroke:
    name = change.folder.certificate
    return HandshakesBroke(
        f"{name}: with the new certificate, handshakes failed that had worked",
        expected="a handshake wherever there was one before",
        found="\n".join(verdict.lines()),
        next="often ssl_ciphers or ssl_protocols that suit only the old type of key. This release is not "
        f"tried again by itself; when it is mended, run `certcast pull --now {name}`",
    )


def _not_proved(change: Change, consumer: ConsumerConfig, verdict: Verdict) -> NotProved:
    name = change.folder.certificate
    return NotProved(
        f"{name}: nginx was reloaded, but does not serve the new certificate everywhere",
        expected=f"leaf {change.release[:16]}… on every listener, and the old workers retired",
        found="\n".join(verdict.lines()),
        kept=f"version {change.version} stays in place: the pair is good",
        next=_likely(change, consumer, verdict) + f"; then run `certcast pull {name}`",
    )


def _likely(change: Change, consumer: ConsumerConfig, verdict: Verdict) -> str:
    if verdict.held:
        return "nginx did not take the new configuration: look for [emerg] in its error log"
    if verdict.broken:
        return "a listener that answered before does not now: look into nginx's error log"
    snippet = change.folder.snippet
    if any(nginx.includes(server, snippet) is False for server in consumer.nginx):
        return f"nginx does not read {snippet}: add `include {snippet};` to the server blocks"
    return (
        "another ssl_certificate line in the same server block comes after the include (the last one "
        "of a key type wins), or a server block without the include answers: see `nginx -T`"
    )
