"""How often is asked, what is looked up once, and what is said, while orders wait; without any network."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from certcast.config.model import Address
from certcast.dns01.threads import LookupCache
from certcast.dns01.visibility.nameservers import Nameserver
from certcast.dns01.visibility.reach import ExpectedTxt
from certcast.dns01.visibility.waiting import describe_wait
from certcast.dns01.visibility.watching import next_pause

NS1 = Nameserver("ns1.example.net", (Address("192.0.2.1", 53),))
NS2 = Nameserver("ns2.example.net", (Address("192.0.2.2", 53),))


def expected(name: str, *values: str, servers: tuple[Nameserver, ...] = (NS1, NS2)) -> ExpectedTxt:
    return ExpectedTxt(f"_acme-challenge.{name}", name, frozenset(values), servers)


# -- how often a nameserver is asked


@pytest.mark.parametrize("lag", [0.01, 0.5, 2.0, 7.0, 30.0])
def test_a_wait_overshoots_by_a_twentieth(lag: float) -> None:
    """What becomes visible after a while is seen a twentieth of that while later, or a tenth of a second."""
    asked = 0.0
    while asked < lag:
        asked += next_pause(asked, names=1)

    assert asked - lag <= max(0.1, 0.05 * lag) + 1e-9


def test_a_long_wait_does_not_flood_a_nameserver() -> None:
    """In ten minutes a server is asked some hundreds of times about a name, never less than every 2 s."""
    asked, questions = 0.0, 0
    while asked < 600:
        asked, questions = asked + next_pause(asked, names=1), questions + 1

    assert questions < 400
    assert 2.0 == next_pause(600, names=1)


@pytest.mark.parametrize("names", [1, 20, 100, 400])
def test_many_names_do_not_flood_a_nameserver(names: int) -> None:
    """However many names are waited for, one address gets 200 questions a second at the most."""
    assert names / next_pause(0.0, names) <= 200


# -- looked up once


def test_threads_that_ask_at_the_same_time_share_the_look_up() -> None:
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


# -- what a person reads


def test_one_name_is_waited_for_by_its_name() -> None:
    """A single certificate: which values, at which name, at which nameservers."""
    assert ["waiting until ns1.example.net, ns2.example.net show 2 values at _acme-challenge.a.test"] == (
        describe_wait([expected("a.test", "apex", "wildcard")])
    )


def test_many_names_are_one_line_for_their_nameservers() -> None:
    """Twenty certificates aren't forty lines: names with the same nameservers are counted."""
    many = [expected(f"n{number}.test", "apex", "wildcard") for number in range(20)]

    assert [
        "waiting until ns1.example.net, ns2.example.net show 40 values at 20 names",
        "waiting until no nameserver show 1 value at _acme-challenge.b.test",
    ] == describe_wait([*many, expected("b.test", "apex", servers=())])
