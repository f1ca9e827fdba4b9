"""DNS-01 challenges, from the TXT values' adding to their removal.

    present_orders    all values of several orders; each order goes on when its own are seen
    cleanup_orders    remove what these orders have added
    add, wait         one value, and the wait for several: certbot's auth hook
    cleanup           remove the values that certbot's cleanup hook names
    sweep             remove what ended processes have left

An order's values are added together, because apex and wildcard are two at one name: a resolver that has seen
the name with one of them keeps that answer for the TTL, 600 s at least with Alidns, and the CA may ask that
resolver for the second.

Not here: many orders at once (presentation.py), one record (records.py), the wait (visibility/).
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from certcast.dns01.accounts import Accounts
from certcast.dns01.ledger import Entry, Ledger, Process
from certcast.dns01.records import Records
from certcast.dns01.threads import LookupCache, Threads
from certcast.dns01.visibility.reach import count_text
from certcast.report.errors import CertcastError, DnsFailed
from certcast.report.names import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from certcast.config.model import Config, DnsConfig
    from certcast.dns01.visibility.delegation import AliasFinder, RecordLocation
    from certcast.dns01.visibility.waiting import PropagationWait

logger = logging.getLogger(__name__)

# For certbot's hooks alone. The process that the ledger names may not be certbot but a wrapper that ends
# earlier (sudo). certbot's authorizations are done within minutes; no record of this age is waited for.
SWEEP_AFTER = timedelta(hours=2)
# Up to so many removals are told one by one.
_FEW = 2


def log_warning(text: str) -> None:
    """Warn where no `certcast renew` prints warnings: Python's logging writes them to stderr."""
    logger.warning("warning: %s", readable(text))


class Challenge(NamedTuple):
    """A domain, without `*.`, and the value that proves it: `validation` goes into the TXT record."""

    domain: str
    validation: str

    @property
    def name(self) -> str:
        """The name that the CA looks at (RFC 8555 section 8.4)."""
        return f"_acme-challenge.{self.domain}"

    def entry(self, at: RecordLocation, process: Process, now: datetime, order: str = "") -> Entry:
        """Return what the ledger is to know of the value at this location."""
        return Entry(self.name, self.validation, at.zone, at.rr, process, now, order=order)


