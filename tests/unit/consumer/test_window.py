"""When a consumer asks the store, from nothing but its state, the time and `idle_check`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from certcast.consumer.state import ProvedRelease, State
from certcast.release.certificate import Leaf

BEGIN = datetime(2026, 11, 1, tzinfo=timezone.utc)
HOUR = 3600.0
NEVER = float("inf")


def proved(days: float, **changes: object) -> State:
    """Return the state of a host that serves a certificate of that life, and has looked at BEGIN."""
    leaf = Leaf("a" * 64, "01", "CN=CA", BEGIN, BEGIN + timedelta(days=days), ("example.test",), "b" * 64)
    state = State(
        last_checked=BEGIN, store="memory://s", sequence=1, proved=ProvedRelease(leaf, "1-" + "a" * 16, {})
    )
    return replace(state, **changes)  # type: ignore[arg-type]  # fields of State


def test_fresh_host_asks() -> None:
    """A host that serves nothing of ours asks at its first run."""
    assert "nothing is installed yet" == State().why_due(BEGIN, NEVER)


@pytest.mark.parametrize(("days", "window"), [(90, 60), (64, 64 * 2 / 3), (45, 30), (6, 3)])
def test_window_begins_at_its_part_of_the_life(days: float, window: float) -> None:
    """With lives of 90, 64 and 45 days the window is the last third, with six days the second half."""
    opens = BEGIN + timedelta(days=window)
    state = proved(days)
    assert state.why_due(opens - timedelta(seconds=1), NEVER) is None
    assert (state.why_due(opens, NEVER) or "").startswith("in the window")


def test_idle_check_outside_the_window() -> None:
    """Outside the window the store is asked once in each `idle_check`."""
    state = proved(90)
    assert state.why_due(BEGIN + timedelta(minutes=59), HOUR) is None
    assert "idle check" == state.why_due(BEGIN + timedelta(minutes=60), HOUR)


def test_clock_set_back_does_not_silence_the_idle_check() -> None:
    """A last look in the future (the clock was wrong then) is followed by a look now."""
    state = proved(90, last_checked=BEGIN + timedelta(days=400))
    assert "idle check" == state.why_due(BEGIN + timedelta(minutes=1), HOUR)


def test_unfinished_installation_ignores_the_window() -> None:
    """What was accepted and not proved makes every run due, `idle_check = "never"` or not."""
    state = proved(90, unfinished="c" * 64)
    assert "an installation is unfinished" == state.why_due(BEGIN, NEVER)


def test_expired_manifest_is_looked_at_until_it_is_renewed() -> None:
    """The alarm about a silent renewal host does not pause until the next idle check."""
    state = proved(90, expires=BEGIN + timedelta(minutes=5))
    assert state.why_due(BEGIN + timedelta(minutes=5), HOUR) is None
    assert "the manifest has expired" == state.why_due(BEGIN + timedelta(minutes=6), HOUR)


def test_moved_store_is_asked_at_once() -> None:
    """After `store.url` was changed the new store is asked, without the old ETag; the sequence counts on."""
    state = proved(90, etag="old", seen="{}").at("memory://other")
    assert "idle check" == state.why_due(BEGIN, HOUR)
    assert (None, None, 1) == (state.etag, state.seen, state.sequence)
