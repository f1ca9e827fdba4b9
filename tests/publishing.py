"""A publisher for tests: it writes what it is told, also what no publisher should.

The real one (renewal/publish.py) refuses to publish an older or an expired
certificate; a consumer's tests need just these.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from certcast import certificate
from certcast.manifest import FULLCHAIN, PRIVKEY, Digest, Manifest, manifest_key, release_key, write
from certcast.storage.store import Store
from certcast_lab.ca import Pair


def release(store: Store, name: str, pair: Pair, *, sequence: int, now: datetime, **changes: Any) -> Manifest:
    """Return the manifest for `pair`, with fields replaced by `changes`; nothing is written."""
    files = {FULLCHAIN: pair.fullchain_pem, PRIVKEY: pair.key_pem}
    manifest = Manifest(
        store=store.url,
        certificate=name,
        sequence=sequence,
        published_at=now,
        expires=now + timedelta(days=7),
        publisher="renewal.example.test",
        leaf=certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf),
        files={file: Digest.of(body) for file, body in files.items()},
    )
    return replace(manifest, **changes)


def publish(store: Store, name: str, pair: Pair, *, sequence: int, now: datetime, **changes: Any) -> Manifest:
    """Write both files, then the manifest, as every publisher must; return the manifest."""
    manifest = release(store, name, pair, sequence=sequence, now=now, **changes)
    store.put(release_key(name, manifest.leaf.sha256, FULLCHAIN), pair.fullchain_pem)
    store.put(release_key(name, manifest.leaf.sha256, PRIVKEY), pair.key_pem)
    store.put(manifest_key(name), write(manifest))
    return manifest
