"""The sealed private keys of a release: what stands in the bucket, towards who is enrolled.

    enrolled hosts, recovery kit ──> releases/{leaf}/keys/{host}.{recipient16}.age

Reconciled like everything: what is missing is sealed, what belongs to nobody
any more is purged. The private key comes from certbot's archive, found by its leaf.

A sealed key that was damaged in the bucket is not found here: only its host can open it,
and reading a thousand objects at each run to compare them would cost more than it is
worth. The host says so, and enrolling it again seals it anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from certcast.errors import EnrolRefused, LineageUnusable, StoreError
from certcast.manifest import PRIVKEY, release_key, releases_prefix
from certcast.sealing import seal, sealed_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from certcast.sealing import Recipient
    from certcast.storage.store import Store


def reconcile(
    store: Store,
    certificate: str,
    leaf_sha256: str,
    recipients: Sequence[Recipient],
    privkey: Callable[[], bytes],
    *,
    keys: Sequence[str],
    anew: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Let exactly `recipients` have the private key of a release; return the hosts it was sealed to now.

    `keys` are the store's below the certificate. `privkey` (PEM) is called only if something is to be
    sealed; hosts in `anew` are sealed to again.
    Raises StoreError, EnrolRefused for a key that age does not take, and what `privkey` raises.
    """
    wanted = {one.object_key(certificate, leaf_sha256): one for one in recipients}
    found = {key for key in keys if key.startswith(sealed_prefix(certificate, leaf_sha256))}
    missing = [one for key, one in wanted.items() if key not in found or one.host in anew]
    if missing:
        pem = privkey()
        for one in missing:
            store.put(one.object_key(certificate, leaf_sha256), _seal(pem, one))
    # After the new ones: a host that was given another key is never without.
    for key in sorted(found - set(wanted)):
        store.purge(key)
    return tuple(one.host for one in missing)


def take_away(store: Store, certificate: str, host: str, hidden: Sequence[str] = ()) -> bool:
    """Remove what is sealed to a host in every release; False if older versions of it may be left.

    `hidden` are object keys that may have older versions though no listing shows them. A failure with one
    object doesn't keep the others; the first StoreError is raised at the end.
    """
    prefix = releases_prefix(certificate)
    keys = [key for key in store.list(prefix) if is_sealed_to(host, key)]
    gone, failures = [], []
    for key in dict.fromkeys([*keys, *hidden]):
        try:
            gone.append(store.purge(key))
        except StoreError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    return all(gone)


def is_sealed_to(host: str, object_key: str) -> bool:
    """Whether an object of a release is the private key, sealed to any identity of a host."""
    return re.fullmatch(rf".*/keys/{re.escape(host)}\.[0-9a-f]{{16}}\.age", object_key) is not None


def lay_open(store: Store, certificate: str, leaf_sha256: str, privkey: bytes) -> None:
    """Put the private key where everybody who reads the bucket can read it: encryption = "none"."""
    key = release_key(certificate, leaf_sha256, PRIVKEY)
    found = store.get(key, limit=len(privkey))
    if getattr(found, "body", None) != privkey:
        store.put(key, privkey)


def cover(store: Store, keys: Sequence[str]) -> bool:
    """Remove each private key that lies open among `keys`; return whether there was one."""
    lying_open = [key for key in keys if key.endswith(f"/{PRIVKEY}")]
    for key in lying_open:
        store.purge(key)
    return bool(lying_open)


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


def not_in_archive(certificate: str, leaf_sha256: str, hosts: str) -> LineageUnusable:
    """The error for a release whose private key this host does not have any more."""
    return LineageUnusable(
        f"{certificate}: the private key of the published release is not in certbot's archive",
        expected=f"the key of leaf {leaf_sha256[:16]}…, to seal it to {hosts}",
        found="no version of the lineage with this leaf",
        kept="what is published and served stays",
        next="was this host restored from a backup? "
        f"`certcast renew --replace {certificate} --reason superseded` gets all hosts a new one",
    )
