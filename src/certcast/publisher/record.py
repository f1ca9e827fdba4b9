"""What a publisher remembers of one certificate between runs, and which releases it keeps.

    {state_dir}/publisher/{name}.json

The record is written before the manifest that it speaks of. A crash in between uses up a sequence that was
never published, which costs nothing; in the other order a sequence might be used twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import documents, manifest
from certcast.report.errors import ManifestInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from certcast.release.manifest import Manifest
    from certcast.storage.store import Store

# The current release and five older ones; held-off ones besides.
KEPT_RELEASES = 6


@dataclass(frozen=True)
class Record:
    """What this publisher remembers of one certificate, besides the store.

    `sequence` is the highest that it has written. `leaves` are the releases that it has published, oldest
    first: what may one day be deleted from the store. `manifest` is the text of the last one that it wrote
    there, which mends a store that lost or garbled it. It has `arrived` once the store has said so: an
    earlier manifest there is then somebody's doing.
    """

    sequence: int
    leaves: tuple[str, ...]
    manifest: str
    arrived: bool = False  # certcast 0.1 did not write it down

    def last(self, store_url: str, certificate: str) -> Manifest | None:
        """Return the last manifest; None without one, or if `store.url` was another one then."""
        try:
            return manifest.read(self.manifest.encode(), store=store_url, certificate=certificate)
        except ManifestInvalid:
            return None  # what was at the other place says nothing of this one


def latest(found: Manifest | None, recorded: Manifest | None) -> Manifest | None:
    """Return which of the two counts, by the sequence: the store may have been set back to an older state."""
    known = [manifest for manifest in (found, recorded) if manifest is not None]
    return max(known, key=lambda manifest: manifest.sequence, default=None)


def adopt(record: Record, found: Manifest, store: Store) -> Record:
    """Return the record of a host that replaces another one: its releases are now this host's to delete.

    Which of those before `found` came first is not known any more.
    """
    prefix = manifest.releases_prefix(found.certificate)
    leaves = {key.removeprefix(prefix).partition("/")[0] for key in store.list(prefix)}
    return replace(record, leaves=append(tuple(sorted(leaves)), found))


def outdated(record: Record, current: Manifest) -> tuple[str, ...]:
    """Return the releases that nobody may step back to; only such as this host published, or has adopted."""
    return tuple(leaf for leaf in record.leaves[:-KEPT_RELEASES] if leaf not in current.held_off)


def without(record: Record, gone: tuple[str, ...]) -> Record:
    """Return the record after releases have been deleted from the store."""
    return replace(record, leaves=tuple(leaf for leaf in record.leaves if leaf not in gone))


def append(leaves: tuple[str, ...], following: Manifest) -> tuple[str, ...]:
    """Return the published releases with the one of `following` as the last."""
    current = following.leaf.sha256
    return (*(leaf for leaf in leaves if leaf != current), current)


def read(folder: Path, name: str) -> Record:
    """Return the record of a certificate, an empty one if there is none. LocalFault if it is damaged."""
    return documents.read(folder / f"{name}.json", Record) or Record(0, (), "")


def write(folder: Path, name: str, record: Record) -> None:
    """Replace the record, durably. LocalFault."""
    with files.reported(f"save {folder / name}.json", kept="what was published before stays"):
        documents.write(folder / f"{name}.json", record)
