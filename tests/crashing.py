"""A process that dies before any one of its changes to the disk.

for attempt in crashes():
    folder = …                    # as it was before
    with attempt:
        Issued(folder, "example.test").add(…)
    …                             # what the next process finds, `attempt.died` or not

The attempts die before the first change, before the second one, and so on; the last one lives to its end.
In a process that has died nothing is cleaned up: each later change raises, too. What a power cut makes of
writes that were not fsynced is not shown here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest

# Every change that pathlib, shutil and certcast's files.py make to a disk ends in one of these.
_CHANGES = ("open", "mkdir", "rename", "replace", "fsync", "fchmod", "unlink", "rmdir", "link", "symlink")


class Died(BaseException):
    """Not an Exception: nothing that handles errors handles this."""


class Attempt:
    """A block that dies before its change number `at`, counted from 1."""

    def __init__(self, at: int) -> None:
        self.died = False
        self.changes: list[str] = []
        self._at = at
        self._patch = pytest.MonkeyPatch.context()

    def __enter__(self) -> None:
        patch = self._patch.__enter__()
        for name in _CHANGES:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def __exit__(
        self, kind: type[BaseException] | None, _value: object, _trace: TracebackType | None
    ) -> bool:
        self._patch.__exit__(None, None, None)
        return kind is Died

    def _counted(self, name: str, function: Any) -> Any:
        def change(*args: Any, **kwargs: Any) -> Any:
            self.changes.append(name)
            if len(self.changes) >= self._at:
                self.died = True
                raise Died
            return function(*args, **kwargs)

        return change


def crashes() -> Iterator[Attempt]:
    """Attempts that die before their first change, their second, …; the last one does not."""
    for at in range(1, 1000):
        attempt = Attempt(at)
        yield attempt
        if not attempt.died:
            assert at > 3, "nothing was changed at all: these are other functions than certcast's"
            return
    raise AssertionError("a thousand changes, and no end")
