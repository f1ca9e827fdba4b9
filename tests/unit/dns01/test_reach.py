"""When the CA may look: the decision over what nameservers answered, without any network."""

from __future__ import annotations

import pytest

from certcast.config.model import Address, HttpUrl, Resolver
from certcast.dns01.visibility.nameservers import Nameserver
from certcast.dns01.visibility.reach import Answer, Reachability, nameservers_agree, resolvers_agree

WANTED = frozenset({"apex-value", "wildcard-value"})


def server(name: str, *hosts: str) -> Nameserver:
    return Nameserver(name, tuple(Address(host, 53) for host in hosts))


NS1 = server("ns1.example.net", "192.0.2.1")
NS2 = server("ns2.example.net", "192.0.2.2")
NS3 = server("ns3.example.net", "192.0.2.3")


def has(nameserver: Nameserver, *values: str, at: int = 0) -> Answer:
    return Answer(nameserver.name, nameserver.addresses[at], frozenset(values))


def fails(nameserver: Nameserver, problem: str = "SERVFAIL", at: int = 0) -> Answer:
    return Answer(nameserver.name, nameserver.addresses[at], problem=problem)


def test_all_servers_with_all_values_are_enough():
    """When every nameserver shows both values, the CA may look; other values at the name don't matter."""
    answers = [has(NS1, *WANTED), has(NS2, *WANTED, "somebody else's")]

    assert nameservers_agree([NS1, NS2], answers, WANTED)


@pytest.mark.parametrize("lagging", [(), ("apex-value",), ("somebody else's",)])
def test_one_server_that_lags_holds_the_order_back(lagging):
    """A nameserver that answers without one of the values is one that the CA might ask: we wait."""
    assert not nameservers_agree([NS1, NS2], [has(NS1, *WANTED), has(NS2, *lagging)], WANTED)


def test_a_server_that_has_said_nothing_yet_is_waited_for():
    """The quickest nameserver doesn't decide alone: the others' answers or time-outs are awaited."""
    assert not nameservers_agree([NS1, NS2], [has(NS1, *WANTED)], WANTED)


def test_half_of_the_servers_may_be_out_of_order():
    """One dead nameserver of two doesn't stop a renewal; of three, one may be dead, and two may not."""
    assert nameservers_agree([NS1, NS2], [has(NS1, *WANTED), fails(NS2)], WANTED)
    assert nameservers_agree([NS1, NS2, NS3], [has(NS1, *WANTED), has(NS2, *WANTED), fails(NS3)], WANTED)
    assert not nameservers_agree([NS1, NS2, NS3], [has(NS1, *WANTED), fails(NS2), fails(NS3)], WANTED)


def test_a_server_without_an_address_does_not_answer():
    """A nameserver whose address can't be found is still one of the zone's nameservers."""
    lost, lost_too = server("ns8.example.net"), server("ns9.example.net")

    assert nameservers_agree([NS1, lost], [has(NS1, *WANTED)], WANTED)
    assert not nameservers_agree([NS1, lost, lost_too], [has(NS1, *WANTED)], WANTED)


def test_servers_are_counted_by_name_not_by_address():
    """A host without IPv6 isn't told that half of the nameservers are dead."""
    dual = server("ns1.example.net", "192.0.2.1", "2001:db8::1", "2001:db8::2")
    unreachable = [fails(dual, "Network is unreachable", at=1), fails(dual, "Network is unreachable", at=2)]

    assert nameservers_agree([dual], [has(dual, *WANTED), *unreachable], WANTED)


def test_every_address_that_answers_must_agree():
    """Two addresses of one nameserver may be two machines: the one that lags holds the order back."""
    dual = server("ns1.example.net", "192.0.2.1", "192.0.2.2")

    assert not nameservers_agree([dual], [has(dual, *WANTED), has(dual, at=1)], WANTED)


def test_silence_is_no_agreement():
    """If nobody answers, or the zone has no nameservers, the CA is not asked to look."""
    assert not nameservers_agree([NS1, NS2], [fails(NS1), fails(NS2)], WANTED)
    assert not nameservers_agree([], [], WANTED)


# -- resolvers in their place

PLAIN = Resolver(Address("192.0.2.53", 53))
DOH = Resolver(HttpUrl("https://192.0.2.54/dns-query"))


def resolver_has(resolver: Resolver, *values: str) -> Answer:
    return Answer("resolver", resolver, frozenset(values))


def test_one_resolver_is_enough_where_others_fail():
    """Of two resolvers one may be out of order, but not both."""
    failing = Answer("resolver", DOH, problem="SERVFAIL")

    assert resolvers_agree([PLAIN, DOH], [resolver_has(PLAIN, *WANTED), failing], WANTED)
    assert not resolvers_agree([DOH], [failing], WANTED)


def test_each_resolver_has_its_say():
    """One that hasn't answered yet is waited for, and one without a value holds the order back."""
    assert not resolvers_agree([PLAIN, DOH], [resolver_has(PLAIN, *WANTED)], WANTED)
    assert not resolvers_agree(
        [PLAIN, DOH], [resolver_has(PLAIN, *WANTED), resolver_has(DOH, "apex-value")], WANTED
    )


def test_no_resolver_shows_nothing():
    """A host without any resolver is no reason to go on."""
    assert not resolvers_agree([], [], WANTED)


# -- who cannot be reached

HERE, THERE = Address("192.0.2.1", 53), Address("192.0.2.2", 53)


def test_one_failure_is_not_yet_silence():
    """A lost datagram and a connection that took too long, once, leave the server in."""
    reachability = Reachability()
    reachability.note_silence(HERE, asked=0.0, failed=4.0)

    assert not reachability.lacks_all([HERE])


def test_a_second_failure_after_the_first_is():
    """Asked again once the first question had failed, and nothing again: it cannot be reached."""
    reachability = Reachability()
    reachability.note_silence(HERE, asked=0.0, failed=4.0)
    reachability.note_silence(HERE, asked=4.25, failed=8.25)

    assert reachability.lacks_all([HERE])


def test_questions_at_the_same_time_count_once():
    """Ten names that fail in the same four seconds are one bad moment, not ten proofs."""
    reachability = Reachability()
    for _ in range(10):
        reachability.note_silence(HERE, asked=0.0, failed=4.0)

    assert not reachability.lacks_all([HERE])


@pytest.mark.parametrize("when", ["before", "after"])
def test_any_answer_at_any_time_is_proof_of_the_contrary(when):
    """A server that has answered, whatever and whenever, is slow and not out of reach."""
    reachability = Reachability()
    if when == "before":
        reachability.note_answer(HERE)
    reachability.note_silence(HERE, asked=0.0, failed=4.0)
    reachability.note_silence(HERE, asked=4.25, failed=8.25)
    if when == "after":
        reachability.note_answer(HERE)

    assert not reachability.lacks_all([HERE])


def test_all_addresses_must_be_silent():
    """One address that may still answer keeps everybody waiting; none at all is the same as all silent."""
    reachability = Reachability()
    reachability.note_silence(HERE, asked=0.0, failed=4.0)
    reachability.note_silence(HERE, asked=4.25, failed=8.25)

    assert not reachability.lacks_all([HERE, THERE])
    assert reachability.lacks_all([])
