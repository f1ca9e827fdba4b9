"""The challenges of several orders at once: each goes on, or ends, by itself.

The emulated Alidns, two real nameservers, the real ledger. example.test is asked for at
the first nameserver and other.test at the second, so that one of them can be slow.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stamina

from certcast import credentials
from certcast.config.model import Address, Config
from certcast.dns01.alidns import alidns_api
from certcast.dns01.alidns.alidns import Alidns
from certcast.dns01.challenges import Challenge, Challenges
from certcast.report.errors import DnsFailed, NotPropagated, ZoneMissing
from certcast_lab.aliyun.cloud import Cloud
from certcast_lab.serving.blocked import Blocked
from presenting import NOW, OrderResults, Services, values

ONE, TWO = "https://ca.test/order/1", "https://ca.test/order/2"


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """One API server and two nameservers for the module; the cloud behind them is new for each test."""
    services = Services()
    try:
        yield services
    finally:
        services.stop()


@pytest.fixture
def cloud(services: Services, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    cloud = services.renew()
    cloud.add_zone("other.test")
    for name, value in services.keys.items():
        monkeypatch.setenv(name, value)
    return cloud


@pytest.fixture
def config(services: Services, cloud: Cloud, tmp_path: Path) -> Config:
    first, second = services.addresses
    return services.config({"example.test": (first,), "other.test": (second,)}, tmp_path / "state")


def order(domain: str, count: int = 2) -> list[Challenge]:
    """Challenges for one domain."""
    return [Challenge(domain, f"{domain}-{number}".ljust(43, "x")) for number in range(count)]


def many(orders: int, each: int) -> dict[str, list[Challenge]]:
    """Orders in example.test, each for a domain of its own."""
    return {f"https://ca.test/{number}": order(f"n{number}.example.test", each) for number in range(orders)}


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "the condition did not come true"
        time.sleep(0.01)


# -- each by itself


def test_a_lagging_zone_does_not_hold_up_the_other(services: Services, cloud: Cloud, config: Config) -> None:
    """The CA may look at the one order while the nameservers of the other have nothing yet."""
    slow = services.dns.servers[1]
    slow.lag = 3600
    results = OrderResults()

    def seen(url: str) -> None:
        results.seen.append(url)
        slow.work_well()

    Challenges(config).present_orders(
        {TWO: order("other.test"), ONE: order("example.test")},
        NOW,
        seen=seen,
        failed=lambda *failed: pytest.fail(str(failed)),
        stopped=lambda: False,
    )

    assert [ONE, TWO] == results.seen


def test_a_missing_zone_ends_its_order_alone(cloud: Cloud, config: Config) -> None:
    """An order with a name in no zone is refused before anything of it is added; the other goes on."""
    results = OrderResults()

    results.present(
        Challenges(config), {ONE: order("example.test"), TWO: [*order("other.test"), *order("nowhere.test")]}
    )

    assert [ONE] == results.seen
    assert isinstance(results.failed[TWO], ZoneMissing)
    assert "no challenge was answered, and no TXT record is left" == results.failed[TWO].kept
    assert 2 == len(values(cloud)) == cloud.alidns.count("AddDomainRecord")


def test_a_zone_that_fails_ends_its_order_alone(cloud: Cloud, config: Config) -> None:
    """The API fails for one zone to the end: its order leaves nothing, and the other goes on."""
    cloud.alidns.faults.turn_on("server_error", action="AddDomainRecord", target="other.test")
    results = OrderResults()

    with stamina.set_testing(True, attempts=2, cap=True):
        results.present(Challenges(config), {ONE: order("example.test"), TWO: order("other.test", 4)})

    assert [ONE] == results.seen
    assert isinstance(results.failed[TWO], DnsFailed)
    assert "no challenge was answered, and no TXT record is left" == results.failed[TWO].kept
    assert {ONE} == {entry.order for entry in Challenges(config).ledger.entries()}


def test_values_that_are_never_shown_end_their_order_alone(
    services: Services, cloud: Cloud, tmp_path: Path
) -> None:
    """After the deadline one order is at its end, its records are gone, and the other's are there still."""
    services.dns.servers[1].lag = 3600
    first, second = services.addresses
    config = services.config({"example.test": (first,), "other.test": (second,)}, tmp_path, deadline=1.0)
    results = OrderResults()

    results.present(Challenges(config), {ONE: order("example.test"), TWO: order("other.test")})

    assert [ONE] == results.seen
    assert isinstance(results.failed[TWO], NotPropagated)
    assert [] == values(cloud, cloud.zones.get("other.test"))
    assert 2 == len(values(cloud))


