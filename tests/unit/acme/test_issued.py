"""certcast's own store of certificates: each version whole, or not there at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from certcast.acme.issued import KEPT, Issued
from certcast.report.errors import IssuedUnusable
from certcast_lab.serving.authority import Authority, Pair
from crashing import crashes
from held import DIRECTORY, issued, leaf_of, record_of

NAME = "example.test"


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority("Lab", parent=Authority("Lab Root"))


@pytest.fixture(scope="module")
def pairs(ca: Authority) -> list[Pair]:
    return [ca.issue(NAME) for _ in range(KEPT + 3)]


@pytest.fixture
def store(tmp_path: Path) -> Issued:
    return Issued(tmp_path, NAME)


@pytest.fixture(params=[0o022, 0], ids=["usual umask", "no umask"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def numbers(store: Issued) -> list[int]:
    return [int(one.version.partition("-")[0]) for one in store.all()]


def test_the_latest_version_is_the_one_that_counts(store: Issued, tmp_path: Path, pairs: list[Pair]) -> None:
    """Each new certificate has the next number; the tenth comes after the ninth."""
    assert not store.exists()
    for pair in pairs[:2]:
        issued(tmp_path, NAME, pair)
    assert pairs[1].fullchain_pem == store.live().fullchain
    assert pairs[1].key_pem == store.live().privkey
    (store.place / store.live().version).rename(store.place / f"9-{store.live().version.partition('-')[2]}")
    issued(tmp_path, NAME, pairs[2])
    assert [10, 9, 1] == numbers(store)
    assert leaf_of(pairs[2]) == store.live().leaf


def test_a_version_says_where_it_came_from(store: Issued, tmp_path: Path, pairs: list[Pair]) -> None:
    """Its CA, account, order and times are beside it, as they were written."""
    release = issued(tmp_path, NAME, pairs[0])
    assert record_of(pairs[0]) == store.record(release.version)
    assert DIRECTORY == store.live().directory


# order.json as version 0.1 writes it, with every field set.
WRITTEN = """{
  "directory": "https://ca.test/directory",
  "account": "https://ca.test/account/1",
  "order": "https://ca.test/order/1",
  "names": [
    "example.test"
  ],
  "key_type": "p256",
  "profile": "shortlived",
  "placed_at": "2026-11-01T00:00:00Z",
  "issued_at": "2026-11-01T00:00:00Z"
}
"""


def test_the_record_is_the_one_of_version_0_1(store: Issued, pairs: list[Pair]) -> None:
    """A version of before an update says where it came from after it; and the bytes are the same."""
    record = replace(record_of(pairs[0]), profile="shortlived")
    release = store.add(pairs[0].fullchain_pem, pairs[0].key_pem, record)
    path = store.place / release.version / "order.json"
    assert WRITTEN == path.read_text()
    assert record == store.record(release.version)


def test_what_is_here_already_is_not_stored_twice(store: Issued, tmp_path: Path, pairs: list[Pair]) -> None:
    """A run that was killed after the rename, and one that adopts again, find the version as it is."""
    first = issued(tmp_path, NAME, pairs[0])
    issued(tmp_path, NAME, pairs[1])
    assert first == issued(tmp_path, NAME, pairs[0])
    assert [2, 1] == numbers(store)


def test_a_key_of_another_certificate_is_never_stored(store: Issued, pairs: list[Pair]) -> None:
    """What could not be served does not get into the store."""
    with pytest.raises(IssuedUnusable, match="cannot be used"):
        store.add(pairs[0].fullchain_pem, pairs[1].key_pem, record_of(pairs[0]))
    assert not store.exists()


def test_nobody_else_may_read_a_key_at_any_time(
    store: Issued, tmp_path: Path, pairs: list[Pair], umask: None
) -> None:
    """Folders are 0700 and files 0600, whatever the umask, also while a version is being prepared."""

    def too_open() -> list[Path]:
        found = [path for path in (tmp_path / "issued").rglob("*") if path.is_dir() or path.is_file()]
        return [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]

    for attempt in crashes():
        with attempt:
            issued(tmp_path, NAME, pairs[0])
        assert [] == too_open()
        if attempt.died:
            shutil.rmtree(tmp_path / "issued", ignore_errors=True)
    folder = store.place / store.live().version
    assert {"fullchain.pem", "privkey.pem", "order.json"} == {path.name for path in folder.iterdir()}
    assert 0o600 == stat.S_IMODE((folder / "privkey.pem").stat().st_mode)


def test_a_run_that_dies_leaves_the_old_or_the_new_one(tmp_path: Path, pairs: list[Pair]) -> None:
    """
    Before whichever change a run dies, the next one finds a whole version live, can store the new one, and
    leaves nothing of the first try behind.
    """
    for number, attempt in enumerate(crashes()):
        state_dir = tmp_path / str(number)
        store, first = Issued(state_dir, NAME), issued(state_dir, NAME, pairs[0])
        with attempt:
            issued(state_dir, NAME, pairs[1])
        assert store.live().privkey in {first.privkey, pairs[1].key_pem}
        assert numbers(store) in ([1], [2, 1])
        again = issued(state_dir, NAME, pairs[1])
        store.tidy([])
        assert (again, [2, 1]) == (store.live(), numbers(store))
        assert {again.version, first.version} == {path.name for path in store.place.iterdir()}


def test_a_version_is_on_the_disk_before_it_has_its_name(tmp_path: Path, pairs: list[Pair]) -> None:
    """Files and folder are fsynced before the rename, and the rename is fsynced after it."""
    for attempt in crashes():  # its last one, which did not die, is looked at
        shutil.rmtree(tmp_path / "issued", ignore_errors=True)
        with attempt:
            issued(tmp_path, NAME, pairs[0])
    renamed = attempt.changes.index("rename")
    made = max(at for at, change in enumerate(attempt.changes) if change == "mkdir")
    assert 4 == attempt.changes[made:renamed].count("fsync"), "three files and their folder"
    assert "fsync" == attempt.changes[-1]


def test_the_last_five_are_kept_and_what_the_store_names(
    store: Issued, tmp_path: Path, pairs: list[Pair]
) -> None:
    """A key is there as long as a host may still be given it; older ones go, and their keys with them."""
    for pair in pairs:
        issued(tmp_path, NAME, pair)
    store.tidy([leaf_of(pairs[1]).sha256])
    assert [*range(len(pairs), len(pairs) - KEPT, -1), 2] == numbers(store)
    assert store.find(leaf_of(pairs[0]).sha256) is None
    assert 5 == KEPT


def test_a_half_version_is_ignored_and_removed(store: Issued, tmp_path: Path, pairs: list[Pair]) -> None:
    """What a crash left half prepared is no version, however far it had come."""
    half = store.place / ".2-0123456789abcdef.new"
    half.mkdir(parents=True)
    pairs[1].write(half)
    assert not store.exists()
    assert [] == store.all()
    assert "" == store.mark()
    issued(tmp_path, NAME, pairs[0])
    assert leaf_of(pairs[0]) == store.live().leaf
    store.tidy([])
    assert not half.exists()


def test_other_things_in_the_folder_are_left_alone(store: Issued, tmp_path: Path, pairs: list[Pair]) -> None:
    """What an administrator has put there is no version, and is never removed."""
    issued(tmp_path, NAME, pairs[0])
    others = ["notes", "0-0123456789abcdef", "01-0123456789abcdef", "7-0123", "7-0123456789ABCDEF", "7"]
    for name in others:
        (store.place / name).mkdir()
    assert [1] == numbers(store)
    store.tidy([])
    assert set(others) < {path.name for path in store.place.iterdir()}


DAMAGES: dict[str, Callable[[Path, Pair], object]] = {
    "certificate gone": lambda folder, _: (folder / "fullchain.pem").unlink(),
    "key gone": lambda folder, _: (folder / "privkey.pem").unlink(),
    "certificate empty": lambda folder, _: (folder / "fullchain.pem").write_bytes(b""),
    "key empty": lambda folder, _: (folder / "privkey.pem").write_bytes(b""),
    "key cut short": lambda folder, _: (folder / "privkey.pem").write_bytes(
        b"-----BEGIN PRIVATE KEY-----\nMI"
    ),
    "another's key": lambda folder, other: (folder / "privkey.pem").write_bytes(other.key_pem),
    "another certificate": lambda folder, other: other.write(folder),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_an_error_and_never_none(
    store: Issued, tmp_path: Path, pairs: list[Pair], damage: str
) -> None:
    """It is told with the folder to restore; an older version is not taken in its place without a word."""
    issued(tmp_path, NAME, pairs[0])
    release = issued(tmp_path, NAME, pairs[1])
    folder = store.place / release.version
    DAMAGES[damage](folder, pairs[2])
    assert store.exists()
    with pytest.raises(IssuedUnusable, match=release.version):
        store.find(release.leaf.sha256)
    with pytest.raises(IssuedUnusable, match=release.version) as caught:
        store.live()
    assert f"restore {folder}" in (caught.value.next or "")
    assert [1] == numbers(store)


@pytest.mark.parametrize("damage", [None, "", "{}", "[]", '{"directory": 1}'])
def test_without_its_record_a_version_is_as_good(
    store: Issued, tmp_path: Path, pairs: list[Pair], damage: str | None
) -> None:
    """Certificate and key make a release; a lost order.json costs what it said, and nothing else."""
    record = store.place / issued(tmp_path, NAME, pairs[0]).version / "order.json"
    record.unlink()
    if damage is not None:
        record.write_text(damage)
    assert (pairs[0].key_pem, None) == (store.live().privkey, store.live().directory)
