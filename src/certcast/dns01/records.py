"""One TXT record, from the ledger's intention to its removal.

    add       the API, then the ledger: the record's id, and whether it is ours
    remove    a look at the record, the API, then the ledger

Only what certcast made is ever removed. A value that stood there before the first
attempt is used and left (Added.ours). Removal goes by the record's id, and only if
the id still holds this name and value.

Not here: what is intended (challenges.py, presenting.py). Any number of threads may add
and remove at a time.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from certcast.dns01.provider import MaybeAdded
from certcast.report.errors import CertcastError, DnsFailed, LocalFault, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Collection

    from certcast.dns01.accounts import Accounts
    from certcast.dns01.ledger import Entry, Ledger

logger = logging.getLogger(__name__)


class Records:
    """The records of one ledger. `configured` are the zones with a [[zone]], if any has one."""

    def __init__(self, accounts: Accounts, ledger: Ledger, configured: Collection[str]) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._configured = configured

    def add(self, entry: Entry) -> Entry:
        """Add the value of an intended entry; return the entry as the ledger has it now.

        Raises what the provider raises, and LocalFault. The ledger then still knows whatever may have
        been added.
        """
        try:
            added = self._accounts.provider_of(entry.zone).add_txt(entry.zone, entry.rr, entry.value)
        except MaybeAdded:
            raise
        except CertcastError:
            # Refused outright, so there is no record: nothing for a cleanup to fail at once more, and
            # whatever stands there with this value is somebody else's.
            self.forget([entry])
            raise
        # "It is there already" is no news where an earlier run of ours may have added it.
        ours = added.ours or (entry.inherited and entry.ours)
        entry = replace(entry, record_id=added.record_id, ours=ours)
        self._ledger.put([entry])
        return entry

    def forget(self, entries: Collection[Entry]) -> None:
        """Drop intentions that came to nothing. An earlier run may have added what it meant to add."""
        self._ledger.drop(*(entry for entry in entries if not entry.inherited))

    def try_to_remove(self, entry: Entry) -> CertcastError | None:
        """Remove the entry's record, if it is ours, and forget it; return what went wrong with that."""
        try:
            self._remove(entry)
        except CertcastError as shared:
            failure = copy(shared)  # once.py: others may have the same one
            failure.kept = failure.kept or (
                f"TXT {entry.value} at {entry.owner} stays until a later `certcast renew` removes it"
            )
            return failure
        return None

    def _remove(self, entry: Entry) -> None:
        try:
            if entry.ours:
                self._take_away(entry)
        except ZoneMissing:
            if self._configured and entry.zone not in self._configured:
                self._ledger.drop(entry)
                raise _of_no_account(entry) from None
            # A zone that has left its account has taken the record along.
            logger.info("%s is no longer in the account", entry.zone)
        except CertcastError:
            with suppress(LocalFault):
                self._ledger.put([replace(entry, leaving=True)])
            raise
        self._ledger.drop(entry)

    def _take_away(self, entry: Entry) -> None:
        """Remove the record, if its id holds this name and value.

        Looked at first, always. The API deletes whatever has the id, and the ledger's may be wrong:
        much happens in a zone after a crash, and a reply may have been damaged (alidns.py). What then
        is at the name is left, since nobody here can tell whose it is, and not kept quiet about.
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
    """Say it once of a record whose zone had a [[zone]] when it was made, perhaps another account's."""
    return DnsFailed(
        f"TXT {entry.value} at {entry.owner} may be there still: which account has {entry.zone} is not known",
        expected=f"a [[zone]] for {entry.zone}, as there was when certcast added the record",
        found="none, and the account of [dns] does not have the zone",
        kept="certcast has forgotten the record; it does no harm by itself",
        next="if the zone is still yours, remove that TXT in the console of its account",
    )
