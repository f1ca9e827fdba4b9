"""From the last value's adding to the moment at which the CA may look, for each order by itself.

    propagation = "wait:…"     sleep that long, and ask nothing
    nameservers show all       dns.settle, for servers of the provider that this host does not meet
    resolvers show all         dns.settle, and a warning
    neither do                 the API lists the values: dns.fallback_wait, and a warning
    at the end, in each case   the API still lists every value (listing.py)

- The CA asks any of the zone's servers, from several places (BR section 3.2.2.9), so all are asked. SERVFAIL
  and silence are no answers: such a server is asked again, and does not hold up the others.
- Resolvers are asked where no server can be reached (reach.py), for half of the time that is left. They prove
  less: that some nameserver has the values. They remember a "no" for the zone's SOA minimum (RFC 2308
  section 5; 600 s at Alidns), so the nameservers get a `head_start`, and a resolver's "no" stops nothing.
- The fixed wait comes last: the CA may look too early, and that costs one of five failed validations an hour
  (https://letsencrypt.org/docs/rate-limits/).

Not here: the polling of one name (watching.py), and the question itself (nameservers.py, resolvers.py).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.dns01.visibility.reach import ExpectedTxt, count_text
from certcast.dns01.visibility.watching import Watch
from certcast.report.errors import DnsDenied, DnsFailed, NotPropagated, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from certcast.config.model import DnsConfig
    from certcast.dns01.ledger import Entry
    from certcast.dns01.threads import Threads
    from certcast.dns01.visibility.listing import ZoneListing
    from certcast.dns01.visibility.nameservers import Nameserver
    from certcast.dns01.visibility.reach import WatchResult
    from certcast.dns01.visibility.watching import WatchGroup

# The nameservers' part of the fixed wait, before a resolver is asked, which remembers a "no": 20 s of the
# default 60. acme.sh, which only ever asks resolvers, lets 20 s pass as well.
_HEAD_START = 1 / 3


@dataclass(frozen=True)
class PropagationWait:
    """How to wait, for one asyncio loop. `nameservers_of` takes a zone, `warn` words for a person.

    Orders share the loop, and what `group` learns of addresses; none waits for another.
    """

    dns: DnsConfig
    nameservers_of: Callable[[str], tuple[Nameserver, ...]]
    threads: Threads
    listing: ZoneListing
    group: WatchGroup
    warn: Callable[[str], None]

    async def expect(self, entries: Sequence[Entry]) -> list[ExpectedTxt]:
        """Return what nameservers are to show of one order: nothing where none is asked.

        Raises what the provider raises, if it is to name the nameservers.
        """
        if self.dns.propagation is not None:
            return []
        values: dict[tuple[str, str], set[str]] = {}
        for entry in entries:
            values.setdefault((entry.zone, entry.owner), set()).add(entry.value)
        zones = {zone for zone, _ in values}
        servers = {zone: await self.threads.call(self.nameservers_of, zone) for zone in zones}
        return [
            ExpectedTxt(owner, zone, frozenset(wanted), servers[zone])
            for (zone, owner), wanted in values.items()
        ]

    async def until_visible(
        self, entries: Sequence[Entry], expected: Sequence[ExpectedTxt], progress: Callable[[str], None]
    ) -> None:
        """Return when the CA may look at all values of one order; `progress` takes words for a person.

        Raises NotPropagated, and what the provider raises.
        """
        if self.dns.propagation is not None:
            progress(f"waiting {self.dns.propagation:g} s, as configured")
            await asyncio.sleep(self.dns.propagation)
            await self.listing.require(entries)
            return
        begun = time.monotonic()
        try:
            results = await watch_all(
                expected,
                self.group,
                head_start=self.dns.fallback_wait * _HEAD_START,
                deadline=self.dns.deadline,
            )
        except NotPropagated:
            # No server ever shows a value that another program has removed: the listing explains it better.
            with suppress(DnsDenied, DnsFailed, ZoneMissing):
                await self.listing.require(entries)
            raise
        took = f"after {time.monotonic() - begun:.1f} s"
        unseen = {result.expected.name for result in results if result.shown_by == "none"}
        if unseen:
            await self.listing.require([entry for entry in entries if entry.owner in unseen])
            pause = self.dns.fallback_wait
            progress(f"neither nameservers nor resolvers show them {took}; the API does: waiting {pause:g} s")
        else:
            pause = self.dns.settle
            progress(f"seen {took}" + (f"; settling {pause:g} s" if pause else ""))
        await asyncio.sleep(pause)
        await self.listing.require(entries)
        for text in _warnings(results, pause):
            self.warn(text)


async def watch_all(
    expected: Sequence[ExpectedTxt], group: WatchGroup, *, head_start: float, deadline: float
) -> list[WatchResult]:
    """Return once each watch has ended. All times are seconds from now.

    Resolvers are not asked before `head_start` is over.
    Raises NotPropagated after `deadline` seconds, with what each server said last.
    """
    now = time.monotonic()
    watches = [Watch(txt, group, now + head_start, now + deadline) for txt in expected]
    tasks = [asyncio.create_task(watch.run()) for watch in watches]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=deadline, return_when=asyncio.FIRST_EXCEPTION)
        results = [task.result() for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(results) < len(tasks):
        unmet = [watch for watch, task in zip(watches, tasks, strict=True) if task.cancelled()]
        raise _not_propagated(unmet, deadline)
    return results


def _not_propagated(unmet: Sequence[Watch], deadline: float) -> NotPropagated:
    first = unmet[0].expected
    address = next((address for server in first.servers for address in server.addresses), None)
    count = count_text(len(first.values), "value")
    at = f"@{address.host} -p {address.port} " if address else ""
    return NotPropagated(
        f"the nameservers did not show {count} at {first.name} within {deadline:g} s",
        expected="\n".join(
            f"{watch.expected.name} TXT {value}" for watch in unmet for value in sorted(watch.expected.values)
        ),
        found="\n".join(line for watch in unmet for line in watch.describe_answers()),
        next=f"`dig +norecurse {at}{first.name} TXT` once the nameservers are mended, then run again",
    )


# -- what a person reads


def describe_wait(expected: Sequence[ExpectedTxt]) -> list[str]:
    """Say what is waited for: a line for all names with the same nameservers."""
    by_servers: dict[tuple[str, ...], list[ExpectedTxt]] = {}
    for txt in expected:
        by_servers.setdefault(tuple(server.name for server in txt.servers), []).append(txt)
    lines = []
    for servers, same in by_servers.items():
        names = {txt.name for txt in same}
        at = count_text(len(names), "name") if len(names) > 1 else same[0].name
        count = count_text(sum(len(txt.values) for txt in same), "value")
        lines.append(f"waiting until {', '.join(servers) or 'no nameserver'} show {count} at {at}")
    return lines


def _warnings(results: Sequence[WatchResult], fallback_wait: float) -> list[str]:
    """Return a text for each way around the nameservers that was used: perhaps all that a person reads."""
    ways = {
        "resolvers": (
            "resolvers showed the TXT values instead, and cannot know whether every nameserver has them",
            "",
        ),
        "none": (
            f"waited {fallback_wait:g} s without looking, after the API had shown the TXT values",
            "; or set resolvers in [dns] to some that this host reaches "
            '("https://…/dns-query" is DNS by HTTPS); or set propagation = "wait:60s" to ask nothing',
        ),
    }
    texts = []
    for shown_by, (instead, otherwise) in ways.items():
        if found := [result for result in results if result.shown_by == shown_by]:
            servers = [server for result in found for server in result.expected.servers]
            zones = sorted({result.expected.zone for result in found})
            answers = _without_repeats(line for result in found for line in result.answers)
            addresses = _without_repeats(str(address) for server in servers for address in server.addresses)
            texts.append(
                f"the nameservers of {', '.join(zones)} cannot be reached from this host; {instead}\n"
                "  found    " + "\n           ".join(answers) + "\n"
                f"  next     let this host ask {', '.join(addresses) or 'the nameservers'} by UDP and TCP"
                + otherwise
            )
    return texts


def _without_repeats(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
