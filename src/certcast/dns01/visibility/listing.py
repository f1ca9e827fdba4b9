"""Whether the provider's API still lists the values: the last check before the CA's.

Some programs remove every TXT value at a name, certcast's too. The CA would then find nothing, which costs
one of five failed validations an hour (https://letsencrypt.org/docs/rate-limits/).

Many orders are of one zone, and often become visible in the same moment. Callers that come while the zone is
being listed share the next listing. That one begins after all of them have asked, so no order goes by a
listing from before the end of its own wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from certcast.report.errors import NotPropagated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from certcast.dns01.ledger import Entry
    from certcast.dns01.provider import DnsProvider
    from certcast.dns01.threads import Threads

_LABEL = "_acme-challenge"


class ZoneListing:
    """The TXT records of zones, as the API lists them now; for one asyncio loop."""

    def __init__(self, provider_of: Callable[[str], DnsProvider], threads: Threads) -> None:
        self._provider_of = provider_of
        self._threads = threads
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._next: dict[tuple[str, str], asyncio.Task[Mapping[tuple[str, str], str]]] = {}

    async def require(self, entries: Iterable[Entry]) -> None:
        """Raise NotPropagated if the provider no longer lists a record; and what the provider raises."""
        by_zone: dict[str, list[Entry]] = {}
        for entry in entries:
            by_zone.setdefault(entry.zone, []).append(entry)
        for zone, of_zone in by_zone.items():
            # A zone that CNAMEs lead to has other labels, and little but challenges.
            usual = all(entry.rr.partition(".")[0] == _LABEL for entry in of_zone)
            listed = await self._list_next(zone, _LABEL if usual else "")
            for entry in of_zone:
                # Only the id that the API gave settles the matter at once, as in `find_txt`.
                if entry.record_id is None or listed.get((entry.rr, entry.value)) != entry.record_id:
                    await self._threads.call(self._require_record, entry)

    async def _list_next(self, zone: str, label: str) -> Mapping[tuple[str, str], str]:
        """Return the next listing, which begins after this call, and after others that share it."""
        at = (zone, label)
        if at not in self._next:
            self._next[at] = asyncio.ensure_future(self._list(at))
        return await asyncio.shield(self._next[at])

    async def _list(self, at: tuple[str, str]) -> Mapping[tuple[str, str], str]:
        async with self._locks.setdefault(at, asyncio.Lock()):
            del self._next[at]
            return await self._threads.call(lambda at: self._provider_of(at[0]).txts(*at), at)

    def _require_record(self, entry: Entry) -> None:
        provider = self._provider_of(entry.zone)
        if provider.find_txt(entry.zone, entry.rr, entry.value, entry.record_id) is None:
            raise NotPropagated(
                f"the TXT value at {entry.owner} is gone from the zone: another program has removed it",
                expected=f"TXT {entry.value}, as it was added",
                next="see which other program validates this name, since some remove every TXT value there; "
                "let them run at different times, then run again",
            )
