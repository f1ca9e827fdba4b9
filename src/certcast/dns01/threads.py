"""Blocking calls in threads: ten at a time, for all orders and accounts together.

    Threads        the pool: `call` for an asyncio loop, `each` for a caller without one
    OrderThreads   the part of the pool that one of several orders may use
    LookupCache    one look-up, however many threads ask at the same time

Alidns lets a user do about 60 calls a second. Ten calls at a time, of a tenth of a second each, come near
that and not far beyond. What Alidns throttles is repeated (alidns_api.py).

asyncio is imported where it is used: sweep and certbot's cleanup hook need none of it.
"""

from __future__ import annotations

import concurrent.futures
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 10
_LEAST_OF_AN_ORDER = 2


class LookupCache(Generic[K, V]):
    """`look_up`, called once for each key, in the thread of the first caller.

    Twenty orders of one zone begin with the same questions. Callers that come while the first is looking
    wait for its answer. A failure goes to all that wait: with an API that is down, twenty threads would
    otherwise lose their patience one after the other. A failure is not kept for later callers. No
    caller may change it, since several threads have the same object.
    """

    def __init__(self, look_up: Callable[[K], V]) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._found: dict[K, Future[V]] = {}

    def __call__(self, key: K) -> V:
        """Return what was found for `key`; raises what `look_up` raises."""
        with self._lock:
            found = self._found.get(key)
            if is_first := found is None:
                found = self._found[key] = Future()
        if is_first:
            try:
                found.set_result(self._look_up(key))
            except BaseException as failure:
                with self._lock:
                    del self._found[key]
                found.set_exception(failure)
        return found.result()


class Threads:
    """The pool. Its threads start with the calls, and end with this object."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, "dns01")
        self._running: set[Future[Any]] = set()

    def each(self, do: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return what `do` returns for each of the items. Raises its first exception."""
        return list(self._pool.map(do, items))

    async def call(self, do: Callable[[T], R], item: T) -> R:
        """Return `do(item)`. Cancelled before it has begun, it never begins."""
        import asyncio

        future = self._pool.submit(do, item)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    def wait_for_running(self) -> None:
        """Wait for the calls that were running when `call` was cancelled, to their ends."""
        concurrent.futures.wait(list(self._running))


class OrderThreads:
    """The threads that one of so many `orders` may use at a time; for one asyncio loop.

    A call to an API that hangs keeps its thread for a minute and a half, so no order may take all of them.
    """

    def __init__(self, threads: Threads, orders: int) -> None:
        import asyncio

        self._threads = threads
        self._slots = asyncio.Semaphore(max(_LEAST_OF_AN_ORDER, _AT_ONCE // orders))
        self._has_failed = False

    async def call(self, do: Callable[[T], R], item: T) -> R:
        """Return `do(item)`."""
        async with self._slots:
            return await self._threads.call(do, item)

    async def each(self, do: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return `do(item)` for all items.

        After one failure nothing is begun any more, and the failure is raised when the others have ended.
        """
        import asyncio

        calls = [self._call_unless_failed(do, item) for item in items]
        results = await asyncio.gather(*calls, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        # A defect before what an operator can mend.
        for failure in sorted(failures, key=lambda failure: isinstance(failure, CertcastError)):
            raise failure
        return [result for result in results if result is not None and not isinstance(result, BaseException)]

    async def _call_unless_failed(self, do: Callable[[T], R], item: T) -> R | None:
        async with self._slots:
            if self._has_failed:
                return None
            try:
                return await self._threads.call(do, item)
            except BaseException:
                self._has_failed = True
                raise