def test_cleaning_up_spares_the_other_order_at_the_same_name(cloud: Cloud, config: Config) -> None:
    """Two certificates with one name in common: when one is done, the CA may still look for the other."""
    theirs, ours = order("example.test", 4)[:2], order("example.test", 4)[2:]
    desk = Challenges(config)
    OrderResults().present(desk, {ONE: theirs, TWO: ours})

    assert [] == desk.cleanup_orders([TWO])

    assert [challenge.validation for challenge in theirs] == values(cloud)
    assert {ONE} == {entry.order for entry in desk.ledger.entries()}


def test_an_order_with_nothing_to_show_is_seen_at_once(cloud: Cloud, config: Config) -> None:
    """All its authorizations are valid already: no record, no wait."""
    config = replace(config, dns=replace(config.dns, propagation=600.0))
    results = OrderResults()

    results.present(Challenges(config), {ONE: []})

    assert [ONE] == results.seen
    assert [] == cloud.alidns.log


# -- how much at once


class Held:
    """The API, but the first calls of an action are answered when so many have come, and a moment later."""

    def __init__(self, app: Any, action: str, until: int) -> None:
        self.most = 0
        self._app, self._action, self._until = app, action.encode(), until
        self._now = 0
        self._enough = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if dict(scope["headers"]).get(b"x-acs-action") == self._action:
                if self._now >= self._until:
                    # One call too many would come by now.
                    asyncio.get_running_loop().call_later(0.3, self._enough.set)
                await self._enough.wait()
            await self._app(scope, receive, send)
        finally:
            self._now -= 1


@pytest.mark.parametrize(("orders", "each", "most"), [(1, 24, 10), (3, 8, 9), (24, 1, 10)])
def test_ten_calls_are_in_flight_and_never_more(
    cloud: Cloud, config: Config, orders: int, each: int, most: int
) -> None:
    """
    Twenty-four records come ten at a time, however they are spread over orders (three orders have three
    threads each), and go ten at a time.
    """
    desk, wanted, app = Challenges(config), many(orders, each), cloud.alidns.app

    added = cloud.alidns.app = Held(app, "AddDomainRecord", most)  # type: ignore[assignment]
    OrderResults().present(desk, wanted)
    removed = cloud.alidns.app = Held(app, "DeleteDomainRecord", 10)  # type: ignore[assignment]
    assert [] == desk.cleanup_orders(wanted)

    assert (most, 10) == (added.most, removed.most)
    assert [] == values(cloud)


