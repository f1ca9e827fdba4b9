"""An order that is under way, on disk, so that no certificate is issued twice and none is lost.

    {state_dir}/issued/NAME/.pending/
        privkey.pem    the key that will be certified
        order.json     the order's URL and what was ordered

It is written after newOrder was answered and before finalize, whole or not at all (prepared beside, fsynced,
renamed). Whatever kills the run, the next one goes on with it: the CA knows the order by its URL, and the key
is here. It is removed once the certificate is stored, or the order is given up.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from certcast.acme.issued import make_durable_dir
from certcast.host import files
from certcast.release.lifetime import from_utc_text, utc_text

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_KEPT = "no certificate was issued; what is published and served stays"


@dataclass(frozen=True)
class Pending:
    """What was ordered: at which CA (`directory`), by which `account`, under which `order` URL."""

    directory: str
    account: str
    order: str
    names: tuple[str, ...]
    key_type: str
    profile: str | None
    placed_at: datetime
    privkey: bytes = field(repr=False)


def exists(place: Path) -> bool:
    """Whether an order is under way in the store of certificates at `place`."""
    return _folder(place).exists()


def read(place: Path) -> Pending | None:
    """Return the order that is under way, None if there is none. LocalFault if it is damaged."""
    folder = _folder(place)
    if not folder.exists():
        return None
    advice = f"`rm -r {folder}`: the order is given up, and another one is placed within the caps"
    document = files.read_json(folder / "order.json", advice=advice)
    with files.understood(folder, advice=advice):
        if document is None:
            raise ValueError("order.json is missing")
        if not (folder / "privkey.pem").exists():
            raise ValueError("privkey.pem is missing")
        with files.reported(f"read {folder}", kept=_KEPT):
            privkey = (folder / "privkey.pem").read_bytes()
        names, placed_at = tuple(document["names"]), from_utc_text(document["placed_at"])
        return Pending(**{**document, "names": names, "placed_at": placed_at, "privkey": privkey})


def keep(place: Path, pending: Pending) -> None:
    """Write an order down, durably. LocalFault, also where another one is under way: it is not lost."""
    fields = asdict(pending)
    privkey = fields.pop("privkey")
    fields["placed_at"] = utc_text(pending.placed_at)
    beside = place / ".pending.new"
    with files.reported(f"write {_folder(place)}", kept=_KEPT):
        make_durable_dir(place)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        files.write_new(beside / "privkey.pem", privkey)
        files.write_new(beside / "order.json", (json.dumps(fields, indent=2) + "\n").encode())
        files.sync_dir(beside)
        beside.rename(_folder(place))
        files.sync_dir(place)


def drop(place: Path) -> None:
    """Forget the order and its key. LocalFault."""
    gone = place / ".pending.new"
    with files.reported(f"remove {_folder(place)}", kept="what is published and served stays"):
        if _folder(place).exists():
            # One step: a folder with a key and no order would be damage.
            shutil.rmtree(gone, ignore_errors=True)
            _folder(place).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _folder(place: Path) -> Path:
    return place / ".pending"
