"""One certificate's releases in the store, under the lock of this host.

    published manifest + this host's record ──> current ──> following ──> objects, manifest, no old releases

What is published counts as far as its signature is ours; if it isn't, the record tells what this
host had published, and it is put back. Objects come first and the manifest last, so that a reader
never meets a manifest whose files are not there.

OSS has no conditional PUT, so one flock on the renewal host covers the manifest's
read and write; two renewal hosts for one certificate are not supported.

Rules of the sequence (docs/adr/0005): it grows when the leaf, `revoked`, `held_off` or `step_back`
change, or an administrator says how far; otherwise a manifest is only dated and signed anew.

Not here: whether a release may be published (publish.py), who may read (sealed_keys.py).
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from certcast.host import files
from certcast.publisher import record as records
from certcast.publisher.hosts import sealed_keys
from certcast.release import manifest, signing
from certcast.release.lifetime import utc_text
from certcast.release.manifest import FULLCHAIN, Digest, Manifest
from certcast.release.sealing import RECOVERY
from certcast.report.errors import (
    DigestMismatch,
    ManifestInvalid,
    ManifestReplayed,
    SignatureInvalid,
    StoreError,
    StoreTooLarge,
)
from certcast.storage.store import Object, Unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from certcast.config.model import CertificateConfig
    from certcast.publisher.record import Record
    from certcast.publisher.signer import Signer
    from certcast.release.source import Release
    from certcast.release.ssh_keys import PublicKey
    from certcast.report.errors import CertcastError
    from certcast.storage.store import Store

# An SSH signature by an Ed25519 key has some 300 octets in armor.
_SIGNATURE = 1024

Result = Literal["unchanged", "re-dated", "repaired", "published", "stepped back"]


@dataclass(frozen=True)
class Published:
    """What was found or done: `sealed_to` are the hosts that got the private key now.

    `warnings` are for a person, about what is as it should not be. `alarm` is about what stood in the
    store and was neither ours nor legible: it is put right, but somebody can write there. Or it is about
    what should be deleted there and was not.
    """

    result: Result
    manifest: Manifest
    sealed_to: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    alarm: CertcastError | None = None


@contextmanager
def open_desk(wanted: CertificateConfig, store: Store, signer: Signer) -> Iterator[Desk]:
    """Hold the lock, with everything read that is to be changed.

    Raises StoreError, ManifestInvalid or SignatureInvalid (what is published cannot be read, and this
    host has no record of its own), Busy, LocalFault.
    """
    with files.lock(signer.folder / f"{wanted.name}.lock", wait=60.0):
        record = records.read(signer.folder, wanted.name, store.url)
        found, signed_by, trouble = _read_manifest(wanted, store, signer, record)
        if record.manifest is None and found is not None:
            # A bucket with more in it than can be listed keeps old releases; that is told at the end.
            with suppress(StoreError):
                record = records.adopted(record, found, store)
        current = records.latest(found, record.manifest)
        yield Desk(wanted, store, signer, record, found, signed_by, current, trouble)


@dataclass
class Desk:
    """One certificate under the lock: `found` in the store, signed by `signed_by`; `current` counts."""

    wanted: CertificateConfig
    store: Store
    signer: Signer
    record: Record
    found: Manifest | None
    signed_by: str | None
    current: Manifest | None
    trouble: CertcastError | None

    def first(self, release: Release, now: datetime) -> Manifest:
        """Return the manifest of a certificate that was never published; `put` numbers it."""
        return Manifest(
            store=self.store.url,
            certificate=self.wanted.name,
            sequence=0,
            published_at=now,
            expires=now + manifest.EXPIRES_AFTER,
            publisher=self.signer.publisher,
            leaf=release.leaf,
            files={FULLCHAIN: Digest.of(release.fullchain)},
        )

    def next(self, current: Manifest, release: Release) -> Manifest:
        """Return `current` with another release; `put` numbers and dates it."""
        digests = {FULLCHAIN: Digest.of(release.fullchain)}
        return replace(current, leaf=release.leaf, files=digests, step_back=False)

    def put(self, following: Manifest, release: Release, now: datetime, at_least: int) -> Published:
        """Bring the store to `following`: the release's objects, then the manifest; then tidy up."""
        highest = max(self.record.sequence, self.current.sequence if self.current else 0)
        changes = self.current is None or following != self.current or at_least >= highest
        leaf = following.leaf.sha256
        is_new = self.current is None or leaf != self.current.leaf.sha256
        mended = self._put_chain(leaf, release, is_new=is_new)
        sealed_to, warnings = self.seal(leaf, release, is_new=is_new)
        if changes:
            sequence = max(highest, at_least) + 1
            following = replace(following, sequence=sequence, publisher=self.signer.publisher)
        if changes or following.expires - now < manifest.EXPIRES_AFTER / 2:
            following = replace(following, published_at=now, expires=now + manifest.EXPIRES_AFTER)
        result = self._result(following, changes=changes, mended=mended)
        if following != self.found or self.signed_by != self.signer.working.fingerprint:
            self._put_manifest(following)
        elif not self.record.arrived and following == self.record.manifest:
            self._remember(replace(self.record, arrived=True))  # after a lost answer, or a crash
        try:
            warnings += self._tidy(following)
        except StoreError as failure:
            failure.kept = failure.kept or f"{self.wanted.name}: what is published is right, and signed"
            return Published(result, following, sealed_to, warnings, self.trouble or failure)
        return Published(result, following, sealed_to, warnings, self.trouble)

    def _tidy(self, current: Manifest) -> tuple[str, ...]:
        """Remove from the store what nobody may have or needs any more; return warnings. Raises StoreError.

        At last: whatever cannot be deleted must not keep a release from the hosts.
        """
        name = self.wanted.name
        keys = self.store.list(manifest.releases_prefix(name))
        sealing = self.signer.encryption != "none"
        opened = sealed_keys.lying_open(keys) if sealing else []
        strays = sealed_keys.strays(keys, self.signer.recipients(name)) if sealing else []
        outdated = records.outdated(self.record, current)
        old = [
            key for leaf in outdated for key in keys if key.startswith(manifest.release_key(name, leaf, ""))
        ]
        doomed = list(dict.fromkeys([*opened, *strays, *old]))
        whole = sealed_keys.purge(self.store, doomed[: sealed_keys.AT_ONCE])
        if outdated and len(doomed) <= sealed_keys.AT_ONCE:
            self._remember(records.without(self.record, outdated))
        warnings = []
        if opened:
            warnings.append(
                "a private key lay open in the bucket, from a time without sealing, and is gone now; whoever "
                f"could read the bucket may have it: `certcast renew --replace {name} --reason superseded`"
            )
        if (opened or strays) and not whole:
            warnings.append(
                "older versions of deleted keys may be left in the bucket: delete there every version of\n"
                + "\n".join(f"{self.store.url}/{key}" for key in [*opened, *strays][:10])
            )
        return tuple(warnings)

    def _result(self, following: Manifest, *, changes: bool, mended: bool) -> Result:
        if changes or (self.found is not None and self.found.leaf != following.leaf):
            return "published"
        if self.found is None or self.found.sequence != following.sequence or mended:
            return "repaired"
        return "unchanged" if following == self.found else "re-dated"

    def _put_chain(self, leaf: str, live: Release, *, is_new: bool) -> bool:
        """Put fullchain.pem where it isn't byte for byte; return whether that was needed.

        A consumer sends its operator here otherwise. A release that is not the live one,
        after a step back, comes from where this host keeps its releases. Other octets in a published
        one are another writer's: that is told.
        """
        release = live if live.leaf.sha256 == leaf else self._held(leaf)
        key = manifest.release_key(self.wanted.name, leaf, FULLCHAIN)
        try:
            found = self.store.get(key, limit=len(release.fullchain))
            body = found.body if isinstance(found, Object) else None
        except StoreTooLarge:
            body = b""
        if body == release.fullchain:
            return False
        self.store.put(key, release.fullchain)
        if body is not None and not is_new:
            found_there = DigestMismatch("", found="other octets than this host had published")
            self.trouble = self.trouble or _foreign(self.wanted, self.store, found_there, what=FULLCHAIN)
        return True

    def seal(
        self,
        leaf: str,
        live: Release | None,
        *,
        anew: frozenset[str] = frozenset(),
        is_new: bool = False,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Let who is enrolled have the key of a release; return the hosts, and warnings."""
        name, store = self.wanted.name, self.store

        def privkey() -> bytes:
            return (live if live and live.leaf.sha256 == leaf else self._held(leaf)).privkey

        warnings = self.signer.warnings()
        if self.signer.encryption == "none":
            sealed_keys.lay_open(store, name, leaf, privkey())
            return (), tuple(warnings)
        recipients = self.signer.recipients(name)
        if all(one.host == RECOVERY for one in recipients):
            warnings.append("no host is enrolled, so none can open what is published: `certcast host add`")
        if is_new:
            anew = frozenset(one.host for one in recipients)
        return sealed_keys.seal_missing(store, name, leaf, recipients, privkey, anew=anew), tuple(warnings)

    def _held(self, leaf: str) -> Release:
        source = self.signer.source(self.wanted)
        found = source.find(leaf)
        if found is None:
            raise sealed_keys.not_held(self.wanted.name, leaf, source.place, "hosts that lack it")
        return found

    def _put_manifest(self, following: Manifest) -> None:
        document = manifest.write(following)
        _require_small(following, document)
        _require_readable(following, document)
        signed = signing.sign(document, self.signer.signing_key)
        # Does the private key belong to the public one that hosts were given?
        signing.verify(signed, [self.signer.working], what=f"{self.wanted.name}: the new manifest")
        # The sequence is remembered before it is used: a crash after the PUT must not use it twice.
        sequence = max(self.record.sequence, following.sequence)
        leaves = records.appended(self.record.leaves, following)
        self._remember(records.Record(sequence, leaves, following, arrived=False))
        self.store.put(manifest.manifest_key(self.wanted.name), signed)
        self._remember(replace(self.record, arrived=True))

    def _remember(self, record: Record) -> None:
        self.record = record
        records.write(self.signer.folder, self.wanted.name, record)


def _require_small(following: Manifest, document: bytes) -> None:
    most = manifest.LIMIT - _SIGNATURE
    if len(document) > most:
        names, listed = len(following.leaf.names), len(following.held_off) + len(following.revoked)
        raise ManifestInvalid(
            f"{following.certificate}: the manifest would be larger than hosts read",
            expected=f"at most {most:,} octets",
            found=f"{len(document):,}: {names:,} names, {listed:,} leaves held off or revoked",
            kept="what is published and served stays",
            next="divide the names over several certificates; or begin one under another name",
        )


def _require_readable(following: Manifest, document: bytes) -> None:
    """Refuse what readers refuse: hosts would be stuck, and this host's own record unreadable."""
    try:
        manifest.read(document, store=following.store, certificate=following.certificate)
    except ManifestInvalid as error:
        raise ManifestInvalid(
            f"{following.certificate}: no host would take this manifest",
            expected=error.expected,
            found=error.found,
            kept="what is published and served stays",
            next="a sequence beyond its end comes of a wrong --at-least, or of a thief who had the key: "
            "docs/runbook.md#the-renewal-host-burned-down",
        ) from None


def _read_manifest(
    wanted: CertificateConfig, store: Store, signer: Signer, record: Record
) -> tuple[Manifest | None, str | None, CertcastError | None]:
    """Return what is published, and whose signature it has; or the trouble if only our record is legible.

    What somebody else has written there is no different from what a disk has garbled.
    """
    key = manifest.manifest_key(wanted.name)
    try:
        found = store.get(key, limit=manifest.LIMIT)
        if found is None:
            return None, None, None
        assert not isinstance(found, Unchanged)  # no condition was sent
        if signer.former and record.manifest and (words := _signed_by_former(found.body, signer.former)):
            if words == manifest.write(record.manifest):
                return record.manifest, signer.former.fingerprint, None
            if not record.arrived and _is_before(words, record.manifest):
                return None, None, None  # the last one never came; before it, this was its own
        verified = signing.verify(found.body, signer.pinned, what=f"{wanted.name}: the published manifest")
        found_there = manifest.read(verified.document, store=store.url, certificate=wanted.name)
        return found_there, verified.publisher, _replayed(wanted, store, found_there, record)
    except (ManifestInvalid, SignatureInvalid, StoreTooLarge) as error:
        if record.manifest is not None:
            return None, None, _foreign(wanted, store, error, what="the manifest")
        raise type(error)(
            f"{wanted.name}: the published manifest cannot be believed, and this host did not write it",
            found=error.found or error.what,
            kept="nothing was published",
            next="does this host replace another one? Then store.publishers here needs its public key. "
            f"If not, look at {store.url}/{key}; if nobody needs it, delete it and run again",
        ) from None


def _signed_by_former(body: bytes, former: PublicKey) -> bytes | None:
    """Return what the key has signed that this host had before its keys were exchanged; None if it has not.

    Of that only this host's own last words count.
    """
    try:
        return signing.verify(body, [former], what="the published manifest").document
    except SignatureInvalid:
        return None


def _is_before(document: bytes, last: Manifest) -> bool:
    try:
        found = manifest.read(document, store=last.store, certificate=last.certificate)
    except ManifestInvalid:
        return False
    return found.sequence <= last.sequence


def _replayed(
    wanted: CertificateConfig, store: Store, found: Manifest, record: Record
) -> CertcastError | None:
    """Return the alarm if an older manifest of ours stands where the last one had arrived."""
    last = record.manifest
    if last is None or not record.arrived:  # a run that was interrupted leaves the one before
        return None
    if (found.sequence, found.expires) >= (last.sequence, last.expires):
        return None
    dated = f"sequence {found.sequence}, published {utc_text(found.published_at)}: an earlier one"
    return _foreign(wanted, store, ManifestReplayed("", found=dated), what="the manifest")


def _foreign(wanted: CertificateConfig, store: Store, error: CertcastError, *, what: str) -> CertcastError:
    return type(error)(
        f"{wanted.name}: {what} in the store was not what this host had published last",
        expected="its own, as it had put it there",
        found=error.found or error.what,
        kept="this run has put its own back; hosts refused the other one",
        next=f"who else may write to {store.url}? Withdraw that right (`certcast policy publisher`), "
        "and look at the bucket's access log",
    )
