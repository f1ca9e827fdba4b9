"""certcast's own store of certificates: each version whole, or not there at all.

    {state_dir}/issued/NAME/                           0700
        3-9c1f3ab2c0ffee00/                            number and beginning of the leaf's SHA-256
            fullchain.pem  privkey.pem  order.json     0600
        .3-9c1f3ab2c0ffee00.new/                       being prepared; what a crash leaves is removed
        .pending/                                      an order that is under way (pending.py)

A version is prepared beside, fsynced, renamed once, and its parent fsynced. Then it never changes.
The highest number is live. Kept are the last five, and every release that the bucket still names: its key is
needed for hosts that are enrolled later, and for a step back.

Not here: who orders (order.py), and who publishes (publisher/releases.py).
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import certificate
from certcast.release.lifetime import from_utc_text, utc_text
from certcast.release.source import Known, Release
from certcast.report.errors import IssuedUnusable, LocalFault

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path

    from certcast.release.certificate import Leaf
    from certcast.report.errors import SecretExposed

KEPT = 5
_VERSION = re.compile(r"([1-9][0-9]{0,8})-([0-9a-f]{16})")
_STAYS = "what is published and served stays"


@dataclass(frozen=True)
class OrderRecord:
    """Where a version came from: what order.json holds. `order` is empty for one that was adopted."""

    directory: str
    account: str
    order: str
    names: tuple[str, ...]
    key_type: str
    profile: str | None
    placed_at: datetime
    issued_at: datetime

    def document(self) -> bytes:
        """Return it as JSON."""
        fields = {
            **asdict(self),
            "placed_at": utc_text(self.placed_at),
            "issued_at": utc_text(self.issued_at),
        }
        return (json.dumps(fields, indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> OrderRecord:
        """Return what was written there. Raises LocalFault if it is damaged or missing."""
        document = files.read_json(path)
        with files.understood(path):
            if document is None:
                raise ValueError("no such file")
            return cls(
                **{
                    **document,
                    "names": tuple(document["names"]),
                    "placed_at": from_utc_text(document["placed_at"]),
                    "issued_at": from_utc_text(document["issued_at"]),
                }
            )


class Issued:
    """The versions of one certificate."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self.name = name
        self.place = state_dir / "issued" / name

    def exists(self) -> bool:
        """Whether there is a version, whatever its state."""
        return bool(self._versions())

    def mark(self) -> str:
        """Return the live version's name, and when its folder was made."""
        versions = self._versions()
        if not versions:
            return ""
        status = (self.place / versions[0]).stat()
        return f"{versions[0]} {status.st_mtime_ns} {status.st_ino}"

    def live(self) -> Release:
        """Return the latest version. Raises IssuedUnusable if there is none, or it cannot be used."""
        versions = self._versions()
        if not versions:
            raise IssuedUnusable(
                f"{self.name}: no certificate was issued yet",
                expected=f"a version in {self.place}",
                found="none",
                kept=_STAYS,
                next=f"`certcast renew {self.name}` orders the first one",
            )
        return self._read(versions[0])

    def all(self) -> list[Known]:
        """Return every version that can be read, the latest first. LocalFault if a file cannot be."""
        found = []
        for version in self._versions():
            try:
                one = self._read(version)
            except IssuedUnusable:
                continue  # `live` tells of a damaged one where it counts
            found.append(Known(version, one.fullchain, one.leaf, one.directory))
        return found

    def find(self, leaf_sha256: str) -> Release | None:
        """Return the version with this leaf, or None. Raises IssuedUnusable if it is damaged."""
        for version in self._versions():
            if version.endswith("-" + leaf_sha256[:16]):
                return self._read(version)
        return None

    def exposed(self) -> SecretExposed | None:
        """Return None: folder and files are private from their first moment."""
        return None

    def record(self, version: str) -> OrderRecord:
        """Return where a version came from. LocalFault."""
        return OrderRecord.read(self.place / version / "order.json")

    # -- changing it

    def add(self, fullchain: bytes, privkey: bytes, record: OrderRecord) -> Release:
        """Store a version, durably, and return it; one that is here already is returned as it is.

        Raises IssuedUnusable if the two don't belong together, LocalFault.
        """
        leaf = self._checked("the new one", fullchain, privkey)
        if (found := self.find(leaf.sha256)) is not None:
            return found
        versions = self._versions()
        number = int(versions[0].partition("-")[0]) + 1 if versions else 1
        version = f"{number}-{leaf.sha256[:16]}"
        beside = self.place / f".{version}.new"
        with files.reported(f"store {self.place / version}", kept=_STAYS):
            make_durable_dir(self.place)
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(mode=0o700)
            for file, body in (
                ("fullchain.pem", fullchain),
                ("privkey.pem", privkey),
                ("order.json", record.document()),
            ):
                files.write_new(beside / file, body)
            files.sync_dir(beside)
            beside.rename(self.place / version)
            files.sync_dir(self.place)
        return Release(self.name, version, fullchain, privkey, leaf, record.directory)

    def tidy(self, still_named: Collection[str]) -> None:
        """Remove what a crash left, and old versions that the bucket doesn't name any more. LocalFault."""
        with files.reported(f"tidy {self.place}", kept=_STAYS):
            for left in self.place.glob(".*.new"):
                shutil.rmtree(left)
            for version in self._versions()[KEPT:]:
                if not any(version.endswith("-" + leaf[:16]) for leaf in still_named):
                    shutil.rmtree(self.place / version)

    # -- reading it

    def _versions(self) -> list[str]:
        """Return the names of all versions, the latest first. LocalFault."""
        with files.reported(f"read {self.place}", kept=_STAYS):
            try:
                names = [path.name for path in self.place.iterdir()]
            except FileNotFoundError:
                return []
        found = [(int(match[1]), name) for name in names if (match := _VERSION.fullmatch(name))]
        return [name for _, name in sorted(found, reverse=True)]

    def _read(self, version: str) -> Release:
        folder = self.place / version
        try:
            fullchain = (folder / "fullchain.pem").read_bytes()
            privkey = (folder / "privkey.pem").read_bytes()
        except FileNotFoundError as error:
            raise self._damaged(version, f"{error.filename}: no such file") from None
        except OSError as error:
            with files.reported(f"read {folder}", kept=_STAYS):
                raise error from None
            raise AssertionError("unreachable: reported raises") from None
        leaf = self._checked(version, fullchain, privkey)
        if not version.endswith(leaf.sha256[:16]):
            raise self._damaged(version, f"the certificate of another version, {leaf.sha256[:16]}")
        try:
            directory = self.record(version).directory
        except LocalFault:
            directory = None  # two files make a release; where it came from is a remark
        return Release(self.name, version, fullchain, privkey, leaf, directory)

    def _checked(self, version: str, fullchain: bytes, privkey: bytes) -> Leaf:
        try:
            leaf = certificate.describe(certificate.read_chain(fullchain).leaf)
            key = certificate.read_key(privkey)
        except ValueError as error:
            raise self._damaged(version, str(error)) from None
        if not certificate.key_fits(key, leaf):
            raise self._damaged(version, "a private key of another certificate")
        return leaf

    def _damaged(self, version: str, found: str) -> IssuedUnusable:
        return IssuedUnusable(
            f"{self.name}: version {version} of certcast's own store cannot be used",
            expected="fullchain.pem and its privkey.pem",
            found=found,
            kept=_STAYS,
            next=f"restore {self.place / version} from a backup; without one, `certcast renew {self.name}` "
            "orders another certificate, within the caps",
        )


def make_durable_dir(path: Path) -> None:
    """Create `path` (0700) and its parents, each fsynced in its parent before anything depends on it."""
    for folder in reversed([path, *path.parents]):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        files.sync_dir(folder.parent)
