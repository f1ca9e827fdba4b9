"""Was the new certificate really taken into service? Handshakes before and after the reload say so.

    Expectation   what the second round should show
    Verdict       both rounds, compared handshake by handshake: one property for each rule
    prove         wait until the old workers have retired, shake hands, judge

Each handshake is compared with its own earlier self: the same target, the same kind of client.

Not here: what is tried (plan.py), the words for a verdict (explanation.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from certcast.consumer.nginx import control

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from certcast.config.model import Listener
    from certcast.consumer.nginx.processes import Worker
    from certcast.consumer.proof.handshake import Clients, Handshake, Shown

# How long a verdict may still change once the old workers have retired. Nothing is known that would
# change it, so this is only patience with a loaded host: an assumption, not a measurement.
SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Expectation:
    """What the handshakes after a reload should show.

    `release` is the SHA-256 of the new leaf. `known_leaves` are the leaves of every release that certcast
    ever put here, `other_leaves` those of this host's other certificates; 16 digits of each are enough.
    `required` and `expected` are listeners, as in a Plan. `droppable_keys` is the type of key whose clients
    may be lost, if they saw a release of certcast or this is the host's `first`.
    """

    release: str
    known_leaves: Collection[str] = ()
    required: Collection[Listener] = ()
    expected: Collection[Listener] = ()
    other_leaves: Collection[str] = ()
    droppable_keys: str | None = None
    first: bool = False


@dataclass(frozen=True)
class Verdict:
    """What two rounds of handshakes came to. `after` has the same handshakes as `before`."""

    before: Mapping[Handshake, Shown]
    after: Mapping[Handshake, Shown]
    expectation: Expectation
    lingering: tuple[Worker, ...] = ()

    @property
    def is_proved(self) -> bool:
        """Whether the release was seen, and nothing is wrong. No worker of before may be lingering."""
        return bool(self.shown) and not (self.lost or self.outdated or self.unseen or self.lingering)

    # -- the rules

    @cached_property
    def shown(self) -> tuple[Handshake, ...]:
        """Return the handshakes that show the new leaf; without any, nothing is proved."""
        release = self.expectation.release
        return tuple(handshake for handshake, now in self.after.items() if now.leaf == release)

    @cached_property
    def lost(self) -> tuple[Handshake, ...]:
        """Return those that came about before, and must now. A target that was down before can't be lost."""
        return tuple(handshake for handshake in self._gone if not self._is_droppable(handshake))

    @cached_property
    def dropped_clients(self) -> tuple[Handshake, ...]:
        """Return those that came about before, and need not now: a remark."""
        return tuple(handshake for handshake in self._gone if self._is_droppable(handshake))

    @cached_property
    def outdated(self) -> tuple[Handshake, ...]:
        """Return those that showed a release of certcast before, and now another leaf than the new one."""
        return tuple(handshake for handshake in self._elsewhere if self._had_known_leaf(handshake))

    @cached_property
    def foreign(self) -> tuple[Handshake, ...]:
        """Return those that show somebody else's certificate: a remark, since one nginx serves many names.

        The operator chooses which certificate clients without a name get, so these are not counted.
        """
        others = {leaf[:16] for leaf in self.expectation.other_leaves}
        return tuple(
            handshake
            for handshake, leaf in self._elsewhere.items()
            if not self._had_known_leaf(handshake) and handshake.target.name and leaf[:16] not in others
        )

    @cached_property
    def unseen(self) -> tuple[Listener, ...]:
        """Return the listeners that should show the new leaf, and show it to nobody.

        A required one must. An expected one must, if there is any connection. A listener with a lost or an
        outdated handshake is reported by that alone.
        """
        reported = {handshake.target.listener for handshake in (*self.shown, *self.outdated, *self.lost)}
        reached = {handshake.target.listener for handshake, now in self.after.items() if now.reached}
        wanted = [
            *self.expectation.required,
            *(listener for listener in self.expectation.expected if listener in reached),
        ]
        return tuple(listener for listener in dict.fromkeys(wanted) if listener not in reported)

    # -- what the rules are made of

    @cached_property
    def _gone(self) -> tuple[Handshake, ...]:
        return tuple(
            handshake for handshake, was in self.before.items() if was.leaf and not self.after[handshake].leaf
        )

    @cached_property
    def _elsewhere(self) -> dict[Handshake, str]:
        """Return the handshakes that show another leaf than the new one, and which."""
        return {
            handshake: now.leaf
            for handshake, now in self.after.items()
            if now.leaf and now.leaf != self.expectation.release
        }

    @cached_property
    def _known(self) -> set[str]:
        return {leaf[:16] for leaf in (*self.expectation.known_leaves, self.expectation.release)}

    def _had_known_leaf(self, handshake: Handshake) -> bool:
        leaf = self.before[handshake].leaf
        return leaf is not None and leaf[:16] in self._known

    @cached_property
    def _served_versions(self) -> set[tuple[object, str]]:
        """Return each target with each TLS version by which a client gets the new leaf there."""
        return {(handshake.target, handshake.client.version) for handshake in self.shown}

    def _is_droppable(self, handshake: Handshake) -> bool:
        """Whether a client may be lost: it takes only the old type of key.

        Most clients of its TLS version take either type. They are served if any client of that version is.
        """
        return (
            handshake.client.keys == self.expectation.droppable_keys
            and (handshake.target, handshake.client.version) in self._served_versions
            and (self.expectation.first or self._had_known_leaf(handshake))
        )


def prove(
    before: Mapping[Handshake, Shown],
    expectation: Expectation,
    clients: Clients,
    *,
    workers: tuple[Worker, ...],
    seconds: float,
    other_masters: int = 0,
) -> Verdict:
    """Return the verdict on a reload that was just asked for, after at most `seconds` and one round.

    `workers` accepted connections before the reload. The first new leaf proves nothing: old and new workers
    accept side by side for a while (nginx's master waits 100 ms before it stops the old ones).
    """
    deadline = time.monotonic() + seconds
    lingering = wait_for_retirement(workers, seconds, other_masters)
    # Without workers of before, nginx is only just starting: then there is nothing to conclude early.
    last = min(deadline, time.monotonic() + SETTLE_SECONDS) if workers else deadline
    after = clients.try_all(before)
    while True:
        verdict = Verdict(before, after, expectation, lingering)
        if verdict.is_proved or time.monotonic() >= last:
            return verdict
        time.sleep(_POLL_SECONDS)
        # What was seen with the old workers retired stays true; the rest is tried again.
        rest = [handshake for handshake, now in after.items() if now.leaf != expectation.release]
        after = {**after, **clients.try_all(rest)}


def wait_for_retirement(
    workers: tuple[Worker, ...], seconds: float, other_masters: int = 0
) -> tuple[Worker, ...]:
    """Return the workers that still accept connections after `seconds`; as soon as none does, none.

    A retired worker may live on until its last connection closes. The workers of `other_masters`, which serve
    other certificates from containers that share our directory and were not reloaded, don't count.
    """
    deadline = time.monotonic() + seconds
    while (lingering := control.find_lingering(workers, other_masters)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return lingering
