"""Publish a release that this host holds, and with it what no host may serve any more.

Not here: whether it may be published (publish.py), and what is to be replaced (replacement.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.renewal import replacement
from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from certcast.config.model import CertificateConfig
    from certcast.publisher.publication import Published
    from certcast.publisher.signer import Signer
    from certcast.release.source import Release
    from certcast.storage.store import Store


def publish_live(
    wanted: CertificateConfig,
    live: Release,
    *,
    open_store: Callable[[], Store],
    signer: Callable[[], Signer],
    now: datetime,
    note: Callable[[str], None],
) -> Published:
    """Publish what certbot has just written; for the deploy hook. `note` gets changes, in words.

    Raises LineageUnusable if it is not fresh, and what `publish_release` raises.
    """
    from certcast.certbot.lineage import require_fresh

    require_fresh(live, now)
    return publish_release(wanted, live, open_store=open_store, signer=signer, now=now, note=note)


def publish_release(
    wanted: CertificateConfig,
    live: Release,
    *,
    open_store: Callable[[], Store],
    signer: Callable[[], Signer],
    now: datetime,
    note: Callable[[str], None],
) -> Published:
    """Publish a release if it is newer, with what is to be revoked by it. Raises as `publish` does."""
    from certcast.publisher.releases import publish, published_now

    try:
        own, store = signer(), open_store()
        asked = replacement.pending(own.state_dir, wanted.name)
        if asked is None or live.leaf.sha256 in asked.leaves:
            return publish(wanted, live, store, own, now=now)
        current = published_now(wanted, store, own) if asked.published_at is None else None
        if current is not None and current.leaf.sha256 != live.leaf.sha256:
            asked = replacement.add(own.state_dir, wanted.name, current.leaf)
        done = publish(wanted, live, store, own, now=now, revoke=asked.leaves)
        following = replacement.mark_published(own.state_dir, wanted.name, now)
        if asked.published_at is None:
            note(following.text())
        return done
    except CertcastError as failure:
        failure.kept = failure.kept or "what is published and served stays"  # a store knows only of requests
        raise
