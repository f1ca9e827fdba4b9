"""Renewing where port 53 is filtered: real certbot, pebble and DNS; the firewall is in the lab.

What is blocked is the renewal host's own way to the zone's nameservers. The CA asks
the same servers by a resolver of its own, and validates only what it sees there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from certcast_lab.blocked import Block, Blocked
from certcast_lab.doh import DohDoor
from certcast_lab.lab import Lab
from journey import Journey

CHALLENGE = "_acme-challenge.example.test"


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


@pytest.fixture
def blocked() -> Iterator[Callable[[Block], Blocked]]:
    """Return a function that makes blocked addresses, until the test ends."""
    with ExitStack() as blocks:
        yield lambda how: blocks.enter_context(Blocked(how))


@pytest.fixture
def doh(lab: Lab) -> Iterator[DohDoor]:
    with DohDoor(lab.dns.resolver, lab.authority) as door:
        yield door


def nameservers_at(journey: Journey, *addresses: object, dns: str = "", resolvers: object = None) -> None:
    """Configure these as the zone's nameservers, `resolvers` in place of the lab's, and more for [dns]."""
    toml = journey.renewal.certcast_toml
    text = re.sub(
        r"(?m)^nameservers = .*$", f"nameservers = {json.dumps([*map(str, addresses)])}", toml.read_text()
    )
    if resolvers is not None:
        text = re.sub(r"(?m)^resolvers = .*$", f"resolvers = {json.dumps([str(resolvers)])}", text)
    toml.write_text(text.replace("[dns]\n", f"[dns]\n{dns}"))


def asked_of_the_resolver(lab: Lab, name: str = CHALLENGE) -> list[str]:
    """By which transports the CA's and our resolver was asked for the challenge."""
    return [query.transport for query in lab.dns.resolver.queries if query.name == name]


@pytest.mark.parametrize("how", ["drop", "refuse"])
@pytest.mark.parametrize("by", ["plain", "doh"])
def test_blocked_port_53(
    lab: Lab,
    journey: Journey,
    blocked: Callable[[Block], Blocked],
    doh: DohDoor,
    how: Block,
    by: str,
) -> None:
    """
    No nameserver can be reached: a resolver, plain or by HTTPS, shows the values in their place. The
    certificate is issued, cron hears how, once, and that it could be better; nobody is mailed.
    """
    firewall = [blocked(how), blocked(how)]
    lab.dns.servers[1].lag = 1.0
    nameservers_at(journey, *firewall, resolvers=doh.url if by == "doh" else None)
    begun = time.monotonic()

    done = journey.renew()

    took = time.monotonic() - begun
    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published()
    assert 1 == done.stderr.count("warning: example.test: the nameservers of example.test cannot be reached")
    assert f"let this host ask {firewall[0]}, {firewall[1]} by UDP and TCP" in done.stderr
    assert [] == lab.mailbox.messages
    assert [] == lab.cloud.challenge_records()
    assert ("https" in asked_of_the_resolver(lab)) == (by == "doh")
    assert took < 20
