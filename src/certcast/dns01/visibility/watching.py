"""Polling for one TXT name: its zone's nameservers, and resolvers where these can't be reached.

Each address is polled by a task of its own, at its own pace; after each answer the
watch looks at what all of them said last (reach.py) and goes on waiting, or ends.

Reachability is an address's, not a name's: the watches of a loop, of all its orders,
share what they have learnt of it, so that a hundred names find a filtered port in the
time that one name takes.

Not here: how long all that may last, and what it is for (propagation.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from certcast.dns01.visibility import resolvers
from certcast.dns01.visibility.exchange import Unanswered, Unreachable
from certcast.dns01.visibility.nameservers import ask, is_authoritative
from certcast.dns01.visibility.reach import Answer, Seen, Silence, agreed, shown, values_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import dns.message

    from certcast.config.model import Address, Resolver
    from certcast.dns01.visibility.nameservers import Nameserver
    from certcast.dns01.visibility.reach import Asked, By, Expected
    from certcast.dns01.visibility.resolvers import Recursive

# Seconds between two questions to one address about one name. A value that is there is found out one
# pause later at the worst, so a pause in proportion to what was waited lets a wait overshoot by that
# proportion. A quick provider costs nothing and a slow one isn't flooded: after 2 s of waiting the pause
# is still the shortest, after 20 s it is 1 s, and from 40 s on the longest.
_PROPORTION, _SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 0.1, 2.0
# And to one address about all names together: nameservers answer fewer questions than they are asked
# if they take these for an attack. A hundred names are asked for every 0.5 s.
_QUESTIONS_PER_SECOND = 200
# Questions under way at a time, each with a socket of its own; a process may have 1,024 open.
_AT_ONCE = 200


class Common:
    """What all watches of a loop share."""

    def __init__(self, fallback: Sequence[Resolver], progress: Callable[[str], None]) -> None:
        self.silence = Silence()
        self.slots = asyncio.Semaphore(_AT_ONCE)
        self.resolver_slots = asyncio.Semaphore(_AT_ONCE)
        self.names_asked_of: Counter[Asked] = Counter()
        self.news: set[asyncio.Event] = set()
        self._fallback = fallback
        self._progress = progress
        self._resolvers: tuple[Recursive, ...] | None = None

    def wake_all(self) -> None:
        """Let every watch look at what is known."""
        for event in self.news:
            event.set()

    def resolvers(self, instead_of: Sequence[Nameserver], not_before: float) -> tuple[Recursive, ...]:
        """Return the resolvers, which may be asked from then on; they are set up when first needed."""
        if self._resolvers is None:
            self._resolvers = tuple(map(resolvers.Recursive, resolvers.chosen(self._fallback)))
            names = ", ".join(server.name for server in instead_of) or "the nameservers"
            asked = ", ".join(str(one.resolver) for one in self._resolvers) or "nobody: there is no resolver"
            left = not_before - time.monotonic()
            self._progress(
                f"{names} cannot be reached; asking {asked}" + (f" in {left:.0f} s" if left > 0 else "")
            )
        return self._resolvers


def pause(waited: float, names: int) -> float:
    """Return how long to wait before the next question to an address that is asked about so many names."""
    shortest = max(_SHORTEST_PAUSE, names / _QUESTIONS_PER_SECOND)
    return min(max(shortest, waited * _PROPORTION), _LONGEST_PAUSE)


class _Question(NamedTuple):
    """How to ask one address of a server, or a resolver, for the values at a name."""

    server: str
    of: Asked
    ask: Callable[[], Awaitable[frozenset[str]]]


class Watch:
    """One expectation, and the latest that each address said to it.

    Monotonic seconds: resolvers may be asked from `not_before` on, and patience ends at `until`.
    """

    def __init__(self, expected: Expected, common: Common, not_before: float, until: float) -> None:
        self.expected = expected
        self._common = common
        self._begun, self._not_before, self._until = time.monotonic(), not_before, until
        self._heard: dict[tuple[str, Asked], Answer] = {}  # two servers may have one address
        self._asked: tuple[Recursive, ...] | None = None
        self._patience: asyncio.TimerHandle | None = None  # with the resolvers
        self._has_patience = True
        self._over = False
        self._polls: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def end(self) -> Seen:
        """Poll until it is settled who shows the values."""
        self._common.news.add(self._news)
        try:
            for server in self.expected.servers:
                for address in server.addresses:
                    ask_it = partial(_authoritative, address, self.expected.name)
                    self._start(_Question(server.name, address, ask_it), self._common.slots)
            while (by := self._by()) is None:
                await self._hear()
            return Seen(self.expected, by, tuple(self.said()))
        finally:
            self._over = True
            self._common.news.discard(self._news)
            if self._patience:
                self._patience.cancel()
            for poll in self._polls:
                poll.cancel()
            await asyncio.gather(*self._polls, return_exceptions=True)

    def _by(self) -> By | None:
        """Return who shows the values; None if that is still open."""
        servers = [(server.name, at) for server in self.expected.servers for at in server.addresses]
        silence, wanted = self._common.silence, self.expected.values
        if agreed(self.expected.servers, self._answers(servers), wanted):
            return "nameservers"
        if not silence.of_all([at for _, at in servers]):
            return None
        if self._asked is None:
            self._ask_resolvers()
        instead = [one.resolver for one in self._asked or ()]
        if shown(instead, self._answers([("resolver", one) for one in instead]), wanted):
            return "resolvers"
        if silence.of_all(instead) or not self._has_patience:
            return "nobody"
        return None

    def _ask_resolvers(self) -> None:
        self._asked = self._common.resolvers(self.expected.servers, self._not_before)
        left = (self._until - time.monotonic()) / 2
        self._patience = asyncio.get_running_loop().call_later(left, self._lose_patience)
        for one in self._asked:
            ask_it = partial(_second_hand, one, self.expected.name)
            question = _Question("resolver", one.resolver, ask_it)
            self._start(question, self._common.resolver_slots, self._not_before)

    def _lose_patience(self) -> None:
        self._has_patience = False
        self._news.set()

    def _start(self, question: _Question, slots: asyncio.Semaphore, begin: float = 0.0) -> None:
        poll = asyncio.create_task(self._poll(question, slots, begin))
        poll.add_done_callback(lambda _: self._news.set())
        self._polls.append(poll)

    async def _poll(self, question: _Question, slots: asyncio.Semaphore, begin: float) -> None:
        """Ask until all values are there.

        Or the watch is over: until Python 3.12, a wait_for (dnspython's) that is cancelled in the moment in
        which its answer comes returns that answer, and the cancellation is lost.
        """
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        self._common.names_asked_of[question.of] += 1
        try:
            while True:
                async with slots:
                    answer = await self._answer(question)
                self._heard[question.server, question.of] = answer
                self._news.set()
                if self._over or (answer.problem is None and self.expected.values <= answer.values):
                    return
                names = self._common.names_asked_of[question.of]
                await asyncio.sleep(pause(time.monotonic() - self._begun, names))
        finally:
            self._common.names_asked_of[question.of] -= 1

    async def _answer(self, question: _Question) -> Answer:
        silence, asked = self._common.silence, time.monotonic()
        try:
            values = await question.ask()
        except Unreachable as problem:
            silence.heard_nothing(question.of, asked, time.monotonic())
            self._common.wake_all()  # names that wait for a slot need not ask to know it
            return Answer(question.server, question.of, problem=str(problem))
        except Unanswered as problem:
            silence.heard(question.of)
            return Answer(question.server, question.of, problem=str(problem))
        silence.heard(question.of)
        return Answer(question.server, question.of, values)

    async def _hear(self) -> None:
        """Wait for the next answer, or the end of patience.

        A defect in a poll is raised here; it must not pass for a nameserver's silence.
        """
        await self._news.wait()
        self._news.clear()
        for poll in self._polls:
            if poll.done():
                poll.result()

    def _answers(self, asked: Sequence[tuple[str, Asked]]) -> list[Answer]:
        return [self._heard[one] for one in asked if one in self._heard]

    def said(self) -> list[str]:
        """Return a line for each server and resolver."""
        lines = []
        for server in self.expected.servers:
            if not server.addresses:
                lines.append(f"{server.name}: its address was not found")
            lines += [self._line(server.name, address) for address in server.addresses]
        return lines + [self._line("resolver", one.resolver) for one in self._asked or ()]

    def _line(self, name: str, at: Asked) -> str:
        wanted = self.expected.values
        answer = self._heard.get((name, at))
        if answer is None:
            said = "no answer yet"
        else:
            said = answer.problem or f"has {len(wanted & answer.values)} of {values_text(len(wanted))}"
        return f"{name if name == str(at) else f'{name} ({at})'}: {said}"


async def _authoritative(address: Address, name: str) -> frozenset[str]:
    reply = await ask(address, name, "TXT")
    if not is_authoritative(reply):
        raise Unanswered("an answer that is not authoritative (no AA flag)")
    return texts(reply, name)


async def _second_hand(resolver: Recursive, name: str) -> frozenset[str]:
    return texts(await resolver.ask(name, "TXT"), name)


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
