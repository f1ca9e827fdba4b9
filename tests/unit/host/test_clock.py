"""A clock that is wrong, by what servers say of the time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from certcast.host.clock import tls_hint, wrong_clock

HERE = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def date(off: timedelta) -> str:
    return format_datetime(HERE + off, usegmt=True)


@pytest.mark.parametrize("minutes", [-15, -1, 0, 14, 15])
def test_fifteen_minutes_are_no_matter(minutes):
    """Within what the services tolerate, a refusal is not the clock's."""
    assert wrong_clock(date(timedelta(minutes=minutes)), HERE) is None


@pytest.mark.parametrize(
    ("off", "found"),
    [
        (timedelta(minutes=16), "2026-11-23T12:00:00Z on this host: 16 minutes behind"),
        (timedelta(minutes=-119), "2026-11-23T12:00:00Z on this host: 119 minutes ahead"),
        (timedelta(days=3), "2026-11-23T12:00:00Z on this host: 72 hours behind"),
    ],
)
def test_both_times_are_said(off, found):
    """The operator reads what this host's clock says, how far off it is, and which way."""
    wrong = wrong_clock(date(off), HERE)
    assert wrong is not None
    assert found == wrong.found
    assert f"{HERE + off:%Y-%m-%dT%H:%M:%SZ}, as the server says" == wrong.expected


@pytest.mark.parametrize(
    "text",
    [None, "", "yesterday", "Mon, 99 Nov 2026 12:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -0100"],
)
def test_a_server_without_a_date_accuses_nobody(text):
    """A reply whose Date is missing or damaged says nothing about the clock."""
    assert wrong_clock(text, HERE) is None


def test_a_certificate_out_of_its_dates_may_be_the_clocks_fault():
    """TLS failures of dates come with a hint; others don't."""
    for date_failure in ("certificate has expired", "certificate is not yet valid"):
        said = f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {date_failure} (_ssl.c:1006)"
        assert "timedatectl" in str(tls_hint(said))
    assert tls_hint("certificate verify failed: self-signed certificate") is None
