"""Renewing where port 53 is filtered: real pebble and DNS; the firewall is in the lab.

What is blocked is the renewal host's own way to the zone's nameservers. The CA asks
the same servers by a resolver of its own, and validates only what it sees there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import dns.message
import dns.query
import pytest

from certcast_lab.dns.doh import DohDoor
from certcast_lab.lab import Lab
from certcast_lab.serving.blocked import Block, Blocked
from journey import Done, Journey

CHALLENGE = "_acme-challenge.example.test"


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


@pytest.fixture
def blocked() -> Iterator[Callable[[Block], Blocked]]:
    """Return a function that makes blocked addresses, until the test ends."""
    with ExitStack() as blocks:
        yield lambda how: blocks.enter_context(Blocked(how))


def reach(journey: Journey, nameservers: Sequence[object], resolver: object, dns: str = "") -> None:
    """Configure what the renewal host reaches: the zone's nameservers, a resolver; and more for [dns]."""
    toml = journey.renewal.certcast_toml
    text = toml.read_text()
    for field, value in (("nameservers", nameservers), ("resolvers", [resolver])):
        text = re.sub(rf"(?m)^{field} = .*$", f"{field} = {json.dumps([*map(str, value)])}", text)
    toml.write_text(text.replace("[dns]\n", f"[dns]\n{dns}"))


def ours(lab: Lab) -> str:
    """The renewal host's resolver: another one than the CA's."""
    return "{}:{}".format(*lab.dns.vpc.address)


def transports(lab: Lab) -> set[str]:
    """By which transports the renewal host asked its resolver for the challenge."""
    return {query.transport for query in lab.dns.vpc.queries if query.name == CHALLENGE}


@pytest.fixture(params=["drop", "refuse"])
def firewalls(request: pytest.FixtureRequest, blocked: Callable[[Block], Blocked]) -> list[Blocked]:
    """Two nameservers behind a firewall that drops, or refuses."""
    return [blocked(request.param), blocked(request.param)]


def told(done: Done, *, by: str) -> bool:
    """Whether cron was told, once, that the nameservers can't be reached, and what was done instead."""
    said = "warning: the nameservers of example.test cannot be reached from this host; "
    return 1 == done.stderr.count(f"{said}{by}") == done.stderr.count("cannot be reached")


def test_blocked_port_53(lab: Lab, journey: Journey, firewalls: list[Blocked]) -> None:
    """
    No nameserver can be reached: a resolver shows the values in their place. The certificate is issued
    and published, cron hears how, once, and what would be better; nobody is mailed.
    """
    lab.dns.vpc.remembers = True
    lab.dns.servers[1].lag = 1.5
    reach(journey, firewalls, ours(lab), 'fallback_wait = "6s"\n')

    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published()
    assert told(done, by="resolvers showed the TXT values instead"), done.stderr
    assert f"let this host ask {firewalls[0]}, {firewalls[1]} by UDP and TCP" in done.stderr
    assert {"udp"} == transports(lab)
    assert [] == lab.mailbox.messages
    assert [] == lab.cloud.challenge_records()


def test_blocked_port_53_and_a_resolver_by_https(
    lab: Lab, journey: Journey, blocked: Callable[[Block], Blocked]
) -> None:
    """The resolver may be a DoH server: no DNS leaves the host by another way than HTTPS."""
    with DohDoor(lab.dns.vpc, lab.authority) as doh:
        reach(journey, [blocked("refuse")], doh.url, 'fallback_wait = "3s"\n')
        done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert told(done, by="resolvers showed the TXT values instead"), done.stderr
    assert {"https"} == {query.transport for query in lab.dns.vpc.queries}


def test_blocked_port_53_and_no_resolver(
    lab: Lab, journey: Journey, firewalls: list[Blocked], blocked: Callable[[Block], Blocked]
) -> None:
    """
    Where resolvers are filtered too, the API shows that the records stand, a fixed wait passes, and the
    CA is asked. The warning says which addresses to open, or to set resolvers.
    """
    lab.dns.servers[1].lag = 1.5
    reach(journey, firewalls, blocked("refuse"), 'fallback_wait = "2s"\n')

    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published()
    assert told(done, by="waited 2 s without looking, after the API had shown the TXT values"), done.stderr
    assert f"let this host ask {firewalls[0]}, {firewalls[1]} by UDP and TCP; or set resolvers" in done.stderr
    assert [] == lab.mailbox.messages


def test_blocked_port_53_and_a_resolver_that_says_no(
    lab: Lab, journey: Journey, blocked: Callable[[Block], Blocked]
) -> None:
    """
    Somebody asked the resolver for the name before the values stood, and it remembers the "no". It is
    asked for half of the deadline; then the API's word and the fixed wait serve.
    """
    lab.dns.vpc.remembers = True
    dig(lab.dns.vpc.address, CHALLENGE)
    reach(journey, [blocked("refuse")], ours(lab), 'fallback_wait = "1s"\ndeadline = "5s"\n')

    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert told(done, by="waited 1 s without looking"), done.stderr
    assert f"resolver ({ours(lab)}): has 0 of 2 values" in done.stderr


def test_blocked_port_53_in_the_hook_way(
    lab: Lab, journey: Journey, blocked: Callable[[Block], Blocked]
) -> None:
    """The auth hook of a certbot that is already there does the same, and certbot shows its warning."""
    reach(journey, [blocked("refuse")], ours(lab), 'fallback_wait = "1s"\n')

    done = journey.certbot_with_hooks(
        *("certonly", "--agree-tos", "--register-unsafely-without-email", "-d", "example.test")
    )

    assert 0 == done.returncode, done.stderr
    assert 1 == (done.stdout + done.stderr).count(
        "warning: the nameservers of example.test cannot be reached"
    )
    assert [] == lab.cloud.challenge_records()


def test_nothing_is_said_where_the_nameservers_can_be_reached(lab: Lab, journey: Journey) -> None:
    """On a host without a firewall no resolver is asked for the values, and cron's mail has no warning."""
    lab.dns.servers[1].lag = 1.5
    reach(journey, ["{}:{}".format(*server.address) for server in lab.dns.servers], ours(lab))

    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert set() == transports(lab)


def dig(address: tuple[str, int], name: str) -> dns.message.Message:
    """Ask as anybody may."""
    return dns.query.udp(dns.message.make_query(name, "TXT"), address[0], port=address[1], timeout=30)
