"""A run that is killed at any of its state-changing calls, and the run after it.

What must be true then, whatever the call was:

    no certificate is issued twice, and none is lost      the CA's own count
    one newOrder more, and only between its POST and its record on disk
    no TXT record, no half version, no order under way
    `renew --replace` is done by the next run: the new leaf is published
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from certcast_lab.lab import Lab
from journey import Journey

KILLED = Path(__file__).with_name("killed.py")


class Killing:
    """A renewal host whose runs can be killed at a numbered call."""

    def __init__(self, lab: Lab) -> None:
        self.journey = Journey(lab)
        self.lab = lab
        self.log = self.journey.renewal.root / "calls"

    def run(self, *arguments: str, at: str = "0") -> tuple[int, list[str]]:
        """Run `certcast`, killed at the call `at`; return its exit status and the calls that it came to."""
        self.log.unlink(missing_ok=True)
        environment = {**os.environ, **self.lab.environment("renewal")}
        configuration = str(self.journey.renewal.certcast_toml)
        argv = [sys.executable, str(KILLED), str(self.log), at, "--config", configuration, *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        self.said = done.stdout + done.stderr
        return done.returncode, self.log.read_text().splitlines()

    def left(self) -> list[str]:
        """Return what must not be there after a good run: half versions, orders under way, TXT records."""
        issued = self.journey.issued().place
        half = (
            [path.name for path in issued.iterdir() if path.name.startswith(".")] if issued.exists() else []
        )
        return [*half, *self.lab.cloud.challenge_records()]


@pytest.fixture
def killing(lab: Lab) -> Killing:
    return Killing(lab)


def first(killing: Killing) -> None:
    """The first certificate: nothing was there before."""


def replaced(killing: Killing) -> None:
    """A certificate is there, and a person asks for another key."""
    assert 0 == killing.run("renew")[0], killing.said


STORIES: dict[Callable[[Killing], None], tuple[str, ...]] = {
    first: ("renew",),
    replaced: ("renew", "--replace", "example.test", "--reason", "keyCompromise"),
}


def calls_of(killing: Killing, story: Callable[[Killing], None]) -> list[str]:
    """Return all calls of a run that nobody kills."""
    story(killing)
    status, calls = killing.run(*STORIES[story])
    assert 0 == status, killing.said
    return calls


def check(killing: Killing, story: Callable[[Killing], None], at: str) -> None:
    """Kill a run at one call, run again, and see what must be true."""
    story(killing)
    before = killing.lab.renewal_info.issued
    orders = killing.lab.renewal_info.orders
    old = killing.journey.published()
    status, calls = killing.run(*STORIES[story], at=at)
    if status != -signal.SIGKILL:
        # The run had fewer calls this time: threads race.
        assert (0, True) == (status, at.isdigit()), killing.said
        return
    where = calls[-1]
    again, _ = killing.run("renew")
    asked = old is None or (again == 0 and killing.journey.published() != old)
    if not asked:  # killed before the wish was written down: the person sees that, and asks again
        again, _ = killing.run(*STORIES[story])
    assert 0 == again, f"{where}\n{killing.said}"
    assert killing.journey.live().leaf.sha256 == killing.journey.published() != old, where
    assert 1 == killing.lab.renewal_info.issued - before, f"certificates issued, killed at {where}"
    more = killing.lab.renewal_info.orders - orders - 1
    assert more in {0, 1}, f"{more} orders more, killed at {where}"
    if more:
        assert is_between_post_and_record(calls), f"one order more, killed at {where}"
    assert [] == killing.left(), where


def is_between_post_and_record(calls: list[str]) -> bool:
    """Whether newOrder was sent, and its answer was not on disk yet."""
    sent = max(number for number, call in enumerate(calls) if "/order-plz" in call)
    return not any(call.endswith("/.pending") and " rename " in call for call in calls[sent:-1])


# Where an order turns: newOrder sent and not answered, key and URL about to be on disk, finalize sent and not
# answered, the certificate about to be stored, the order about to be forgotten.
POINTS = {
    "newOrder unanswered": "/order-plz>answer",
    "order not on disk": "/.pending.new>rename",
    "records not removed": "/chalZ>answer",
    "finalize unanswered": "/finalize-order>answer",
    "certificate not stored": ".new/order.json>rename",
    "order not forgotten": ".new/order.json>rename>rename",
}


@pytest.mark.parametrize("point", POINTS)
def test_an_order_killed_at_a_turning_point(killing: Killing, point: str) -> None:
    """Whatever kills a run at a turning point of its order, the next run ends with one certificate."""
    check(killing, first, POINTS[point])


@pytest.mark.parametrize("point", ["newOrder unanswered", "finalize unanswered"])
def test_a_replacement_killed_at_a_turning_point(killing: Killing, point: str) -> None:
    """A stolen key's certificate is replaced by the run after the one that was killed."""
    check(killing, replaced, POINTS[point])


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_an_order_killed_at_every_call(
    killing: Killing, story: Callable[[Killing], None], pytestconfig: pytest.Config
) -> None:
    """The same at every state-changing call of a run (`make long`)."""
    if not pytestconfig.getoption("--long"):
        pytest.skip("only with --long: some minutes")
    calls = calls_of(killing, story)
    for number in range(1, len(calls) + 1):
        killing.lab.reset()
        check(Killing(killing.lab), story, str(number))
