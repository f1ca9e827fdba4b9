"""When the CA may look: the decision over what nameservers answered, without any network."""

from __future__ import annotations

import pytest

from certcast.config import Address
from certcast.dns01.nameservers import Nameserver
from certcast.dns01.reach import Answer, agreed

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

    assert agreed([NS1, NS2], answers, WANTED)


@pytest.mark.parametrize("lagging", [(), ("apex-value",), ("somebody else's",)])
def test_one_server_that_lags_holds_the_order_back(lagging):
    """A nameserver that answers without one of the values is one that the CA might ask: we wait."""
    assert not agreed([NS1, NS2], [has(NS1, *WANTED), has(NS2, *lagging)], WANTED)


def test_a_server_that_has_said_nothing_yet_is_waited_for():
    """The quickest nameserver doesn't decide alone: the others' answers or time-outs are awaited."""
    assert not agreed([NS1, NS2], [has(NS1, *WANTED)], WANTED)


def test_half_of_the_servers_may_be_out_of_order():
    """One dead nameserver of two doesn't stop a renewal; of three, one may be dead, and two may not."""
    assert agreed([NS1, NS2], [has(NS1, *WANTED), fails(NS2)], WANTED)
    assert agreed([NS1, NS2, NS3], [has(NS1, *WANTED), has(NS2, *WANTED), fails(NS3)], WANTED)
    assert not agreed([NS1, NS2, NS3], [has(NS1, *WANTED), fails(NS2), fails(NS3)], WANTED)


def test_a_server_without_an_address_counts_as_one_that_does_not_answer():
    """A nameserver whose address can't be found is still one of the zone's nameservers."""
    lost, lost_too = server("ns8.example.net"), server("ns9.example.net")

    assert agreed([NS1, lost], [has(NS1, *WANTED)], WANTED)
    assert not agreed([NS1, lost, lost_too], [has(NS1, *WANTED)], WANTED)


def test_servers_are_counted_by_name_not_by_address():
    """A host without IPv6 isn't told that half of the nameservers are dead."""
    dual = server("ns1.example.net", "192.0.2.1", "2001:db8::1", "2001:db8::2")
    unreachable = [fails(dual, "Network is unreachable", at=1), fails(dual, "Network is unreachable", at=2)]

    assert agreed([dual], [has(dual, *WANTED), *unreachable], WANTED)


def test_every_address_that_answers_must_agree():
    """Two addresses of one nameserver may be two machines: the one that lags holds the order back."""
    dual = server("ns1.example.net", "192.0.2.1", "192.0.2.2")

    assert not agreed([dual], [has(dual, *WANTED), has(dual, at=1)], WANTED)


def test_silence_is_no_agreement():
    """If nobody answers, or the zone has no nameservers, the CA is not asked to look."""
    assert not agreed([NS1, NS2], [fails(NS1), fails(NS2)], WANTED)
    assert not agreed([], [], WANTED)
