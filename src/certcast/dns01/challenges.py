"""An order's DNS-01 challenges, from the TXT values' adding to their removal.

    present:   where does each belong (CNAMEs, zone) → ledger → add → ledger,
               one after the other; then wait once, for all values together, and see
               that nobody has removed one meanwhile
    cleanup:   remove what `present` made, by record id, if it still holds the value;
               go on past a failure
    sweep:     the same for what a crashed run has left

Together, because apex and wildcard are two values at one name: a resolver that
has seen the name with one of them keeps that answer for the TTL, 600 s at least
with Alidns, and the CA may ask that resolver for the second.

Only what certcast made is ever removed. A value that stood there before the
first attempt is used and left (Added.ours).

Not here: the wait (visible.py), and who asks for it all. certbot does, through plugin.py or hooks.py.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from certcast.dns01.accounts import Accounts
from certcast.dns01.ledger import Entry, Ledger
from certcast.dns01.provider import MaybeAdded
from certcast.errors import CertcastError, DnsFailed, LocalFault, ZoneMissing
from certcast.names import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from certcast.config import Config
    from certcast.dns01.delegation import Names, Place
    from certcast.dns01.ledger import Run
    from certcast.dns01.nameservers import Nameservers

logger = logging.getLogger(__name__)

# An order's authorizations are done within minutes; nobody waits for a record of this age.
SWEEP_AFTER = timedelta(hours=2)


def log_warning(text: str) -> None:
    """Say it where there is no `certcast renew` to say it: Python prints warnings to stderr."""
    logger.warning("warning: %s", readable(text))


class Challenge(NamedTuple):
    """A domain, without `*.`, and the value that proves it: `validation` goes into the TXT record."""

    domain: str
    validation: str

    @property
    def name(self) -> str:
        """Where the CA looks (RFC 8555 section 8.4)."""
        return f"_acme-challenge.{self.domain}"


class Challenges:
    """The challenges of one process; zones and nameservers are looked up once each.

    `progress` is told, in words for a person, what is being done; `warn`, what went well by other means
    than it should.
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
        self._progress = progress
        self._warn = warn

    # -- adding

    def present(self, order: Sequence[Challenge], run: Run, now: datetime) -> None:
        """Add all values and return when the nameservers show them.

        If that fails, what was added is removed again, and RenewalError or LocalFault says why.
        """
        try:
            # All places first: a name without a zone stops the order before anything is added.
            places = [self._place(challenge) for challenge in order]
            self.wait([self._add(one, where, run, now) for one, where in zip(order, places, strict=True)])
        except CertcastError as failure:
            left = self._remove_order(order)
            for second in left:
                logger.warning("%s", second.report())
            failure.kept = "no challenge was answered, and " + (
                "a TXT record may stay until a later `certcast renew` removes it"
                if left
                else "no TXT record is left"
            )
            raise

    def add(self, challenge: Challenge, run: Run, now: datetime) -> Entry:
        """Add one value and don't wait; the entry in the ledger says where it stands.

        Raises what the provider raises; the ledger then still knows whatever may have been added.
        """
        return self._add(challenge, self._place(challenge), run, now)

    def wait(self, entries: Sequence[Entry]) -> None:
        """Return when all these values may be looked at: agreed by the nameservers, or the best to be had.

        Raises NotPropagated, and what the provider raises.
        """
        from certcast.dns01.visible import Wait

        Wait(
            self._config.dns,
            nameservers_of=lambda zone: self._nameservers.of(zone),  # noqa: PLW0108  made when first asked
            provider_of=self._accounts.provider_of,
            progress=self._progress,
            warn=self._warn,
        ).until_visible(entries)

    def _add(self, challenge: Challenge, where: Place, run: Run, now: datetime) -> Entry:
        entry = self.ledger.intend(
            Entry(challenge.name, challenge.validation, where.zone, where.rr, run, now)
        )
        self._progress(f"adding TXT {entry.value} at {entry.owner}")
        try:
            added = self._accounts.provider_of(entry.zone).add_txt(entry.zone, entry.rr, entry.value)
        except MaybeAdded:
            raise
        except CertcastError:
            # Refused outright, so there is no record: nothing for a cleanup to fail at once more, and
            # whatever stands there with this value is somebody else's.
            if not entry.inherited:
                self.ledger.drop(entry)
            raise
        # "It is there already" is no news where an earlier run of ours may have added it.
        ours = added.ours or (entry.inherited and entry.ours)
        entry = replace(entry, record_id=added.record_id, ours=ours)
        self.ledger.put([entry])
        return entry

    # -- removing

    def cleanup(self, order: Iterable[Challenge]) -> None:
        """Remove the records of these challenges, as far as certcast made them.

        All are tried; then the first failure is raised.
        """
        _raise_first(self._remove_order(order))

    def cleanup_unlisted(self, challenge: Challenge, record_id: str) -> None:
        """Remove a record that the ledger has lost, if this id still holds this very value."""
        where = self._place(challenge)
        provider = self._accounts.provider_of(where.zone)
        if provider.find_txt(where.zone, where.rr, challenge.validation, record_id) == record_id:
            provider.remove(where.zone, record_id)

    def sweep(self, now: datetime) -> list[Entry]:
        """Remove what runs that have ended left behind over two hours ago; return these entries.

        All are tried; then the first failure is raised.
        """
        old = [entry for entry in self._left_behind() if now - entry.created > SWEEP_AFTER]
        _raise_first(self._remove_each(old))
        return old

    def require_nothing_left(self, now: datetime) -> None:
        """Raise DnsFailed if a certbot run of the last two hours has ended and left records behind.

        For whoever has started certbot: a cleanup that fails in there is only logged. Older ones are
        the next sweep's business.
        """
        left = [entry for entry in self._left_behind() if now - entry.created <= SWEEP_AFTER]
        if left:
            raise DnsFailed(
                "TXT records of a certbot run that has ended were not removed",
                found="\n".join(f"{entry.owner} TXT {entry.value}" for entry in left),
                kept="certificates are not touched by this; a record like these does no harm by itself",
                next="nothing now: the first `certcast renew` after two hours removes them, or says why not",
            )

    def _left_behind(self) -> list[Entry]:
        return [entry for entry in self.ledger.entries() if not entry.run.alive()]

    def _remove_order(self, order: Iterable[Challenge]) -> list[CertcastError]:
        try:
            found = [self.ledger.find(challenge.name, challenge.validation) for challenge in order]
        except CertcastError as unreadable:
            return [unreadable]
        return self._remove_each(entry for entry in found if entry is not None)

    def _remove_each(self, entries: Iterable[Entry]) -> list[CertcastError]:
        failures = []
        for entry in entries:
            try:
                self._remove(entry)
            except CertcastError as failure:
                failure.kept = failure.kept or (
                    f"TXT {entry.value} at {entry.owner} stays until a later `certcast renew` removes it"
                )
                failures.append(failure)
        return failures

    def _remove(self, entry: Entry) -> None:
        """Remove the entry's record and forget it."""
        try:
            if entry.ours:
                self._progress(f"removing TXT {entry.value} at {entry.owner}")
                self._take_away(entry)
        except ZoneMissing:
            zones = [zone.name for zone in self._config.zones]
            if zones and entry.zone not in zones:
                self.ledger.drop(entry)
                raise _of_no_account(entry) from None
            # A zone that has left its account has taken the record along.
            logger.info("%s is no longer in the account", entry.zone)
        except CertcastError:
            with suppress(LocalFault):
                self.ledger.put([replace(entry, leaving=True)])
            raise
        self.ledger.drop(entry)

    def _take_away(self, entry: Entry) -> None:
        """Remove the record, if its id holds this name and value.

        Looked at first, always. The API deletes whatever has the id, and the ledger's may be wrong:
        much happens in a zone after a crash, and a reply may have been damaged (alidns.py). What then
        stands at the name is left, since nobody here can tell whose it is, and not kept quiet about.
        """
        provider = self._accounts.provider_of(entry.zone)
        standing = provider.find_txt(entry.zone, entry.rr, entry.value, entry.record_id)
        if standing is None:
            return
        if entry.record_id not in (None, standing):
            raise DnsFailed(
                f"the TXT value at {entry.owner} has another RecordId than the one certcast added",
                expected=f"RecordId {entry.record_id}",
                found=f"RecordId {standing}, TXT {entry.value}",
                kept="both records were left alone: either may be somebody else's",
                next=f"if nobody is validating {entry.name} right now, remove the TXT in the Alidns console; "
                "certcast then forgets it",
            )
        provider.remove(entry.zone, standing)

    # -- what is looked up, once

    @cached_property
    def _nameservers(self) -> Nameservers:
        from certcast.dns01.nameservers import Nameservers

        return Nameservers(self._config, self._accounts)

    @cached_property
    def _names(self) -> Names:
        from certcast.dns01.delegation import Names

        return Names(self._config, self._accounts, self._nameservers)

    def _place(self, challenge: Challenge) -> Place:
        from certcast.dns01.delegation import place

        return place(challenge.name, self._accounts.zones, self._names.alias_of)


def _of_no_account(entry: Entry) -> DnsFailed:
    """Say it once of a record whose zone had a [[zone]] when it was made, perhaps another account's."""
    return DnsFailed(
        f"TXT {entry.value} at {entry.owner} may still stand: which account has {entry.zone} is not known",
        expected=f"a [[zone]] for {entry.zone}, as there was when certcast added the record",
        found="none, and the account of [dns] does not have the zone",
        kept="certcast has forgotten the record; it does no harm by itself",
        next="if the zone is still yours, remove that TXT in the console of its account",
    )


def _raise_first(failures: Sequence[CertcastError]) -> None:
    for second in failures[1:]:
        logger.warning("%s", second.report())
    if failures:
        raise failures[0]
