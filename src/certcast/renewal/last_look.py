"""What the last good look has found, so that the next run may find nothing to do without asking anybody.

    {state_dir}/renewing/{name}.json      one small file a certificate

A run asks nothing while all of this holds:

    the live release is the one that was looked at, and its window has not begun
    the moment that the CA has suggested for a renewal has not come; nor has the one for asking it again
    the last verified look into the store is under five hours old; host list, keys, configuration are the same
    the manifest need not be signed anew

Where only the CA is to be asked again, it alone is asked. Any failure removes the file: the next run looks at
everything. Five and not six hours, so that a timer that runs four times a day, with a splay, asks each time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import documents
from certcast.release.documents import Sha256
from certcast.report.errors import LocalFault

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from certcast.acme.renewal_info import Suggestion

LOOK_AGAIN = timedelta(hours=5)


@dataclass(frozen=True)
class LastLook:
    """One certificate at its last good look.

    `live` is the source's mark of it, and `leaf` its SHA-256, by which the CA's moment is drawn; `true_for`
    the surroundings' mark. `ca_id` is its identifier for renewal information, empty where the CA is not
    asked; `ca_*` is what the CA has said, None where it said nothing.
    """

    live: str
    leaf: Sha256
    window_start: datetime
    at: datetime
    true_for: str
    sign_again: datetime
    ca_id: str = ""
    ca_again: datetime | None = None
    ca_start: datetime | None = None
    ca_end: datetime | None = None
    ca_url: str | None = None

    def settles(self, live: str, true_for: str, now: datetime) -> bool:
        """Whether the store need not be asked at `now`, if live release and surroundings are these."""
        return (
            (self.live, self.true_for) == (live, true_for)
            and self.at <= now < self.at + LOOK_AGAIN
            and now < min(self.window_start, self.sign_again)
        )

    def is_ca_due(self, now: datetime) -> bool:
        """Whether the CA is to be asked again."""
        return bool(self.ca_id) and (self.ca_again is None or now >= self.ca_again)

    def is_due_by_ca(self, now: datetime) -> bool:
        """Whether the moment that the CA has suggested has come."""
        if self.ca_start is None:
            return False
        chosen = self.suggestion().chosen(self.leaf)
        return chosen is not None and now >= chosen

    def suggestion(self) -> Suggestion:
        """Return the CA's word, as it is remembered."""
        from certcast.acme.renewal_info import Suggestion

        return Suggestion(self.ca_again or self.at, self.ca_start, self.ca_end, self.ca_url)

    def with_word(self, said: Suggestion) -> LastLook:
        """Return it with what the CA has said now."""
        return replace(
            self, ca_again=said.ask_again, ca_start=said.start, ca_end=said.end, ca_url=said.explanation_url
        )


def read(state_dir: Path, name: str) -> LastLook | None:
    """Return the last good look; None without one, or if the file is damaged."""
    try:
        return documents.read(_path(state_dir, name), LastLook)
    except LocalFault:
        return None


def write(state_dir: Path, name: str, look: LastLook) -> None:
    """Keep a good look. LocalFault."""
    path = _path(state_dir, name)
    with files.reported(f"write {path}", kept="what is published and served stays"):
        documents.write(path, look)


def forget(state_dir: Path, name: str) -> None:
    """Let the next run look at everything. LocalFault."""
    path = _path(state_dir, name)
    with files.reported(f"remove {path}", kept="what is published and served stays"):
        path.unlink(missing_ok=True)


def mark_of(paths: Iterable[Path], *more: str) -> str:
    """Return a text that changes as soon as one of these files does: its inode, size, mtime, mode, owner."""
    lines = list(more)
    for path in paths:
        try:
            status = path.stat()
            lines.append(
                f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_mode:o} {status.st_uid}"
            )
        except OSError as error:
            lines.append(type(error).__name__)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _path(state_dir: Path, name: str) -> Path:
    return state_dir / "renewing" / f"{name}.json"
