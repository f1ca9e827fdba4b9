"""What is looked up once, however many threads want it at the same time.

Twenty orders of one zone begin with the same questions. The first that asks does the
looking up; those that come meanwhile wait for its answer, and later ones have it at
once. A failure goes to those that have waited for it, and isn't kept: with an API that
is down, each of twenty would otherwise wait in turn until its patience is at an end.

Don't change such a failure: several callers have the same one.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")


class Once(Generic[K, V]):
    """`look_up`, called once for each key, in the thread of the first caller."""

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
