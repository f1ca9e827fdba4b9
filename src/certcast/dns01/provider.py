"""What certcast needs of a DNS provider: the seam between DNS-01 and an API.

A provider manages zones. A zone has, at a name below it (`rr`, the relative name; `@` is the zone itself),
any number of TXT values. Each pair of name and value is one record with an id of its own.

MUST hold, for every implementation (tests/contract/test_dns_provider.py):

- `add_txt` adds one value beside whatever is at the name. It never changes or removes another record.
- It retries what can be retried, and says truly whether the record came to be through it (`Added.ours`): a
  value that was there before its first attempt is somebody else's. An attempt whose fate is not known counts
  as ours; where it ends in an error, that is MaybeAdded, and after any other nothing was added.
- `find_txt` matches zone, relative name, type and value exactly, however many records the zone has. No single
  damaged reply makes it say something wrong.
- `cnames` and `subzones` say what the zone itself holds at a name, as the owner of the zone wrote it: no
  wildcard's answer, nothing that is switched off.
- `remove` takes away this one record, whatever it holds: a caller that has the id from a reply, or from a
  file, asks `find_txt` first. A record that is gone already is fine: the next run after a crash repeats
  removals.
- Any number of threads may call at a time.
- Each raises only DnsDenied, ZoneMissing or DnsFailed (MaybeAdded is one), and no text of these holds a key,
  a token or a signature.

NOT promised: that a nameserver shows the record when `add_txt` returns (visibility/ waits for that), that ids
are numbers, that two processes that add the same name and value at the same moment both learn which of them
did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from certcast.report.errors import DnsFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from certcast.report.errors import RenewalError

# Alidns' free edition takes nothing shorter, and a validation is asked for once.
TTL = 600


@dataclass(frozen=True)
class Added:
    """The record that now holds the value, and whether this call made it."""

    record_id: str
    ours: bool


class MaybeAdded(DnsFailed):
    """Whether `add_txt` made the record is not known; only its value finds it."""

    @classmethod
    def after(cls, failure: RenewalError) -> MaybeAdded:
        """Return `failure` in the same words."""
        return cls(failure.what, expected=failure.expected, found=failure.found, next=failure.next)


class DnsProvider(Protocol):
    """A DNS provider's API, as far as DNS-01 needs it."""

    def zones(self) -> Sequence[str]:
        """Return the names of all zones that the account manages, in lower case, without a dot at the end."""

    def nameservers(self, zone: str) -> Sequence[str]:
        """Return the host names of the zone's nameservers; ZoneMissing if the account lacks the zone."""

    def cnames(self, zone: str, label: str) -> Mapping[str, Sequence[str]]:
        """Return the targets of the CNAME records in `zone`, by their relative names.

        At least those whose relative name contains `label`. A name has several targets where they differ
        by line, that is, by who asks.
        """

    def subzones(self, zone: str) -> Sequence[str]:
        """Return the relative names in `zone` that NS records delegate to other zone data."""

    def add_txt(self, zone: str, rr: str, value: str, ttl: int = TTL) -> Added:
        """Add the TXT value at `rr` in `zone`, with `ttl` in seconds; MaybeAdded if its fate is not known."""

    def txts(self, zone: str, label: str) -> Mapping[tuple[str, str], str]:
        """Return the ids of the TXT records in `zone`, by relative name and value.

        At least those whose relative name contains `label`. One answer of the API, so that what it lacks,
        or says otherwise, may yet be there: `find_txt` tells.
        """

    def find_txt(self, zone: str, rr: str, value: str, expected: str | None = None) -> str | None:
        """Return the id of the TXT record with exactly this name and value, or None.

        `expected` is the id that an earlier answer gave: any other answer is asked for twice.
        """

    def remove(self, zone: str, record_id: str) -> None:
        """Remove the record; `zone` is for messages, where the API knows records by id alone."""


def zone_of(name: str, zones: Sequence[str]) -> tuple[str, str] | None:
    """Return the zone with the longest name that `name` lies in, and the name relative to it; or None.

    The longest, because a sub-zone hides what its parent says about the same names
    (RFC 1034 section 4.2). Names are compared without case (RFC 4343).
    """
    name = name.rstrip(".").lower()
    holding = [zone for zone in zones if name == zone or name.endswith("." + zone)]
    if not holding:
        return None
    zone = max(holding, key=len)
    return zone, name.removesuffix(zone).rstrip(".") or "@"
