"""How many orders this host places at a CA, and not before when.

Let's Encrypt issues at most 5 certificates for one exact set of names in 7 days, over all clients and
accounts, and gives no override. So orders are counted for each set of names. An order is written down before
its newOrder is sent. It is taken back only where the CA has said that nothing will come of it: the newOrder
was refused, or the order became invalid before any challenge was answered. A crash in between counts.

A certificate that is to be replaced doesn't wait for the next day, and the fifth order is kept for the
person who asks for that (`certcast renew --replace`): a timer that fails and fails doesn't use it up.

A moment that the CA has named by Retry-After is kept as well; before it, no order is tried.

    {state_dir}/acme/{CA}/limits.json
        {"orders": {"a.example,b.example": [{"at": "2026-11-23T18:05:00Z", "issued": true}, …]},
         "not_before": {"a.example,b.example": "2026-11-24T01:00:00Z"}}
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release.lifetime import from_utc_text, utc_text
from certcast.report.errors import OrderCapReached, RateLimited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Caps = tuple[tuple[int, timedelta], ...]

_WEEK = timedelta(days=7)
USUAL: Caps = ((2, timedelta(hours=24)), (4, _WEEK))
REPLACING: Caps = ((4, _WEEK),)
EMERGENCY: Caps = ((5, _WEEK),)


@dataclass
class _Book:
    """The file: for each set of names its orders (moment, whether issued), and a moment to wait for."""

    orders: dict[str, list[tuple[datetime, bool]]] = field(default_factory=dict)
    not_before: dict[str, datetime] = field(default_factory=dict)


def require_allowed(folder: Path, names: tuple[str, ...], now: datetime, *, caps: Caps = USUAL) -> None:
    """Raise OrderCapReached or RateLimited if no order for `names` may be placed now. LocalFault."""
    with _book(folder) as book:
        _require_allowed(folder, book, names, now, caps)


def require_open(folder: Path, names: tuple[str, ...], now: datetime) -> None:
    """Raise RateLimited before the moment that the CA has named for `names`. LocalFault."""
    with _book(folder) as book:
        _require_open(folder, book, names, now)


def begin(folder: Path, names: tuple[str, ...], now: datetime, *, caps: Caps = USUAL) -> None:
    """Write down that an order for `names` is placed now. Raises OrderCapReached, RateLimited, LocalFault."""
    with _book(folder) as book:
        _require_allowed(folder, book, names, now, caps)
        key = _key(names)
        kept = [(at, issued) for at, issued in book.orders.get(key, []) if at > now - _WEEK]
        book.orders[key] = [*kept, (_whole(now), False)]
        book.not_before.pop(key, None)


def take_back(folder: Path, names: tuple[str, ...], placed_at: datetime) -> None:
    """Take back the order of `placed_at`: the CA has said that nothing comes of it."""
    with _book(folder) as book:
        placed = book.orders.get(_key(names), [])
        if (_whole(placed_at), False) in placed:
            placed.remove((_whole(placed_at), False))


def issued(folder: Path, names: tuple[str, ...], placed_at: datetime) -> None:
    """Write down that the order of `placed_at` has led to a certificate."""
    with _book(folder) as book:
        book.orders[_key(names)] = [
            (at, done or at == _whole(placed_at)) for at, done in book.orders.get(_key(names), [])
        ]


def wait_until(folder: Path, names: tuple[str, ...], moment: datetime) -> None:
    """Write down that the CA takes no order for `names` before `moment`."""
    with _book(folder) as book:
        book.not_before[_key(names)] = _whole(moment)


def _require_open(folder: Path, book: _Book, names: tuple[str, ...], now: datetime) -> None:
    key = _key(names)
    until = book.not_before.get(key)
    if until is not None and now < until:
        raise RateLimited(
            f"{key}: the CA asked to wait until {utc_text(until)}, so no order is tried",
            expected=f"a run after {utc_text(until)}",
            found=f"its Retry-After, kept in {_path(folder)}",
            kept="what is published and served stays",
            next="nothing now: `certcast renew` asks again after that; the timer does",
        )


def _require_allowed(folder: Path, book: _Book, names: tuple[str, ...], now: datetime, caps: Caps) -> None:
    key = _key(names)
    _require_open(folder, book, names, now)
    for most, span in caps:
        recent = [(at, done) for at, done in book.orders.get(key, []) if at > now - span]
        if len(recent) >= most:
            succeeded = sum(done for _, done in recent)
            raise OrderCapReached(
                f"{key}: {len(recent)} orders in the last {_span(span)}; no further one is placed",
                expected=f"at most {most} in {_span(span)} (Let's Encrypt issues 5 certificates in 7 days)",
                found=", ".join(utc_text(at) for at, _ in recent)
                + f"\n{succeeded} of them led to a certificate",
                kept="what is published and served stays",
                next=f"mend what failed; the next order is possible at {utc_text(recent[-most][0] + span)} "
                f"(counted in {_path(folder)})",
            )


# -- the file


def _path(folder: Path) -> Path:
    return folder / "limits.json"


@contextmanager
def _book(folder: Path) -> Iterator[_Book]:
    """Hold the lock with the book read; write what the caller makes of it, unless an exception ends it."""
    path = _path(folder)
    with files.lock(folder / "limits.lock", wait=10.0):
        document = files.read_json(path) or {}
        with files.understood(path):
            book = _Book(
                {
                    key: [(from_utc_text(one["at"]), one["issued"] is True) for one in placed]
                    for key, placed in document.get("orders", {}).items()
                },
                {key: from_utc_text(text) for key, text in document.get("not_before", {}).items()},
            )
        yield book
        after = {
            "orders": {
                key: [{"at": utc_text(at), "issued": done} for at, done in placed]
                for key, placed in book.orders.items()
                if placed
            },
            "not_before": {key: utc_text(moment) for key, moment in book.not_before.items()},
        }
        if after != {"orders": {}, "not_before": {}, **document}:
            with files.reported(f"write {path}", kept="what is published and served stays"):
                files.write_json(path, after)


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _key(names: tuple[str, ...]) -> str:
    return ",".join(sorted(set(names)))


def _span(span: timedelta) -> str:
    return "24 hours" if span <= timedelta(days=1) else f"{span.days} days"
