"""One path that a site names: what is there, what is to be there, and the way between.

    /etc/nginx/ssl/example.pem                    the target
    /etc/nginx/ssl/.example.pem.certcast-new      its next content, with the owner and mode it will have
    /etc/nginx/ssl/.example.pem.certcast-old      what it was, 0600 until it is put back

A link is replaced, never written through: it may lead into certbot's archive. A link that takes a file's
place meanwhile is not followed either: otherwise the folder's owner, often an application's user, could have
root copy, or open up, a file that the owner may not read.

Not here: several targets together, and what a killed run left (copies.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from certcast.host import files
from certcast.report.errors import LocalFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from certcast.config.model import CopyConfig

AS_IT_WAS = "every target of copy_to is as it was; nginx was not touched"
OLD = ".certcast-old"


@dataclass(frozen=True)
class Wanted:
    """What is to be at `path`: content, and who may read it; -1 as an owner or group: as certcast runs."""

    path: Path
    body: bytes
    owner: int
    group: int
    mode: int


@dataclass(frozen=True)
class Before:
    """What was at `path`: nothing, a link (`leads_to`), or a file with its rights. On disk: copies.Note."""

    path: Path
    kind: Literal["nothing", "link", "file"]
    leads_to: str = ""
    owner: int = -1
    group: int = -1
    mode: int = 0


def beside_new(path: Path) -> Path:
    """Return where the next content of `path` is prepared."""
    return path.with_name(f".{path.name}.certcast-new")


def beside_old(path: Path) -> Path:
    """Return where a copy of the old file waits."""
    return path.with_name(f".{path.name}{OLD}")


def is_in_place(wanted: Wanted) -> bool:
    """Return whether the path is as wanted: a file with this content, owner, group and mode."""
    try:
        found = wanted.path.lstat()
        return (
            stat.S_ISREG(found.st_mode)
            and wanted.mode == stat.S_IMODE(found.st_mode)
            and wanted.owner in {-1, found.st_uid}
            and wanted.group in {-1, found.st_gid}
            and wanted.body == wanted.path.read_bytes()
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def inspect(wanted: Wanted) -> Before:
    """Return what is at the path now. LocalFault if nothing can be written there."""
    path = wanted.path
    with explain_errors(wanted):
        path.parent.stat()  # a missing directory is not the same as a missing file
        try:
            found = path.lstat()
        except FileNotFoundError:
            return Before(path, "nothing")
        if stat.S_ISLNK(found.st_mode):
            return Before(path, "link", leads_to=os.readlink(path))  # noqa: PTH115  its text, to the letter
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a file", str(path))
        return Before(path, "file", owner=found.st_uid, group=found.st_gid, mode=stat.S_IMODE(found.st_mode))


def prepare(wanted: Wanted, before: Before) -> None:
    """Write the new file, and a copy of the old one, beside the path. OSError: the path is untouched."""
    path = wanted.path
    remove_beside(path)  # such a file is left by a certcast that has lost its state_dir
    if before.kind == "link":
        beside_old(path).symlink_to(before.leads_to)
    elif before.kind == "file":
        # The copy gets its owner at once, so that a missing right shows now; its mode comes with its name.
        with _opened(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            files.write_new(beside_old(path), file.read(), owner=before.owner, group=before.group)
    files.write_new(beside_new(path), wanted.body, owner=wanted.owner, group=wanted.group, mode=wanted.mode)


def replace(path: Path, by: Path) -> None:
    """Rename, with a modification time that no file of this path had before.

    nginx >= 1.27.4 takes a file for the loaded one if path, inode and the second of its mtime are the same;
    inodes are used again, and two changes may fall into one second.
    """
    moment = time.time_ns()
    with contextlib.suppress(FileNotFoundError):
        moment = max(moment, path.stat().st_mtime_ns + 1_000_000_000)
    os.utime(by, ns=(moment, moment), follow_symlinks=False)
    by.replace(path)


def put_back(before: Before) -> None:
    """Let the path be what it was, if it was replaced. Renames only: no room is needed."""
    path, old = before.path, beside_old(before.path)
    if os.path.lexists(beside_new(path)):
        return  # it was not replaced yet
    if before.kind == "nothing":
        path.unlink(missing_ok=True)
    elif os.path.lexists(old):  # else it was put back before this run was killed
        if before.kind == "file":
            with _opened(old) as descriptor:
                os.fchmod(descriptor, before.mode)
        replace(path, old)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file to read, and no link (ELOOP); a pipe does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_beside(path: Path) -> None:
    """Remove what was prepared for a path."""
    for beside in (beside_new(path), beside_old(path)):
        if os.path.lexists(beside):  # a read-only file system refuses to remove also what isn't there
            beside.unlink()


def sync_folders(paths: Iterable[Path]) -> None:
    """Make renames at the paths durable."""
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            files.sync_dir(folder)


# -- users, and what may be wrong with a target


def find_owner(entry: CopyConfig) -> tuple[int, int]:
    """Return the numbers of an entry's owner and group, -1 for none. LocalFault if unknown."""
    import grp
    import pwd

    return (
        _find_number(entry.owner, "owner", "user", lambda name: pwd.getpwnam(name).pw_uid),
        _find_number(entry.group, "group", "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _find_number(name: str | None, key: str, what: str, look_up: Callable[[str], int]) -> int:
    if name is None:
        return -1
    if name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise LocalFault(
            f"this host has no {what} {name}",
            expected=f"the {key} of an entry of copy_to",
            kept=AS_IT_WAS,
            next=f"correct consumer.copy_to.{key}, or make {name}",
        ) from None


def explain_errors(wanted: Wanted) -> contextlib.AbstractContextManager[None]:
    """Turn an OSError about the path into a LocalFault with a next step that fits."""
    path = wanted.path
    advice = {
        errno.ENOENT: f"make its directory (`install -d {path.parent}`), or correct consumer.copy_to",
        errno.EISDIR: "name a file in consumer.copy_to: each path is one file of the release",
        errno.EBUSY: "something is mounted on this very file: mount its directory instead",
    }
    if wanted.owner != -1 or wanted.group != -1:
        advice[errno.EPERM] = (
            "only root may give a file to another user, or to a group that it is not in: "
            "run as root, or leave owner and group out of consumer.copy_to"
        )
    return files.reported(f"write {path}", kept=AS_IT_WAS, advice=advice)
