"""certcast's own store of certificates: each version whole, or not there at all.

    {state_dir}/issued/NAME/                           0700
        3-9c1f3ab2c0ffee00/                            number and beginning of the leaf's SHA-256
            fullchain.pem  privkey.pem  order.json     0600
        .3-9c1f3ab2c0ffee00.new/                       in preparation; a crash may leave it
        .pending/                                      an order that is under way (pending.py)

A version never changes, and the highest number is live. The store keeps the last five versions, and every
release that the bucket still names: hosts that are enrolled later, and a step back, need its key.

Not here: ordering (order.py), publishing (publisher/releases.py).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import datetime  # the documents' converter looks it up
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import certificate, documents
from certcast.release.source import Known, Release
from certcast.report.errors import IssuedUnusable, LocalFault

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from certcast.release.certificate import Leaf
    from certcast.report.errors import SecretExposed

KEPT = 5
_VERSION = re.compile(r"([1-9][0-9]{0,8})-([0-9a-f]{16})")
_STAYS = "what is published and served stays"


@dataclass(frozen=True)
class PlacedOrder:
    """order.json of an order that is under way: the CA's `directory`, `account` and `order` by their URLs.

    For an adopted lineage, `order` is empty, and `account` may be.
    """

    directory: str
    account: str
    order: str
    names: tuple[str, ...]
    key_type: str
    profile: str | None
    placed_at: datetime


@dataclass(frozen=True)
class OrderRecord(PlacedOrder):
    """order.json of a version: the order that it came from."""

    issued_at: datetime


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
        known = []
        for version in self._versions():
            try:
                release = self._read(version)
            except IssuedUnusable:
                continue  # `live` tells of a damaged one where it counts
            known.append(Known(version, release.fullchain, release.leaf, release.directory))
        return known

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
        """Return the order that a version came from. LocalFault."""
        path = self.place / version / "order.json"
        record = documents.read(path, OrderRecord)
        if record is None:
            with files.understood(path):
                raise ValueError("no such file")
        return record

    # -- changing it

    def add(self, fullchain: bytes, privkey: bytes, record: OrderRecord) -> Release:
        """Store a version, durably, and return it; one that is here already is returned as it is.

        Raises IssuedUnusable if the two don't belong together, LocalFault.
        """
        leaf = self._checked("the new one", fullchain, privkey)
        if (stored := self.find(leaf.sha256)) is not None:
            return stored
        versions = self._versions()
        number = int(versions[0].partition("-")[0]) + 1 if versions else 1
        version = f"{number}-{leaf.sha256[:16]}"
        order = documents.text(record).encode()
        with files.reported(f"store {self.place / version}", kept=_STAYS):
            write_folder(
                self.place / version,
                {"fullchain.pem": fullchain, "privkey.pem": privkey, "order.json": order},
            )
        return Release(self.name, version, fullchain, privkey, leaf, record.directory)

    def tidy(self, still_named: Collection[str]) -> None:
        """Remove what a crash left, and old versions that the bucket doesn't name any more. LocalFault."""
        with files.reported(f"tidy {self.place}", kept=_STAYS):
            for unfinished in self.place.glob(".*.new"):
                shutil.rmtree(unfinished)
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
        versions = [(int(match[1]), name) for name in names if (match := _VERSION.fullmatch(name))]
        return [name for _, name in sorted(versions, reverse=True)]

    def _read(self, version: str) -> Release:
        folder = self.place / version
        with files.reported(f"read {folder}", kept=_STAYS):
            try:
                fullchain = (folder / "fullchain.pem").read_bytes()
                privkey = (folder / "privkey.pem").read_bytes()
            except FileNotFoundError as error:
                raise self._damaged(version, f"{error.filename}: no such file") from None
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
            return certificate.describe_pair(fullchain, privkey)
        except ValueError as error:
            raise self._damaged(version, str(error)) from None

    def _damaged(self, version: str, found: str) -> IssuedUnusable:
        return IssuedUnusable(
            f"{self.name}: version {version} of certcast's own store cannot be used",
            expected="fullchain.pem and its privkey.pem",
            found=found,
            kept=_STAYS,
            next=f"restore {self.place / version} from a backup; without one, `certcast renew {self.name}` "
            "orders another certificate, within the caps",
        )


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Create the folder `path` (0700) with these files: whole or not at all, also after a crash. OSError."""
    _make_durable_dir(path.parent)
    beside = path.with_name(f".{path.name.removeprefix('.')}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700)
    for file, body in contents.items():
        files.write_new(beside / file, body)
    files.sync_dir(beside)
    beside.rename(path)
    files.sync_dir(path.parent)


def _make_durable_dir(path: Path) -> None:
    """Create `path` (0700) and its parents, each fsynced in its parent before anything depends on it."""
    for folder in reversed([path, *path.parents]):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        files.sync_dir(folder.parent)
