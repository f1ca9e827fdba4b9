"""Ask the CA to revoke what was replaced (replacement.py), once it is due.

Hosts give up an old leaf because it is published as revoked. The CA's revocation stops a thief who uses the
key elsewhere, so nothing waits for it: the next `certcast renew` asks a CA that failed again.

A request is repeatable: a CA that says "already revoked" has done what was wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.release import certificate
from certcast.renewal import replacement
from certcast.report.errors import CertcastError, RenewalError, RevocationFailed

if TYPE_CHECKING:
    from certcast.renewal.reconcile import Renewal
    from certcast.renewal.replacement import OldLeaf, Reason
    from certcast.storage.store import Store


def carry_out(renewal: Renewal) -> tuple[list[str], list[CertcastError]]:
    """Let the CA revoke what is due; return what was done, in words, and what failed.

    Raises LocalFault if the list cannot be read.
    """
    done: list[str] = []
    failures: list[CertcastError] = []
    now, state_dir = renewal.clock(), renewal.config.state_dir
    for name, request in replacement.everything(state_dir).items():
        if request.due is None or now < request.due:
            continue
        for old in request.olds:
            serial = f"{name}: serial {old.serial}"
            try:
                if old.not_after > now:
                    renewal.progress(f"{serial}: asking the CA to revoke it ({request.reason})")
                    _revoke(renewal, name, old, request.reason)
                    done.append(f"{serial} is revoked at the CA ({request.reason})")
                # An expired one is left alone: Boulder refuses it, and clients do, too.
                replacement.forget(state_dir, name, old)
            except CertcastError as failure:
                failures.append(failure)
    return done, failures


def _revoke(renewal: Renewal, name: str, old: OldLeaf, reason: Reason) -> None:
    """Sign with the certificate's own key where that is right, or the account has not ordered it.

    A compromised key signs for itself: that proves it is one, needs no account, and lets the CA refuse the
    key ever after (Boulder, ra/ra.go, RevokeCertByKey). It also makes the CA record keyCompromise, whatever
    was asked, so for other reasons the account signs, where there is one.
    """
    from certcast.acme.account import recorded_uri
    from certcast.acme.protocol.answers import Problem, explained

    pem = (old.pem or _read_from_store(renewal.open_store(), name, old)).encode("ascii")
    ca = renewal.ca(old.directory)
    privkey = _find_key(renewal, name, old)
    by_key = privkey is not None and (reason == "keyCompromise" or recorded_uri(ca.folder) is None)
    try:
        with explained(name, f"revoking serial {old.serial}"):
            try:
                ca.revoke(pem, privkey=privkey if by_key else None, reason=reason)
            except Problem as problem:
                if by_key or privkey is None or problem.type not in {"unauthorized", "accountDoesNotExist"}:
                    raise
                # Another account has ordered it, one whose key is lost, say.
                ca.revoke(pem, privkey=privkey, reason=reason)
    except RenewalError as failure:
        raise RevocationFailed(
            f"{name}: the CA has not revoked serial {old.serial}",
            found=failure.found or failure.what,
            next="the next `certcast renew` asks again; if it is the reason that the CA does not take, "
            f"`certcast renew --replace {name} --reason superseded` goes on with another one",
        ) from None


def _find_key(renewal: Renewal, name: str, old: OldLeaf) -> bytes | None:
    """Return the private key of an old leaf; None if it is not here, or `name` is configured no more."""
    for wanted in renewal.config.certificates:
        if wanted.name == name:
            found = renewal.source(wanted).find(old.sha256)
            return None if found is None else found.privkey
    return None


def _read_from_store(store: Store, name: str, old: OldLeaf) -> str:
    """Return a leaf that was published, and that this host does not hold; nothing else that lies there."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from certcast.release.manifest import FILE_LIMIT, FULLCHAIN, release_key

    key = release_key(name, old.sha256, FULLCHAIN)
    body: bytes = getattr(store.get(key, limit=FILE_LIMIT), "body", b"")
    try:
        leaf = certificate.read_chain(body).leaf
        found = certificate.describe(leaf).sha256
    except ValueError:
        found = None
    if found != old.sha256:
        raise RevocationFailed(
            f"{name}: the certificate with serial {old.serial} is to be revoked, and is not here",
            expected=f"it in the store, {key}",
            found="another certificate" if found else "none",
            next="find it by its serial in a Certificate Transparency search, revoke it by `certbot revoke "
            "--cert-path FILE`, then take it out of state_dir/revocations.json",
        )
    return leaf.public_bytes(Encoding.PEM).decode("ascii")
