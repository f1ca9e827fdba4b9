"""The local cap on orders, so that no loop of ours can lock a domain out.

Let's Encrypt issues at most 5 certificates for one exact set of names in 7 days,
over all clients and accounts, and gives no override. An order is written down
before certbot may place it, and struck out only when it is certain that the CA
was not asked to issue; a crash in between counts as an order.

A certificate that is to be replaced doesn't wait for the next day, and the fifth order is kept for the
person who asks for that (`certcast renew --replace`): a timer that fails and fails doesn't use it up.

    {state_dir}/orders.json    {"a.example,b.example": ["2026-11-23T18:05:00Z", …]}
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certcast import files
from certcast.errors import OrderCapReached
from certcast.lifetime import from_utc_text, utc_text

if TYPE_CHECKING:
    from pathlib import Path

Caps = tuple[tuple[int, timedelta], ...]

_WEEK = timedelta(days=7)
USUAL: Caps = ((2, timedelta(hours=24)), (4, _WEEK))
REPLACING: Caps = ((4, _WEEK),)
EMERGENCY: Caps = ((5, _WEEK),)


def begin(state_dir: Path, names: tuple[str, ...], now: datetime, *, caps: Caps = USUAL) -> None:
    """Write down that an order for `names` may be placed now. Raises OrderCapReached."""
    path, key = state_dir / "orders.json", _key(names)
    with files.lock(state_dir / "orders.lock", wait=10.0):
        book = files.read_json(path) or {}
        with files.understood(path):
            placed = [from_utc_text(text) for text in book.get(key, [])]
        for most, span in caps:
            recent = [moment for moment in placed if moment > now - span]
            if len(recent) >= most:
                raise OrderCapReached(
                    f"{key}: {len(recent)} orders in the last {_span(span)}; no further one is placed",
                    expected=f"at most {most} in {_span(span)} (the CA allows 5 certificates in 7 days)",
                    found=", ".join(utc_text(moment) for moment in recent),
                    kept="what is published and served stays",
                    next=f"mend what failed; the next order is possible at {utc_text(recent[-most] + span)} "
                    f"(counted in {path})",
                )
        kept = [moment for moment in placed if moment > now - _WEEK]
        with files.reported(f"write {path}", kept="no order was placed"):
            files.write_json(path, {**book, key: [utc_text(moment) for moment in (*kept, now)]})


def strike_out(state_dir: Path, names: tuple[str, ...], now: datetime) -> None:
    """Take back the order that `begin` wrote down at `now`: the CA was not asked to issue."""
    path, key = state_dir / "orders.json", _key(names)
    with files.lock(state_dir / "orders.lock", wait=10.0):
        book = files.read_json(path) or {}
        placed = list(book.get(key, []))
        if utc_text(now) in placed:
            placed.remove(utc_text(now))
            with files.reported(f"write {path}", kept="the order counts towards the cap"):
                files.write_json(path, {**book, key: placed})


def _key(names: tuple[str, ...]) -> str:
    return ",".join(sorted(set(names)))


def _span(span: timedelta) -> str:
    return "24 hours" if span <= timedelta(days=1) else f"{span.days} days"
