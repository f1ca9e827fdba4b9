"""The caps on orders, and the CA's own word: no loop of ours locks a domain out at the CA."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.acme import limits
from certcast.acme.ca import folder_of
from certcast.report.errors import CertcastError, LocalFault, OrderCapReached, RateLimited

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
NAMES = ("example.com", "*.example.com")


def next_step(error: pytest.ExceptionInfo[CertcastError]) -> str:
    return error.value.next or ""


def test_two_orders_in_a_day_are_the_most(tmp_path: Path) -> None:
    """A third order for the same names within 24 hours is not placed, and the error says when it may be."""
    limits.count_order(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, NAMES, NOW + 6 * HOUR)
    with pytest.raises(OrderCapReached) as caught:
        limits.count_order(tmp_path, NAMES, NOW + 12 * HOUR)
    assert "2026-11-24T12:00:00Z" in next_step(caught)
    limits.count_order(tmp_path, NAMES, NOW + 24 * HOUR)


def test_four_orders_in_a_week_are_the_most(tmp_path: Path) -> None:
    """One order short of the CA's five in seven days, whoever places the fifth."""
    for day in range(4):
        limits.count_order(tmp_path, NAMES, NOW + day * DAY)
    with pytest.raises(OrderCapReached, match="7 days"):
        limits.count_order(tmp_path, NAMES, NOW + 5 * DAY)
    limits.count_order(tmp_path, NAMES, NOW + 7 * DAY)


def test_the_same_names_in_another_order_are_the_same_set(tmp_path: Path) -> None:
    """The CA counts sets of names; so do we."""
    limits.count_order(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, NAMES[::-1], NOW)
    with pytest.raises(OrderCapReached):
        limits.count_order(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, ("example.com",), NOW)


def test_an_order_is_counted_before_it_is_sent(tmp_path: Path) -> None:
    """What a crash after that leaves behind is counted by the next process."""
    for _ in range(2):
        limits.count_order(tmp_path, NAMES, NOW)
    (placed,) = json.loads((tmp_path / "limits.json").read_text())["orders"].values()
    assert [{"at": "2026-11-23T12:00:00Z", "issued": False}] * 2 == placed
    with pytest.raises(OrderCapReached):
        limits.count_order(tmp_path, NAMES, NOW + SECOND)


def test_to_ask_counts_nothing(tmp_path: Path) -> None:
    """Whether an order would be allowed may be asked as often as anybody likes."""
    for _ in range(10):
        limits.require_allowed(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, NAMES, NOW)


def test_an_order_that_the_ca_refused_is_taken_back(tmp_path: Path) -> None:
    """Failures that cost nothing at the CA, however many, don't use up the cap."""
    for _ in range(10):
        limits.count_order(tmp_path, NAMES, NOW.replace(microsecond=7))
        limits.take_back(tmp_path, NAMES, NOW.replace(microsecond=7))


def test_one_order_is_taken_back_at_a_time(tmp_path: Path) -> None:
    """Of two orders in one second the other one stays counted; to take back an unknown one is no failure."""
    limits.count_order(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, NAMES, NOW)
    limits.take_back(tmp_path, NAMES, NOW)
    limits.take_back(tmp_path, NAMES, NOW - DAY)
    limits.take_back(tmp_path, ("other.com",), NOW)
    limits.count_order(tmp_path, NAMES, NOW)
    with pytest.raises(OrderCapReached):
        limits.count_order(tmp_path, NAMES, NOW)


def test_an_order_that_was_issued_is_never_taken_back(tmp_path: Path) -> None:
    """What the CA has counted, this host counts."""
    limits.count_order(tmp_path, NAMES, NOW)
    limits.mark_issued(tmp_path, NAMES, NOW)
    limits.take_back(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, NAMES, NOW + SECOND)
    with pytest.raises(OrderCapReached):
        limits.count_order(tmp_path, NAMES, NOW + 2 * SECOND)


@pytest.mark.parametrize("succeeded", [0, 1, 2])
def test_the_message_says_how_many_orders_succeeded(tmp_path: Path, succeeded: int) -> None:
    """Two certificates a day are another trouble than two failures a day: a person is told which it is."""
    for order in range(2):
        limits.count_order(tmp_path, NAMES, NOW + order * HOUR)
        if order < succeeded:
            limits.mark_issued(tmp_path, NAMES, NOW + order * HOUR)
    with pytest.raises(OrderCapReached) as caught:
        limits.count_order(tmp_path, NAMES, NOW + 2 * HOUR)
    assert f"\n{succeeded} of them led to a certificate" in (caught.value.found or "")
    assert "2026-11-23T12:00:00Z, 2026-11-23T13:00:00Z" in (caught.value.found or "")
    assert str(tmp_path / "limits.json") in next_step(caught)


def test_an_emergency_may_use_the_fifth_order_of_the_week(tmp_path: Path) -> None:
    """
    A timer that replaces a compromised certificate need not wait for a day, and leaves the fifth
    order to the person who asks; a sixth is the CA's to refuse, and ours first.
    """
    limits.count_order(tmp_path, NAMES, NOW)
    limits.count_order(tmp_path, NAMES, NOW + HOUR)
    with pytest.raises(OrderCapReached, match="24 hours"):
        limits.count_order(tmp_path, NAMES, NOW + 2 * HOUR)
    for hour in (2, 3):
        limits.count_order(tmp_path, NAMES, NOW + hour * HOUR, caps=limits.REPLACING)
    with pytest.raises(OrderCapReached, match="4 orders in the last 7 days"):
        limits.count_order(tmp_path, NAMES, NOW + 4 * HOUR, caps=limits.REPLACING)
    limits.count_order(tmp_path, NAMES, NOW + 4 * HOUR, caps=limits.EMERGENCY)
    with pytest.raises(OrderCapReached, match="5 orders in the last 7 days") as caught:
        limits.count_order(tmp_path, NAMES, NOW + 5 * HOUR, caps=limits.EMERGENCY)
    assert "2026-11-30T12:00:00Z" in next_step(caught)


