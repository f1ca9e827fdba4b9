"""The zone data of the lab's cloud: what the API writes and the nameservers read.

A zone belongs to one cloud account and holds records. Every state of a record is
kept, with the span of monotonic time in which it stood. So the same data answer
for now (the API) and for a while ago (a nameserver that lags):

    zones.lookup("_acme-challenge.example.test", "TXT", at=time.monotonic() - 2)

Names are compared in lower case without the trailing dot. `lookup` follows
RFC 1034 section 4.3.2 inside the deepest zone that holds the name: CNAMEs are
followed through zones of the lab, an existing name without the type is NODATA,
wildcards are synthesised as RFC 4592 says (a name that exists, even only as
the parent of another one, hides the wildcard), disabled records are absent.

Time and record ids come in from outside. A caller that reads and then changes
holds `zones.lock`; each call holds it by itself, too.

Not here: what the API permits (alidns_actions.py), DNS messages, SOA and
delegation answers (nameservers.py).
"""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal

Rcode = Literal["NOERROR", "NXDOMAIN", "REFUSED"]
MAX_CNAMES = 8  # a loop ends here; resolvers give up at about as many


@dataclass(frozen=True)
class Record:
    """A resource record as Alidns keeps it: `rr` is the name below the zone, `@` the zone itself."""

    id: str
    zone: str
    rr: str
    type: str
    value: str
    ttl: int
    created: datetime
    updated: datetime
    line: str = "default"
    priority: int | None = None
    enabled: bool = True
    locked: bool = False
    remark: str = ""

    @property
    def name(self) -> str:
        """The owner name, fully qualified, without the trailing dot."""
        return self.zone if self.rr == "@" else f"{self.rr}.{self.zone}".lower()


@dataclass
class _State:
    """One state of one record, and when (monotonic seconds) it stood."""

    record: Record
    since: float
    until: float = float("inf")

    def stood(self, at: float) -> bool:
        return self.since <= at < self.until


@dataclass
class Zone:
    """A hosted zone; `nameservers` are host names, as the domain's delegation would list them."""

    name: str
    owner: str
    id: str
    nameservers: tuple[str, ...]
    created: datetime
    _states: dict[str, list[_State]] = field(
        default_factory=dict, repr=False
    )  # by owner name, all there were
    _current: dict[str, _State] = field(default_factory=dict, repr=False)  # by record id, what stands now
    _changes: list[float] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Answer:
    """
    What the zone data say to a question.

    `records`: the answer section in order, CNAMEs first; those made from a wildcard bear the name that
    was asked. `zone`: whose SOA belongs into a negative answer; None when REFUSED.
    """

    rcode: Rcode
    zone: Zone | None
    records: tuple[Record, ...] = ()


