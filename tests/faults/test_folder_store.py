"""A folder as the store, and somebody else who may write to it: links, FIFOs, and a bad moment.

certcast often is root. Whatever lies in the folder, nothing outside of it is read, written or
removed, and nothing waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certcast.config.model import StoreConfig, StoreUrl
from certcast.report.errors import StoreDenied, StoreTooLarge, StoreUnreachable
from certcast.storage import folder as folder_store
from certcast.storage import open_store
from certcast.storage.folder import FolderStore
from certcast.storage.store import Object, Store

KEY = "certs/example.test/releases/0123/keys/web1.age"
PLACES = ["certs", "certs/example.test/releases", "certs/example.test/releases/0123/keys"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The store's folder, with one object in it."""
    (tmp_path / "store").mkdir()
    opened(tmp_path / "store").put(KEY, b"ours")
    return tmp_path / "store"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Files that have nothing to do with certcast, under the names that an object could have."""
    for place in ("", *("/".join(KEY.split("/")[number:-1]) for number in range(1, 5))):
        (tmp_path / "outside" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "outside" / place / "web1.age").write_text("precious")
    return tmp_path / "outside"


def opened(folder: Path) -> Store:
    return open_store(StoreConfig(StoreUrl(f"file://{folder}")))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file and folder: content, time of the last change."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.lstat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_the_place_of_a_folder_leads_nowhere(folder: Path, outside: Path, place: str) -> None:
    """
    A link to a folder elsewhere: it is not listed, and nothing there is read, written or removed; the
    error names the link, and what to do about it.
    """
    store, before = opened(folder), contents(outside)
    (folder / place).rename(folder.parent / "aside")
    (folder / place).symlink_to(outside)

    calls: list[Callable[[], object]] = [
        lambda: store.get(KEY, limit=100),
        lambda: store.put(KEY, b"ours"),
        lambda: store.delete(KEY),
        lambda: store.purge(KEY),
    ]
    for call in calls:
        with pytest.raises(StoreDenied, match=f"what lies at {place} was not put there") as refused:
            call()
        assert "a link" == refused.value.found
        assert f"`ls -ld {folder / place}`" in (refused.value.next or "")
    assert [] == store.list("") == store.list("certs/") == store.list("certs/example.test/releases/")
    assert before == contents(outside)


ODD: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, outside: path.symlink_to(outside / "web1.age"),
    "dangling link": lambda path, outside: path.symlink_to(outside / "nowhere"),
    "FIFO": lambda path, _outside: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.timeout(20)
def test_what_is_no_file_is_no_object(folder: Path, outside: Path, kind: str) -> None:
    """
    A link or a FIFO in an object's place is refused at once, not listed, and gives way to the
    publisher's next object; where a link leads, nothing changes.
    """
    store, before = opened(folder), contents(outside)
    (folder / KEY).unlink()
    ODD[kind](folder / KEY, outside)

    with pytest.raises(StoreDenied, match="was not put there by certcast") as refused:
        store.get(KEY, limit=100)
    assert kind.rpartition(" ")[2] in (refused.value.found or "")
    assert [] == store.list("")

    store.put(KEY, b"ours again")
    assert Object(b"ours again", store.put(KEY, b"ours again")) == store.get(KEY, limit=100)
    (folder / KEY).unlink()
    ODD[kind](folder / KEY, outside)
    assert store.purge(KEY)
    assert not os.path.lexists(folder / KEY)
    assert before == contents(outside)


def test_a_folder_in_an_objects_place_is_told(folder: Path) -> None:
    """Where a folder bars the way of an object, the error says so, and nothing is left beside it."""
    store = opened(folder)
    (folder / KEY).unlink()
    (folder / KEY).mkdir()

    assert store.get(KEY, limit=100) is None
    store.delete(KEY)
    with pytest.raises(StoreDenied) as refused:
        store.put(KEY, b"ours")
    assert "a folder" == refused.value.found
    assert [folder / KEY] == list((folder / KEY).parent.iterdir())


@contextlib.contextmanager
def exchanging(path: Path, other: Path) -> Iterator[None]:
    """Let two paths change places, as fast as can be; each is there at any moment."""
    over, libc = threading.Event(), ctypes.CDLL(None)
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of rename(2)

    def take_turns() -> None:
        while not over.is_set():
            for _ in range(2):
                assert 0 == libc.renameat2(here, bytes(path), here, bytes(other), exchange)

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_no_moment_is_the_wrong_one(folder: Path, outside: Path) -> None:
    """A folder that is exchanged for a link again and again, while objects are put, listed and purged."""
    store, before = opened(folder), contents(outside)
    link, done, refused = folder.parent / "link", 0, 0
    link.symlink_to(outside / "example.test/releases")

    with exchanging(folder / "certs/example.test/releases", link):
        for _ in range(500):
            for call in (lambda: store.put(KEY, b"ours"), lambda: store.purge(KEY), lambda: store.list("")):
                try:
                    call()
                except StoreDenied:
                    refused += 1
                else:
                    done += 1
    assert before == contents(outside)
    assert done
    assert refused


def test_folders_without_an_end_crash_nothing(folder: Path) -> None:
    """More folders in each other than a program may call itself: the listing is whole all the same."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("deep", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    try:
        assert [KEY, "d/" * 1200 + "deep"] == opened(folder).list("")
    finally:
        subprocess.run(["rm", "-r", folder / "d"], check=True)


