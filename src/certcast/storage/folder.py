"""A folder as the bucket, such as a mount that all hosts share: `file:///folder`.

Others may write to the folder, and certcast often runs as root. So each part of a key is opened from the
folder above it, never through a link (openat(2) with O_NOFOLLOW): nothing can be exchanged in between.
Where something lies that certcast would not have put there:

    in a folder's place     StoreDenied, from all that would go through it
    in an object's place    StoreDenied from `get`; `put` replaces it, `delete` removes it (a link itself, not
                            its target); a folder there is no object, and in the way of `put`
    anywhere                left out by `list`, so that nobody ends the publisher's runs with it

- The folder itself may be a link, and must exist: an unmounted disk is not an empty store.
- New files are 0600 and new folders 0700. A default ACL of the folder above (acl(5)) may let other users in.
- An ETag is the body's SHA-256: inode, time and size may be those of two bodies.
- The deadline ends a long listing. The kernel's own wait (a hard NFS mount) no program can cut short.

Rejected: obstore, which follows links everywhere, and waits for a FIFO's writer (docs/adr/0016).
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shlex
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.report.errors import StoreDenied, StoreError, StoreNoBucket, StoreUnreachable
from certcast.storage.store import (
    DEADLINE_SECONDS,
    Object,
    Unchanged,
    checked_key,
    checked_prefix,
    listed,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certcast.config.model import StoreConfig

# O_PATH: to go through a folder takes no right to read it.
_THROUGH = os.O_PATH | os.O_DIRECTORY
_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a FIFO", stat.S_IFDIR: "a folder"}


class _Odd(StoreDenied):
    """Something lies there that certcast would not have put there."""


class FolderStore:
    """`file:///folder`. See store.py for what it promises."""

    def __init__(self, url: str, *, deadline: float = DEADLINE_SECONDS) -> None:
        self.url = url
        self._root = Path(url.removeprefix("file://"))
        self._deadline = deadline

    @classmethod
    def from_config(cls, config: StoreConfig) -> FolderStore:
        """Return the store of `[store]`. StoreNoBucket for a folder that isn't there."""
        store = cls(config.url)
        with store._translated("open"), store._folder(()):
            return store

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        """See `Store.get`."""
        *above, name = checked_key(key).split("/")
        with self._translated(f"get {key}"):
            try:
                with self._folder(above) as folder:
                    body = self._read(key, name, folder, limit)
            except (FileNotFoundError, IsADirectoryError):
                return None
        etag = _etag(body)
        return Unchanged.UNCHANGED if etag == unless else Object(body, etag)

    def put(self, key: str, body: bytes) -> str:
        """See `Store.put`. Durable when it returns: the publisher remembers that it has arrived."""
        *above, name = checked_key(key).split("/")
        beside = f".{secrets.token_hex(8)}.new"  # no key, so nobody is shown what a killed run has left
        with self._translated(f"put {key}"), _owner_only(), self._folder(above, make=True) as folder:
            try:
                with open(
                    beside, "xb", opener=lambda path, flags: os.open(path, flags, 0o666, dir_fd=folder)
                ) as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
                _sync(folder)
            except IsADirectoryError:
                raise self._odd(key) from None
            finally:
                with suppress(OSError):
                    os.unlink(beside, dir_fd=folder)
        return _etag(body)

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`."""
        folder = checked_prefix(prefix).rpartition("/")[0]
        with self._translated(f"list {prefix}"):
            return listed(key for key in self._below(folder) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        *above, name = checked_key(key).split("/")
        with (
            self._translated(f"delete {key}"),
            suppress(FileNotFoundError, IsADirectoryError),
            self._folder(above) as folder,
        ):
            os.unlink(name, dir_fd=folder)

    def purge(self, key: str) -> bool:
        """See `Store.purge`. A folder keeps no older versions."""
        self.delete(key)
        return True

    @contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open the folder of these parts of a key; `make` those that are missing.

        Raises FileNotFoundError, StoreNoBucket for the store itself, _Odd.
        """
        try:
            folder = os.open(self._root, _THROUGH)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreNoBucket(
                f"{self.url}: there is no such folder",
                next=f"mount it, or make it once: `install -d -m 700 {shlex.quote(str(self._root))}`",
            ) from None
        try:
            for number, part in enumerate(parts, 1):
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=folder)
                try:
                    below = os.open(part, _THROUGH | os.O_NOFOLLOW, dir_fd=folder)
                except NotADirectoryError:
                    raise self._odd("/".join(parts[:number])) from None
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _read(self, key: str, name: str, folder: int, limit: int) -> bytes:
        """Return what is in a file. StoreTooLarge, and no more reading, beyond `limit`.

        Raises FileNotFoundError, IsADirectoryError, _Odd for everything that is not a file.
        """
        # Looked at twice: opening a device may already do something, and the file may have been exchanged.
        self._require_file(key, os.stat(name, dir_fd=folder, follow_symlinks=False))
        # A FIFO must not keep us waiting for its writer, nor a lease (fcntl(2)) for its holder.
        with open(
            name,
            "rb",
            opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder),
        ) as file:
            self._require_file(key, os.fstat(file.fileno()))
            body = file.read(limit + 1)
        if len(body) > limit:
            raise too_large(key, limit)
        return body

    def _require_file(self, key: str, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(key)
        if not stat.S_ISREG(status.st_mode):
            raise self._odd(key)

    def _below(self, top: str) -> Iterator[str]:
        """Return the names of all files in a folder and the folders in it, as keys would be written.

        Without recursion: others choose how deep they are. StoreUnreachable at the deadline.
        """
        end = time.monotonic() + self._deadline
        left = [top]
        while left:
            parent = left.pop()
            parts = parent.split("/") if parent else ()
            # Others may have taken away the right to read a folder further down.
            passed = () if parent == top else (PermissionError,)
            with suppress(FileNotFoundError, _Odd, *passed), self._folder(parts) as folder:
                for name, is_folder in _entries(folder):
                    if time.monotonic() > end:
                        raise self._endless()
                    path = f"{parent}/{name}" if parent else name
                    if is_folder:
                        left.append(path)
                    else:
                        yield path

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn the system's errors into StoreErrors."""
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            found = f"{what}: {error.strerror or error}"
            where = shlex.quote(str(self._root))
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise StoreDenied(
                    f"{self.url}: the store refused the request",
                    found=found,
                    next=f"see whose the files are (`ls -lR {where}`), and how it is mounted "
                    f"(`findmnt -T {where}`)",
                ) from None
            raise StoreUnreachable(
                f"{self.url} gives no usable answer",
                found=found,
                next=f"look at the disk or the mount: `findmnt -T {where}`, `df -h {where}`",
            ) from None

    def _odd(self, key: str) -> _Odd:
        """Return the error about what lies in the place of a key or of a folder above one."""
        path = self._root / key
        try:
            found = _KINDS.get(stat.S_IFMT(path.lstat().st_mode), "something else")  # for the words alone
        except OSError:
            found = "something that is gone by now"
        return _Odd(
            f"{self.url}: what lies at {key} was not put there by certcast",
            expected="files in folders: no link below the store's own folder, no FIFO, no device",
            found=found,
            next=f"see whose it is (`ls -ld {shlex.quote(str(path))}`), move it away, then run it again",
        )

    def _endless(self) -> StoreUnreachable:
        return StoreUnreachable(
            f"{self.url}: no complete listing within {self._deadline:g} s",
            next=f"see what fills it: `find {shlex.quote(str(self._root))} | head`",
        )


@contextmanager
def _owner_only() -> Iterator[None]:
    """Make files and folders the owner's alone from their first moment, where no default ACL stands above.

    By the umask, which belongs to the whole process; certcast writes from one thread. A mode of 0600 would
    take away the rights that a default ACL gives (acl(5), OBJECT CREATION AND DEFAULT ACLs).
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _sync(folder: int) -> None:
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


def _entries(folder: int) -> Iterator[tuple[str, bool]]:
    """Return the names of the files and folders in an open folder, and whether each is a folder."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        with os.scandir(readable) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name, True
                elif entry.is_file(follow_symlinks=False):
                    yield entry.name, False
    finally:
        os.close(readable)


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
