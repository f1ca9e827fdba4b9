"""A release's two files out of the bucket: the chain, and the private key that was sealed to this host.

    releases/{leaf}/fullchain.pem                  for everybody
    releases/{leaf}/keys/{host}.{recipient16}.age  for the identity of this host alone
    releases/{leaf}/privkey.pem                    instead of it with encryption = "none", on both sides

Every path is computed: from the configuration, this host's identity, and the leaf of a verified manifest. A
host that was never enrolled, was removed, or has another identity than the enrolled one finds no object of
its name. `check_key` tells it at each poll, weeks before it would need the key; nothing is transferred while
the object is the same (304).

Not here: whether the pair may be served (gate.py).
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

    def check_key(self, release: Manifest, etag: str | None) -> str:
        """Return the ETag of the key that is there for this host, once it opens; `etag` is known to.

        Raises as `privkey` does.
        """
        opened, found = self._opened(release, etag)
        if opened is not None and not _is_key_of(opened, release):
            is_open = self.config.store.encryption == "none"
            raise SealedInvalid(
                f"{release.certificate}: what is {'stored for' if is_open else 'sealed to'} this host is "
                "not the key of the published release",
                expected=f"the private key of leaf {release.leaf.sha256[:16]}…",
                found="another key, or none; whoever may write to the bucket can "
                + ("put one there" if is_open else "seal something to a host"),
                next=f"`certcast renew {release.certificate}` on the renewal host, which puts it back"
                if is_open
                else self._enrol(host_identity.load(self.config.identity)),
            )
        return found

    def _opened(self, release: Manifest, etag: str | None) -> tuple[bytes | None, str]:
        """Return the private key, None if the object has still `etag`, and the object's ETag."""
        if self.config.store.encryption == "none":
            key = release_key(release.certificate, release.leaf.sha256, PRIVKEY)
            missing = NotEnrolled(
                f'{release.certificate}: encryption = "none" here, but no private key lies open in the store',
                expected=f"{release.store}/{key}",
                found="no such object: the renewal host seals private keys, as it does by default",
                next=f"take `encryption` out of [store] in {self.config.path}, then `certcast identity`\n"
                'prints the command that enrols this host; if both sides are to have encryption = "none",\n'
                f"`certcast renew {release.certificate}` on the renewal host puts the key there",
            )
            return self._get(key, FILE_LIMIT, etag, missing)
        from certcast.release import sealing

        identity = host_identity.load(self.config.identity)
        recipient = sealing.Recipient.of_host(self.config.enrolled_as, identity.public)
        key = recipient.object_key(release.certificate, release.leaf.sha256)
        missing = NotEnrolled(
            f"{release.certificate}: no private key is sealed to this host's identity",
            expected=f"{release.store}/{key}",
            found="no such object: the host was never enrolled, was removed, or has a new identity; "
            'or the renewal host seals nothing (encryption = "none")',
            next=self._enrol(identity),
        )
        sealed, found = self._get(key, sealing.LIMIT, etag, missing)
        if sealed is None:
            return None, found
        what = f"{release.certificate}: {key.rpartition('/')[2]}"
        return sealing.unseal(sealed, identity, what=what, again=self._enrol(identity)), found

    def _get(self, key: str, limit: int, etag: str | None, missing: NotEnrolled) -> tuple[bytes | None, str]:
        """Return an object's body, None if it has still `etag`, and its ETag. Raises `missing`."""
        found = self.store.get(key, limit=limit, unless=etag)
        if found is None:
            raise missing
        if isinstance(found, Unchanged):
            assert etag is not None
            return None, etag
        return found.body, found.etag

    def _enrol(self, identity: Identity) -> str:
        """Return the command that seals to this host, for its administrator."""
        consumer = self.config.consumer
        group = " --group" if consumer is not None and consumer.group is not None else ""
        name = self.config.enrolled_as
        return (
            f'on the renewal host: `certcast host add{group} {name} "{identity.public.bare}"`\n'
            f"if an older key of this host has that name, `certcast host remove {name}` there before"
        )


def _is_key_of(opened: bytes, release: Manifest) -> bool:
    from certcast.release import certificate

    try:
        return certificate.key_fits(certificate.read_key(opened), release.leaf)
    except ValueError:
        return False