def test_a_listing_ends_at_the_deadline(folder: Path) -> None:
    """Who fills the folder with more than can be looked through keeps no run waiting."""
    store = FolderStore(f"file://{folder}", deadline=-1)
    with pytest.raises(StoreUnreachable, match="no complete listing") as failure:
        store.list("")
    assert f"find {folder}" in (failure.value.next or "")


def test_a_file_that_grows_for_ever_is_read_to_the_limit(folder: Path) -> None:
    """A file of a terabyte costs no more than the object that was expected."""
    os.truncate(folder / KEY, 1 << 40)
    with pytest.raises(StoreTooLarge):
        opened(folder).get(KEY, limit=100)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_a_folder_is_private_whatever_the_umask(folder: Path, umask: int) -> None:
    """Files and folders are their owner's alone from the first moment, and the umask is nobody else's."""
    before = os.umask(umask)
    try:
        opened(folder).put("hosts/a/b.json", b"{}")
        modes = [
            stat.S_IMODE((folder / path).stat().st_mode) for path in ("hosts", "hosts/a", "hosts/a/b.json")
        ]
    finally:
        assert umask == os.umask(before)
    assert [0o700, 0o700, 0o600] == modes


def test_default_acl_of_the_folder_reads_new_files(folder: Path) -> None:
    """A host that doesn't run as root reads by an access control list, which objects and folders inherit."""
    owner, user, group, mask, other, none = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF
    entries = [
        (owner, 7, none),
        (user, 5, 65533),
        (group, 0, none),
        (mask, 5, none),
        (other, 0, none),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    opened(folder).put("hosts/a.json", b"{}")
    for path, wanted in (("hosts", 5), ("hosts/a.json", 4)):
        found = os.getxattr(folder / path, "system.posix_acl_access")
        rights = {(tag, number): bits for tag, bits, number in struct.iter_unpack("<HHI", found[4:])}
        assert wanted == rights[user, 65533] & rights[mask, none] & wanted
        assert 0 == rights[other, none]


def test_a_folder_that_was_closed_to_us_stops_no_listing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write there closes a folder to a publisher that isn't root: the others are listed still."""
    (folder / "certs/closed").mkdir()
    closed = (folder / "certs/closed").stat().st_ino
    entries = folder_store._entries

    def refused(descriptor: int) -> Iterator[tuple[str, bool]]:
        if closed == os.fstat(descriptor).st_ino:
            raise PermissionError(13, "Permission denied")
        return entries(descriptor)

    monkeypatch.setattr(folder_store, "_entries", refused)  # root may read everything
    assert [KEY] == opened(folder).list("certs/")
    with pytest.raises(StoreDenied):
        opened(folder).list("certs/closed/")


def test_no_room_leaves_nothing_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of an object: the old object stays, alone."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnreachable, match="no usable answer") as failure:
        opened(folder).put(KEY, b"the next one")
    assert f"df -h {folder}" in (failure.value.next or "")
    assert [folder / KEY] == list((folder / KEY).parent.iterdir())
    assert b"ours" == (folder / KEY).read_bytes()
