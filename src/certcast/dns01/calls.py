"""Blocking calls in threads, ten at a time for all orders and accounts together.

Alidns lets a user do about 60 calls a second. Ten calls at a time, of a tenth of a
second each, come near that and not far beyond; what Alidns throttles is repeated
(alidns_api.py).

`call` is for an asyncio loop, `each` for a caller without one. asyncio is imported where
it is used: sweep and certbot's cleanup hook need none of it.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any, TypeVar

from certcast.dns01.once import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 10


class Calls:
    """The threads. They are begun when they are needed, and end with this object."""

    def __init__(self) -> None:
        self._pool = Once(_threads)
        self._under_way: set[concurrent.futures.Future[Any]] = set()

    def each(self, do: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return what `do` returns for each of the items. Raises its first exception."""
        return list(self._pool(AT_ONCE).map(do, items))

    async def call(self, do: Callable[[T], R], item: T) -> R:
        """Return `do(item)`. Cancelled before it has begun, it never begins."""
        import asyncio

        future = self._pool(AT_ONCE).submit(do, item)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return await asyncio.wrap_future(future)

    def let_end(self) -> None:
        """Wait for the calls that had begun when `call` was cancelled, to their ends."""
        concurrent.futures.wait(list(self._under_way))


def _threads(at_once: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(at_once, "dns01")
