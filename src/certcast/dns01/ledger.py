"""Which TXT records are ours: a file that outlives the process that made them.

A record is written down twice: as an intention before the API is asked, and
with its id afterwards. So whatever moment a run dies at, the next one knows
every record that may be left over, and removes that one and no other.

Keyed by (name, value): the apex and the wildcard of a domain are validated at
the same name with two values (RFC 8555 section 8.4), and certbot's hooks say
the name and the value when they clean up.

    {state_dir}/dns01/ledger.json     replaced by fsync and rename
    {state_dir}/dns01/ledger.lock     flock, held for one read and write

An entry belongs to an order, by the order's URL, and to a process (`Run`). With
certcast's own orders that is the process that placed them. certbot's hooks know no
URL, so the order is empty, and the process is certbot: between two hooks certcast
has none that could hold an flock. An entry whose process has ended is a leftover.

Not here: the API calls between the two writes (records.py).
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certcast.host import files
from certcast.release.lifetime import from_utc_text, utc_text
from certcast.report.errors import LocalFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime


@dataclass(frozen=True)
class Run:
    """A process that wants records: its id, the moment it began (clock ticks since boot) and that boot.

    A process id alone is given out again; the three together are not.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Run | None:
        """Return the run that a living process is, or None if there is no such process."""
        try:
            # proc(5): the second field, the command in parentheses, may hold anything; count after it.
            after_command = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if after_command[0] == "Z":  # ended, and its parent hasn't asked how
            return None
        return cls(pid, int(after_command[19]), boot)

    @classmethod
    def current(cls) -> Run:
        """Return the run that this process is."""
        run = cls.of(os.getpid())
        if run is None:
            raise LocalFault(
                "this process is not to be seen in /proc",
                expected="a mounted /proc: it tells a living run's TXT records from a dead one's",
                next="mount proc, then run again",
            )
        return run

    def alive(self) -> bool:
        """Return whether the process still lives."""
        return Run.of(self.pid) == self


@dataclass(frozen=True)
class Entry:
    """One TXT record that certcast made, means to make, or (`ours` false) found standing.

    `name` is the challenge's name, `_acme-challenge.` and the domain; after CNAMEs the record
    itself stands at `rr` in `zone`. `record_id` is None from the intention until the API's answer.
    `inherited`: an earlier run had meant to add the same. `leaving`: it is waited for no more, but its
    removal failed. `order` is the order's URL, empty where certbot's hooks made the entry.
    """

    name: str
    value: str
    zone: str
    rr: str
    run: Run
    created: datetime
    record_id: str | None = None
    ours: bool = True
    inherited: bool = False
    leaving: bool = False
    order: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.value

    @property
    def wanted_by(self) -> tuple[str, Run]:
        """The order and the process that the entry belongs to."""
        return self.order, self.run

    @property
    def owner(self) -> str:
        """The fully qualified name at which the record stands."""
        return self.zone if self.rr == "@" else f"{self.rr}.{self.zone}"


class Ledger:
    """The entries on disk. Every method reads the file anew: hooks are processes of their own.

    Any number of threads may use one ledger. Each method raises LocalFault if the file cannot be read or
    written, Busy if another process keeps it locked.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "dns01"
        self.path = self._folder / "ledger.json"
        # Before the flock: two threads that both wait for that one sleep 0.05 s at a time.
        self._turn = threading.Lock()

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first."""
        with self._locked():
            return list(self._read().values())

    def find(self, name: str, value: str) -> Entry | None:
        """Return the entry of this name and value, or None."""
        with self._locked():
            return self._read().get((name, value))

    def of_orders(self, orders: Iterable[str]) -> list[Entry]:
        """Return the entries that belong to these orders, by their URLs."""
        wanted = set(orders)
        return [entry for entry in self.entries() if entry.order in wanted]

    def put(self, entries: Iterable[Entry]) -> None:
        """Add these entries, or replace those with the same keys, in one write."""
        with self._locked():
            known = self._read()
            known.update({entry.key: entry for entry in entries})
            self._write(known)

    def intend(self, entries: Iterable[Entry]) -> list[Entry]:
        """Write down in one write what is about to be added; return the entries as the ledger has them now.

        Where the ledger knows name and value already (an earlier run's record: the CA hands out a
        pending authorization again, RFC 8555 section 7.1.4, so the value comes back too), the entry
        keeps its record id and origin, and belongs to the new order and run from here on.
        """
        with self._locked():
            known = self._read()
            intended = [_inheriting(entry, known.get(entry.key)) for entry in entries]
            self._write({**known, **{entry.key: entry for entry in intended}})
        return intended

    def drop(self, *entries: Entry) -> None:
        """Forget entries whose records are gone, but not where another order or run has taken one over."""
        if not entries:
            return
        with self._locked():
            known = self._read()
            gone = [one for one in entries if one.key in known and known[one.key].wanted_by == one.wanted_by]
            if gone:
                keys = {entry.key for entry in gone}
                self._write({key: entry for key, entry in known.items() if key not in keys})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._turn, files.lock(self._folder / "ledger.lock", wait=10.0):
            yield

    def _read(self) -> dict[tuple[str, str], Entry]:
        # Starting a new one silently would forget records that only this file knows.
        advice = f"look for leftover _acme-challenge records in the zones, then `rm {self.path}`"
        document = files.read_json(self.path, advice=advice)
        if document is None:
            return {}
        with files.understood(self.path, advice=advice):
            entries = [_entry(fields) for fields in document["records"]]
        return {entry.key: entry for entry in entries}

    def _write(self, entries: dict[tuple[str, str], Entry]) -> None:
        records = [{**asdict(entry), "created": utc_text(entry.created)} for entry in entries.values()]
        with files.reported(
            f"write {self.path}", kept="no TXT record is there that the ledger does not know"
        ):
            files.write_json(self.path, {"records": records})


def _inheriting(entry: Entry, before: Entry | None) -> Entry:
    if before is None or before.owner != entry.owner:
        return entry
    return replace(entry, record_id=before.record_id, ours=before.ours, inherited=True)


def _entry(fields: dict[str, Any]) -> Entry:
    return Entry(**{**fields, "run": Run(**fields["run"]), "created": from_utc_text(fields["created"])})
