"""When a certificate is due, for every lifetime that CAs issue or have announced."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from certcast.release.lifetime import Life, from_utc_text, remaining_text, utc_text

START = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)


def life(days: float) -> Life:
    return Life(START, START + timedelta(days=days))


@pytest.mark.parametrize(("days", "left"), [(90, 30), (64, 64 / 3), (45, 15), (160 / 24, 160 / 48)])
def test_the_window_opens_at_a_part_of_the_life(days: float, left: float) -> None:
    """90, 64 and 45 day certificates are due with a third left, a 160-hour one with half left."""
    assert timedelta(days=left) == life(days).not_after - life(days).window_start


@pytest.mark.parametrize("days", [90, 64, 45, 160 / 24])
def test_a_warning_always_precedes_its_critical(days: float) -> None:
    """For every lifetime: window, then overdue, then critical, then the end."""
    one = life(days)
    assert one.window_start < one.overdue_at < one.critical_at < one.not_after


def test_both_ends_of_the_validity_belong_to_it() -> None:
    """A certificate is valid in its first and in its last second (RFC 5280, 4.1.2.5)."""
    one = life(90)
    assert one.is_valid(one.not_before)
    assert one.is_valid(one.not_after)
    assert not one.is_valid(one.not_before - timedelta(seconds=1))
    assert not one.is_valid(one.not_after + timedelta(seconds=1))


def test_times_survive_a_round_trip() -> None:
    """What certcast writes into a manifest it reads back as the same second."""
    assert START == from_utc_text(utc_text(START))


@pytest.mark.parametrize(
    "text", ["2026-11-23", "2026-11-23T12:00:00", "2026-11-23T12:00:00+01:00", "20261123T120000Z", "soon", ""]
)
def test_only_one_form_of_time_is_read(text: str) -> None:
    """A time without a zone, or in another one, is refused instead of guessed."""
    with pytest.raises(ValueError):
        from_utc_text(text)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=41, hours=3), "41 days"),
        (timedelta(hours=30), "30 hours"),
        (timedelta(minutes=9), "9 minutes"),
        (timedelta(seconds=1), "1 minutes"),
        (timedelta(0), "expired"),
    ],
)
def test_remaining_time_is_told_in_a_person_s_unit(left: timedelta, words: str) -> None:
    """Mails say "41 days", not a number of seconds."""
    assert words == remaining_text(START + left, START)
