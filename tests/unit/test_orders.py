"""The cap on orders: no loop of ours locks a domain out at the CA."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from certcast.errors import LocalFault, OrderCapReached
from certcast.renewal import orders

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
NAMES = ("example.com", "*.example.com")


def test_two_orders_in_a_day_are_the_most(tmp_path: Path) -> None:
    """A third order for the same names within 24 hours is not placed, and the error says when it may be."""
    orders.begin(tmp_path, NAMES, NOW)
    orders.begin(tmp_path, NAMES, NOW + timedelta(hours=6))
    with pytest.raises(OrderCapReached) as caught:
        orders.begin(tmp_path, NAMES, NOW + timedelta(hours=12))
    assert "2026-11-24T12:00:00Z" in (caught.value.next or "")
    orders.begin(tmp_path, NAMES, NOW + timedelta(hours=24))


def test_four_orders_in_a_week_are_the_most(tmp_path: Path) -> None:
    """One order short of the CA's five in seven days, whoever places the fifth."""
    for day in range(4):
        orders.begin(tmp_path, NAMES, NOW + timedelta(days=day))
    with pytest.raises(OrderCapReached, match="7 days"):
        orders.begin(tmp_path, NAMES, NOW + timedelta(days=5))
    orders.begin(tmp_path, NAMES, NOW + timedelta(days=7))


def test_the_same_names_in_another_order_are_the_same_set(tmp_path: Path) -> None:
    """The CA counts sets of names; so do we."""
    orders.begin(tmp_path, NAMES, NOW)
    orders.begin(tmp_path, NAMES[::-1], NOW)
    with pytest.raises(OrderCapReached):
        orders.begin(tmp_path, NAMES, NOW)
    orders.begin(tmp_path, ("example.com",), NOW)


def test_an_order_that_never_reached_the_ca_is_struck_out(tmp_path: Path) -> None:
    """Failures of DNS, however many, don't use up the cap."""
    for _ in range(10):
        orders.begin(tmp_path, NAMES, NOW)
        orders.strike_out(tmp_path, NAMES, NOW)


def test_a_crash_while_certbot_ran_counts_as_an_order(tmp_path: Path) -> None:
    """What was begun and not struck out is counted by the next process."""
    orders.begin(tmp_path, NAMES, NOW)
    orders.begin(tmp_path, NAMES, NOW)
    with pytest.raises(OrderCapReached):
        orders.begin(tmp_path, NAMES, NOW + timedelta(seconds=1))


def test_a_damaged_book_stops_instead_of_forgetting(tmp_path: Path) -> None:
    """If the count cannot be read, no order is placed on a guess."""
    (tmp_path / "orders.json").write_text("{")
    with pytest.raises(LocalFault, match="is damaged"):
        orders.begin(tmp_path, NAMES, NOW)


def test_an_emergency_may_use_the_fifth_order_of_the_week(tmp_path: Path) -> None:
    """
    A compromised key is replaced also where two orders were placed today; a timer that goes on with it
    leaves the last one of the week, the fifth that the CA allows, to the person who asks. A sixth is not
    placed, and the error says when it may be.
    """
    orders.begin(tmp_path, NAMES, NOW)
    orders.begin(tmp_path, NAMES, NOW + timedelta(hours=1))
    with pytest.raises(OrderCapReached, match="24 hours"):
        orders.begin(tmp_path, NAMES, NOW + timedelta(hours=2))
    for hour in (2, 3):
        orders.begin(tmp_path, NAMES, NOW + timedelta(hours=hour), caps=orders.REPLACING)
    with pytest.raises(OrderCapReached, match="4 orders in the last 7 days"):
        orders.begin(tmp_path, NAMES, NOW + timedelta(hours=4), caps=orders.REPLACING)
    orders.begin(tmp_path, NAMES, NOW + timedelta(hours=4), caps=orders.EMERGENCY)
    with pytest.raises(OrderCapReached, match="5 orders in the last 7 days") as caught:
        orders.begin(tmp_path, NAMES, NOW + timedelta(hours=5), caps=orders.EMERGENCY)
    assert "2026-11-30T12:00:00Z" in (caught.value.next or "")
