"""Signals that end a run are held while TXT records are in zones, and raised once the records are gone.

Python raises KeyboardInterrupt between any two instructions, also inside the clean-up, and a second Ctrl-C
inside the end of the first. So while records are in zones, a signal only calls `on_signal`, and each step
looks whether it may begin.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def hold_interrupts(on_signal: Callable[[], None]) -> Iterator[None]:
    """Call `on_signal` for SIGINT, SIGTERM and SIGHUP in the block; after it, raise KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    interrupted = False

    def note(_signal: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        on_signal()

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
