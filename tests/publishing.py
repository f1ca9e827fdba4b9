"""A publisher for tests: it signs and seals what it is told, also what no publisher should.

The real one (publisher/releases.py) refuses to publish an older or an expired
certificate; a consumer's tests need just these.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from certcast.release import certificate, host_identity, sealing, signing
from certcast.release.manifest import FULLCHAIN, Digest, Manifest, manifest_key, release_key, write
from certcast.release.sealing import Recipient
from certcast.storage.store import Store
from certcast_lab.serving.authority import Pair


def release(store: Store, name: str, pair: Pair, *, sequence: int, now: datetime, **changes: Any) -> Manifest:
    """Return the manifest for `pair`, with fields replaced by `changes`; nothing is written."""
    manifest = Manifest(
        store=store.url,
        certificate=name,
        sequence=sequence,
        published_at=now,
        expires=now + timedelta(days=7),
        publisher="renewal.example.test",
        leaf=certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf),
        files={FULLCHAIN: Digest.of(pair.fullchain_pem)},
    )
    return replace(manifest, **changes)


class Publisher:
    """A signing key in `folder`, and the hosts that it seals to."""

    def __init__(self, folder: Path) -> None:
        self.signing_key = folder / "publisher"
        self.public = host_identity.make(self.signing_key, "publisher").public
        self.recipients: list[Recipient] = []

    def enrol(self, host: str, path: Path) -> None:
        """Make an identity for a host, if there is none in `path`, and seal to it from now on."""
        known = host_identity.load(path) if path.exists() else host_identity.make(path, host)
        self.recipients.append(Recipient.of_host(host, known.public))

    def publish(
        self, store: Store, name: str, pair: Pair, *, sequence: int, now: datetime, **changes: Any
    ) -> Manifest:
        """Write the release, then the manifest, as every publisher must; return the manifest."""
        manifest = release(store, name, pair, sequence=sequence, now=now, **changes)
        store.put(release_key(name, manifest.leaf.sha256, FULLCHAIN), pair.fullchain_pem)
        self.seal(store, manifest, pair.key_pem)
        self.point(store, manifest)
        return manifest

    def seal(self, store: Store, manifest: Manifest, privkey: bytes) -> None:
        """Seal a private key, whichever it is, to each host."""
        for one in self.recipients:
            key = one.object_key(manifest.certificate, manifest.leaf.sha256)
            store.put(key, sealing.seal(privkey, one))

    def point(self, store: Store, manifest: Manifest) -> None:
        """Write the manifest alone, signed."""
        store.put(manifest_key(manifest.certificate), self.sign(write(manifest)))

    def sign(self, document: bytes) -> bytes:
        """Return any bytes with this publisher's signature below them."""
        return signing.sign(document, self.signing_key)
