"""Was the new certificate really taken into service? Handshakes before and after say so.

    targets      every listener, with every configured name (SNI)
    handshakes   one full handshake each; the leaf that came, or why none did
    judge        broken · stale · dark · held, by comparing before and after
    prove        wait until the old workers have retired, shake hands, judge

Rules, for what was seen before and after the reload:
- a target that had a handshake before must have one after            else it is *broken*
- a target that showed one of our releases must show the new one      else it is *stale*
- a listener must show the new leaf for at least one name             else it is *dark*
- no worker of before may still accept connections                    else it is *held*

A target that showed somebody else's certificate may go on doing so: one nginx
serves many names. A target that had no handshake before cannot be broken by us.

The first new leaf proves nothing: old and new workers accept side by side for a
while (nginx's master waits 100 ms before it stops the old ones). So the
handshakes that count begin after the last old worker has retired.

Nothing is verified in these handshakes. The gate has verified the pair; here the
question is which bytes come, and a client that refuses a certificate cannot tell.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.config import Address
from certcast.consumer import nginx

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from certcast.consumer.nginx import Worker

HANDSHAKE_SECONDS = 5.0
# How long a verdict may still change once the old workers have retired: nothing is known that would
# change it, so this is only patience with a loaded host. An assumption, not a measurement.
SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Target:
    """A listener, asked for a name."""

    listener: Address
    name: str

    def __str__(self) -> str:
        return f"{self.listener} as {self.name}"


@dataclass(frozen=True)
class Shown:
    """What one handshake showed: the leaf's SHA-256 (64 hex digits), or why there was none."""

    leaf: str | None
    failure: str = ""

    def __str__(self) -> str:
        return f"leaf {self.leaf[:16]}…" if self.leaf else self.failure


@dataclass(frozen=True)
class Verdict:
    """What is wrong after a reload; empty if the release is proved on `shown`."""

    shown: tuple[Target, ...]
    broken: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    dark: tuple[str, ...] = ()
    held: tuple[Worker, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether the release was seen, and nothing is wrong."""
        return bool(self.shown) and not (self.broken or self.stale or self.dark or self.held)

    def lines(self) -> list[str]:
        """Return what is wrong, one line each."""
        lines = [*self.broken, *self.stale, *self.dark]
        if self.held:
            lines.append(
                f"workers from before still accept: {', '.join(str(worker.pid) for worker in self.held)}"
            )
        return lines


def targets(listeners: Iterable[Address], names: Iterable[str]) -> tuple[Target, ...]:
    """Return every listener with every name; a wildcard is asked for with a made-up label."""
    hosts = ["certcast-proof" + name[1:] if name.startswith("*.") else name for name in names]
    return tuple(Target(listener, host) for listener in listeners for host in hosts)


def handshakes(asked: Iterable[Target], seconds: float = HANDSHAKE_SECONDS) -> dict[Target, Shown]:
    """Return what each target shows now. All at once, so that one that hangs delays no other."""
    asked = tuple(asked)
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(asked, pool.map(lambda target: _shown(target, seconds), asked), strict=True))


def judge(
    before: Mapping[Target, Shown],
    after: Mapping[Target, Shown],
    *,
    release: str,
    ours: Iterable[str],
    held: tuple[Worker, ...] = (),
) -> Verdict:
    """Compare two rounds of handshakes by the rules above.

    `release` is the SHA-256 of the leaf that should come; `ours` the first 16
    digits of each leaf that certcast ever put here.
    """
    known = {leaf[:16] for leaf in ours} | {release[:16]}
    shown = tuple(target for target, now in after.items() if now.leaf == release)
    lit = {target.listener for target in shown}
    stale, dark = [], []
    for target, now in after.items():
        was = before[target].leaf
        if was and was[:16] in known and now.leaf and now.leaf != release:
            stale.append(f"{target}: still {now}")
        elif target.listener not in lit and (now.leaf or not was):
            dark.append(f"{target}: {now}")
    broken = lost(before, after)
    return Verdict(shown, tuple(broken), tuple(stale), tuple(dark), held)


def prove(
    before: Mapping[Target, Shown],
    *,
    release: str,
    ours: Iterable[str],
    workers: tuple[Worker, ...],
    seconds: float,
) -> Verdict:
    """Return the verdict on a reload that was just asked for, after at most `seconds` and one round.

    `workers` are those that accepted connections before the reload.
    """
    ours = tuple(ours)
    deadline = time.monotonic() + seconds
    held = wait_for_retirement(workers, seconds)
    # Without workers of before, nginx is only just starting: then there is nothing to conclude early.
    last = min(deadline, time.monotonic() + SETTLE_SECONDS) if workers else deadline
    while True:
        verdict = judge(before, handshakes(before), release=release, ours=ours, held=held)
        if verdict.proved or time.monotonic() >= last:
            return verdict
        time.sleep(_POLL_SECONDS)


def wait_for_retirement(workers: tuple[Worker, ...], seconds: float) -> tuple[Worker, ...]:
    """Return the workers that still accept connections after `seconds`; as soon as none does, none."""
    deadline = time.monotonic() + seconds
    while (held := nginx.still_serving(workers)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return held


def lost(before: Mapping[Target, Shown], after: Mapping[Target, Shown]) -> list[str]:
    """Return the targets that had a handshake before and have none after, with the reason."""
    return [
        f"{target}: {after[target]}; before it was {was}"
        for target, was in before.items()
        if was.leaf and not after[target].leaf
    ]


def _shown(target: Target, seconds: float) -> Shown:
    # A new context for each: a resumed session would show the certificate of the first one.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(
                (target.listener.host, target.listener.port), timeout=seconds
            ) as connection,
            client.wrap_socket(connection, server_hostname=target.name) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        return Shown(None, f"no handshake ({error.reason or error})")
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be sent as SNI
        return Shown(None, f"no connection ({getattr(error, 'strerror', None) or error})")
    return Shown(hashlib.sha256(der).hexdigest()) if der else Shown(None, "no certificate")
