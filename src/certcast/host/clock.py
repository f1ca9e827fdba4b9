"""Whether this host's clock is wrong, by the Date that a server put on its refusal.

Alibaba Cloud takes no request whose time is over 15 minutes off. It may call that InvalidTimeStamp.Expired,
RequestTimeTooSkewed, a wrong signature or an ended token. So a caller that reports a refusal compares the
reply's Date (RFC 9110 section 6.6.1) first, and blames keys only where the two clocks agree.

With a clock that is years off, TLS fails first: then there is no Date, only a hint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

# "OSS error RequestTimeTooSkewed" and "Request syntax, x-acs-date" name the same number.
TOLERANCE = timedelta(minutes=15)
NEXT = "`timedatectl status`; set the clock, then run it again"

_TLS = re.compile(r"certificate (?:has expired|is not yet valid)")


@dataclass(frozen=True)
class WrongClock:
    """What both clocks said at one moment, aware datetimes."""

    here: datetime
    there: datetime

    @property
    def expected(self) -> str:
        """The server's time, as the line of a report."""
        return f"{self.there:%Y-%m-%dT%H:%M:%SZ}, as the server says"

    @property
    def found(self) -> str:
        """This host's time, as the line of a report."""
        off = abs(self.here - self.there)
        way = "ahead" if self.here > self.there else "behind"
        minutes = round(off.total_seconds() / 60)
        amount = f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
        return f"{self.here:%Y-%m-%dT%H:%M:%SZ} on this host: {amount} {way}"


def now() -> datetime:
    """Return this host's time; tests replace it here."""
    return datetime.now(timezone.utc)


def wrong_clock(date: str | None, here: datetime) -> WrongClock | None:
    """Return the two times if a reply's Date is over 15 minutes off; None if not, or without a Date."""
    try:
        there = parsedate_to_datetime(date or "")
        # "-0000", which no server should send, makes it naive.
        there = there.replace(tzinfo=there.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return WrongClock(here, there) if abs(here - there) > TOLERANCE else None


def tls_hint(failure: str) -> str | None:
    """Return what to look at if a TLS failure is one of dates, which a wrong clock looks like."""
    if _TLS.search(failure):
        return "`timedatectl status`: with a wrong clock, every certificate looks expired or not yet valid"
    return None