class Challenges:
    """The challenges of one process; zones and nameservers are looked up once each.

    `progress` gets, in words for a person, what is being done; `warn`, what went well by other means than it
    should. Any thread may call a method, several at a time.
    """

    def __init__(
        self,
        config: Config,
        *,
        progress: Callable[[str], None] = logger.info,
        warn: Callable[[str], None] = log_warning,
    ) -> None:
        self.ledger = Ledger(config.state_dir)
        self._config = config
        self._accounts = Accounts(config)
        self._records = Records(self._accounts, self.ledger, [zone.name for zone in config.zones])
        # By [dns], of which there is one: a whole Config has dictionaries in it, and no hash.
        self._alias_finder = LookupCache(self._new_alias_finder)
        self._threads = Threads()
        self._progress = progress
        self._warn = warn

    # -- orders of certcast's own

    def present_orders(
        self,
        orders: Mapping[str, Sequence[Challenge]],
        now: datetime,
        *,
        seen: Callable[[str], None],
        failed: Callable[[str, CertcastError], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Add all values of these orders, by the orders' URLs, and return when each order was told of.

        `seen(url)`: the CA may look at all values of the order. `failed(url, why)`: the order cannot go
        on, and its records have been removed, or `why.kept` says that some may be left; RenewalError or
        LocalFault. Both are called from one thread while the others are waited for, so they should return
        soon. As soon as `stopped()` is true, or one of the three raises, this ends and tells of no further
        order; `cleanup_orders` then removes what was added.
        Raises what `seen`, `failed` and `stopped` raise, and LocalFault without a /proc.
        """
        from certcast.dns01.presentation import Callbacks, Presentation

        Presentation(
            orders,
            now,
            locate=self._locate,
            records=self._records,
            wait=self._new_wait(),
            progress=self._progress,
            callbacks=Callbacks(seen, failed, stopped),
        ).run()

    def cleanup_orders(self, orders: Iterable[str]) -> list[CertcastError]:
        """Remove what these orders, by their URLs, have added; return what went wrong."""
        try:
            entries = self.ledger.of_orders(orders)
        except CertcastError as unreadable:
            return [unreadable]
        return self._remove_each(entries)

    # -- certbot's hooks

    def add(self, challenge: Challenge, process: Process, now: datetime) -> Entry:
        """Add one value for this process and don't wait; return its entry in the ledger.

        Raises what the provider raises; the ledger then still knows whatever may have been added.
        """
        at = self._locate(challenge.name)
        (entry,) = self.ledger.intend([challenge.entry(at, process, now)])
        self._progress(f"adding TXT {entry.value} at {entry.owner}")
        return self._records.add(entry)

    def wait(self, entries: Sequence[Entry]) -> None:
        """Return when the CA may look at all these values.

        Raises NotPropagated, and what the provider raises.
        """
        import asyncio

        from certcast.dns01.visibility.waiting import describe_wait

        wait = self._new_wait()

        async def until_visible() -> None:
            expected = await wait.expect(entries)
            for line in describe_wait(expected):
                self._progress(line)
            await wait.until_visible(entries, expected, self._progress)

        asyncio.run(until_visible())

    def cleanup(self, order: Iterable[Challenge]) -> None:
        """Remove the records of these challenges, as far as certcast made them.

        All are tried; then the first failure is raised.
        """
        found = [self.ledger.find(challenge.name, challenge.validation) for challenge in order]
        _raise_first(self._remove_each([entry for entry in found if entry is not None]))

    def cleanup_unlisted(self, challenge: Challenge, record_id: str) -> None:
        """Remove a record that the ledger has lost, if this id still holds this very value."""
        at = self._locate(challenge.name)
        provider = self._accounts.provider_of(at.zone)
        if provider.find_txt(at.zone, at.rr, challenge.validation, record_id) == record_id:
            provider.remove(at.zone, record_id)

    # -- leftovers of processes that have ended

    def sweep(self, now: datetime) -> list[Entry]:
        """Remove what processes that have ended left behind; return these entries.

        certcast's own orders end with their process. What certbot's hooks added stays for two hours. All are
        tried; then the first failure is raised.
        """
        before = now - SWEEP_AFTER
        old = [entry for entry in self._left_behind() if entry.order or entry.created < before]
        _raise_first(self._remove_each(old))
        return old

    def require_nothing_left(self, now: datetime) -> None:
        """Raise DnsFailed for leftover records that no other failure reports.

        These are what certbot's hooks have added in the last two hours, for a process that has ended, and
        what this very process has added for its orders and never tried to remove. `sweep` and
        `cleanup_orders` report the rest.
        """
        since, this = now - SWEEP_AFTER, Process.current()
        hooks = [entry for entry in self._left_behind() if not entry.order and entry.created >= since]
        entries = self.ledger.entries()
        own = [entry for entry in entries if entry.order and entry.run == this and not entry.leaving]
        if left := hooks + own:
            raise DnsFailed(
                "TXT records of orders that have ended were not removed",
                found="\n".join(f"{entry.owner} TXT {entry.value}" for entry in left),
                kept="certificates are not touched by this; a record like these does no harm by itself",
                next="nothing now: "
                + (
                    "the first `certcast renew` after two hours removes them, or says why not"
                    if hooks
                    else "the next `certcast renew` removes them, or says why not"
                ),
            )

    def _left_behind(self) -> list[Entry]:
        return [entry for entry in self.ledger.entries() if not entry.run.is_alive()]

    def _remove_each(self, entries: Sequence[Entry]) -> list[CertcastError]:
        if len(entries) > _FEW:
            owners = count_text(len({entry.owner for entry in entries}), "name")
            self._progress(f"removing TXT: {count_text(len(entries), 'value')} at {owners}")
        else:
            for entry in entries:
                if entry.ours:
                    self._progress(f"removing TXT {entry.value} at {entry.owner}")
        return [failure for failure in self._threads.each(self._records.try_to_remove, entries) if failure]

    # -- look-ups

    def _new_alias_finder(self, _dns: DnsConfig) -> AliasFinder:
        from certcast.dns01.visibility.delegation import AliasFinder

        return AliasFinder(self._config, self._accounts)

    def _locate(self, name: str) -> RecordLocation:
        from certcast.dns01.visibility.delegation import locate_record

        return locate_record(name, self._accounts.zones, self._alias_finder(self._config.dns).find)

    def _new_wait(self) -> PropagationWait:
        from certcast.dns01.visibility.listing import ZoneListing
        from certcast.dns01.visibility.waiting import PropagationWait
        from certcast.dns01.visibility.watching import WatchGroup

        warned: set[str] = set()

        def warn_once(text: str) -> None:
            """Warn once, though many orders may find the same nameservers out of reach."""
            if text not in warned:
                warned.add(text)
                self._warn(text)

        return PropagationWait(
            self._config.dns,
            nameservers_of=self._alias_finder(self._config.dns).nameservers.of,
            threads=self._threads,
            listing=ZoneListing(self._accounts.provider_of, self._threads),
            group=WatchGroup(self._config.dns.resolvers, self._progress),
            warn=warn_once,
        )


def _raise_first(failures: Sequence[CertcastError]) -> None:
    for second in failures[1:]:
        logger.warning("%s", second.report())
    if failures:
        raise failures[0]
