"""What a person reads while orders wait; without any network."""

from __future__ import annotations

from certcast.config.model import Address
from certcast.dns01.visibility.nameservers import Nameserver
from certcast.dns01.visibility.reach import ExpectedTxt
from certcast.dns01.visibility.waiting import describe_wait

NS1 = Nameserver("ns1.example.net", (Address("192.0.2.1", 53),))
NS2 = Nameserver("ns2.example.net", (Address("192.0.2.2", 53),))


def expected(name: str, *values: str, servers: tuple[Nameserver, ...] = (NS1, NS2)) -> ExpectedTxt:
    return ExpectedTxt(f"_acme-challenge.{name}", name, frozenset(values), servers)


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
