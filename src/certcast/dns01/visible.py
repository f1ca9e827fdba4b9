"""From the last value's adding to the moment at which the CA may look.

    propagation = "wait:…"            that long
    else   the nameservers show all   dns.settle, for those of the provider that this host does not meet
           resolvers do, or nobody    dns.settle, dns.fallback_wait; and a warning
    and in each case, at the end      the API still lists every value

Not here: who is asked, and for how long (propagation.py), and the warnings' words (unseen.py).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.dns01 import unseen
from certcast.errors import DnsDenied, DnsFailed, NotPropagated, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from certcast.config import DnsConfig
    from certcast.dns01.ledger import Entry
    from certcast.dns01.nameservers import Nameserver
    from certcast.dns01.provider import DnsProvider
    from certcast.dns01.reach import Seen

# Of the fixed wait, the part that nameservers get before a resolver, which remembers a "no", is asked: 20 s
# of the default 60. acme.sh, which only ever asks resolvers, lets 20 s pass as well.
_HEAD_START = 1 / 3


@dataclass(frozen=True)
class Wait:
    """How to wait. `nameservers_of`, `provider_of` take a zone; `progress`, `warn` words for a person."""

    dns: DnsConfig
    nameservers_of: Callable[[str], tuple[Nameserver, ...]]
    provider_of: Callable[[str], DnsProvider]
    progress: Callable[[str], None]
    warn: Callable[[str], None]

    def until_visible(self, entries: Sequence[Entry]) -> None:
        """Return when the CA may look at all of these. Raises NotPropagated, and what the provider raises."""
        if self.dns.propagation is not None:
            self.progress(f"waiting {self.dns.propagation:g} s, as configured")
            time.sleep(self.dns.propagation)
            self._require_standing(entries)
            return
        begun = time.monotonic()
        try:
            seen = self._seen(entries)
        except NotPropagated:
            # What another program has removed nobody will ever show: that explains it better.
            with suppress(DnsDenied, DnsFailed, ZoneMissing):
                self._require_standing(entries)
            raise
        took = f"after {time.monotonic() - begun:.1f} s"
        hidden = {one.expected.name for one in seen if one.by == "nobody"}
        if hidden:
            self._require_standing([entry for entry in entries if entry.owner in hidden])
            pause = self.dns.fallback_wait
            self.progress(f"nobody shows them {took}; the API does: waiting {pause:g} s")
        else:
            pause = self.dns.settle
            self.progress(f"seen {took}" + (f"; settling {pause:g} s" if pause else ""))
        time.sleep(pause)
        self._require_standing(entries)
        for text in unseen.warnings(seen, pause):
            self.warn(text)

    def _seen(self, entries: Sequence[Entry]) -> list[Seen]:
        from certcast.dns01 import propagation
        from certcast.dns01.reach import Expected

        values: dict[tuple[str, str], set[str]] = {}
        for entry in entries:
            values.setdefault((entry.zone, entry.owner), set()).add(entry.value)
        return propagation.wait(
            [
                Expected(owner, zone, frozenset(wanted), self.nameservers_of(zone))
                for (zone, owner), wanted in values.items()
            ],
            fallback=self.dns.resolvers,
            head_start=self.dns.fallback_wait * _HEAD_START,
            deadline=self.dns.deadline,
            progress=self.progress,
        )

    def _require_standing(self, entries: Iterable[Entry]) -> None:
        """Raise NotPropagated if another program has removed a value: the CA would look in vain."""
        by_zone: dict[str, list[Entry]] = {}
        for entry in entries:
            by_zone.setdefault(entry.zone, []).append(entry)
        for zone, some in by_zone.items():
            unseen.require_standing(some, self.provider_of(zone))
