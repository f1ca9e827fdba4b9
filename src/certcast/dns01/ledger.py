"""Which TXT records certcast made: a file that outlives the process that made them.

A record is written down twice: as an intention before the API is asked, and with its id afterwards. So the
next process knows every record that a crash may have left, and removes no other.

The key is (name, value): apex and wildcard of a domain have two values at one name (RFC 8555 section 8.4),
and certbot's cleanup hook names a record by both.

    {state_dir}/dns01/ledger.json     replaced by fsync and rename
    {state_dir}/dns01/ledger.lock     flock, held for one read and write

Not here: the API calls between the two writes (records.py).
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import documents
from certcast.report.errors import LocalFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Process:
    """A process: its id, the moment it began (clock ticks since boot) and that boot.

    A process id alone is given out again; the three together are not.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """Return the living process with this id, or None."""
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
    def current(cls) -> Process:
        """Return this process. LocalFault without a /proc."""
        process = cls.find(os.getpid())
        if process is None:
            raise LocalFault(
                "this process is not listed in /proc",
                expected="a mounted /proc: it tells a living process's TXT records from a dead one's",
                next="mount proc, then run again",
            )
        return process

    def is_alive(self) -> bool:
        """Return whether the process still lives."""
        return Process.find(self.pid) == self


@dataclass(frozen=True)
class Entry:
    """One TXT record: certcast made it, intends to make it, or (`ours` false) found it at the name.

    The CA looks at `name`. The record itself is at `rr` in `zone`, where CNAMEs lead. `record_id` is None
    until the API has answered. `inherited`: an earlier process had intended the same record. `leaving`: no
    order needs the record, but its removal failed.

    An entry belongs to an `order`, by the order's URL, and to a process, `run`. certcast's own orders are
    run by certcast. certbot's hooks know no URL: there the order is empty and `run` is certbot, since no
    process of certcast lives between two hooks. An entry whose process has ended is a leftover.
    """

    name: str
    value: str
    zone: str
    rr: str
    run: Process
    created: datetime
    record_id: str | None = None
    ours: bool = True
    inherited: bool = False
    leaving: bool = False
    order: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Name and value: what the ledger is keyed by."""
        return self.name, self.value

    @property
    def belongs_to(self) -> tuple[str, Process]:
        """The order and the process that the entry belongs to."""
        return self.order, self.run

    @property
    def owner(self) -> str:
        """The record's owner name (RFC 1034 section 3.6), fully qualified."""
        return self.zone if self.rr == "@" else f"{self.rr}.{self.zone}"


@dataclass(frozen=True)
class _Document:
    records: tuple[Entry, ...]


class Ledger:
    """The entries on disk. Every method reads the file anew: hooks are processes of their own.

    Any number of threads may use one ledger. Each method raises LocalFault if the file cannot be read or
    written, Busy if another process keeps it locked.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "dns01"
        self.path = self._folder / "ledger.json"
        # Taken before the flock: threads that wait for an flock sleep 0.05 s at a time.
        self._thread_lock = threading.Lock()

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
        urls = set(orders)
        return [entry for entry in self.entries() if entry.order in urls]

    def put(self, entries: Iterable[Entry]) -> None:
        """Write these entries beside the others, or in place of those with the same keys."""
        with self._locked():
            self._write({**self._read(), **{entry.key: entry for entry in entries}})

    def intend(self, entries: Iterable[Entry]) -> list[Entry]:
        """Write down in one write what is about to be added; return the entries as they are now on disk.

        The ledger may know name and value already: the CA gives a pending authorization to the next order,
        too (RFC 8555 section 7.1.4), and with it the same value. Such an entry keeps its record id and its
        origin, and belongs to the new order and process.
        """
        with self._locked():
            known = self._read()
            intended = [_inherit(entry, known.get(entry.key)) for entry in entries]
            self._write({**known, **{entry.key: entry for entry in intended}})
        return intended

    def drop(self, *entries: Entry) -> None:
        """Forget entries whose records are gone, unless another order or process has taken one over."""
        if not entries:
            return
        with self._locked():
            known = self._read()
            dropped = {entry.key: entry.belongs_to for entry in entries}
            kept = {key: entry for key, entry in known.items() if dropped.get(key) != entry.belongs_to}
            if len(kept) < len(known):
                self._write(kept)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread_lock, files.lock(self._folder / "ledger.lock", wait=10.0):
            yield

    def _read(self) -> dict[tuple[str, str], Entry]:
        # A new ledger in place of a damaged one would forget records that only this file knows.
        advice = f"look for leftover _acme-challenge records in the zones, then `rm {self.path}`"
        document = documents.read(self.path, _Document, advice=advice)
        return {entry.key: entry for entry in document.records} if document else {}

    def _write(self, entries: dict[tuple[str, str], Entry]) -> None:
        with files.reported(f"write {self.path}", kept="the ledger knows every TXT record that was added"):
            documents.write(self.path, _Document(tuple(entries.values())))


def _inherit(entry: Entry, before: Entry | None) -> Entry:
    if before is None or before.owner != entry.owner:
        return entry
    return replace(entry, record_id=before.record_id, ours=before.ours, inherited=True)
