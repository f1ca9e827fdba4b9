"""Whether the provider's API still lists the values: the last look before the CA's.

Some programs remove every TXT value at a name, ours included. The CA would look in
vain then, which costs one of five failed validations an hour
(https://letsencrypt.org/docs/rate-limits/).

Orders are often seen in the same moment, and many are of one zone. So those that ask
about a zone while it is being listed share the next listing, which begins after all
of them have asked: none goes by what was true before its own wait was over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from certcast.report.errors import NotPropagated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from certcast.dns01.calls import Calls
    from certcast.dns01.ledger import Entry
    from certcast.dns01.provider import DnsProvider

_LABEL = "_acme-challenge"


class Listed:
    """The records of zones, as the API lists them now; for one asyncio loop."""

    def __init__(self, provider_of: Callable[[str], DnsProvider], calls: Calls) -> None:
        self._provider_of = provider_of
        self._calls = calls
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._next: dict[tuple[str, str], asyncio.Task[Mapping[tuple[str, str], str]]] = {}

    async def require(self, entries: Iterable[Entry]) -> None:
        """Raise NotPropagated if the provider no longer lists a record; and what the provider raises."""
        by_zone: dict[str, list[Entry]] = {}
        for entry in entries:
            by_zone.setdefault(entry.zone, []).append(entry)
        for zone, some in by_zone.items():
            # A zone that CNAMEs lead to has other labels, and little but challenges.
            usual = all(entry.rr.partition(".")[0] == _LABEL for entry in some)
            listed = await self._listing(zone, _LABEL if usual else "")
            for entry in some:
                # Only the id that was given for it settles the matter at once, as in `find_txt`.
                if entry.record_id is None or listed.get((entry.rr, entry.value)) != entry.record_id:
                    await self._calls.call(self._find, entry)

    async def _listing(self, zone: str, label: str) -> Mapping[tuple[str, str], str]:
        """Return a listing that begins after this call, and is shared with others that call before that."""
        at = (zone, label)
        if at not in self._next:
            self._next[at] = asyncio.ensure_future(self._list(at))
        return await asyncio.shield(self._next[at])

    async def _list(self, at: tuple[str, str]) -> Mapping[tuple[str, str], str]:
        async with self._turns.setdefault(at, asyncio.Lock()):
            del self._next[at]
            return await self._calls.call(lambda at: self._provider_of(at[0]).txts(*at), at)

    def _find(self, entry: Entry) -> None:
        provider = self._provider_of(entry.zone)
        if provider.find_txt(entry.zone, entry.rr, entry.value, entry.record_id) is None:
            raise NotPropagated(
                f"the TXT value at {entry.owner} is gone from the zone: another program has removed it",
                expected=f"TXT {entry.value}, as it was added",
                next="see which other program validates this name, since some remove every TXT value there; "
                "let them run at different times, then run again",
            )