def test_a_call_that_is_cut_off_cuts_no_other(
    services: Services, cloud: Cloud, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of one call ends its own connection, and not those of the calls in other threads."""
    provider = Alidns(config.dns)
    cloud.alidns.faults.turn_on("delay", action="DeleteDomainRecord", seconds=2.0)
    cloud.alidns.faults.turn_on("drip", action="AddDomainRecord", seconds=0.1)
    record = cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", "value")

    with stamina.set_testing(True, attempts=1), ThreadPoolExecutor(1) as beside:
        other = beside.submit(provider.remove, "example.test", record.id)
        wait_until(lambda: cloud.alidns.count("DeleteDomainRecord") == 1)
        monkeypatch.setattr(alidns_api, "_DEADLINE", 0.2)
        with pytest.raises(DnsFailed, match="did not answer AddDomainRecord"):
            provider.add_txt("other.test", "_acme-challenge", "value")
        other.result(60)


def test_keys_are_looked_for_once(cloud: Cloud, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls are in flight, one source of keys serves all: STS is not asked once for each."""
    original, looked = credentials.provider, []

    def provider(source: Any) -> Any:
        looked.append(source)
        return original(source)

    monkeypatch.setattr(credentials, "provider", provider)
    cloud.alidns.app = Held(cloud.alidns.app, "AddDomainRecord", 9)  # type: ignore[assignment]

    OrderResults().present(Challenges(config), many(3, 8))

    assert 1 == len(looked)


def test_twenty_orders_share_look_ups_and_words(services: Services, cloud: Cloud, config: Config) -> None:
    """
    Twenty orders of one zone that are seen in the same moment: their places and the last look at the
    records cost a few calls, and a person reads one line of what is waited for.
    """
    (server, _) = services.dns.servers
    server.lag = 3600
    lines = []

    def progress(text: str) -> None:
        lines.append(text)
        if text.startswith("waiting until"):
            cloud.alidns.faults.turn_on("delay", action="DescribeDomainRecords", seconds=1.0)
            server.work_well()

    OrderResults().present(Challenges(config, progress=progress), many(20, 2))

    host, port = server.address
    assert [
        "adding TXT: 40 values at 20 names",
        f"waiting until {host}:{port} show 40 values at 20 names",
    ] == lines[:2]
    assert 20 == len([line for line in lines[2:] if "example.test: seen after" in line]) == len(lines[2:])
    asked = [one.parameters["TypeKeyWord"] for one in cloud.alidns.log if "TypeKeyWord" in one.parameters]
    assert 1 == asked.count("NS") == asked.count("CNAME")
    assert asked.count("TXT") <= 3


def test_of_many_orders_one_warns(services: Services, cloud: Cloud, tmp_path: Path) -> None:
    """Nameservers that this host cannot reach are told of once, not once for each order."""
    warnings: list[str] = []
    with Blocked("refuse") as filtered:
        zones = {"example.test": (Address(*filtered.address),)}
        config = services.config(zones, tmp_path, fallback_wait=0.3)
        results = OrderResults()
        results.present(Challenges(config, warn=warnings.append), many(3, 1))

    assert 3 == len(results.seen)
    assert 1 == len(warnings)


# -- the end of a run


@pytest.mark.parametrize("how", ["told", "Ctrl-C"])
def test_a_run_that_ends_while_adding_knows_its_records(cloud: Cloud, config: Config, how: str) -> None:
    """
    Stopped after the first record: nothing more is begun, nothing is told of any order, the ledger knows
    each record, and cleaning up leaves none.
    """
    cloud.alidns.faults.turn_on("delay", action="AddDomainRecord", seconds=0.5)
    desk, wanted = Challenges(config), many(3, 8)

    def stop() -> bool:
        if values(cloud) and how == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        return bool(values(cloud)) and how == "told"

    results = OrderResults(stop)
    if how == "told":
        results.present(desk, wanted)
    else:
        with pytest.raises(KeyboardInterrupt):
            results.present(desk, wanted)

    assert ([], {}) == (results.seen, results.failed)
    assert 1 <= len(values(cloud)) <= 10
    assert values(cloud) == sorted(entry.value for entry in desk.ledger.entries())
    assert None not in {entry.record_id for entry in desk.ledger.entries()}
    cloud.alidns.faults.turn_off()
    assert [] == desk.cleanup_orders(wanted)
    assert [] == values(cloud)
    assert [] == desk.ledger.entries()


def test_a_run_that_ends_while_waiting_does_so_soon(services: Services, cloud: Cloud, config: Config) -> None:
    """A stopped run doesn't sit out what the nameservers lag, and cleaning up leaves no record."""
    services.dns.servers[0].lag = 3600
    desk, wanted = Challenges(config), many(3, 2)
    begun: list[float] = []

    def stop() -> bool:
        if len(values(cloud)) == 6 and services.dns.servers[0].queries:
            begun.append(time.monotonic())
        return bool(begun)

    results = OrderResults(stop)
    results.present(desk, wanted)

    assert time.monotonic() - begun[0] < 1.0
    assert ([], {}) == (results.seen, results.failed)
    assert [] == desk.cleanup_orders(wanted)
    assert [] == values(cloud)


def test_a_killed_run_is_swept_by_the_very_next_one(services: Services, cloud: Cloud, config: Config) -> None:
    """kill -9 while the nameservers are waited for: as soon as the process is dead its records go."""
    services.dns.servers[0].lag = 3600
    script = (
        "import pickle, sys\n"
        "from certcast.dns01.challenges import Challenges\n"
        "config, orders, now = pickle.load(sys.stdin.buffer)\n"
        "Challenges(config).present_orders(orders, now, seen=print, failed=print, stopped=lambda: False)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    try:
        assert child.stdin
        pickle.dump((config, {ONE: order("example.test")}, NOW), child.stdin)
        child.stdin.close()
        wait_until(lambda: len(values(cloud)) == 2)
        assert [] == Challenges(config).sweep(NOW), "it lives"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    assert 2 == len(Challenges(config).sweep(NOW))
    assert [] == values(cloud)