def test_each_ca_has_caps_of_its_own(tmp_path: Path) -> None:
    """Trials at the staging CA cost nothing at the other one, also where one host has both."""
    staging, production = (
        folder_of(tmp_path, f"https://acme.test/{which}/directory") for which in ("staging", "production")
    )
    assert staging != production
    for _ in range(2):
        limits.count_order(staging, NAMES, NOW)
    with pytest.raises(OrderCapReached):
        limits.count_order(staging, NAMES, NOW)
    limits.count_order(production, NAMES, NOW)


@pytest.mark.parametrize(
    "url",
    ["https://ca.test/../../etc/dir", "https://[::1]:14000/dir", "https://CA.test/é", "https://ca.test"],
)
def test_what_belongs_to_a_ca_lies_in_one_folder(tmp_path: Path, url: str) -> None:
    """Whatever the address looks like, it becomes the name of one folder, and the same each time."""
    folder = folder_of(tmp_path, url)
    assert tmp_path / "acme" == folder.parent
    assert folder == folder_of(tmp_path, url)
    assert ".." not in folder.name


# -- the CA's word


def test_before_the_cas_moment_no_order_is_tried(tmp_path: Path) -> None:
    """A Retry-After is kept across runs and obeyed to the second; nothing is counted for it."""
    until = NOW + 36 * HOUR
    limits.close_until(tmp_path, NAMES, until)
    for when in (NOW, until - SECOND):
        with pytest.raises(RateLimited, match="2026-11-25T00:00:00Z"):
            limits.count_order(tmp_path, NAMES, when)
    limits.count_order(tmp_path, NAMES, until)
    limits.count_order(tmp_path, NAMES, until)


def test_an_emergency_waits_for_the_cas_moment_too(tmp_path: Path) -> None:
    """What the CA has said holds for whoever asks: an earlier try would make the wait longer."""
    limits.close_until(tmp_path, NAMES, NOW + HOUR)
    with pytest.raises(RateLimited):
        limits.count_order(tmp_path, NAMES, NOW, caps=limits.EMERGENCY)


def test_other_names_do_not_wait(tmp_path: Path) -> None:
    """The CA's limit is for one set of names: the others are ordered meanwhile."""
    limits.close_until(tmp_path, NAMES, NOW + HOUR)
    limits.count_order(tmp_path, ("other.com",), NOW)


# -- the file


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "{",
        lambda text: "[]",
        lambda text: text.replace("2026", "MMXXVI"),
        lambda text: text.replace('"at"', '"when"'),
        lambda text: '{"orders": []}',
        lambda text: '{"orders": {"example.com": 3}}',
        lambda text: '{"not_before": {"example.com": 3}}',
    ],
)
def test_a_damaged_book_stops_instead_of_forgetting(tmp_path: Path, damage: Callable[[str], str]) -> None:
    """If the count cannot be read, no order is placed on a guess."""
    limits.count_order(tmp_path, NAMES, NOW)
    book = tmp_path / "limits.json"
    book.write_text(damage(book.read_text()))
    with pytest.raises(LocalFault, match="is damaged"):
        limits.count_order(tmp_path, NAMES, NOW)


def test_what_is_older_than_a_week_is_not_kept(tmp_path: Path) -> None:
    """The file does not grow for ever."""
    for week in range(5):
        limits.count_order(tmp_path, NAMES, NOW + week * 8 * DAY)
    assert 1 == (tmp_path / "limits.json").read_text().count('"at"')


# limits.json as version 0.1 writes it, with every field set.
WRITTEN = """{
  "orders": {
    "*.example.com,example.com": [
      {
        "at": "2026-11-22T12:00:00Z",
        "issued": true
      },
      {
        "at": "2026-11-23T11:00:00Z",
        "issued": false
      }
    ]
  },
  "not_before": {
    "other.com": "2026-11-23T13:00:00Z"
  }
}
"""


def test_the_file_is_the_one_of_version_0_1(tmp_path: Path) -> None:
    """What was counted before an update counts after it; and the bytes are the same."""
    (tmp_path / "limits.json").write_text(WRITTEN)
    names = ("example.com", "*.example.com")
    with pytest.raises(OrderCapReached, match="24 hours") as caught:
        limits.require_allowed(tmp_path, names, NOW - SECOND)
    assert "\n1 of them led to a certificate" in (caught.value.found or "")
    with pytest.raises(RateLimited, match="2026-11-23T13:00:00Z"):
        limits.require_open(tmp_path, ("other.com",), NOW)
    (tmp_path / "limits.json").unlink()
    for at in (NOW - DAY, NOW - HOUR):
        limits.count_order(tmp_path, names, at)
    limits.mark_issued(tmp_path, names, NOW - DAY)
    limits.close_until(tmp_path, ("other.com",), NOW + HOUR)
    assert WRITTEN == (tmp_path / "limits.json").read_text()
