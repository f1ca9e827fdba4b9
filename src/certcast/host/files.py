"""Files that survive a crash, and locks that the kernel gives back.

    write_atomically    write beside, fsync, rename, fsync the folder: a reader sees the old content or
                        the new one, after a power cut too
    lock                flock(2): it ends with the process, so no stale lock is left

Everything is private (0700, 0600): the state names hosts and releases, and keys pass through here. A link
that somebody placed is replaced or refused, never written through.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Any

from certcast.report.errors import Busy, LocalFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextlib.contextmanager
def reported(doing: str, *, kept: str, advice: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn an OSError of this host's disk into a LocalFault that says what was being done.

    `advice` gives next steps by errno where the general ones do not fit.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise LocalFault(
            f"could not {doing}",
            found=f"{where}{error.strerror or error}",
            kept=kept,
            next={**_NEXT, **(advice or {})}.get(
                error.errno or 0, "look at the path above; run again when it is mended"
            ),
        ) from None


_NEXT = {
    errno.ENOSPC: "make room (`df -h`), then run again",
    errno.EDQUOT: "raise the quota, then run again",
    errno.EFBIG: "raise the file size limit (`ulimit -f`), then run again",
    errno.EROFS: "mount the file system writable, then run again",
    errno.ENOTDIR: "a file stands where a directory has to be: move it away, or choose another directory",
    errno.ELOOP: "somebody has placed a link there (`ls -l` shows where it leads): remove it",
    errno.EACCES: "run as root, or give this user the directory (`ls -ld` shows whose it is)",
    errno.EPERM: "run as root, or give this user the directory (`ls -ld` shows whose it is)",
}


def make_private_dir(path: Path) -> None:
    """Create `path` and its parents, 0700 where they are new."""
    for folder in reversed([path, *path.parents]):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def write_new(path: Path, body: bytes, *, owner: int = -1, group: int = -1, mode: int = 0o600) -> None:
    """Write a file that must not exist yet, and fsync it.

    0600 from its first moment. Owner, group (-1: the writer's) and `mode` are set while the file is empty, so
    nobody ever reads it who may not.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if (owner, group) != (-1, -1):
                os.fchown(descriptor, owner, group)
            os.fchmod(descriptor, mode)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # write(2) knows only the descriptor; the operator needs to know which disk is full.
        error.filename = str(path)
        raise


def write_atomically(path: Path, body: bytes) -> None:
    """Replace `path` by `body`: old or new content at any instant, also after a power cut."""
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()  # left by a crash; callers hold the lock
    try:
        write_new(beside, body)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync_dir(path.parent)


def sync_dir(path: Path) -> None:
    """Make a rename or a new entry in the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path, *, advice: str | None = None) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None if there is no such file.

    LocalFault if it is unreadable or not an object: state is not guessed. `advice` is the next
    step where losing the file costs more than its content.
    """
    try:
        with understood(path, advice=advice):
            found = json.loads(path.read_bytes())
            if not isinstance(found, dict):
                raise TypeError(f"{str(found)[:80]} is not an object")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalFault(
            f"could not read {path}",
            found=error.strerror,
            kept="nothing was changed",
            next="run as root, or as the user that certcast always runs as",
        ) from None
    return found


@contextlib.contextmanager
def understood(path: Path, *, advice: str | None = None) -> Iterator[None]:
    """Make a LocalFault of what reading a document raises that certcast did not write."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise LocalFault(
            f"{path} is damaged",
            expected="what certcast wrote",
            found=f"{type(error).__name__}: {error}",
            kept="nothing was changed",
            next=advice or f"move {path} away, then run again: certcast makes a new one",
        ) from None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace `path` by the JSON object, as `write_atomically` does."""
    make_private_dir(path.parent)
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())


@contextlib.contextmanager
def lock(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold an exclusive flock on `path`; Busy if another process keeps it for `wait` seconds."""
    import time

    with reported(f"lock {path}", kept="nothing was changed"):
        make_private_dir(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while not _locked(descriptor, path):
            if time.monotonic() >= deadline:
                raise Busy(
                    f"another run holds {path}",
                    kept="nothing was changed",
                    next=f"let it finish, or see who it is: `fuser -v {path}`",
                )
            time.sleep(0.05)  # flock(2) has no time-out of its own
        yield
    finally:
        _unlock(descriptor)


def _unlock(descriptor: int) -> None:
    """Give the lock back, and not only our descriptor of it: a starting child has a copy until its exec."""
    import fcntl

    with contextlib.suppress(OSError):  # a file system without locks, of which `_locked` has told
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    """Try once; LocalFault where the file system has no locks (some NFS)."""
    import fcntl

    with reported(f"lock {path}", kept="nothing was changed"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
