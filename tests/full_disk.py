"""A disk that is full at one chosen write: DISK.at(7, folder) refuses the seventh below the folder.

with DISK.at(call, folder):
    web.pull()
DISK.left > 0                  that many writes were never asked for
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class FullDisk:
    """Refuses the n-th write-like call below a folder, as a full file system would."""

    def __init__(self) -> None:
        self.below: str | None = None
        self.left = 0
        sys.addaudithook(self._audit)  # cannot be taken out again: idle while `below` is None

    @contextmanager
    def at(self, call: int, below: Path) -> Iterator[FullDisk]:
        self.below, self.left = str(below), call
        try:
            yield self
        finally:
            self.below = None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.below is None or event not in {"open", "os.mkdir", "os.rename", "os.symlink"}:
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        path = str(arguments[1] if event == "os.symlink" else arguments[0])
        if path.startswith(self.below) and not path.endswith("lock"):
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


DISK = FullDisk()
