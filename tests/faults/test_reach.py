"""Waiting for nameservers that can hardly be reached: real sockets, no provider."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from certcast.config.model import Address, Resolver
from certcast.dns01.visibility import exchange
from certcast.dns01.visibility.nameservers import Nameserver
from certcast.dns01.visibility.reach import ExpectedTxt, WatchResult
from certcast.dns01.visibility.waiting import watch_all
from certcast.dns01.visibility.watching import WatchGroup
from certcast.report.errors import NotPropagated
from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zone, Zones
from certcast_lab.serving.blocked import Blocked

CHALLENGE = "_acme-challenge.example.test"
HOSTS = ("ns1.example.net", "ns2.example.net")


@pytest.fixture
def zones() -> Zones:
    return Zones()


@pytest.fixture
def zone(zones: Zones) -> Zone:
    """The zone with both values."""
    zone = zones.create("example.test", owner="1", nameservers=HOSTS)
    for value in ("apex", "wildcard"):
        zones.add(zone, "_acme-challenge", "TXT", value)
    return zone


@pytest.fixture
def dns(zones: Zones) -> Iterator[NameService]:
    dns = NameService(zones, HOSTS)
    yield dns
    dns.stop()


def nameservers(*addresses: tuple[str, int]) -> tuple[Nameserver, ...]:
    return tuple(Nameserver(f"ns{n}.example.net", (Address(*at),)) for n, at in enumerate(addresses, 1))


def all_of(dns: NameService) -> tuple[Nameserver, ...]:
    return nameservers(*(server.address for server in dns.servers))


def wait(
    dns: NameService, servers: tuple[Nameserver, ...], *, deadline: float = 20.0, head_start: float = 0.0
) -> WatchResult:
    """Wait for both values, with the lab's resolver to fall back to."""
    expected = ExpectedTxt(CHALLENGE, "example.test", frozenset({"apex", "wildcard"}), servers)
    (result,) = wait_for([expected], dns, deadline=deadline, head_start=head_start)
    return result


def wait_for(
    expected: list[ExpectedTxt], dns: NameService, *, deadline: float, head_start: float = 0.0
) -> list[WatchResult]:
    async def until_seen() -> list[WatchResult]:
        group = WatchGroup([Resolver(Address(*dns.resolver.address))], progress=lambda _text: None)
        return await watch_all(expected, group, head_start=head_start, deadline=deadline)

    return asyncio.run(until_seen())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lost datagram cost 0.2 s, and a dead server 0.4 s."""
    monkeypatch.setattr(exchange, "UDP_TIMEOUT", 0.2)
    monkeypatch.setattr(exchange, "TCP_TIMEOUT", 0.2)


@pytest.mark.usefixtures("zone")
def test_servfail_is_an_answer_and_waited_for(dns: NameService) -> None:
    """Nameservers that answer SERVFAIL are reached: they get their time, and no resolver stands in."""
    for server in dns.servers:
        server.servfail = True
    mended = threading.Timer(1.5, lambda: [server.work_well() for server in dns.servers])
    mended.start()

    seen = wait(dns, all_of(dns))

    mended.join()
    assert "nameservers" == seen.shown_by
    assert [] == dns.resolver.queries


def test_refused_is_an_answer_and_waited_for(zones: Zones, dns: NameService) -> None:
    """Nameservers that don't have the zone, and say so, are no reason to believe anybody else."""
    with pytest.raises(NotPropagated) as failed:
        wait(dns, all_of(dns), deadline=2.0)

    assert "ns1.example.net" in str(failed.value.found)
    assert 2 == str(failed.value.found).count("REFUSED")
    assert [] == dns.resolver.queries


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(("dropped", "seconds"), [("udp", 4.0), ("tcp", 1.0)])
def test_one_transport_is_enough(dns: NameService, dropped: str, seconds: float) -> None:
    """A network that lets only TCP out, or only UDP, is no reason to ask anybody else."""
    for server in dns.servers:
        server.drops = frozenset({dropped})  # type: ignore[arg-type]
    begun = time.monotonic()

    seen = wait(dns, all_of(dns))

    assert "nameservers" == seen.shown_by
    assert time.monotonic() - begun < seconds


