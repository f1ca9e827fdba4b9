"""What is looked up once, however many threads ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from certcast.dns01.threads import LookupCache


def test_threads_that_ask_together_share_the_look_up() -> None:
    """Ten orders of one zone ask the API once, also when none has the answer yet."""
    calls, all_ask, another = [], threading.Barrier(10), threading.Event()

    def look_up(zone: str) -> str:
        if calls:
            another.set()
        calls.append(zone)
        another.wait(0.3)  # the others ask while there is no answer
        return zone.upper()

    once = LookupCache(look_up)

    def ask(_number: int) -> str:
        all_ask.wait(10)
        return once("zone")

    with ThreadPoolExecutor(10) as threads:
        assert ["ZONE"] * 10 == list(threads.map(ask, range(10)))
    assert ["zone"] == calls


def test_a_look_up_that_failed_is_done_again_later() -> None:
    """A failure is told to whoever waited for it, and the next one who asks gets a new try."""
    answers = [ValueError("the API is down"), None]

    def look_up(_zone: str) -> str:
        if problem := answers.pop(0):
            raise problem
        return "found"

    once = LookupCache(look_up)

    with pytest.raises(ValueError, match="down"):
        once("zone")
    assert "found" == once("zone") == once("zone")
