"""What the answers of nameservers and resolvers amount to: decisions without any network.

    agreed    the nameservers show the values, so the CA may look
    shown     the resolvers show them
    Silence   who cannot be reached at all

*Cannot be reached* is said of an address that gave no DNS message, neither by UDP
nor by TCP, to a question and again to a second one that was asked after the first
had failed; and of a zone's servers when it holds for every address of all of them.
A firewall that refuses is found out in 0.1 s, one that drops in 8 s. Whoever ever
answered, in whatever way, is reachable for the rest of the wait: a slow server is
waited for, and so is one that says SERVFAIL or REFUSED. Those pass, and while they
last the CA gets the same answers; nobody should be asked in such a server's place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from certcast.config.model import Address, Resolver

if TYPE_CHECKING:
    from collections.abc import Collection

    from certcast.dns01.visibility.nameservers import Nameserver


By = Literal["nameservers", "resolvers", "nobody"]
Asked = Address | Resolver
"""One address of a nameserver, or a resolver."""


@dataclass(frozen=True)
class Expected:
    """Values that a TXT name in a zone with these servers must show."""

    name: str
    zone: str
    values: frozenset[str]
    servers: tuple[Nameserver, ...]


@dataclass(frozen=True)
class Seen:
    """Who showed all values of an expectation, and the last that each server and resolver said of it."""

    expected: Expected
    by: By
    said: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """The latest that one address of a server, or a resolver, said: TXT values, or its problem in words."""

    server: str
    address: Asked
    values: frozenset[str] = frozenset()
    problem: str | None = None


def agreed(servers: Collection[Nameserver], answers: Collection[Answer], wanted: frozenset[str]) -> bool:
    """Return whether the CA may look: all that answer have all of `wanted`, and half the servers answer.

    `answers` are the latest of each address; an address that has not spoken at all yet is waited for.
    Counted are servers by name, so that an address family that this host can't reach is no lost server.
    """
    asked = {address for server in servers for address in server.addresses}
    heard = [answer for answer in answers if answer.problem is None]
    answering = {answer.server for answer in heard}
    return (
        bool(servers)
        and asked <= {answer.address for answer in answers}
        and len(answering) >= math.ceil(len(servers) / 2)
        and all(wanted <= answer.values for answer in heard)
    )


def shown(resolvers: Collection[Asked], answers: Collection[Answer], wanted: frozenset[str]) -> bool:
    """Return whether all resolvers that answer have all of `wanted`, and one does; each must have spoken."""
    heard = [answer for answer in answers if answer.problem is None]
    return (
        bool(heard)
        and set(resolvers) <= {answer.address for answer in answers}
        and all(wanted <= answer.values for answer in heard)
    )


class Silence:
    """Which addresses cannot be reached; times are monotonic seconds."""

    def __init__(self) -> None:
        self._first_failed: dict[Asked, float] = {}
        self._silent: set[Asked] = set()
        self._reached: set[Asked] = set()

    def heard(self, address: Asked) -> None:
        """Note that a DNS message came from there."""
        self._reached.add(address)

    def heard_nothing(self, address: Asked, asked: float, failed: float) -> None:
        """Note that none came to a question of `asked` until `failed`."""
        if asked >= self._first_failed.setdefault(address, failed):
            self._silent.add(address)

    def of_all(self, addresses: Collection[Asked]) -> bool:
        """Return whether none of these can be reached; so too where there is none."""
        return all(address in self._silent - self._reached for address in addresses)


def values_text(count: int) -> str:
    """Return "1 value", "2 values"."""
    return "1 value" if count == 1 else f"{count} values"


def names_text(count: int) -> str:
    """Return "1 name", "2 names"."""
    return "1 name" if count == 1 else f"{count} names"