class Zones:
    """All zones of the lab, of every account."""

    def __init__(
        self,
        *,
        ids: Iterator[int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        """`ids` numbers zones and records; by default from 18 digits on, as Alidns' own look."""
        self.lock = threading.RLock()
        self._ids = ids or itertools.count(176_062_010_691_676_160)
        self.monotonic = monotonic
        self._now = now
        self._zones: dict[str, Zone] = {}

    # -- zones

    def create(self, name: str, owner: str, nameservers: tuple[str, ...]) -> Zone:
        """A new, empty zone. ValueError if some account has it already."""
        name = canonical(name)
        with self.lock:
            if name in self._zones:
                raise ValueError(f"zone {name} exists already")
            zone = Zone(name, owner, str(next(self._ids)), nameservers, self._now())
            self._zones[name] = zone
            return zone

    def get(self, name: str) -> Zone | None:
        return self._zones.get(canonical(name))

    def holding(self, name: str) -> Zone | None:
        """The deepest zone in which this name lies."""
        labels = canonical(name).split(".")
        with self.lock:
            suffixes = (".".join(labels[depth:]) for depth in range(len(labels)))
            return next((self._zones[suffix] for suffix in suffixes if suffix in self._zones), None)

    def all(self) -> list[Zone]:
        """Every zone, newest first."""
        with self.lock:
            return list(reversed(self._zones.values()))

    def serial(self, zone: Zone, at: float | None = None) -> int:
        """The SOA serial at that time: the number of changes by then, from 1, so that it grows (RFC 1982)."""
        with self.lock:
            return 1 + bisect_right(zone._changes, self.monotonic() if at is None else at)

    # -- records

    def records(self, zone: Zone, at: float | None = None) -> list[Record]:
        """The zone's records as they stood at that monotonic time (default: now), newest first."""
        with self.lock:
            if at is None:
                standing = [state.record for state in zone._current.values()]
            else:
                states = itertools.chain.from_iterable(zone._states.values())
                standing = [state.record for state in states if state.stood(at)]
        return sorted(standing, key=lambda record: int(record.id), reverse=True)

    def by_id(self, record_id: str) -> Record | None:
        """The record as it stands now, in whichever zone."""
        with self.lock:
            standing = (zone._current.get(record_id) for zone in self._zones.values())
            return next((state.record for state in standing if state), None)

    def add(
        self,
        zone: Zone,
        rr: str,
        type: str,  # noqa: A002 - the field's word
        value: str,
        *,
        ttl: int = 600,
        line: str = "default",
        priority: int | None = None,
        locked: bool = False,
    ) -> Record:
        """Add a record without asking whether it fits beside the others: that is the API's rule."""
        with self.lock:
            now = self._now()
            record = Record(
                str(next(self._ids)), zone.name, rr, type, value, ttl, now, now, line, priority, locked=locked
            )
            self._put(zone, record)
            return record

    def update(self, record: Record, **changes: Any) -> Record:
        """
        Change fields of the record (`value=`, `ttl=`, …); it keeps its id and its age.

        `enabled=False` is the console's switch: no nameserver tells of the record any more.
        """
        with self.lock:
            changed = replace(record, updated=self._now(), **changes)
            zone = self._zones[record.zone]
            self._end(zone, record)
            self._put(zone, changed)
            return changed

    def delete(self, record: Record) -> None:
        with self.lock:
            self._end(self._zones[record.zone], record)

    def _put(self, zone: Zone, record: Record) -> None:
        state = _State(record, self.monotonic())
        zone._states.setdefault(record.name, []).append(state)
        zone._current[record.id] = state
        zone._changes.append(state.since)

    def _end(self, zone: Zone, record: Record) -> None:
        """The record's present state ends now; KeyError if it has none (it was deleted before)."""
        state = zone._current.pop(record.id)
        state.until = self.monotonic()
        zone._changes.append(state.until)

    # -- answers

    def lookup(self, name: str, rtype: str, at: float | None = None) -> Answer:
        """
        Answer a question as an authoritative server would whose data are those of `at`
        (monotonic seconds; default: now).
        """
        name = canonical(name)
        answer: list[Record] = []
        with self.lock:
            # The lock is held, so nothing changes now; an earlier moment may lie between two changes.
            moment = self.monotonic() if at is None else at
            zone = self.holding(name)
            if zone is None:
                return Answer("REFUSED", None)
            for _ in range(MAX_CNAMES):
                found = self._matching(zone, name, moment)
                if found is None:
                    # RFC 6604 section 3: the rcode is that of the last name of the chain.
                    return Answer("NXDOMAIN", zone, tuple(answer))
                wanted = [record for record in found if rtype in (record.type, "ANY")]
                aliases = [record for record in found if record.type == "CNAME"]
                if wanted or not aliases:
                    answer += wanted
                    break
                answer.append(aliases[0])
                name = canonical(aliases[0].value)
                further = self.holding(name)
                if further is None:
                    break  # a CNAME out of the lab: the resolver goes on from here
                zone = further
        return Answer("NOERROR", zone, tuple(answer))

    def _matching(self, zone: Zone, name: str, at: float) -> list[Record] | None:
        """The records of this name or of the wildcard that covers it; None: the name doesn't exist."""
        if name == zone.name or _exists(zone, name, at):
            return _standing(zone, name, at)
        # RFC 4592 section 3.3.1: only the wildcard right below the closest encloser counts.
        encloser = name.partition(".")[2]
        while encloser != zone.name and not _exists(zone, encloser, at):
            encloser = encloser.partition(".")[2]
        below = name.removesuffix("." + zone.name)
        return [replace(record, rr=below) for record in _standing(zone, f"*.{encloser}", at)] or None


def canonical(name: str) -> str:
    """A domain name as the zone data compare it: lower case (RFC 4343), no trailing dot."""
    return name.rstrip(".").lower()


def _standing(zone: Zone, name: str, at: float) -> list[Record]:
    return [state.record for state in zone._states.get(name, []) if state.stood(at) and state.record.enabled]


def _exists(zone: Zone, name: str, at: float) -> bool:
    """Whether the name owns records or is an empty non-terminal (RFC 4592 section 2.2.2)."""
    return any(
        (owner == name or owner.endswith("." + name)) and _standing(zone, owner, at) for owner in zone._states
    )
