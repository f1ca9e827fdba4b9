"""A release's two files out of the bucket: the chain, and the private key that was sealed to this host.

    releases/{leaf}/fullchain.pem                 for everybody
    releases/{leaf}/keys/{host}.{recipient16}.age  for the identity of this host alone
    releases/{leaf}/privkey.pem                   instead of it with encryption = "none", on both sides

Every path is computed: from the configuration, this host's identity, and the leaf of a
verified manifest. A host that was never enrolled, or was removed, or has another
identity than it was enrolled with, finds no object of its name; a look at each poll tells it at once,
weeks before it would need the key. That look transfers nothing while the object is the same (304).

Not here: whether what came may be served (gate.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release import host_identity
from certcast.release.manifest import FILE_LIMIT, FULLCHAIN, PRIVKEY, release_key
from certcast.report.errors import DigestMismatch, NotEnrolled, SealedInvalid
from certcast.storage.store import Object, Unchanged

if TYPE_CHECKING:
    from certcast.config.model import Config
    from certcast.release.host_identity import Identity
    from certcast.release.manifest import Manifest
    from certcast.storage.store import Reader


@dataclass(frozen=True)
class Fetcher:
    """Reads a release of `config.store`, as the host of `config`."""

    config: Config
    store: Reader

    def chain(self, release: Manifest) -> bytes:
        """Return fullchain.pem as the store has it. Raises StoreError, DigestMismatch if it isn't there."""
        key = release_key(release.certificate, release.leaf.sha256, FULLCHAIN)
        found = self.store.get(key, limit=release.files[FULLCHAIN].size)
        if not isinstance(found, Object):
            raise DigestMismatch(
                f"{release.certificate}: {FULLCHAIN} of sequence {release.sequence} is not in the store",
                expected=f"{release.store}/{key}",
                found="no such object",
                next=f"run `certcast renew {release.certificate}` on the renewal host, which puts it back",
            )
        return found.body

    def privkey(self, release: Manifest) -> tuple[bytes, str | None]:
        """Return the private key (PEM), opened with this host's identity, and the stored object's ETag.

        Nothing says yet that it fits the certificate.
        Raises StoreError, NotEnrolled, SealedInvalid, IdentityUnusable, SecretExposed.
        """
        opened, etag = self._opened(release, None)
        assert opened is not None  # no ETag was sent
        return opened, etag

    def look_at_sealed(self, release: Manifest, etag: str | None) -> str | None:
        """Return the ETag of what is there for this host, once it opens to the right key; `etag` is known.

        Raises as `privkey` does.
        """
        opened, found = self._opened(release, etag)
        if opened is not None and not _is_key_of(opened, release):
            lies_open = self.config.store.encryption == "none"
            raise SealedInvalid(
                f"{release.certificate}: what is {'stored for' if lies_open else 'sealed to'} this host is "
                "not the key of the published release",
                expected=f"the private key of leaf {release.leaf.sha256[:16]}…",
                found="another key, or none; whoever may write to the bucket can "
                + ("put one there" if lies_open else "seal something to a host"),
                next=f"`certcast renew {release.certificate}` on the renewal host, which puts it back"
                if lies_open
                else self._enrol(host_identity.load(self.config.identity)),
            )
        return found

    def _opened(self, release: Manifest, etag: str | None) -> tuple[bytes | None, str]:
        """Return the private key, None if the object has still `etag`, and the object's ETag."""
        if self.config.store.encryption == "none":
            return self._lying_open(release, etag)
        from certcast.release import sealing

        who = host_identity.load(self.config.identity)
        recipient = sealing.Recipient.of_host(self.config.enrolled_as, who.public)
        key = recipient.object_key(release.certificate, release.leaf.sha256)
        # Of another release the ETag is of no use, and none is the same.
        found = self.store.get(key, limit=sealing.LIMIT, unless=etag)
        if isinstance(found, Unchanged):
            assert etag is not None
            return None, etag
        if found is None:
            raise NotEnrolled(
                f"{release.certificate}: no private key is sealed to this host's identity",
                expected=f"{release.store}/{key}",
                found="no such object: the host was never enrolled, was removed, or has a new identity; "
                'or the renewal host seals nothing (encryption = "none")',
                next=self._enrol(who),
            )
        opened = sealing.unseal(
            found.body, who, what=f"{release.certificate}: {key.rpartition('/')[2]}", again=self._enrol(who)
        )
        return opened, found.etag

    def _lying_open(self, release: Manifest, etag: str | None) -> tuple[bytes | None, str]:
        """Do the same where this host's configuration says that keys lie open."""
        key = release_key(release.certificate, release.leaf.sha256, PRIVKEY)
        found = self.store.get(key, limit=FILE_LIMIT, unless=etag)
        if isinstance(found, Unchanged):
            assert etag is not None
            return None, etag
        if found is None:
            raise NotEnrolled(
                f'{release.certificate}: encryption = "none" here, but no private key lies open in the store',
                expected=f"{release.store}/{key}",
                found="no such object: the renewal host seals private keys, as it does by default",
                next=f"take `encryption` out of [store] in {self.config.path}, then `certcast identity`\n"
                'prints the command that enrols this host; if both sides are to have encryption = "none",\n'
                f"`certcast renew {release.certificate}` on the renewal host puts the key there",
            )
        return found.body, found.etag

    def _enrol(self, who: Identity) -> str:
        """Return the command that seals to this host, for its administrator."""
        consumer = self.config.consumer
        group = " --group" if consumer is not None and consumer.group is not None else ""
        name = self.config.enrolled_as
        return (
            f'on the renewal host: `certcast host add{group} {name} "{who.public.bare}"`\n'
            f"if an older key of this host has that name, `certcast host remove {name}` there before"
        )


def _is_key_of(opened: bytes, release: Manifest) -> bool:
    from certcast.release import certificate

    try:
        return certificate.key_fits(certificate.read_key(opened), release.leaf)
    except ValueError:
        return False
