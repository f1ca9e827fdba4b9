"""The lab's nameservers, asked by dnspython and by nothing of our own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from certcast_lab.dns.nameservers import Nameserver, NameService, Resolver
from certcast_lab.dns.zones import Zone, Zones
from certcast_lab.serving.blocked import Blocked

HOSTNAMES = ("ns1.alidns.test", "ns2.alidns.test")
CHALLENGE = "_acme-challenge.example.test"


@pytest.fixture
def zones() -> Zones:
    return Zones()


@pytest.fixture
def zone(zones: Zones) -> Zone:
    return zones.create("example.test", owner="1", nameservers=HOSTNAMES)


@pytest.fixture
def service(zones: Zones) -> Iterator[NameService]:
    service = NameService(zones, HOSTNAMES)
    yield service
    service.stop()


def udp(
    server: Nameserver | Resolver, name: str, rtype: str, *, edns: int | None = None, timeout: float = 30
) -> dns.message.Message:
    host, port = server.address
    query = dns.message.make_query(name, rtype, use_edns=edns is not None, payload=edns or 0)
    return dns.query.udp(query, host, port=port, timeout=timeout)


def tcp(server: Nameserver | Resolver, name: str, rtype: str) -> dns.message.Message:
    host, port = server.address
    return dns.query.tcp(dns.message.make_query(name, rtype), host, port=port, timeout=30)


def texts(reply: dns.message.Message) -> set[str]:
    return {
        b"".join(rdata.strings).decode()
        for rrset in reply.answer
        if rrset.rdtype == dns.rdatatype.TXT
        for rdata in rrset
    }


def rcode(reply: dns.message.Message) -> str:
    return dns.rcode.to_text(reply.rcode())


def test_both_challenge_values_are_seen_over_udp_and_tcp(zones: Zones, zone: Zone, service: NameService):
    """The two TXT values that apex and wildcard need stand side by side at one name, by UDP and by TCP."""
    zones.add(zone, "_acme-challenge", "TXT", "apex-token")
    zones.add(zone, "_acme-challenge", "TXT", "wildcard-token")

    for server in service.servers:
        for ask in (udp, tcp):
            reply = ask(server, CHALLENGE, "TXT")
            assert {"apex-token", "wildcard-token"} == texts(reply)
            assert reply.flags & dns.flags.AA


def test_answer_too_large_for_udp(zones: Zones, zone: Zone, service: NameService):
    """A name crowded with TXT values is truncated over UDP, EDNS or not; asking again by TCP shows all."""
    values = {f"{number:02}" + "x" * 253 for number in range(9)}
    for value in values:
        zones.add(zone, "_acme-challenge", "TXT", value)
    server = service.servers[0]

    for edns in (None, 4096):
        reply = udp(server, CHALLENGE, "TXT", edns=edns)
        assert reply.flags & dns.flags.TC
        assert set() == texts(reply)
    assert values == texts(tcp(server, CHALLENGE, "TXT"))
    assert [True, True, False] == [query.truncated for query in server.queries]


def test_edns_makes_room_up_to_1232_octets(zones: Zones, zone: Zone, service: NameService):
    """An answer of about 1 KiB needs no TCP when the client offers EDNS, and does without."""
    values = {f"{number}" + "x" * 240 for number in range(4)}
    for value in values:
        zones.add(zone, "_acme-challenge", "TXT", value)

    assert values == texts(udp(service.servers[0], CHALLENGE, "TXT", edns=4096))
    assert udp(service.servers[0], CHALLENGE, "TXT").flags & dns.flags.TC


def test_a_value_over_255_octets_arrives_whole(zones: Zones, zone: Zone, service: NameService):
    """A long TXT value is cut into strings on the wire and is the same value again for the reader."""
    zones.add(zone, "long", "TXT", "y" * 300)
    assert {"y" * 300} == texts(udp(service.servers[0], "long.example.test", "TXT"))


def test_each_nameserver_lags_by_its_own_time(zones: Zones, zone: Zone, service: NameService):
    """A new value shows at once at one nameserver and only after its lag at the other; a removal likewise."""
    quick, slow = service.servers
    slow.lag = 0.3
    record = zones.add(zone, "_acme-challenge", "TXT", "token")
    added = time.monotonic()

    assert {"token"} == texts(udp(quick, CHALLENGE, "TXT"))
    assert "NXDOMAIN" == rcode(udp(slow, CHALLENGE, "TXT"))
    while not texts(udp(slow, CHALLENGE, "TXT")):
        assert time.monotonic() - added < 5
    assert time.monotonic() - added >= 0.3

    zones.delete(record)
    assert "NXDOMAIN" == rcode(udp(quick, CHALLENGE, "TXT"))
    assert {"token"} == texts(udp(slow, CHALLENGE, "TXT"))


def test_resolver_believes_the_slowest_nameserver(zones: Zones, zone: Zone, service: NameService):
    """The CA doesn't see a value before every working nameserver has it, and sees it if the laggard fails."""
    service.servers[1].lag = 60
    zones.add(zone, "_acme-challenge", "TXT", "token")

    assert set() == texts(udp(service.resolver, CHALLENGE, "TXT"))
    service.servers[1].silent = True
    assert {"token"} == texts(udp(service.resolver, CHALLENGE, "TXT"))
    service.servers[0].servfail = True
    assert "SERVFAIL" == rcode(udp(service.resolver, CHALLENGE, "TXT"))


