"""What two rounds of handshakes prove, judged without a network."""

from __future__ import annotations

import pytest

from certcast.config import Address
from certcast.consumer.nginx import Worker
from certcast.consumer.proof import Shown, Target, Verdict, judge, targets

ONE, TWO = Address("192.0.2.1", 443), Address("2001:db8::1", 443)
NEW, OLD, OLDER, FOREIGN = (digit * 64 for digit in "abcd")
DOWN = Shown(None, "no connection (Connection refused)")
NAMES = ("example.test", "*.example.test")
ASKED = targets([ONE, TWO], NAMES)


def verdict(before: dict[int, Shown], after: dict[int, Shown], held: tuple[Worker, ...] = ()) -> Verdict:
    """Judge with the old leaf before and the new one after, but for the targets that are given."""
    return judge(
        {target: before.get(i, Shown(OLD)) for i, target in enumerate(ASKED)},
        {target: after.get(i, Shown(NEW)) for i, target in enumerate(ASKED)},
        release=NEW,
        ours=(OLD, OLDER),
        held=held,
    )


def test_wildcard_is_asked_for_by_a_made_up_label() -> None:
    """A client cannot ask for `*.example.test`; a name that nobody configured shows what it serves."""
    assert (
        Target(ONE, "example.test"),
        Target(ONE, "certcast-proof.example.test"),
        Target(TWO, "example.test"),
        Target(TWO, "certcast-proof.example.test"),
    ) == ASKED


def test_new_leaf_everywhere_is_proved() -> None:
    """The new leaf on every listener and name, and no old worker left: proved."""
    assert verdict({}, {}).proved
    assert ASKED == verdict({}, {}).shown


@pytest.mark.parametrize("before", [OLD, FOREIGN, NEW])
def test_lost_handshake_is_broken(before: str) -> None:
    """A target that had a handshake and has none is broken, whosever certificate it showed."""
    found = verdict({1: Shown(before)}, {1: DOWN})
    assert 1 == len(found.broken)
    assert str(ASKED[1]) in found.broken[0]


@pytest.mark.parametrize("leaf", [OLD, OLDER])
def test_old_leaf_of_ours_is_stale(leaf: str) -> None:
    """A target that showed a release of ours, also one before the last, must show the new one."""
    found = verdict({1: Shown(leaf)}, {1: Shown(leaf)})
    assert (f"{ASKED[1]}: still leaf {leaf[:16]}…",) == found.stale
    assert () == found.broken


def test_foreign_leaf_may_stay() -> None:
    """A name that is served with somebody else's certificate is none of our business."""
    assert verdict({1: Shown(FOREIGN)}, {1: Shown(FOREIGN)}).proved


def test_listener_without_the_new_leaf_is_dark() -> None:
    """A listener that shows the new leaf for no name at all is not proved."""
    foreign = {2: Shown(FOREIGN), 3: Shown(FOREIGN)}
    assert 2 == len(verdict(foreign, foreign).dark)


def test_target_that_was_down_before_cannot_be_broken() -> None:
    """What did not work before the reload is not blamed on it, as long as the listener is seen otherwise."""
    assert verdict({1: DOWN}, {1: DOWN}).proved
    assert 2 == len(verdict({2: DOWN, 3: DOWN}, {2: DOWN, 3: DOWN}).dark)


def test_nothing_seen_is_nothing_proved() -> None:
    """A host for which no listener is configured is never called proved."""
    assert not judge({}, {}, release=NEW, ours=()).proved


def test_old_worker_that_still_accepts_is_no_proof() -> None:
    """As long as a worker from before accepts connections, the new leaf may be luck."""
    found = verdict({}, {}, held=(Worker(4711, 1),))
    assert not found.proved
    assert ["workers from before still accept: 4711"] == found.lines()
