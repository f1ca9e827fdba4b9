"""An order under way, on disk: so that no certificate is issued twice and none is lost."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from certcast.acme import pending
from certcast.acme.issued import Issued
from certcast.acme.pending import Pending
from certcast.report.errors import LocalFault
from crashing import crashes

ORDER = Pending(
    directory="https://ca.test/directory",
    account="https://ca.test/account/1",
    order="https://ca.test/order/1",
    names=("example.test", "*.example.test"),
    key_type="p256",
    profile=None,
    placed_at=datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc),
    privkey=b"-----BEGIN PRIVATE KEY-----\nof the order\n",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "issued/example.test"


def keys_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ORDER.privkey in path.read_bytes()]


def test_an_order_is_read_as_it_was_written(place: Path) -> None:
    """The next run knows URL, names, settings and key of what was ordered."""
    assert pending.read(place) is None
    assert not pending.exists(place)
    for order in (ORDER, replace(ORDER, profile="shortlived")):
        pending.keep(place, order)
        assert pending.exists(place)
        assert order == pending.read(place)
        pending.drop(place)


def test_an_order_never_prints_its_key() -> None:
    """A debug print or a traceback with the object in it shows no private key."""
    assert "BEGIN" not in repr(ORDER)


def test_an_order_under_way_is_no_version(place: Path, tmp_path: Path) -> None:
    """Its key is in the folder of the certificate, and nobody takes it for a release."""
    pending.keep(place, ORDER)
    assert not Issued(tmp_path, "example.test").exists()
    Issued(tmp_path, "example.test").tidy([])
    assert ORDER == pending.read(place)


def test_a_run_that_dies_has_written_all_or_nothing(tmp_path: Path) -> None:
    """
    Before whichever change it dies: the next run finds the whole order or none, never a damaged one, and can
    write another down.
    """
    for number, attempt in enumerate(crashes()):
        place = tmp_path / str(number) / "example.test"
        with attempt:
            pending.keep(place, ORDER)
        assert pending.read(place) in (None, ORDER)
        assert attempt.died or pending.exists(place)
        pending.drop(place)
        pending.keep(place, ORDER)
        assert ORDER == pending.read(place)


def test_a_run_that_dies_has_forgotten_all_or_nothing(tmp_path: Path) -> None:
    """A key without its order would be damage, on which no order could be placed any more."""
    for number, attempt in enumerate(crashes()):
        place = tmp_path / str(number) / "example.test"
        pending.keep(place, ORDER)
        with attempt:
            pending.drop(place)
        assert pending.read(place) in (None, ORDER)
        pending.drop(place)
        assert [] == keys_in(place)


def test_what_is_forgotten_leaves_no_key(place: Path) -> None:
    """The key of an order that was given up is gone; to forget twice is no failure."""
    pending.keep(place, ORDER)
    for _ in range(2):
        pending.drop(place)
        assert [] == keys_in(place)
        assert pending.read(place) is None


def test_another_order_never_takes_the_place_of_one(place: Path) -> None:
    """An order that could still be brought home is not lost to a second one."""
    pending.keep(place, ORDER)
    with pytest.raises(LocalFault, match=r"\.pending"):
        pending.keep(place, replace(ORDER, order="https://ca.test/order/2"))
    assert ORDER == pending.read(place)


def test_nobody_else_may_read_the_key(place: Path) -> None:
    """Folder 0700, files 0600."""
    pending.keep(place, ORDER)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")]}
    assert {"example.test": 0o700, ".pending": 0o700, "privkey.pem": 0o600, "order.json": 0o600} == modes


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "order.json").unlink(),
        lambda folder: (folder / "privkey.pem").unlink(),
        lambda folder: (folder / "order.json").write_text(""),
        lambda folder: (folder / "order.json").write_text("[]"),
        lambda folder: (folder / "order.json").write_text("{}"),
        lambda folder: (folder / "order.json").write_text('{"names": ["a.test"], "placed_at": "now"}'),
    ],
)
def test_a_damaged_order_is_told_with_the_way_on(place: Path, damage: Callable[[Path], object]) -> None:
    """No other order is placed on a guess; the message says what to remove, and what that costs."""
    pending.keep(place, ORDER)
    damage(place / ".pending")
    with pytest.raises(LocalFault) as caught:
        pending.read(place)
    assert f"`rm -r {place}/.pending`" in (caught.value.next or "")
