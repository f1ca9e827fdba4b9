"""An order under way, on disk: so that no certificate is issued twice and none is lost."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certcast.acme import pending
from certcast.acme.issued import Issued, PlacedOrder
from certcast.acme.pending import Pending, new_key
from certcast.release import certificate
from certcast.report.errors import LocalFault
from crashing import crashes

ORDER = Pending(
    PlacedOrder(
        directory="https://ca.test/directory",
        account="https://ca.test/account/1",
        order="https://ca.test/order/1",
        names=("example.test", "*.example.test"),
        key_type="p256",
        profile=None,
        placed_at=datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc),
    ),
    privkey=b"-----BEGIN PRIVATE KEY-----\nof the order\n",
)
# order.json as version 0.1 writes it, with every field set.
WRITTEN = """{
  "directory": "https://ca.test/directory",
  "account": "https://ca.test/account/1",
  "order": "https://ca.test/order/1",
  "names": [
    "example.test",
    "*.example.test"
  ],
  "key_type": "p256",
  "profile": "shortlived",
  "placed_at": "2026-11-23T12:00:00Z"
}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "issued/example.test"


def with_profile(order: Pending) -> Pending:
    return replace(order, placed=replace(order.placed, profile="shortlived"))


def keys_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ORDER.privkey in path.read_bytes()]


def test_an_order_is_read_as_it_was_written(place: Path) -> None:
    """The next run knows URL, names, settings and key of what was ordered."""
    assert pending.read(place) is None
    assert not pending.exists(place)
    for order in (ORDER, with_profile(ORDER)):
        pending.write(place, order)
        assert pending.exists(place)
        assert order == pending.read(place)
        pending.remove(place)


def test_the_file_is_the_one_of_version_0_1(place: Path) -> None:
    """An order that was begun before an update is gone on with after it; and the bytes are the same."""
    pending.write(place, ORDER)
    (place / ".pending/order.json").write_text(WRITTEN)
    assert with_profile(ORDER) == pending.read(place)
    pending.remove(place)
    pending.write(place, with_profile(ORDER))
    assert WRITTEN == (place / ".pending/order.json").read_text()


def test_an_order_never_prints_its_key() -> None:
    """A debug print or a traceback with the object in it shows no private key."""
    assert "BEGIN" not in repr(ORDER)


def test_an_order_under_way_is_no_version(place: Path, tmp_path: Path) -> None:
    """Its key is in the folder of the certificate, and nobody takes it for a release."""
    pending.write(place, ORDER)
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
            pending.write(place, ORDER)
        assert pending.read(place) in (None, ORDER)
        assert attempt.died or pending.exists(place)
        pending.remove(place)
        pending.write(place, ORDER)
        assert ORDER == pending.read(place)


def test_a_run_that_dies_has_forgotten_all_or_nothing(tmp_path: Path) -> None:
    """A key without its order would be damage, on which no order could be placed any more."""
    for number, attempt in enumerate(crashes()):
        place = tmp_path / str(number) / "example.test"
        pending.write(place, ORDER)
        with attempt:
            pending.remove(place)
        assert pending.read(place) in (None, ORDER)
        pending.remove(place)
        assert [] == keys_in(place)


def test_what_is_forgotten_leaves_no_key(place: Path) -> None:
    """The key of an order that was given up is gone; to forget twice is no failure."""
    pending.write(place, ORDER)
    for _ in range(2):
        pending.remove(place)
        assert [] == keys_in(place)
        assert pending.read(place) is None


def test_another_order_never_takes_the_place_of_one(place: Path) -> None:
    """An order that could still be brought home is not lost to a second one."""
    pending.write(place, ORDER)
    with pytest.raises(LocalFault, match=r"\.pending"):
        pending.write(place, replace(ORDER, placed=replace(ORDER.placed, order="https://ca.test/order/2")))
    assert ORDER == pending.read(place)


def test_nobody_else_may_read_the_key(place: Path) -> None:
    """Folder 0700, files 0600."""
    pending.write(place, ORDER)
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
    pending.write(place, ORDER)
    damage(place / ".pending")
    with pytest.raises(LocalFault) as caught:
        pending.read(place)
    assert f"`rm -r {place}/.pending`" in (caught.value.next or "")


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "rsa3072"])
def test_a_key_is_of_the_kind_that_is_configured(kind: str) -> None:
    """Curve and size are those of `key_type`; each key is another one."""
    key = certificate.read_key(new_key(kind))
    if isinstance(key, rsa.RSAPrivateKey):
        assert f"rsa{key.key_size}" == kind
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert f"p{key.curve.key_size}" == kind
    assert new_key("p256") != new_key("p256")
