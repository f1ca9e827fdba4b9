"""Was the new certificate really taken into service? Handshakes before and after say so.

    handshakes   of every target as every kind of client, before and after the reload
    judge        broken · stale · dark · given up · held, by comparing the two rounds
    prove        wait until the old workers have retired, shake hands, judge

Rules, for what was seen before and after the reload, each for its kind of client:
- a handshake that came about before must come about after      else it is *broken*
- one that showed a release of ours must show the new one        else it is *stale*
- a listener that should show the new leaf must, to some client  else it is *dark*
- no worker of before may still accept connections               else it is *held*
  (but those of containers that share our directory and serve other certificates)

Where a change of the key's type is allowed, clients that take only the old type and saw a
release of ours are *given up*, as long as others of their TLS version get the new one there:
that they fail now is said, and isn't broken. The same goes for a host's first release, whoever's certificate
such clients saw: it was the operator who put the include in its place.

A target that showed somebody else's certificate may go on doing so: one nginx
serves many names. That is said, unless it is another one of certcast's. A target that had
no handshake before cannot be broken by us.
A listener that nobody configured and that cannot be connected to is not provable.

The first new leaf proves nothing: old and new workers accept side by side for a
while (nginx's master waits 100 ms before it stops the old ones). So the
handshakes that count begin after the last old worker has retired. It need not have
ended: with a long-lived connection that takes as long as the connection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.consumer.nginx import control

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from certcast.config.model import Listener
    from certcast.consumer.nginx.processes import Worker
    from certcast.consumer.proof.handshake import Client, Clients, Handshake, Shown
    from certcast.consumer.proof.plan import Plan

# How long a verdict may still change once the old workers have retired: nothing is known that would
# change it, so this is only patience with a loaded host. An assumption, not a measurement.
SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.02
MOST_LINES = 8  # of one kind, in a report that a person reads
_MOST_PLACES = 100  # in a mail that says where the new certificate was seen


@dataclass(frozen=True)
class Verdict:
    """What two rounds of handshakes came to. `after` has the same handshakes as `before`."""

    before: Mapping[Handshake, Shown]
    after: Mapping[Handshake, Shown]
    shown: tuple[Handshake, ...]
    broken: tuple[Handshake, ...]
    stale: tuple[Handshake, ...]
    dark: tuple[Listener, ...]
    given_up: tuple[Handshake, ...]
    foreign: tuple[Handshake, ...]
    held: tuple[Worker, ...]

    @property
    def proved(self) -> bool:
        """Whether the release was seen, and nothing is wrong."""
        return bool(self.shown) and not (self.broken or self.stale or self.dark or self.held)

    def lines(self) -> list[str]:
        """Return what is wrong, in words."""
        lines = lost(self.before, self.after, self.broken)
        lines += _by_target(self.stale, self.after, self._instead_of_new)
        lines += [f"{listener}: {self._instead(listener)}" for listener in self.dark]
        if self.held:
            pids = ", ".join(str(worker.pid) for worker in self.held)
            lines.append(f"workers from before still accept: {pids}")
        return lines or unreachable(self.before, self.after) or ["no handshake showed it"]

    def seen(self) -> list[str]:
        """Return where the release was seen, one line a target, with the kinds of client."""
        clients: dict[str, list[Client]] = {}
        for one in self.shown:
            clients.setdefault(str(one.target), []).append(one.client)
        return _first([f"{target} ({_kinds(some)})" for target, some in clients.items()], _MOST_PLACES)

    def summary(self) -> str:
        """Return in a few words what was seen."""
        listeners = len({one.target.listener for one in self.shown})
        words = [
            f"seen in {_many(len(self.shown), 'handshake')} "
            f"({_kinds([one.client for one in self.shown])}) on {_many(listeners, 'listener')}"
        ]
        if self.given_up:
            words.append(f"no longer for {_kinds([one.client for one in self.given_up])}")
        if self.foreign:
            words.append(f"another certificate in {_many(len(self.foreign), 'handshake')}")
        return "; ".join(words)

    def remarks(self) -> list[str]:
        """Return what is not wrong but worth a line in a mail."""
        return lost(self.before, self.after, self.given_up) + _by_target(
            self.foreign, self.after, lambda one: f"{self.after[one]}, not one of certcast's"
        )

    def _instead_of_new(self, one: Handshake) -> str:
        was, now = self.before[one], self.after[one]
        return f"still {now}" if was.leaf == now.leaf else f"now {now}; before it was {was}"

    def _instead(self, listener: Listener) -> str:
        shown = dict.fromkeys(
            str(shown) for one, shown in self.after.items() if one.target.listener == listener
        )
        return "; ".join(list(shown)[:3])


def judge(
    before: Mapping[Handshake, Shown],
    after: Mapping[Handshake, Shown],
    *,
    release: str,
    ours: Iterable[str],
    required: Iterable[Listener],
    expected: Iterable[Listener] = (),
    give_up: str | None = None,
    first: bool = False,
    neighbours: Collection[str] = (),
    held: tuple[Worker, ...] = (),
) -> Verdict:
    """Compare two rounds of handshakes by the rules above.

    `release` is the SHA-256 of the leaf that should come; `ours` the first 16 digits of
    each leaf that certcast ever put here, and `neighbours` those of this host's other
    certificates. `required` and `expected` are listeners, as
    in a Plan. `give_up` names the clients (by their type of key) that may be lost, if
    what they saw was ours or this is the `first` release.
    """
    known = {leaf[:16] for leaf in ours} | {release[:16]}
    had_ours = {one for one, was in before.items() if was.leaf and was.leaf[:16] in known}
    lost_now = [one for one, was in before.items() if was.leaf and not after[one].leaf]
    shown = tuple(one for one, now in after.items() if now.leaf == release)
    # Most clients take either type of key; those of a TLS version are well if any such client is.
    well = {(one.target, one.client.version) for one in shown}
    given_up = tuple(
        one
        for one in lost_now
        if one.client.keys == give_up
        and (one.target, one.client.version) in well
        and (first or one in had_ours)
    )
    broken = tuple(one for one in lost_now if one not in given_up)
    stale: list[Handshake] = []
    foreign: list[Handshake] = []
    for one, now in after.items():
        if now.leaf and now.leaf != release:
            if one in had_ours:
                stale.append(one)
            # Who answers clients without a name is the operator's choice.
            elif one.target.name and now.leaf[:16] not in neighbours:
                foreign.append(one)
    # A listener about which more is known is not called dark on top of it.
    clear = {one.target.listener for one in (*shown, *stale, *broken)}
    reached = {one.target.listener for one, now in after.items() if now.reached}
    wanted = dict.fromkeys([*required, *(listener for listener in expected if listener in reached)])
    dark = tuple(listener for listener in wanted if listener not in clear)
    return Verdict(before, after, shown, broken, tuple(stale), dark, given_up, tuple(foreign), held)


def prove(
    before: Mapping[Handshake, Shown],
    plan: Plan,
    clients: Clients,
    *,
    release: str,
    ours: Iterable[str],
    workers: tuple[Worker, ...],
    seconds: float,
    give_up: str | None = None,
    first: bool = False,
    neighbours: Collection[str] = (),
    others: int = 0,
) -> Verdict:
    """Return the verdict on a reload that was just asked for, after at most `seconds` and one round.

    `workers` are those that accepted connections before the reload; those of `others` masters among
    them serve other certificates, and were not reloaded.
    """
    ours = tuple(ours)
    deadline = time.monotonic() + seconds
    held = wait_for_retirement(workers, seconds, others)
    # Without workers of before, nginx is only just starting: then there is nothing to conclude early.
    last = min(deadline, time.monotonic() + SETTLE_SECONDS) if workers else deadline
    after = clients.try_all(before)
    while True:
        verdict = judge(
            before,
            after,
            release=release,
            ours=ours,
            required=plan.required,
            expected=plan.expected,
            give_up=give_up,
            first=first,
            neighbours=neighbours,
            held=held,
        )
        if verdict.proved or time.monotonic() >= last:
            return verdict
        time.sleep(_POLL_SECONDS)
        # What was seen with the old workers retired stays true; the rest is asked again.
        after |= clients.try_all(one for one, now in after.items() if now.leaf != release)


def wait_for_retirement(workers: tuple[Worker, ...], seconds: float, others: int = 0) -> tuple[Worker, ...]:
    """Return the workers that still accept connections after `seconds`; as soon as none does, none.

    Those of `others` masters that nobody reloaded don't count.
    """
    deadline = time.monotonic() + seconds
    while (held := control.find_lingering(workers, others)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return held


def lost(
    before: Mapping[Handshake, Shown],
    after: Mapping[Handshake, Shown],
    among: Iterable[Handshake] | None = None,
) -> list[str]:
    """Return the targets that had a handshake before and have none after, in words, with the reason."""
    gone = [one for one in (before if among is None else among) if before[one].leaf and not after[one].leaf]
    return _by_target(gone, before, lambda one: f"{after[one]}; before it was {before[one]}")


def unreachable(before: Mapping[Handshake, Shown], after: Mapping[Handshake, Shown]) -> list[str]:
    """Return the listeners that could not be connected to in either round, with the reason."""
    reached = {
        one.target.listener for round_ in (before, after) for one, now in round_.items() if now.reached
    }
    failures = {
        one.target.listener: now.failure for one, now in after.items() if one.target.listener not in reached
    }
    return [f"{listener}: {failure}" for listener, failure in failures.items()]


# -- words


def _by_target(
    some: Iterable[Handshake], shown: Mapping[Handshake, Shown], say: Callable[[Handshake], str]
) -> list[str]:
    """Return one line for each target and text; which clients, if others of the target fare otherwise."""
    groups: dict[tuple[str, str], list[Client]] = {}
    for one in some:
        groups.setdefault((str(one.target), say(one)), []).append(one.client)
    alive: dict[str, set[Client]] = {}
    for one, now in shown.items():
        if now.leaf:
            alive.setdefault(str(one.target), set()).add(one.client)
    lines = [
        f"{target}: {text}"
        if alive.get(target, set()) <= set(clients)
        else f"{target} ({_kinds(clients)}): {text}"
        for (target, text), clients in groups.items()
    ]
    return _first(lines, MOST_LINES)


def _first(lines: list[str], most: int) -> list[str]:
    return (
        lines
        if len(lines) <= most
        else [*lines[: most - 1], f"and {len(lines) - most + 1:,} more like these"]
    )


def _kinds(clients: Iterable[Client]) -> str:
    """Return kinds of client in words: "TLS 1.2 and 1.3, ECDSA clients"."""
    clients = tuple(clients)
    versions = sorted({client.version for client in clients})
    keys = sorted({client.keys for client in clients if client.keys != "any"}, reverse=True)
    numbers = [version.removeprefix("TLS ") for version in versions if version != "TLS"]
    words = f"TLS {' and '.join(numbers)}" if numbers else "TLS"
    return f"{words}, {' and '.join(keys)} clients" if keys else words


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")
