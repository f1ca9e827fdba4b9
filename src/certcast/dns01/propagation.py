"""Waiting until a zone's nameservers show the TXT values.

A fixed sleep is too long on a good day and too short on a bad one. The CA asks
any one of the zone's servers (and several, from several places: BR section
3.2.2.9), so the question is whether *all* that can be asked have *all* values:

    every server, at each of its addresses, is polled by itself, from 0.25 s on
    go on as soon as
        each has answered or failed once, and
        all that answer have every value, and
        at least half of the servers (rounded up) answer
    then `settle` for what cannot be seen from here (anycast, other regions)

SERVFAIL and silence are no answer: a server in that state is asked again, and
doesn't hold the others up. Whether to go on is `agreed`, a pure function.

Not here: which servers, and the question itself (nameservers.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.dns01.nameservers import Unanswered, ask, is_authoritative
from certcast.errors import NotPropagated

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import dns.message

    from certcast.config import Address
    from certcast.dns01.nameservers import Nameserver

# Seconds between two questions to one server: gently longer, so that a quick provider costs nothing
# and a slow one isn't flooded. After 2 s of waiting the pause is 0.45 s, after 17 s it stays at 2 s.
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 0.25, 1.1, 2.0


@dataclass(frozen=True)
class Expected:
    """Values that a TXT name in a zone with these servers must show."""

    name: str
    values: frozenset[str]
    servers: tuple[Nameserver, ...]


@dataclass(frozen=True)
class Answer:
    """The latest that one address of a server said: its TXT values, or a problem in a few words."""

    server: str
    address: Address
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


def wait(
    expected: Sequence[Expected],
    *,
    deadline: float,
    settle: float,
    progress: Callable[[str], None],
) -> None:
    """Return once every expectation is met and `settle` seconds have passed.

    Raises NotPropagated after `deadline` seconds, with what each server said last.
    """
    for one in expected:
        servers = ", ".join(server.name for server in one.servers) or "no nameserver"
        progress(f"waiting until {servers} show {_values(len(one.values))} at {one.name}")
    begun = time.monotonic()
    asyncio.run(_watch(expected, deadline))
    progress(f"seen after {time.monotonic() - begun:.1f} s" + (f"; settling {settle:g} s" if settle else ""))
    time.sleep(settle)


async def _watch(expected: Sequence[Expected], deadline: float) -> None:
    met: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watches = [_Watch(one) for one in expected]

    def look() -> None:
        if not met.done() and all(watch.is_met() for watch in watches):
            met.set_result(None)

    def ended(poll: asyncio.Task[None]) -> None:
        # A defect in a poll must show at once, not as a nameserver that never answers.
        if not poll.cancelled() and (defect := poll.exception()) and not met.done():
            met.set_exception(defect)

    polls = [
        asyncio.create_task(watch.poll(server, address, look))
        for watch in watches
        for server, address in watch.addresses
    ]
    for poll in polls:
        poll.add_done_callback(ended)
    try:
        # Without any address nobody could ever answer.
        await asyncio.wait_for(met, deadline if all(watch.addresses for watch in watches) else 0)
    except asyncio.TimeoutError:
        raise _not_propagated([watch for watch in watches if not watch.is_met()], deadline) from None
    finally:
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


class _Watch:
    """One expectation, and the latest that each address said to it."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.addresses = [
            (server.name, address) for server in expected.servers for address in server.addresses
        ]
        self.heard: dict[Address, Answer] = {}

    def is_met(self) -> bool:
        return agreed(self.expected.servers, self.heard.values(), self.expected.values)

    async def poll(self, server: str, address: Address, look: Callable[[], None]) -> None:
        """Ask this address until it has all values."""
        pause = _FIRST_PAUSE
        while True:
            answer = await _answer(server, address, self.expected.name)
            self.heard[address] = answer
            look()
            if answer.problem is None and self.expected.values <= answer.values:
                return
            await asyncio.sleep(pause)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)


async def _answer(server: str, address: Address, name: str) -> Answer:
    try:
        reply = await ask(address, name, "TXT")
    except Unanswered as problem:
        return Answer(server, address, problem=str(problem))
    if not is_authoritative(reply):
        return Answer(server, address, problem="an answer that is not authoritative (no AA flag)")
    return Answer(server, address, texts(reply, name))


def texts(reply: dns.message.Message, name: str) -> frozenset[str]:
    """Return the TXT values at exactly this name; the strings of one value joined (RFC 8555 section 8.4)."""
    import dns.name
    import dns.rdatatype

    owner = dns.name.from_text(name)
    return frozenset(
        b"".join(record.strings).decode("ascii", "replace")
        for rrset in reply.answer
        if rrset.name == owner and rrset.rdtype == dns.rdatatype.TXT
        for record in rrset
    )


def _not_propagated(unmet: Sequence[_Watch], deadline: float) -> NotPropagated:
    one = unmet[0].expected
    asked = next((f"@{address.host} -p {address.port}" for _, address in unmet[0].addresses), "")
    return NotPropagated(
        f"the nameservers did not show {_values(len(one.values))} at {one.name} within {deadline:g} s",
        expected="\n".join(
            f"{watch.expected.name} TXT {value}" for watch in unmet for value in sorted(watch.expected.values)
        ),
        found="\n".join(line for watch in unmet for line in _what_they_said(watch)),
        next=f"`dig +norecurse {asked} {one.name} TXT` once the nameservers are mended, then run again",
    )


def _what_they_said(watch: _Watch) -> list[str]:
    wanted = watch.expected.values
    lines = []
    for server in watch.expected.servers:
        if not server.addresses:
            lines.append(f"{server.name}: its address was not found")
        for address in server.addresses:
            answer = watch.heard.get(address)
            if answer is None:
                said = "no answer yet"
            else:
                said = answer.problem or f"has {len(wanted & answer.values)} of {_values(len(wanted))}"
            where = "" if server.name == str(address) else f" ({address})"
            lines.append(f"{server.name}{where}: {said}")
    return lines


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"
