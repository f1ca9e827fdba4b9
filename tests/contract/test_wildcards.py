"""Wildcards of the lab's zones against RFC 4592's own example (section 2.2.1), asked by dnspython.

The example's delegated name is left out: the lab refers nobody elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import dns.message
import dns.query
import dns.rcode
import pytest

from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zones


@pytest.fixture(scope="module")
def service() -> Iterator[NameService]:
    zones = Zones()
    zone = zones.create("example", "1", ("ns.example.com",))
    for rr, rtype, value, priority in [
        ("*", "TXT", "this is a wildcard", None),
        ("*", "MX", "host1.example.", 10),
        ("sub.*", "TXT", "this is not a wildcard", None),
        ("host1", "A", "192.0.2.1", None),
        ("_ssh._tcp.host1", "SRV", "0 0 22 host1.example.", None),
        ("_ssh._tcp.host2", "SRV", "0 0 22 host2.example.", None),
    ]:
        zones.add(zone, rr, rtype, value, priority=priority)
    service = NameService(zones, ("ns.example.com",))
    yield service
    service.stop()


@pytest.mark.parametrize(
    ("name", "rtype", "rcode", "records"),
    [
        ("host3.example.", "MX", "NOERROR", ["host3.example. 600 IN MX 10 host1.example."]),
        ("host3.example.", "A", "NOERROR", []),
        ("foo.bar.example.", "TXT", "NOERROR", ['foo.bar.example. 600 IN TXT "this is a wildcard"']),
        ("host1.example.", "MX", "NOERROR", []),
        ("sub.*.example.", "MX", "NOERROR", []),
        ("_telnet._tcp.host1.example.", "SRV", "NXDOMAIN", []),
        ("ghost.*.example.", "MX", "NXDOMAIN", []),
        # Beyond the RFC's list: an empty non-terminal hides the wildcard (section 2.2.2).
        ("host2.example.", "MX", "NOERROR", []),
    ],
)
def test_the_rfcs_example_is_answered_as_it_says(service, name, rtype, rcode, records):
    """A wildcard answers for what doesn't exist, and for nothing that does, if only as a parent."""
    host, port = service.servers[0].address

    reply = dns.query.udp(dns.message.make_query(name, rtype), host, port=port, timeout=30)

    assert rcode == dns.rcode.to_text(reply.rcode())
    assert records == [line for rrset in reply.answer for line in rrset.to_text().splitlines()]
