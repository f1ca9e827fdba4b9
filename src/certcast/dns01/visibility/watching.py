"""Polling for one TXT name: its zone's nameservers, and resolvers where these can't be reached.

Each address is polled by a task of its own, at its own pace. After each answer the watch judges the latest
answers of all (reach.py), and goes on or ends.

All watches of a loop share what they learn of addresses (`WatchGroup`): a hundred names find a filtered port
in the time that one name takes.

Not here: how long a watch may last, and what follows from its result (waiting.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import dns.flags
import dns.name
import dns.rdatatype

from certcast.dns01.visibility.exchange import Unanswered, Unreachable
from certcast.dns01.visibility.nameservers import ask
from certcast.dns01.visibility.reach import (
    Answer,
    Reachability,
    WatchResult,
    count_text,
    nameservers_agree,
    resolvers_agree,
)
from certcast.dns01.visibility.resolvers import RecursiveResolver, choose_resolvers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import dns.message

    from certcast.config.model import Address, Resolver
    from certcast.dns01.visibility.nameservers import Nameserver
    from certcast.dns01.visibility.reach import ExpectedTxt, Peer, ShownBy

# Seconds between two questions to one address about one name. A wait overshoots by a pause at the worst: by
# a twentieth of what was waited. A quick provider costs nothing and a slow one isn't flooded: after 2 s of
# waiting the pause is still the shortest, after 20 s it is 1 s, and from 40 s on the longest.
_PROPORTION, _SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 0.1, 2.0
# And to one address about all names together: nameservers answer fewer questions than they are asked
# if they take these for an attack. A hundred names are asked for every 0.5 s.
_QUESTIONS_PER_SECOND = 200
# Questions under way at a time, each with a socket of its own; a process may have 1,024 open.
_AT_ONCE = 200


class WatchGroup:
    """What all watches of a loop share."""

    def __init__(self, fallback: Sequence[Resolver], progress: Callable[[str], None]) -> None:
        self.reachability = Reachability()
        self.slots = asyncio.Semaphore(_AT_ONCE)
        self.resolver_slots = asyncio.Semaphore(_AT_ONCE)
        self.names_asked_of: Counter[Peer] = Counter()
        self.news: set[asyncio.Event] = set()
        self._fallback = fallback
        self._progress = progress
        self._resolvers: tuple[RecursiveResolver, ...] | None = None

    def wake_all(self) -> None:
        """Let every watch judge anew."""
        for event in self.news:
            event.set()

    def resolvers(self, instead_of: Sequence[Nameserver], not_before: float) -> tuple[RecursiveResolver, ...]:
        """Return the resolvers, which may be asked from then on; they are set up when first needed."""
        if self._resolvers is None:
            self._resolvers = tuple(map(RecursiveResolver, choose_resolvers(self._fallback)))
            names = ", ".join(server.name for server in instead_of) or "the nameservers"
            resolvers = ", ".join(str(each.resolver) for each in self._resolvers)
            left = not_before - time.monotonic()
            self._progress(
                f"{names} cannot be reached; asking {resolvers or 'no resolver, since this host has none'}"
                + (f" in {left:.0f} s" if left > 0 else "")
            )
        return self._resolvers


def next_pause(waited: float, names: int) -> float:
    """Return how long to wait before the next question to an address that is asked about so many names."""
    shortest = max(_SHORTEST_PAUSE, names / _QUESTIONS_PER_SECOND)
    return min(max(shortest, waited * _PROPORTION), _LONGEST_PAUSE)


class _Question(NamedTuple):
    """How to ask one address of a server, or a resolver, for the values at a name."""

    server: str
    peer: Peer
    ask: Callable[[], Awaitable[frozenset[str]]]


class Watch:
    """What is expected of one name, and each address's latest answer.

    Times are monotonic seconds: resolvers may be asked from `not_before` on, and patience ends at `until`.
    """

    def __init__(self, expected: ExpectedTxt, group: WatchGroup, not_before: float, until: float) -> None:
        self.expected = expected
        self._group = group
        self._begun, self._not_before, self._until = time.monotonic(), not_before, until
        self._latest: dict[tuple[str, Peer], Answer] = {}  # two servers may have one address
        self._resolvers: tuple[RecursiveResolver, ...] | None = None
        self._patience: asyncio.TimerHandle | None = None  # with the resolvers
        self._has_patience = True
        self._over = False
        self._polls: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def run(self) -> WatchResult:
        """Poll until it is settled what shows the values."""
        self._group.news.add(self._news)
        try:
            for server in self.expected.servers:
                for address in server.addresses:
                    ask_it = partial(_ask_nameserver, address, self.expected.name)
                    self._start(_Question(server.name, address, ask_it), self._group.slots)
            while (shown_by := self._judge()) is None:
                await self._next_answer()
            return WatchResult(self.expected, shown_by, tuple(self.describe_answers()))
        finally:
            self._over = True
            self._group.news.discard(self._news)
            if self._patience:
                self._patience.cancel()
            for poll in self._polls:
                poll.cancel()
            await asyncio.gather(*self._polls, return_exceptions=True)

    def _judge(self) -> ShownBy | None:
        """Return what shows the values; None if that is still open."""
        servers = [(server.name, at) for server in self.expected.servers for at in server.addresses]
        reachability, wanted = self._group.reachability, self.expected.values
        if nameservers_agree(self.expected.servers, self._answers(servers), wanted):
            return "nameservers"
        if not reachability.lacks_all([at for _, at in servers]):
            return None
        if self._resolvers is None:
            self._ask_resolvers()
        resolvers = [each.resolver for each in self._resolvers or ()]
        if resolvers_agree(resolvers, self._answers([("resolver", each) for each in resolvers]), wanted):
            return "resolvers"
        if reachability.lacks_all(resolvers) or not self._has_patience:
            return "none"
        return None

    def _ask_resolvers(self) -> None:
        self._resolvers = self._group.resolvers(self.expected.servers, self._not_before)
        left = (self._until - time.monotonic()) / 2
        self._patience = asyncio.get_running_loop().call_later(left, self._lose_patience)
        for each in self._resolvers:
            ask_it = partial(_ask_resolver, each, self.expected.name)
            question = _Question("resolver", each.resolver, ask_it)
            self._start(question, self._group.resolver_slots, self._not_before)

    def _lose_patience(self) -> None:
        self._has_patience = False
        self._news.set()

    def _start(self, question: _Question, slots: asyncio.Semaphore, begin: float = 0.0) -> None:
        poll = asyncio.create_task(self._poll(question, slots, begin))
        poll.add_done_callback(lambda _: self._news.set())
        self._polls.append(poll)

    async def _poll(self, question: _Question, slots: asyncio.Semaphore, begin: float) -> None:
        """Ask until all values are there, or the watch is over.

        Until Python 3.12, a wait_for (dnspython's) that is cancelled in the moment in which its answer comes
        returns that answer, and the cancellation is lost.
        """
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        self._group.names_asked_of[question.peer] += 1
        try:
            while True:
                async with slots:
                    answer = await self._answer(question)
                self._latest[question.server, question.peer] = answer
                self._news.set()
                if self._over or (answer.problem is None and self.expected.values <= answer.values):
                    return
                names = self._group.names_asked_of[question.peer]
                await asyncio.sleep(next_pause(time.monotonic() - self._begun, names))
        finally:
            self._group.names_asked_of[question.peer] -= 1

    async def _answer(self, question: _Question) -> Answer:
        reachability, asked = self._group.reachability, time.monotonic()
        try:
            answer = Answer(question.server, question.peer, await question.ask())
        except Unanswered as problem:
            answer = Answer(question.server, question.peer, problem=str(problem))
            if isinstance(problem, Unreachable):
                reachability.note_silence(question.peer, asked, time.monotonic())
                self._group.wake_all()  # names that wait for a slot need not ask to know it
                return answer
        reachability.note_answer(question.peer)
        return answer

    async def _next_answer(self) -> None:
        """Wait for the next answer, or the end of patience. Raises a poll's defect, which is no silence."""
        await self._news.wait()
        self._news.clear()
        for poll in self._polls:
            if poll.done():
                poll.result()

    def _answers(self, peers: Sequence[tuple[str, Peer]]) -> list[Answer]:
        return [self._latest[peer] for peer in peers if peer in self._latest]

    def describe_answers(self) -> list[str]:
        """Return a line for each server and resolver."""
        lines = []
        for server in self.expected.servers:
            if not server.addresses:
                lines.append(f"{server.name}: its address was not found")
            lines += [self._describe_answer(server.name, address) for address in server.addresses]
        return lines + [self._describe_answer("resolver", each.resolver) for each in self._resolvers or ()]

    def _describe_answer(self, server: str, peer: Peer) -> str:
        answer, wanted = self._latest.get((server, peer)), self.expected.values
        at = server if server == str(peer) else f"{server} ({peer})"
        if answer is None:
            return f"{at}: no answer yet"
        has = f"has {len(wanted & answer.values)} of {count_text(len(wanted), 'value')}"
        return f"{at}: {answer.problem or has}"


async def _ask_nameserver(address: Address, name: str) -> frozenset[str]:
    reply = await ask(address, name, "TXT")
    if not reply.flags & dns.flags.AA:  # from a cache, or a parent's zone data
        raise Unanswered("an answer that is not authoritative (no AA flag)")
    return _txt_values(reply, name)


async def _ask_resolver(resolver: RecursiveResolver, name: str) -> frozenset[str]:
    return _txt_values(await resolver.ask(name, "TXT"), name)


def _txt_values(reply: dns.message.Message, name: str) -> frozenset[str]:
    """Return the TXT values at exactly this name; the strings of one value joined (RFC 8555 section 8.4)."""
    owner = dns.name.from_text(name)
    return frozenset(
        b"".join(record.strings).decode("ascii", "replace")
        for rrset in reply.answer
        if rrset.name == owner and rrset.rdtype == dns.rdatatype.TXT
        for record in rrset
    )