@pytest.mark.usefixtures("impatient")
def test_a_truncated_answer_without_tcp_is_none(zones: Zones, zone: Zone, dns: NameService) -> None:
    """Too many values for a datagram, and TCP is filtered: nothing can be read, so a resolver is asked."""
    for number in range(40):
        zones.add(zone, "_acme-challenge", "TXT", f"another-order-{number:02}-".ljust(43, "x"))
    for server in dns.servers:
        server.drops = frozenset({"tcp"})

    assert "resolvers" == wait(dns, all_of(dns)).shown_by


@pytest.mark.usefixtures("zone")
def test_a_server_older_than_edns_is_asked_without(dns: NameService) -> None:
    """A nameserver that calls an EDNS question malformed gets it without, and its answer counts."""
    for server in dns.servers:
        server.knows_edns = False

    assert "nameservers" == wait(dns, all_of(dns)).shown_by


@pytest.mark.usefixtures("zone")
def test_one_server_that_can_be_reached_is_asked_alone(dns: NameService) -> None:
    """A filter before some of the nameservers only: the others are asked, and nobody in their place."""
    with Blocked("drop") as filtered:
        seen = wait(dns, nameservers(filtered.address, dns.servers[0].address))

    assert "nameservers" == seen.shown_by
    assert [] == dns.resolver.queries


def test_many_names_for_one_address_are_as_many_servers(dns: NameService, zone: Zone) -> None:
    """Four nameserver names that lead to one machine, as small providers have: all of them answer."""
    at = Address(*dns.servers[0].address)

    seen = wait(dns, tuple(Nameserver(f"ns{number}.example.net", (at,)) for number in range(4)), deadline=5.0)

    assert "nameservers" == seen.shown_by


@pytest.mark.usefixtures("impatient")
def test_server_back_without_the_values(zones: Zones, dns: NameService) -> None:
    """
    Once a nameserver can be reached again, its "no" counts: neither a resolver's word nor the API's is
    taken instead, and the CA isn't asked.
    """
    zones.create("example.test", owner="1", nameservers=HOSTS)
    for server in dns.servers:
        server.drops = frozenset({"udp", "tcp"})
    back = threading.Timer(1.5, lambda: [server.work_well() for server in dns.servers])
    back.start()

    with pytest.raises(NotPropagated) as failed:
        wait(dns, all_of(dns), deadline=4.0)

    back.join()
    assert "has 0 of 2 values" in str(failed.value.found)


@pytest.mark.usefixtures("zone")
def test_a_firewall_that_refuses_is_heard_at_once(dns: NameService) -> None:
    """ICMP and RST say as much as silence does, and sooner: the wait for nothing is left out."""
    begun = time.monotonic()
    with Blocked("refuse") as filtered:
        seen = wait(dns, nameservers(filtered.address))

    assert "resolvers" == seen.shown_by
    assert time.monotonic() - begun < 1.0


@pytest.mark.usefixtures("zone")
def test_no_resolver_is_asked_before_the_head_start_is_over(dns: NameService) -> None:
    """A resolver would remember a "no" for ten minutes, so the nameservers get their time first."""
    begun = time.monotonic()
    with Blocked("refuse") as filtered:
        seen = wait(dns, nameservers(filtered.address), head_start=2.0)

    assert "resolvers" == seen.shown_by
    assert dns.resolver.queries[0].at - begun >= 2.0


def test_a_filter_costs_the_same_for_many_names(dns: NameService, zones: Zones) -> None:
    """
    Fifty names at two nameservers with seven addresses each, all of them silent: found out in the time
    that one name takes, with no more sockets than a process has.
    """
    zone = zones.create("example.test", owner="1", nameservers=HOSTS)
    expected = []
    with ExitStack() as firewall:
        filtered = [[firewall.enter_context(Blocked("drop")) for _ in range(7)] for _ in HOSTS]
        servers = tuple(
            Nameserver(host, tuple(Address(*one.address) for one in its))
            for host, its in zip(HOSTS, filtered, strict=True)
        )
        for number in range(50):
            zones.add(zone, f"_acme-challenge.n{number}", "TXT", "value")
            name = f"_acme-challenge.n{number}.example.test"
            expected.append(ExpectedTxt(name, "example.test", frozenset({"value"}), servers))
        begun = time.monotonic()
        results = wait_for(expected, dns, deadline=60.0)

    assert {"resolvers"} == {result.shown_by for result in results}
    assert time.monotonic() - begun < 15.0
