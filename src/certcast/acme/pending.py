"""An order that is under way, on disk, so that no certificate is issued twice and none is lost.

    {state_dir}/issued/NAME/.pending/
        privkey.pem    the key that will be certified
        order.json     the order's URL and what was ordered

The folder is written between newOrder's answer and finalize, whole or not at all. Whatever kills the run,
the next run goes on: the CA knows the order by its URL, and the key is here. The folder is removed once the
certificate is stored, or the order is given up.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast.acme.issued import PlacedOrder, write_folder
from certcast.host import files
from certcast.release import documents

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = "no certificate was issued; what is published and served stays"


@dataclass(frozen=True)
class Pending:
    """An order that is under way, and the key that it will certify, PEM."""

    placed: PlacedOrder
    privkey: bytes = field(repr=False)


def new_key(key_type: str) -> bytes:
    """Return a new private key of a type in the configuration (`p256`, `rsa2048`, …): PKCS#8, PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if key_type.startswith("p"):
        key = ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[key_type])
    else:
        key = rsa.generate_private_key(65537, int(key_type.removeprefix("rsa")))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def exists(place: Path) -> bool:
    """Whether an order is under way in the store of certificates at `place`."""
    return _folder(place).exists()


def read(place: Path) -> Pending | None:
    """Return the order that is under way, None if there is none. LocalFault if it is damaged."""
    folder = _folder(place)
    if not folder.exists():
        return None
    advice = f"`rm -r {folder}`: the order is given up, and another one is placed within the caps"
    placed = documents.read(folder / "order.json", PlacedOrder, advice=advice)
    with files.understood(folder, advice=advice):
        if placed is None:
            raise ValueError("order.json is missing")
        if not (folder / "privkey.pem").exists():
            raise ValueError("privkey.pem is missing")
    with files.reported(f"read {folder}", kept=_KEPT):
        return Pending(placed, (folder / "privkey.pem").read_bytes())


def write(place: Path, pending: Pending) -> None:
    """Write an order down, durably. LocalFault, also where another one is under way: it is not lost."""
    order = documents.text(pending.placed).encode()
    with files.reported(f"write {_folder(place)}", kept=_KEPT):
        write_folder(_folder(place), {"privkey.pem": pending.privkey, "order.json": order})


def remove(place: Path) -> None:
    """Forget the order and its key. LocalFault."""
    beside = place / ".pending.new"
    with files.reported(f"remove {_folder(place)}", kept="what is published and served stays"):
        if _folder(place).exists():
            # One step: a folder with a key and no order would be damage.
            shutil.rmtree(beside, ignore_errors=True)
            _folder(place).rename(beside)
        shutil.rmtree(beside, ignore_errors=True)


def _folder(place: Path) -> Path:
    return place / ".pending"
