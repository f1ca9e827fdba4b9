"""nginx since 1.27.4 keeps a certificate over a reload if its file *looks* the same.

It compares path, inode and the second of the modification time (ngx_event_openssl_cache.c,
ngx_ssl_cache_fetch), and says nothing when it keeps the old one. The first two tests show that
this nginx does so, by what a script may easily do; the others, that certcast never meets it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from certcast_lab.serving.authority import Pair
from consuming import Consumer, consumer, sha256

SOME_SECOND = 1_700_000_000


@pytest.fixture
def web(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    with consumer(tmp_path, program=nginx_program) as started:
        yield started


@pytest.fixture
def naive(tmp_path: Path, current_nginx: str) -> Iterator[Consumer]:
    """A current nginx that serves a pair from fixed paths, with a time that can be met again."""
    with consumer(tmp_path, program=current_nginx) as started:
        fullchain, privkey = started.issue().write(folder_of(started))
        same_second(fullchain, privkey)
        started.host.name_files(fullchain, privkey)
        reload(started)
        yield started


def folder_of(web: Consumer) -> Path:
    return web.host.root / "etc/nginx/ssl"


def same_second(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (SOME_SECOND, SOME_SECOND))


def reload(web: Consumer) -> str:
    """Reload, wait until only new workers are there, and return the leaf that they serve."""
    web.reload(until=lambda: True)
    return web.served()


def test_current_nginx_misses_a_write_in_place(naive: Consumer) -> None:
    """`cp --preserve` onto the live files and a reload: nginx passes its test and serves the old one."""
    old, new = naive.served(), naive.issue()
    same_second(*new.write(folder_of(naive)))
    assert naive.host.test()
    assert old == reload(naive)
    for path in folder_of(naive).iterdir():
        path.touch()
    assert sha256(new) == reload(naive)


def test_current_nginx_misses_a_folder_that_was_deleted_first(naive: Consumer) -> None:
    """`rm -r`, then a new folder of that name: the inodes come again, and nginx sees no change."""
    for _ in range(5):
        old = naive.served()
        if written_with_the_inodes_of_before(folder_of(naive), naive.issue()):
            assert naive.host.test()
            assert old == reload(naive)
            return
        # Somebody else got one of them. Once more, with files that nginx has just loaded.
        shutil.rmtree(folder_of(naive))
        naive.issue().write(folder_of(naive))
        reload(naive)
    pytest.skip("this file system does not use inodes again")


def written_with_the_inodes_of_before(folder: Path, pair: Pair) -> bool:
    """Delete the folder and write the pair into a new one; False if other inodes came for it."""
    names = ("fullchain.pem", "privkey.pem")
    before = {(folder / name).stat().st_ino: (name, (folder / name).stat().st_mtime) for name in names}
    shutil.rmtree(folder)
    folder.mkdir()
    for number in range(2000):  # until the file system hands both out again
        path = folder / str(number)
        path.touch()
        name, second = before.pop(path.stat().st_ino, (None, 0.0))
        if name is not None:
            path.write_bytes(pair.fullchain_pem if name == "fullchain.pem" else pair.key_pem)
            os.utime(path, (second, second))
            path.rename(folder / name)
        if not before:
            return True
    return False


def test_versions_are_seen_whatever_their_times_and_inodes(web: Consumer) -> None:
    """
    Though all files of all versions have one and the same time, and the old version is deleted before
    the new one is written, each release is served: no path ever comes again.
    """

    def all_in_one_second(step: str) -> None:
        if step == "derived":
            same_second(*web.folder.versions.glob("*/*.pem"))

    web.publish("A")
    web.first_pull(after=all_in_one_second)
    for letter in "BCD":
        for version in web.folder.list_versions():
            shutil.rmtree(web.folder.versions / version)
        web.publish(letter)
        assert "installed" == web.pull(force=True, after=all_in_one_second).result
        assert web.leaf(letter) == web.served()


def test_copies_are_seen_though_releases_follow_within_a_second(web: Consumer) -> None:
    """At fixed paths each release has a second of its own, later than that of the file it replaces."""
    fullchain, privkey = web.name_fixed_paths()
    times = [(fullchain.stat().st_mtime_ns // 10**9, privkey.stat().st_mtime_ns // 10**9)]
    for letter in "ABCDE":
        web.publish(letter)
        assert "installed" == web.pull(force=True).result
        assert web.leaf(letter) == web.served()
        times.append((fullchain.stat().st_mtime_ns // 10**9, privkey.stat().st_mtime_ns // 10**9))
    for seconds in zip(*times, strict=True):
        assert sorted(set(seconds)) == list(seconds)
