"""What a publisher remembers of one certificate between runs, and which releases it keeps.

    {state_dir}/publisher/{name}.json

Written before the manifest that it speaks of: after a crash in between, the sequence was
used up without being published, which costs nothing; the other order might use it twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import manifest
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

    `sequence` is the highest it has written; `leaves` the releases it has
    published, oldest first: what may one day be deleted from the store; `manifest`
    the last one it wrote there, which puts right a store that lost or garbled it. It has
    `arrived` once the store has said so: an earlier one there is then somebody's doing.
    """

    sequence: int = 0
    leaves: tuple[str, ...] = ()
    manifest: Manifest | None = None
    arrived: bool = False


def latest(found: Manifest | None, recorded: Manifest | None) -> Manifest | None:
    """Return which of the two counts, by the sequence: the store may have been set back to an older state."""
    known = [manifest for manifest in (found, recorded) if manifest is not None]
    return max(known, key=lambda manifest: manifest.sequence, default=None)


def adopted(record: Record, found: Manifest, store: Store) -> Record:
    """Return the record of a host that replaces another one: its releases are now this host's to delete.

    Which of those before `found` came first is not known any more.
    """
    prefix = manifest.releases_prefix(found.certificate)
    leaves = {key.removeprefix(prefix).partition("/")[0] for key in store.list(prefix)}
    return replace(record, leaves=appended(tuple(sorted(leaves)), found))


def outdated(record: Record, current: Manifest) -> tuple[str, ...]:
    """Return the releases that nobody may step back to; only such as this host published, or has adopted."""
    return tuple(leaf for leaf in record.leaves[:-KEPT_RELEASES] if leaf not in current.held_off)


def without(record: Record, gone: tuple[str, ...]) -> Record:
    """Return the record after releases have been deleted from the store."""
    return replace(record, leaves=tuple(leaf for leaf in record.leaves if leaf not in gone))


def appended(leaves: tuple[str, ...], following: Manifest) -> tuple[str, ...]:
    """Return the published releases with the one of `following` as the last."""
    current = following.leaf.sha256
    return (*(leaf for leaf in leaves if leaf != current), current)


def read(folder: Path, name: str, store_url: str) -> Record:
    """Return the record of a certificate, an empty one if there is none. LocalFault if it is damaged."""
    document = files.read_json(folder / f"{name}.json")
    if document is None:
        return Record()
    with files.understood(folder / f"{name}.json"):
        try:
            last = manifest.read(document["manifest"].encode(), store=store_url, certificate=name)
        except ManifestInvalid:
            last = None  # store.url was changed: what stood at the other place says nothing of this one
        arrived = document.get("arrived") is True  # certcast 0.1 did not write it down
        return Record(int(document["sequence"]), tuple(document["leaves"]), last, arrived)


def write(folder: Path, name: str, record: Record) -> None:
    """Replace the record, durably. LocalFault."""
    document = {
        "sequence": record.sequence,
        "leaves": list(record.leaves),
        "manifest": manifest.write(record.manifest).decode() if record.manifest else "",
        "arrived": record.arrived,
    }
    with files.reported(f"save {folder / name}.json", kept="what was published before stays"):
        files.write_json(folder / f"{name}.json", document)
