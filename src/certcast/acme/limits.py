"""Limits for orders at a CA: how many this host places, and not before when.

    {state_dir}/acme/{CA}/limits.json
        {"orders": {"a.example,b.example": [{"at": "2026-11-23T18:05:00Z", "issued": true}, …]},
         "not_before": {"a.example,b.example": "2026-11-24T01:00:00Z"}}

- Let's Encrypt issues at most 5 certificates for one exact set of names in 7 days, over all clients and
  accounts, and gives no override. So orders are counted for each set of names.
- An order is counted before its newOrder is sent, so a crash in between counts. It is taken back only where
  the CA has refused newOrder, or the order became invalid before any challenge was answered.
- A replacement doesn't wait for the next day. The fifth order is kept for a person (`certcast renew
  --replace`): a timer that fails and fails doesn't use it up.
- A moment that the CA named by Retry-After is kept as well; before it, no order is tried.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import documents
from certcast.release.lifetime import utc_text
from certcast.report.errors import OrderCapReached, RateLimited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Caps = tuple[tuple[int, timedelta], ...]

_WEEK = timedelta(days=7)
USUAL: Caps = ((2, timedelta(hours=24)), (4, _WEEK))
REPLACING: Caps = ((4, _WEEK),)
EMERGENCY: Caps = ((5, _WEEK),)
_STAYS = "what is published and served stays"


@dataclass(frozen=True)
class CountedOrder:
    """An order that was placed at a moment, and whether a certificate came of it."""

    at: datetime
    issued: bool


@dataclass(frozen=True)
class OrderCount:
    """limits.json: for each set of names its orders, and a moment to wait for."""

    orders: dict[str, tuple[CountedOrder, ...]] = field(default_factory=dict)
    not_before: dict[str, datetime] = field(default_factory=dict)


def require_allowed(folder: Path, names: tuple[str, ...], now: datetime, *, caps: Caps = USUAL) -> None:
    """Raise OrderCapReached or RateLimited if no order for `names` may be placed now. LocalFault."""
    with _open_count(folder) as count:
        _require_allowed(folder, count, names, now, caps)


def require_open(folder: Path, names: tuple[str, ...], now: datetime) -> None:
    """Raise RateLimited before the moment that the CA has named for `names`. LocalFault."""
    with _open_count(folder) as count:
        _require_open(folder, count, names, now)


def count_order(folder: Path, names: tuple[str, ...], now: datetime, *, caps: Caps = USUAL) -> None:
    """Write down that an order for `names` is placed now. Raises OrderCapReached, RateLimited, LocalFault."""
    with _open_count(folder) as count:
        _require_allowed(folder, count, names, now, caps)
        key = _key(names)
        recent = (order for order in count.orders.get(key, ()) if order.at > now - _WEEK)
        count.orders[key] = (*recent, CountedOrder(_whole(now), issued=False))
        count.not_before.pop(key, None)


def take_back(folder: Path, names: tuple[str, ...], placed_at: datetime) -> None:
    """Take back the order of `placed_at`: the CA has said that nothing comes of it."""
    with _open_count(folder) as count:
        orders = list(count.orders.get(_key(names), ()))
        order = CountedOrder(_whole(placed_at), issued=False)
        if order in orders:
            orders.remove(order)
            count.orders[_key(names)] = tuple(orders)


def mark_issued(folder: Path, names: tuple[str, ...], placed_at: datetime) -> None:
    """Write down that the order of `placed_at` has led to a certificate."""
    with _open_count(folder) as count:
        count.orders[_key(names)] = tuple(
            replace(order, issued=order.issued or order.at == _whole(placed_at))
            for order in count.orders.get(_key(names), ())
        )


def close_until(folder: Path, names: tuple[str, ...], moment: datetime) -> None:
    """Write down that the CA takes no order for `names` before `moment`."""
    with _open_count(folder) as count:
        count.not_before[_key(names)] = _whole(moment)


def _require_open(folder: Path, count: OrderCount, names: tuple[str, ...], now: datetime) -> None:
    key = _key(names)
    until = count.not_before.get(key)
    if until is not None and now < until:
        raise RateLimited(
            f"{key}: the CA asked to wait until {utc_text(until)}, so no order is tried",
            expected=f"a run after {utc_text(until)}",
            found=f"its Retry-After, kept in {_path(folder)}",
            kept=_STAYS,
            next="nothing now: `certcast renew` asks again after that; the timer does",
        )


def _require_allowed(
    folder: Path, count: OrderCount, names: tuple[str, ...], now: datetime, caps: Caps
) -> None:
    key = _key(names)
    _require_open(folder, count, names, now)
    for most, span in caps:
        recent = [order for order in count.orders.get(key, ()) if order.at > now - span]
        if len(recent) >= most:
            raise OrderCapReached(
                f"{key}: {len(recent)} orders in the last {_span(span)}; no further one is placed",
                expected=f"at most {most} in {_span(span)} (Let's Encrypt issues 5 certificates in 7 days)",
                found=", ".join(utc_text(order.at) for order in recent)
                + f"\n{sum(order.issued for order in recent)} of them led to a certificate",
                kept=_STAYS,
                next=f"mend what failed; the next order is possible at {utc_text(recent[-most].at + span)} "
                f"(counted in {_path(folder)})",
            )


# -- the file


def _path(folder: Path) -> Path:
    return folder / "limits.json"


@contextmanager
def _open_count(folder: Path) -> Iterator[OrderCount]:
    """Read the file under its lock; write what the caller made of it, unless an exception ends the block."""
    path = _path(folder)
    with files.lock(folder / "limits.lock", wait=10.0):
        count = documents.read(path, OrderCount) or OrderCount()
        before = documents.unstructure(count)
        yield count
        after = OrderCount({key: orders for key, orders in count.orders.items() if orders}, count.not_before)
        if documents.unstructure(after) != before:
            with files.reported(f"write {path}", kept=_STAYS):
                documents.write(path, after)


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _key(names: tuple[str, ...]) -> str:
    return ",".join(sorted(set(names)))


def _span(span: timedelta) -> str:
    return "24 hours" if span <= timedelta(days=1) else f"{span.days} days"
