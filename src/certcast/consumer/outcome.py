"""What a run came to, in words: for the terminal, cron's mail and ours.

Not here: how often a person hears of an alarm (the caller's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from certcast.release.lifetime import remaining_text, utc_text
from certcast.report.errors import CertcastError, ManifestExpired, Overdue

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.consumer.state import State
    from certcast.release.certificate import Leaf
    from certcast.release.manifest import Manifest

Result = Literal["nothing due", "current", "installed"]


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `text` is one line for a person; `proved` where the leaf was seen.

    `remarks` are lines of the proof that are no alarm: what could not be proved. `alarm` is the failure that
    a run must still end with after its work.
    """

    certificate: str
    result: Result
    leaf: Leaf | None
    text: str
    proved: tuple[str, ...] = ()
    previous: Leaf | None = None
    remarks: tuple[str, ...] = ()
    alarm: CertcastError | None = None


def served_text(state: State, now: datetime) -> str:
    """Return what was seen served last, as a part of a sentence."""
    if state.proved is None:
        return "no release was proved here yet"
    leaf = state.proved.leaf
    left = remaining_text(leaf.not_after, now)
    return f"serial {leaf.serial}, valid until {utc_text(leaf.not_after)} ({left})"


def expired(manifest: Manifest, now: datetime) -> ManifestExpired | None:
    """Return the alarm if the manifest was not dated anew in time: the renewal host is silent."""
    if now <= manifest.expires:
        return None
    name = manifest.certificate
    return ManifestExpired(
        f"{name}: the manifest has expired: the renewal host is silent",
        expected=f"a manifest dated anew before {utc_text(manifest.expires)}",
        found=f"sequence {manifest.sequence}, published {utc_text(manifest.published_at)}",
        next=f"on {manifest.publisher} run `certcast renew {name}`, and see why its timer did not",
    )


def overdue(manifest: Manifest, now: datetime) -> Overdue | None:
    """Return the alarm if a newer certificate should be published by now.

    A step back shows an older one on purpose, until the renewal host orders another (renewal/due.py).
    """
    leaf, name = manifest.leaf, manifest.certificate
    by = leaf.life.critical_at if manifest.step_back else leaf.life.overdue_at
    if now < by:
        return None
    return Overdue(
        f"{name}: a newer certificate should be here by now",
        expected=f"one by {utc_text(by)}",
        found=f"still serial {leaf.serial}; {remaining_text(leaf.not_after, now)} left",
        next=f"on {manifest.publisher} run `certcast renew {name}`",
    )