def test_switches_affect_one_nameserver(zones: Zones, zone: Zone, service: NameService):
    """A nameserver that answers SERVFAIL, or nothing at all, leaves the other one working."""
    broken, well = service.servers
    broken.servfail = True
    assert "SERVFAIL" == rcode(udp(broken, "example.test", "SOA"))
    assert "SERVFAIL" == rcode(tcp(broken, "example.test", "SOA"))

    broken.servfail, broken.silent = False, True
    with pytest.raises(dns.exception.Timeout):
        udp(broken, "example.test", "SOA", timeout=0.2)
    assert [None] == [query.rcode for query in broken.queries if query.rcode != "SERVFAIL"]
    assert "NOERROR" == rcode(udp(well, "example.test", "SOA"))


def test_an_unmodified_resolver_follows_a_delegated_challenge(zones: Zones, zone: Zone, service: NameService):
    """A CNAME at `_acme-challenge` into another zone leads a stock resolver to the value there."""
    other = zones.create("challenges.test", owner="1", nameservers=HOSTNAMES)
    zones.add(zone, "_acme-challenge", "CNAME", "example.challenges.test")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = service.resolver.port

    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve(CHALLENGE, "TXT")
    zones.add(other, "example", "TXT", "token")
    found = resolver.resolve(CHALLENGE, "TXT")

    assert ['"token"'] == [rdata.to_text() for rdata in found]
    assert "example.challenges.test." == found.canonical_name.to_text()


def test_the_zone_cut_can_be_found(zones: Zones, zone: Zone, service: NameService):
    """Walking up from a challenge name finds the zone by its SOA, also for a name that does not exist."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = service.servers[0].port

    assert "example.test." == dns.resolver.zone_for_name(CHALLENGE, resolver=resolver).to_text()
    found = {rdata.target.to_text() for rdata in resolver.resolve("example.test", "NS")}
    assert {"ns1.alidns.test.", "ns2.alidns.test."} == found


def test_negative_answers_carry_the_soa(zones: Zones, zone: Zone, service: NameService):
    """NXDOMAIN and NODATA are told apart, carry the SOA; a foreign name is refused; the serial grows."""
    zones.add(zone, "www", "A", "192.0.2.1")
    server = service.servers[0]

    missing, empty = udp(server, "no.example.test", "TXT"), udp(server, "www.example.test", "TXT")
    assert ("NXDOMAIN", "NOERROR") == (rcode(missing), rcode(empty))
    assert [1, 1] == [len(missing.authority), len(empty.authority)]
    assert "REFUSED" == rcode(udp(server, "example.org", "TXT"))

    before = empty.authority[0][0].serial
    zones.add(zone, "www", "TXT", "x")
    assert udp(server, "example.test", "SOA").answer[0][0].serial > before


def test_garbage_is_ignored(zones: Zones, zone: Zone, service: NameService):
    """Octets that are no DNS message get no answer and stop nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"\x00garbage", service.servers[0].address)
    assert "NOERROR" == rcode(udp(service.servers[0], "example.test", "SOA"))


def test_stopping_leaves_no_port_open(zones: Zones):
    """A stopped service closes all of its sockets, even with a client connected, and may be stopped again."""
    service = NameService(zones, HOSTNAMES)
    addresses = [server.address for server in [*service.servers, service.resolver]]
    with socket.create_connection(addresses[0], timeout=30) as client:
        dns.query.tcp(dns.message.make_query("example.test", "SOA"), "127.0.0.1", sock=client)
        service.stop()
        assert b"" == client.recv(1)
    service.stop()
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=1)


def test_a_resolver_may_remember_a_no(zones: Zones, zone: Zone, service: NameService):
    """A name that was asked for before its record stood stays unknown to that resolver, and to no other."""
    service.resolver.remembers = True
    assert "NXDOMAIN" == rcode(udp(service.resolver, CHALLENGE, "TXT"))
    zones.add(zone, "_acme-challenge", "TXT", "token")

    assert "NXDOMAIN" == rcode(udp(service.resolver, CHALLENGE, "TXT"))
    assert {"token"} == texts(udp(service.vpc, CHALLENGE, "TXT"))
    service.resolver.work_well()
    assert {"token"} == texts(udp(service.resolver, CHALLENGE, "TXT"))


def test_a_nameserver_may_be_filtered_by_transport(zone: Zone, service: NameService):
    """Where UDP is dropped, TCP still answers, and the other way round."""
    server = service.servers[0]
    server.drops = frozenset({"udp"})
    with pytest.raises(dns.exception.Timeout):
        udp(server, "example.test", "SOA", timeout=0.2)
    assert "NOERROR" == rcode(tcp(server, "example.test", "SOA"))

    server.drops = frozenset({"tcp"})
    assert "NOERROR" == rcode(udp(server, "example.test", "SOA"))


def test_a_nameserver_may_be_older_than_edns(zone: Zone, service: NameService):
    """It answers FORMERR to whoever offers EDNS, without an OPT of its own (RFC 6891 section 7)."""
    server = service.servers[0]
    server.knows_edns = False

    refused = udp(server, "example.test", "SOA", edns=1232)
    assert ("FORMERR", -1) == (rcode(refused), refused.edns)
    assert "NOERROR" == rcode(udp(server, "example.test", "SOA"))


def test_a_blocked_address_drops_or_refuses():
    """Dropped is silence, by UDP and by TCP; refused is said at once, by ICMP and by RST."""
    for how, expected in (("drop", TimeoutError), ("refuse", ConnectionRefusedError)):
        with Blocked(how) as blocked, socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.connect(blocked.address)
            client.send(dns.message.make_query("example.test", "SOA").to_wire())
            with pytest.raises(expected):
                client.recv(512)
            with pytest.raises(expected):
                socket.create_connection(blocked.address, timeout=0.2)
