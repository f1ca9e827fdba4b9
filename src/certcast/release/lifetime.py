"""When a certificate is due, from its own dates.

    not_before ──────────── window_start ── overdue_at ──── critical_at ── not_after
         0                  2/3 (or 1/2)    + min(2 d, 1/20)  5/6

All are fractions of the life: lifetimes fall from 90 to 45 days until 2028, and 6-day certificates exist.
Let's Encrypt suggests them through ARI: 2/3 of the life, 1/2 where the life is under ten days.

An idle `pull` needs these few lines, and not certificate.py with the X.509 library.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

_SHORT_LIFE = timedelta(days=10)


@dataclass(frozen=True)
class Life:
    """The validity of a certificate; both ends in UTC."""

    not_before: datetime
    not_after: datetime

    @property
    def length(self) -> timedelta:
        """How long the certificate is valid altogether."""
        return self.not_after - self.not_before

    @property
    def window_start(self) -> datetime:
        """From here on, a newer certificate is to be expected."""
        if self.length < _SHORT_LIFE:
            return self.not_before + self.length / 2
        return self.not_before + self.length * 2 / 3

    @property
    def overdue_at(self) -> datetime:
        """From here on, the absence of a newer certificate is worth a warning."""
        return self.window_start + min(timedelta(days=2), self.length / 20)

    @property
    def critical_at(self) -> datetime:
        """One sixth of the life is left."""
        return self.not_after - self.length / 6

    def in_window(self, now: datetime) -> bool:
        """Return whether a newer certificate is to be expected at `now`."""
        return now >= self.window_start

    def is_valid(self, now: datetime) -> bool:
        """Return whether `now` lies inside the validity, both ends included (RFC 5280, 4.1.2.5)."""
        return self.not_before <= now <= self.not_after


def utc_text(moment: datetime) -> str:
    """Return `moment` as RFC 3339 in UTC with whole seconds: 2026-11-23T18:05:00Z."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_utc_text(text: str) -> datetime:
    """Return the moment that `utc_text` wrote; ValueError for any other form."""
    # Not strptime: it imports locale and calendar, a tenth of an idle `pull`.
    moment = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=timezone.utc)
    if utc_text(moment) != text:
        raise ValueError(f"{text!r} is not of the form 2026-11-23T18:05:00Z")
    return moment


def remaining_text(until: datetime, now: datetime) -> str:
    """Return how much time is left in the unit a person would use: "41 days", "7 hours", "expired"."""
    left = until - now
    if left <= timedelta(0):
        return "expired"
    if left >= timedelta(days=2):
        return f"{left.days} days"
    if left >= timedelta(hours=2):
        return f"{int(left.total_seconds() // 3600)} hours"
    return f"{max(1, int(left.total_seconds() // 60))} minutes"
