"""From the last value's adding to the moment at which the CA may look, for each order by itself.

    propagation = "wait:…"            that long
    else   the nameservers show all   dns.settle, for those of the provider that this host does not meet
           resolvers do, or nobody    dns.settle, dns.fallback_wait; and a warning
    and in each case, at the end      the API still lists every value (listed.py)

Orders share one asyncio loop, and what is learnt of addresses; none waits for another.

Not here: who is asked, and for how long (propagation.py), and the warnings' words (unseen.py).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.dns01.visibility import propagation, unseen
from certcast.dns01.visibility.reach import Expected
from certcast.report.errors import DnsDenied, DnsFailed, NotPropagated, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from certcast.config.model import DnsConfig
    from certcast.dns01.calls import Calls
    from certcast.dns01.ledger import Entry
    from certcast.dns01.visibility.listed import Listed
    from certcast.dns01.visibility.nameservers import Nameserver
    from certcast.dns01.visibility.watching import Common

# Of the fixed wait, the part that nameservers get before a resolver, which remembers a "no", is asked: 20 s
# of the default 60. acme.sh, which only ever asks resolvers, lets 20 s pass as well.
_HEAD_START = 1 / 3


@dataclass(frozen=True)
class Wait:
    """How to wait, for one asyncio loop. `nameservers_of` takes a zone, `warn` words for a person."""

    dns: DnsConfig
    nameservers_of: Callable[[str], tuple[Nameserver, ...]]
    calls: Calls
    listed: Listed
    common: Common
    warn: Callable[[str], None]

    async def expected(self, entries: Sequence[Entry]) -> list[Expected]:
        """Return what nameservers are to show of one order: nothing where none is asked.

        Raises what the provider raises, if it is to name the nameservers.
        """
        if self.dns.propagation is not None:
            return []
        values: dict[tuple[str, str], set[str]] = {}
        for entry in entries:
            values.setdefault((entry.zone, entry.owner), set()).add(entry.value)
        zones = {zone for zone, _ in values}
        servers = {zone: await self.calls.call(self.nameservers_of, zone) for zone in zones}
        return [
            Expected(owner, zone, frozenset(wanted), servers[zone])
            for (zone, owner), wanted in values.items()
        ]

    async def until_visible(
        self, entries: Sequence[Entry], expected: Sequence[Expected], progress: Callable[[str], None]
    ) -> None:
        """Return when the CA may look at all values of one order; `progress` takes words for a person.

        Raises NotPropagated, and what the provider raises.
        """
        if self.dns.propagation is not None:
            progress(f"waiting {self.dns.propagation:g} s, as configured")
            await asyncio.sleep(self.dns.propagation)
            await self.listed.require(entries)
            return
        begun = time.monotonic()
        try:
            seen = await propagation.watch(
                expected,
                self.common,
                head_start=self.dns.fallback_wait * _HEAD_START,
                deadline=self.dns.deadline,
            )
        except NotPropagated:
            # A value that another program has removed is never shown by any server: that explains it better.
            with suppress(DnsDenied, DnsFailed, ZoneMissing):
                await self.listed.require(entries)
            raise
        took = f"after {time.monotonic() - begun:.1f} s"
        hidden = {one.expected.name for one in seen if one.by == "nobody"}
        if hidden:
            await self.listed.require([entry for entry in entries if entry.owner in hidden])
            pause = self.dns.fallback_wait
            progress(f"nobody shows them {took}; the API does: waiting {pause:g} s")
        else:
            pause = self.dns.settle
            progress(f"seen {took}" + (f"; settling {pause:g} s" if pause else ""))
        await asyncio.sleep(pause)
        await self.listed.require(entries)
        for text in unseen.warnings(seen, pause):
            self.warn(text)
