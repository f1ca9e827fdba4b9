"""Whether another certificate is to be ordered now, and why.

    none yet · an order under way · to be replaced · other names · another CA
    in the renewal window · the CA suggests it (ARI) · a step back has lasted too long      → order

Pure: what there is comes in, a decision goes out. The caps are not here (acme/limits.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release.lifetime import remaining_text, utc_text

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release
    from certcast.renewal.replacement import Replacement


@dataclass(frozen=True)
class Due:
    """Whether to order, why in words, and whether with another key.

    `remark` is what a person is told of an order for which this host has no reason of its own.
    """

    order: bool
    why: str
    new_key: bool = False
    remark: str | None = None


def decide(
    wanted: CertificateConfig,
    live: Release | None,
    *,
    directory: str,
    under_way: bool,
    asked: Replacement | None,
    stepped_back: Manifest | None,
    suggestion: Suggestion | None,
    now: datetime,
) -> Due:
    """Decide by the live release, what was `asked`, and the CA's word.

    `directory` is the configured one. `stepped_back` is what is published in place of `live`, which is held
    off. `suggestion` is the CA's renewal information, None where it was not asked.
    """
    if live is None:
        return Due(True, "no certificate yet: ordering the first one")
    if asked is not None and live.leaf.sha256 in asked.leaves:
        return Due(True, f"to be replaced ({asked.reason}): ordering another one", new_key=True)
    if under_way:
        return Due(True, "an order is under way: going on with it")
    why = _why_now(wanted, live, directory=directory, stepped_back=stepped_back, now=now)
    if why is not None:
        is_moved = live.directory is not None and live.directory != directory
        return Due(True, why, remark=why if is_moved else None)
    left = remaining_text(live.leaf.not_after, now)
    return _by_the_ca(live, suggestion, now) or Due(False, f"valid for {left} more: not due")


def _why_now(
    wanted: CertificateConfig,
    live: Release,
    *,
    directory: str,
    stepped_back: Manifest | None,
    now: datetime,
) -> str | None:
    """Return why this host itself wants another certificate now; None if it does not."""
    why = None
    if stepped_back is not None and now >= stepped_back.leaf.life.critical_at:
        left = remaining_text(stepped_back.leaf.not_after, now)
        why = f"the release that was stepped back to is valid for {left} more: ordering another one"
    elif set(live.leaf.names) != set(wanted.names):
        why = f"the configured names differ from {', '.join(live.leaf.names)}: ordering"
    elif live.directory is not None and live.directory != directory:
        why = f"issued by {live.directory}, and renewal.directory is {directory} now: ordering"
    elif live.leaf.life.in_window(now):
        why = f"valid for {remaining_text(live.leaf.not_after, now)} more: due"
    return why


def _by_the_ca(live: Release, suggestion: Suggestion | None, now: datetime) -> Due | None:
    if suggestion is None or suggestion.end is None:
        return None
    explained = f"; the CA explains: {suggestion.explanation_url}" if suggestion.explanation_url else ""
    chosen = suggestion.chosen(live.leaf.sha256)
    if suggestion.end <= now:
        # Such a window is how a CA announces that it will revoke.
        why = f"the CA wanted it replaced by {utc_text(suggestion.end)}"
    elif chosen is not None and chosen <= now:
        why = f"the CA suggests to replace it since {utc_text(chosen)}"
    else:
        return None
    return Due(True, f"{why}: ordering", remark=f"{why}{explained}")
