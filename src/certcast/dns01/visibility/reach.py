"""What the answers of nameservers and resolvers amount to: decisions without any network.

- An address cannot be reached if two questions to it, the second asked after the first had failed, got no DNS
  message, neither by UDP nor by TCP. A zone's servers cannot be reached if that is so for every address of
  all of them. A firewall that refuses is found out in 0.1 s, one that drops packets in 8 s.
- An address that has ever answered, in whatever way, counts as reachable for the rest of the wait. certcast
  waits for a slow server, and for one that says SERVFAIL or REFUSED: those answers pass, and while they last
  the CA gets them, too. Nothing else is asked in such a server's place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from certcast.config.model import Address, Resolver

if TYPE_CHECKING:
    from collections.abc import Collection

    from certcast.dns01.visibility.nameservers import Nameserver


ShownBy = Literal["nameservers", "resolvers", "none"]
Peer = Address | Resolver
"""One address of a nameserver, or a resolver."""


@dataclass(frozen=True)
class ExpectedTxt:
    """Values that a TXT name in a zone with these servers must show."""

    name: str
    zone: str
    values: frozenset[str]
    servers: tuple[Nameserver, ...]


@dataclass(frozen=True)
class WatchResult:
    """What shows all expected values, and a line for the last answer of each server and resolver."""

    expected: ExpectedTxt
    shown_by: ShownBy
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """The latest answer of one address of a server, or of a resolver: TXT values, or a problem in words."""

    server: str
    peer: Peer
    values: frozenset[str] = frozenset()
    problem: str | None = None


def nameservers_agree(
    servers: Collection[Nameserver], answers: Collection[Answer], wanted: frozenset[str]
) -> bool:
    """Return whether all that answer have all of `wanted`, and at least half of the servers answer.

    `answers` are the latest of each address. An address without any answer or problem is waited for.
    Servers are counted by name: an unreachable address family does not count as a lost server.
    """
    addresses = {address for server in servers for address in server.addresses}
    good = [answer for answer in answers if answer.problem is None]
    answering = {answer.server for answer in good}
    return (
        bool(servers)
        and addresses <= {answer.peer for answer in answers}
        and len(answering) >= math.ceil(len(servers) / 2)
        and all(wanted <= answer.values for answer in good)
    )


def resolvers_agree(resolvers: Collection[Peer], answers: Collection[Answer], wanted: frozenset[str]) -> bool:
    """Return whether each resolver has answered or failed, one has answered, and all answers are complete."""
    good = [answer for answer in answers if answer.problem is None]
    return (
        bool(good)
        and set(resolvers) <= {answer.peer for answer in answers}
        and all(wanted <= answer.values for answer in good)
    )


class Reachability:
    """Which addresses can be reached; times are monotonic seconds."""

    def __init__(self) -> None:
        self._first_failed: dict[Peer, float] = {}
        self._silent: set[Peer] = set()
        self._reached: set[Peer] = set()

    def note_answer(self, peer: Peer) -> None:
        """Note that a DNS message came from there."""
        self._reached.add(peer)

    def note_silence(self, peer: Peer, asked: float, failed: float) -> None:
        """Note that a question of the moment `asked` had no answer until `failed`."""
        if asked >= self._first_failed.setdefault(peer, failed):
            self._silent.add(peer)

    def lacks_all(self, peers: Collection[Peer]) -> bool:
        """Return whether none of these can be reached; so too where there is none."""
        return all(peer in self._silent - self._reached for peer in peers)


def count_text(count: int, noun: str) -> str:
    """Return "1 value", "2 values"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
