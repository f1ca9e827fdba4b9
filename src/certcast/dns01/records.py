"""One TXT record, from the ledger's intention to its removal.

    add       the API, then the ledger: the record's id, and whether certcast made it
    remove    a look-up of the record, the API, then the ledger

Only what certcast made is ever removed. A value that was at the name before the first attempt is used and
left there (Added.ours). Removal goes by the record's id, and only if the id still holds this name and value.

Not here: what is intended (challenges.py, presentation.py).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from certcast.dns01.provider import MaybeAdded
from certcast.report.errors import CertcastError, DnsFailed, LocalFault, ZoneMissing, within

if TYPE_CHECKING:
    from collections.abc import Collection

    from certcast.dns01.accounts import Accounts
    from certcast.dns01.ledger import Entry, Ledger

logger = logging.getLogger(__name__)


class Records:
    """The records of one ledger. `configured` are the zones with a [[zone]], if any has one.

    Any number of threads may add and remove at a time.
    """

    def __init__(self, accounts: Accounts, ledger: Ledger, configured: Collection[str]) -> None:
        self.ledger = ledger
        self._accounts = accounts
        self._configured = configured

    def add(self, entry: Entry) -> Entry:
        """Add the value of an intended entry; return the entry as it is now in the ledger.

        Raises what the provider raises, and LocalFault. The ledger then still knows whatever may have
        been added.
        """
        try:
            added = self._accounts.provider_of(entry.zone).add_txt(entry.zone, entry.rr, entry.value)
        except MaybeAdded:
            raise
        except CertcastError:
            # Refused outright: there is no record for a cleanup to fail at, and a record with this value
            # would be somebody else's.
            self.forget([entry])
            raise
        # "It is there already" is no news where an earlier process of ours may have added it.
        ours = added.ours or (entry.inherited and entry.ours)
        entry = replace(entry, record_id=added.record_id, ours=ours)
        self.ledger.put([entry])
        return entry

    def forget(self, entries: Collection[Entry]) -> None:
        """Drop intentions that came to nothing, but not those that an earlier process had, too."""
        self.ledger.drop(*(entry for entry in entries if not entry.inherited))

    def try_to_remove(self, entry: Entry) -> CertcastError | None:
        """Remove the entry's record, if certcast made it, and forget the entry; return what went wrong."""
        try:
            with within(
                kept=f"TXT {entry.value} at {entry.owner} stays until a later `certcast renew` removes it"
            ):
                self._remove(entry)
        except CertcastError as failure:
            return failure
        return None

    def _remove(self, entry: Entry) -> None:
        try:
            if entry.ours:
                self._remove_from_zone(entry)
        except ZoneMissing:
            if self._configured and entry.zone not in self._configured:
                self.ledger.drop(entry)
                raise _of_no_account(entry) from None
            # A zone that has left its account has taken the record along.
            logger.info("%s is no longer in the account", entry.zone)
        except CertcastError:
            with suppress(LocalFault):
                self.ledger.put([replace(entry, leaving=True)])
            raise
        self.ledger.drop(entry)

    def _remove_from_zone(self, entry: Entry) -> None:
        """Remove the record, if its id holds this name and value.

        The record is always looked up first. The API deletes whatever has the id, and the ledger's id may be
        wrong: much happens in a zone after a crash, and a reply may have been damaged (alidns.py). A value
        with another id is left, since certcast cannot tell whose it is, and reported.
        """
        provider = self._accounts.provider_of(entry.zone)
        found = provider.find_txt(entry.zone, entry.rr, entry.value, entry.record_id)
        if found is None:
            return
        if entry.record_id not in (None, found):
            raise DnsFailed(
                f"the TXT value at {entry.owner} has another RecordId than the one certcast added",
                expected=f"RecordId {entry.record_id}",
                found=f"RecordId {found}, TXT {entry.value}",
                kept="both records were left alone: either may be somebody else's",
                next=f"if nobody is validating {entry.name} right now, remove the TXT in the Alidns console; "
                "certcast then forgets it",
            )
        provider.remove(entry.zone, found)


def _of_no_account(entry: Entry) -> DnsFailed:
    """Return the only report of a record whose zone had a [[zone]] when it was made, but has none now."""
    return DnsFailed(
        f"TXT {entry.value} at {entry.owner} may be there still: which account has {entry.zone} is not known",
        expected=f"a [[zone]] for {entry.zone}, as there was when certcast added the record",
        found="none, and the account of [dns] does not have the zone",
        kept="certcast has forgotten the record; it does no harm by itself",
        next="if the zone is still yours, remove that TXT in the console of its account",
    )
