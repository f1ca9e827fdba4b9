"""How much of the ten threads one order may have, when several orders go on together.

No order has all threads while others want some: a call to an API that hangs keeps its
thread for a minute and a half.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from certcast.dns01.calls import AT_ONCE
from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from certcast.dns01.calls import Calls

T = TypeVar("T")
R = TypeVar("R")

_LEAST = 2


class Share:
    """What one of so many `orders` may do at a time; for one asyncio loop."""

    def __init__(self, calls: Calls, orders: int) -> None:
        self._calls = calls
        self._slots = asyncio.Semaphore(max(_LEAST, AT_ONCE // orders))
        self._failed = False

    async def call(self, do: Callable[[T], R], item: T) -> R:
        """Return `do(item)`."""
        async with self._slots:
            return await self._calls.call(do, item)

    async def each(self, do: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return `do(item)` for all items.

        After one failure nothing is begun any more, and the failure is raised when the others have ended.
        """
        doing = [self._unless_failed(do, item) for item in items]
        results = await asyncio.gather(*doing, return_exceptions=True)
        failures = [one for one in results if isinstance(one, BaseException)]
        # A defect before what an operator can mend.
        for failure in sorted(failures, key=lambda one: isinstance(one, CertcastError)):
            raise failure
        return [one for one in results if not isinstance(one, BaseException) and one is not None]

    async def _unless_failed(self, do: Callable[[T], R], item: T) -> R | None:
        async with self._slots:
            if self._failed:
                return None
            try:
                return await self._calls.call(do, item)
            except BaseException:
                self._failed = True
                raise
