"""The challenges of several orders at once, each order at its own pace.

    places    where does each value belong: of all names, before anything is added
    ledger    all values of the order are intended, in one write
    add       and the ledger, at each answer
    watch     one asyncio loop for all orders: what is seen is told at once

An order that fails has its records removed and is told of; the others go on. The loop
does no blocking call by itself: those have ten threads for all orders together
(calls.py).

Where the run is to end, nothing more is begun, and what was begun is waited for: a
record that an Add makes behind the back of a clean-up would stay. The ledger then
knows every record, and the caller cleans up.

Not here: adding and removing one record (records.py), the wait (waiting.py).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from certcast.dns01.ledger import Entry, Process
from certcast.dns01.share import Share
from certcast.dns01.visibility import propagation
from certcast.dns01.visibility.reach import names_text, values_text
from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from certcast.dns01.calls import Calls
    from certcast.dns01.challenges import Challenge
    from certcast.dns01.ledger import Ledger
    from certcast.dns01.records import Records
    from certcast.dns01.visibility.delegation import Place
    from certcast.dns01.visibility.reach import Expected
    from certcast.dns01.visibility.waiting import Wait

logger = logging.getLogger(__name__)

# Seconds between two looks at whether the run is to end.
_STOP_POLL = 0.05


@dataclass(frozen=True)
class Told:
    """The caller's functions. They are called from the loop's thread, so they should return soon."""

    seen: Callable[[str], None]
    failed: Callable[[str, CertcastError], None]
    stopped: Callable[[], bool]


@dataclass
class Order:
    """One order under way. `begun` are those of the `intended` entries whose adding has begun."""

    url: str
    challenges: Sequence[Challenge]
    share: Share
    intended: list[Entry] = field(default_factory=list)
    begun: set[Entry] = field(default_factory=set)

    def __str__(self) -> str:
        names = list(dict.fromkeys(challenge.domain for challenge in self.challenges))
        return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")

    def not_begun(self) -> list[Entry]:
        """Return the entries of which no record can have come."""
        return [entry for entry in self.intended if entry not in self.begun]


class Presenting:
    """One run of `Challenges.present_orders`. `place` takes a challenge's name."""

    def __init__(
        self,
        orders: Mapping[str, Sequence[Challenge]],
        now: datetime,
        *,
        place: Callable[[str], Place],
        ledger: Ledger,
        records: Records,
        calls: Calls,
        wait: Wait,
        progress: Callable[[str], None],
        told: Told,
    ) -> None:
        self._orders = [Order(url, each, Share(calls, len(orders))) for url, each in orders.items()]
        self._now = now
        self._place = place
        self._ledger = ledger
        self._records = records
        self._calls = calls
        self._wait = wait
        self._progress = progress
        self._told = told
        self._run = Process.current()
        self._waiting: dict[str, list[Expected]] = {}
        self._still_adding = len(self._orders)

    def run(self) -> None:
        """Return when each order was told of, or the run is to end. Raises what nobody thought of."""
        if len(self._orders) > 1:
            names = [one.name for order in self._orders for one in order.challenges]
            self._progress(f"adding TXT: {values_text(len(names))} at {names_text(len(set(names)))}")
        try:
            asyncio.run(self._until_all_told())
        finally:
            self._calls.let_end()
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
        while not self._told.stopped():
            await asyncio.sleep(_STOP_POLL)

    async def _until_told(self, order: Order) -> None:
        try:
            await self._present(order)
        except CertcastError as shared:
            failure = copy(shared)  # once.py: other orders may have the same one
            await self._take_back(order, failure)
            self._told.failed(order.url, failure)
        else:
            self._told.seen(order.url)

    async def _present(self, order: Order) -> None:
        """Add all values of the order and return when the CA may look at them."""
        expected: list[Expected] = []
        try:
            entries = await self._add(order)
            expected = await self._wait.expected(entries)
        finally:
            self._adding_has_ended(order, expected)
        try:
            if entries:
                await self._wait.until_visible(entries, expected, partial(self._say, order))
        finally:
            del self._waiting[order.url]

    async def _add(self, order: Order) -> list[Entry]:
        names = list(dict.fromkeys(challenge.name for challenge in order.challenges))
        places = dict(zip(names, await order.share.each(self._place, names), strict=True))
        wanted = [
            Entry(one.name, one.validation, at.zone, at.rr, self._run, self._now, order=order.url)
            for one in order.challenges
            for at in [places[one.name]]
        ]

        # In the threads, because a stop may come between their work and the loop's hearing of it.
        def intend(entries: list[Entry]) -> None:
            order.intended = self._ledger.intend(entries)

        def add(entry: Entry) -> Entry:
            order.begun.add(entry)
            return self._records.add(entry)

        await order.share.call(intend, wanted)
        if len(self._orders) == 1:
            for entry in order.intended:
                self._progress(f"adding TXT {entry.value} at {entry.owner}")
        return await order.share.each(add, order.intended)

    async def _take_back(self, order: Order, failure: CertcastError) -> None:
        """Remove what the ledger has of the order, and say in the failure whether something is left."""
        try:
            await order.share.call(self._records.forget, order.not_begun())
            entries = await order.share.call(self._ledger.of_orders, [order.url])
            removed = await asyncio.gather(
                *(order.share.call(self._records.try_to_remove, entry) for entry in entries)
            )
            left = [problem for problem in removed if problem]
        except CertcastError as unreadable:
            left = [unreadable]
        for second in left:
            logger.warning("%s", second.report())
        failure.kept = "no challenge was answered, and " + (
            "a TXT record may stay until a later `certcast renew` removes it"
            if left
            else "no TXT record is left"
        )

    # -- what a person reads

    def _say(self, order: Order, text: str) -> None:
        self._progress(text if len(self._orders) == 1 else f"{order}: {text}")

    def _adding_has_ended(self, order: Order, expected: list[Expected]) -> None:
        """Say what is waited for when the last order has come so far: once for all of them."""
        self._still_adding -= 1
        self._waiting[order.url] = expected
        if not self._still_adding:
            for line in propagation.waiting_for([one for some in self._waiting.values() for one in some]):
                self._progress(line)
