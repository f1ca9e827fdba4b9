"""One operation on a store over HTTP: attempts with growing pauses, and a deadline around all of them.

    repeated(attempt, cutter, end=…)   →   what the first attempt that succeeds returns

StoreUnreachable is worth another attempt, unless it is Settled; every other error is an answer. At the
deadline the cutter shuts the sockets down (host/transport.py), and the attempt that was reading fails.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

import stamina

from certcast.report.errors import StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.host.transport import Cutter

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
# For one address. The deadline can't cut a connection that isn't there yet.
CONNECT_SECONDS = 5.0
# Shorter than the deadline, so that a silent connection leaves time for another.
SILENCE_SECONDS = 10.0

# Their words about a single attempt would reach cron's mail from a run that went well.
# If no attempt succeeds, the error says what was seen.
for _noisy in ("stamina", "urllib3.connection"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)


class Settled(StoreUnreachable):
    """No usable answer, and another attempt would get the same."""


def repeated(attempt: Callable[[int], T], cutter: Cutter, *, end: float) -> T:
    """Call `attempt` with 1, 2, … until it ends in a result, or in an error that no repetition mends.

    `end` is the deadline on the monotonic clock.
    """

    def worth_another(error: Exception) -> bool:
        # stamina sleeps without asking for the time; so the longest pause must still fit.
        mendable = isinstance(error, StoreUnreachable) and not isinstance(error, Settled)
        return mendable and time.monotonic() + LONGEST_PAUSE_SECONDS < end

    with cutter.within(max(0, end - time.monotonic())):
        # As a context and not as a decorator, whose log entries hold the arguments: bodies are keys.
        for once in stamina.retry_context(
            on=worth_another,
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=FIRST_PAUSE_SECONDS,
            wait_jitter=FIRST_PAUSE_SECONDS,
            wait_max=LONGEST_PAUSE_SECONDS,
        ):
            with once:
                return attempt(once.num)
    raise AssertionError("stamina ends in a result or an error")
