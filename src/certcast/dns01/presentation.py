"""The challenges of several orders at once, each order at its own pace.

    locate    where does each value belong: of all names, before anything is added
    ledger    all values of the order are intended, in one write
    add       and the ledger, at each answer
    watch     one asyncio loop for all orders: the caller hears of each order at once

- An order that fails has its records removed; the others go on.
- The loop does no blocking call by itself: those have ten threads for all orders together (threads.py).
- Where the run is to end, nothing more is begun, and calls under way are waited for: an Add that outlived the
  clean-up would leave its record. The ledger then knows every record, and the caller cleans up.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from certcast.dns01.ledger import Entry, Process
from certcast.dns01.threads import OrderThreads
from certcast.dns01.visibility.reach import count_text
from certcast.dns01.visibility.waiting import describe_wait
from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from certcast.dns01.challenges import Challenge
    from certcast.dns01.records import Records
    from certcast.dns01.visibility.delegation import RecordLocation
    from certcast.dns01.visibility.reach import ExpectedTxt
    from certcast.dns01.visibility.waiting import PropagationWait

logger = logging.getLogger(__name__)

# Seconds between two checks whether the run is to end.
_STOP_POLL = 0.05


@dataclass(frozen=True)
class Callbacks:
    """The caller's functions. They are called from the loop's thread, so they should return soon."""

    seen: Callable[[str], None]
    failed: Callable[[str, CertcastError], None]
    stopped: Callable[[], bool]


@dataclass
class OrderChallenges:
    """One order's challenges. `begun` are those of the `intended` entries whose adding has begun."""

    url: str
    challenges: Sequence[Challenge]
    threads: OrderThreads
    intended: list[Entry] = field(default_factory=list)
    begun: set[Entry] = field(default_factory=set)

    def __str__(self) -> str:
        names = list(dict.fromkeys(challenge.domain for challenge in self.challenges))
        return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")

    def not_begun(self) -> list[Entry]:
        """Return the entries of which no record can exist."""
        return [entry for entry in self.intended if entry not in self.begun]


class Presentation:
    """One run of `Challenges.present_orders`. `locate` takes a challenge's name."""

    def __init__(
        self,
        orders: Mapping[str, Sequence[Challenge]],
        now: datetime,
        *,
        locate: Callable[[str], RecordLocation],
        records: Records,
        wait: PropagationWait,
        progress: Callable[[str], None],
        callbacks: Callbacks,
    ) -> None:
        self._orders = [
            OrderChallenges(url, challenges, OrderThreads(wait.threads, len(orders)))
            for url, challenges in orders.items()
        ]
        self._now = now
        self._locate = locate
        self._records = records
        self._wait = wait
        self._progress = progress
        self._callbacks = callbacks
        self._process = Process.current()
        self._expected: dict[str, list[ExpectedTxt]] = {}
        self._still_adding = len(self._orders)

    def run(self) -> None:
        """Return when each order was told of, or the run is to end. Raises defects."""
        if len(self._orders) > 1:
            names = [challenge.name for order in self._orders for challenge in order.challenges]
            values, owners = count_text(len(names), "value"), count_text(len(set(names)), "name")
            self._progress(f"adding TXT: {values} at {owners}")
        try:
            asyncio.run(self._until_all_told())
        finally:
            self._wait.threads.wait_for_running()
            with suppress(CertcastError):  # the clean-up meets it, too
                self._records.forget([entry for order in self._orders for entry in order.not_begun()])

    async def _until_all_told(self) -> None:
        stopped = asyncio.ensure_future(self._until_stopped())
        orders = [asyncio.ensure_future(self._until_told(order)) for order in self._orders]
        try:
            pending = set(orders)
            while pending and not stopped.done():
                done, _ = await asyncio.wait({*pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                pending -= done
        finally:
            for task in (stopped, *orders):
                task.cancel()
            await asyncio.gather(stopped, *orders, return_exceptions=True)

    async def _until_stopped(self) -> None:
        while not self._callbacks.stopped():
            await asyncio.sleep(_STOP_POLL)

    async def _until_told(self, order: OrderChallenges) -> None:
        try:
            await self._present(order)
        except CertcastError as failure:
            left = await self._remove_all(order)
            for second in left:
                logger.warning("%s", second.report())
            kept = (
                "a TXT record may stay until a later `certcast renew` removes it"
                if left
                else "no TXT record is left"
            )
            self._callbacks.failed(order.url, failure.but(kept=f"no challenge was answered, and {kept}"))
        else:
            self._callbacks.seen(order.url)

    async def _present(self, order: OrderChallenges) -> None:
        """Add all values of the order and return when the CA may look at them."""
        expected: list[ExpectedTxt] = []
        try:
            entries = await self._add(order)
            expected = await self._wait.expect(entries)
        finally:
            self._adding_has_ended(order, expected)
        try:
            if entries:
                await self._wait.until_visible(entries, expected, partial(self._say, order))
        finally:
            del self._expected[order.url]

    async def _add(self, order: OrderChallenges) -> list[Entry]:
        names = list(dict.fromkeys(challenge.name for challenge in order.challenges))
        found = dict(zip(names, await order.threads.each(self._locate, names), strict=True))
        wanted = [
            challenge.entry(found[challenge.name], self._process, self._now, order.url)
            for challenge in order.challenges
        ]

        # Both run in the threads: the run may end between their work and the loop's notice of it.
        def intend(entries: list[Entry]) -> None:
            order.intended = self._records.ledger.intend(entries)

        def add(entry: Entry) -> Entry:
            order.begun.add(entry)
            return self._records.add(entry)

        await order.threads.call(intend, wanted)
        if len(self._orders) == 1:
            for entry in order.intended:
                self._progress(f"adding TXT {entry.value} at {entry.owner}")
        return await order.threads.each(add, order.intended)

    async def _remove_all(self, order: OrderChallenges) -> list[CertcastError]:
        """Remove what the ledger has of the order; return why something may be left."""
        try:
            await order.threads.call(self._records.forget, order.not_begun())
            entries = await order.threads.call(self._records.ledger.of_orders, [order.url])
            removing = [order.threads.call(self._records.try_to_remove, entry) for entry in entries]
            return [failure for failure in await asyncio.gather(*removing) if failure]
        except CertcastError as unreadable:
            return [unreadable]

    # -- what a person reads

    def _say(self, order: OrderChallenges, text: str) -> None:
        self._progress(text if len(self._orders) == 1 else f"{order}: {text}")

    def _adding_has_ended(self, order: OrderChallenges, expected: list[ExpectedTxt]) -> None:
        """Say what is waited for when the last order has come so far: once for all of them."""
        self._still_adding -= 1
        self._expected[order.url] = expected
        if not self._still_adding:
            for line in describe_wait([txt for waiting in self._expected.values() for txt in waiting]):
                self._progress(line)
