"""Which version is served again when a new one has to be taken back.

    reloaded    what nginx was reloaded with last and broke nothing, if the snippet still names it
    proved      what handshakes showed last
    others      that are held here and were proved once, the newest first

The first of these that is neither revoked nor expired. Where all are, the first all the same: a
certificate that browsers warn of serves some clients, and a way back that leads nowhere serves nobody.
But then it is said.

Not here: when to go back, and how (switch.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release import certificate
from certcast.release.lifetime import utc_text
from certcast.release.manifest import FULLCHAIN

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.consumer.disk.versions import Folder
    from certcast.consumer.state import State
    from certcast.release.manifest import Manifest


@dataclass(frozen=True)
class WayBack:
    """A version, and in words why nobody should be served it; None if they may."""

    version: str
    flaw: str | None


def choose(
    folder: Folder, state: State, manifest: Manifest, now: datetime, *, instead_of: str, copies: bool
) -> WayBack | None:
    """Return where the way back from version `instead_of` leads; None if this host has served nothing yet.

    With `copies` it is what was served, revoked or not: copies become what they were, whatever that
    is, and nginx should not get another certificate by them than by the snippet. OSError.
    """
    served = [name for name in _served(folder, state) if name != instead_of]
    if not served:
        return None
    others = [] if copies else [name for name in _others(folder, state) if name != instead_of]
    ways = [WayBack(name, _flaw(folder, name, manifest, now)) for name in dict.fromkeys([*served, *others])]
    return ways[0] if copies else next((way for way in ways if way.flaw is None), ways[0])


def _served(folder: Folder, state: State) -> list[str]:
    version = state.reloaded_version
    found = [version] if version and folder.serves(version) else []
    if state.proved is not None and state.proved.version in folder.held():
        found.append(state.proved.version)
    return found


def _others(folder: Folder, state: State) -> list[str]:
    newest = sorted(folder.held().items(), key=lambda item: item[1], reverse=True)
    return [name for name, (_, leaf) in newest if leaf in {one[:16] for one in state.once_proved}]


def _flaw(folder: Folder, version: str, manifest: Manifest, now: datetime) -> str | None:
    try:
        chain = certificate.read_chain(folder.read(version)[FULLCHAIN])
        leaf = certificate.describe(chain.leaf)
    except (KeyError, ValueError):
        return "which cannot be read"
    if leaf.sha256 in manifest.revoked:
        return "which is REVOKED"
    if leaf.not_after < now:
        return f"which EXPIRED {utc_text(leaf.not_after)}"
    return None
