"""The sealed private keys of a release: what is in the bucket, towards what the enrolled hosts need.

    enrolled hosts, recovery kit ──> releases/{leaf}/keys/{host}.{recipient16}.age

- First a missing key is sealed, then the manifest is written, then keys of every release that belong to no
  host any more are purged. Anyone who may write to the bucket may put objects there that cannot be deleted,
  or very many of them: that must not keep a release from the hosts.
- Of a new release no object that lies there already counts: its leaf is public before it is published.
- A sealed key that was damaged in the bucket is not found here. Only its host can open it, and comparing a
  thousand objects at each run would cost more than it is worth. The host says so; enrolling it again seals
  the key anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from certcast.release.manifest import PRIVKEY, release_key, releases_prefix
from certcast.release.sealing import LIMIT, seal, sealed_prefix
from certcast.report.errors import EnrolRefused, LineageUnusable, StoreError, StoreTooLarge, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from certcast.release.sealing import Recipient
    from certcast.storage.store import Store


# Each takes a few requests, and the certificate's lock is held meanwhile; the next run goes on.
AT_ONCE = 1000


def seal_missing(
    store: Store,
    certificate: str,
    leaf_sha256: str,
    recipients: Sequence[Recipient],
    privkey: Callable[[], bytes],
    *,
    anew: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Let `recipients` have the private key of a release; return the hosts it was sealed to now.

    `privkey` (PEM) is called only if something is to be sealed; hosts in `anew` are sealed to again.
    Raises StoreError, EnrolRefused for a key that age does not take, and what `privkey` raises.
    """
    wanted = {recipient.object_key(certificate, leaf_sha256): recipient for recipient in recipients}
    may_be_there = {key for key, recipient in wanted.items() if recipient.host not in anew}
    found = _present(store, sealed_prefix(certificate, leaf_sha256), may_be_there)
    missing = {key: recipient for key, recipient in wanted.items() if key not in found}
    if missing:
        pem = privkey()
        for key, recipient in missing.items():
            store.put(key, _seal(pem, recipient))
    return tuple(recipient.host for recipient in missing.values())


def _present(store: Store, prefix: str, keys: set[str]) -> set[str]:
    """Return which of `keys` are in the store; asked one by one where an attacker has flooded the prefix."""
    if not keys:
        return set()
    try:
        return keys.intersection(store.list(prefix))
    except StoreUnreachable:
        return {key for key in keys if _is_there(store, key)}


def _is_there(store: Store, key: str) -> bool:
    try:
        return store.get(key, limit=LIMIT) is not None
    except StoreTooLarge:  # somebody else's: no host would read it
        return False


def strays(keys: Sequence[str], recipients: Sequence[Recipient]) -> list[str]:
    """Return which of `keys`, of any release, are private keys sealed to nobody of `recipients`."""
    wanted = {recipient.file for recipient in recipients}
    return [key for key in keys if "/keys/" in key and key.rpartition("/keys/")[2] not in wanted]


def unsealed(keys: Sequence[str]) -> list[str]:
    """Return which of `keys` are private keys that every reader of the bucket can read."""
    return [key for key in keys if key.endswith(f"/{PRIVKEY}")]


def purge(store: Store, keys: Sequence[str]) -> bool:
    """Remove objects and their older versions; False if older versions may be left.

    A refusal at one object doesn't keep the others; the first StoreError is raised at the end.
    """
    whole, refused = True, None
    for key in keys:
        try:
            whole = store.purge(key) and whole
        except StoreUnreachable:
            raise
        except StoreError as failure:
            refused = refused or failure
    if refused:
        raise refused
    return whole


def take_away(store: Store, certificate: str, host: str, hidden: Sequence[str] = ()) -> bool:
    """Remove what is sealed to a host in every release; False if older versions of it may be left.

    `hidden` are object keys that may have older versions though no listing shows them. Raises as `purge`.
    """
    prefix = releases_prefix(certificate)
    keys = [key for key in store.list(prefix) if is_sealed_to(host, key)]
    return purge(store, list(dict.fromkeys([*keys, *hidden])))


def is_sealed_to(host: str, object_key: str) -> bool:
    """Whether an object of a release is the private key, sealed to any identity of a host."""
    return re.fullmatch(rf".*/keys/{re.escape(host)}\.[0-9a-f]{{16}}\.age", object_key) is not None


def put_unsealed(store: Store, certificate: str, leaf_sha256: str, privkey: bytes) -> None:
    """Put the private key where every reader of the bucket can read it: encryption = "none"."""
    key = release_key(certificate, leaf_sha256, PRIVKEY)
    try:
        found = store.get(key, limit=len(privkey))
    except StoreTooLarge:  # somebody else's
        found = None
    if getattr(found, "body", None) != privkey:
        store.put(key, privkey)


def _seal(pem: bytes, recipient: Recipient) -> bytes:
    try:
        return seal(pem, recipient)
    except ValueError as error:
        raise EnrolRefused(
            f"the private key cannot be sealed to {recipient.host}",
            expected="an Ed25519 key that age takes as a recipient",
            found=str(error),
            kept="what is published and served stays",
            next=f"`certcast host remove {recipient.host}`, then add it with the line that "
            "`certcast identity` prints there",
        ) from None


def not_held(certificate: str, leaf_sha256: str, place: Path, hosts: str) -> LineageUnusable:
    """The error for a release whose private key this host does not have any more."""
    return LineageUnusable(
        f"{certificate}: the private key of the published release is not on this host",
        expected=f"the key of leaf {leaf_sha256[:16]}…, to seal it to {hosts}",
        found=f"no version with this leaf in {place}",
        next="was this host restored from a backup? "
        f"`certcast renew --replace {certificate} --reason superseded` gets all hosts a new one",
    )
