"""One certificate's releases in the store, under the lock of this host.

    published manifest + this host's record ──> current ──> following ──> objects, manifest, no old releases

- What is published counts as far as its signature is ours. If it isn't, the record tells what this host had
  published, and that is put back.
- Objects come first and the manifest last: a reader never meets a manifest whose files are not there.
- The sequence (docs/adr/0005) grows when the leaf, `revoked`, `held_off` or `step_back` change, or an
  administrator says how far. Otherwise a manifest is only dated and signed anew.
- OSS has no conditional PUT, so one flock on the renewal host covers the manifest's read and write. Two
  renewal hosts for one certificate are not supported.

Not here: whether a release may be published (releases.py), who may read (hosts/sealed_keys.py).
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
    within,
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

    `warnings` tell a person what is as it should not be. `alarm` is about an object in the store that was
    neither ours nor legible: it is put right, but somebody else can write there. Or it is about what should
    be deleted there and was not.
    """

    result: Result
    manifest: Manifest
    sealed_to: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    alarm: CertcastError | None = None


@contextmanager
def open_publication(wanted: CertificateConfig, store: Store, signer: Signer) -> Iterator[Publication]:
    """Hold the lock, with everything read that is to be changed.

    Raises StoreError, ManifestInvalid or SignatureInvalid (what is published cannot be read, and this
    host has no record of its own), Busy, LocalFault.
    """
    with files.lock(signer.folder / f"{wanted.name}.lock", wait=60.0):
        yield Publication(wanted, store, signer)


class Publication:
    """One certificate under the lock: a manifest `found` in the store, which `signed_by` has signed.

    `recorded` is the last one that this host wrote. `current` is the one of the two that counts.
    """

    def __init__(self, wanted: CertificateConfig, store: Store, signer: Signer) -> None:
        self.wanted, self.store, self.signer = wanted, store, signer
        self.record: Record = records.read(signer.folder, wanted.name)
        self.recorded = self.record.last(store.url, wanted.name)
        self.alarm: CertcastError | None = None
        self.found, self.signed_by = self._read_manifest()
        if self.recorded is None and self.found is not None:
            # A bucket with more in it than can be listed keeps old releases; `put` tells of that at its end.
            with suppress(StoreError):
                self.record = records.adopt(self.record, self.found, store)
        self.current = records.latest(self.found, self.recorded)

    def manifest_for(self, release: Release, now: datetime) -> Manifest:
        """Return the current manifest with another release, or the first one; `put` numbers and dates it."""
        digests = {FULLCHAIN: Digest.of(release.fullchain)}
        if self.current is not None:
            return replace(self.current, leaf=release.leaf, files=digests, step_back=False)
        return Manifest(
            store=self.store.url,
            certificate=self.wanted.name,
            sequence=0,
            published_at=now,
            expires=now + manifest.EXPIRES_AFTER,
            publisher=self.signer.publisher,
            leaf=release.leaf,
            files=digests,
        )

    def put(self, following: Manifest, live: Release, now: datetime, at_least: int) -> Published:
        """Bring the store to `following`: the release's objects, then the manifest; then tidy up."""
        highest = max(self.record.sequence, self.current.sequence if self.current else 0)
        changes = self.current is None or following != self.current or at_least >= highest
        leaf = following.leaf.sha256
        is_new = self.current is None or leaf != self.current.leaf.sha256
        mended = self._put_chain(leaf, live, is_new=is_new)
        sealed_to, warnings = self.seal(leaf, live, is_new=is_new)
        if changes:
            sequence = max(highest, at_least) + 1
            following = replace(following, sequence=sequence, publisher=self.signer.publisher)
        if changes or following.expires - now < manifest.EXPIRES_AFTER / 2:
            following = replace(following, published_at=now, expires=now + manifest.EXPIRES_AFTER)
        result = self._result(following, changes=changes, mended=mended)
        if following != self.found or self.signed_by != self.signer.working.fingerprint:
            self._put_manifest(following)
        elif not self.record.arrived and following == self.recorded:
            self._remember(replace(self.record, arrived=True))  # after a lost answer, or a crash
        try:
            with within(kept=f"{self.wanted.name}: what is published is right, and signed"):
                warnings += self._tidy(following)
        except StoreError as failure:
            self.alarm = self.alarm or failure
        return Published(result, following, sealed_to, warnings, self.alarm)

    def seal(
        self,
        leaf: str,
        live: Release | None,
        *,
        anew: frozenset[str] = frozenset(),
        is_new: bool = False,
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Seal the key of a release to every enrolled host that lacks it; return the hosts, and warnings."""
        name, store = self.wanted.name, self.store
        warnings = self.signer.warnings()
        if self.signer.encryption == "none":
            sealed_keys.put_unsealed(store, name, leaf, self._release(leaf, live).privkey)
            return (), tuple(warnings)
        recipients = self.signer.recipients(name)
        if all(recipient.host == RECOVERY for recipient in recipients):
            warnings.append("no host is enrolled, so none can open what is published: `certcast host add`")
        if is_new:
            anew = frozenset(recipient.host for recipient in recipients)
        sealed_to = sealed_keys.seal_missing(
            store, name, leaf, recipients, lambda: self._release(leaf, live).privkey, anew=anew
        )
        return sealed_to, tuple(warnings)

    def _release(self, leaf: str, live: Release | None) -> Release:
        """Return the release with this leaf; after a step back it is not the live one."""
        if live is not None and live.leaf.sha256 == leaf:
            return live
        source = self.signer.source(self.wanted)
        found = source.find(leaf)
        if found is None:
            raise sealed_keys.not_held(self.wanted.name, leaf, source.place, "hosts that lack it")
        return found

    def _put_chain(self, leaf: str, live: Release, *, is_new: bool) -> bool:
        """Put fullchain.pem where it isn't byte for byte; return whether that was needed.

        A consumer sends its operator here otherwise. Other octets in a published release are another
        writer's: that is an alarm.
        """
        release = self._release(leaf, live)
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
            octets = "other octets than this host had published"
            self.alarm = self.alarm or self._foreign(DigestMismatch, FULLCHAIN, octets)
        return True

    def _result(self, following: Manifest, *, changes: bool, mended: bool) -> Result:
        if changes or (self.found is not None and self.found.leaf != following.leaf):
            return "published"
        if self.found is None or self.found.sequence != following.sequence or mended:
            return "repaired"
        return "unchanged" if following == self.found else "re-dated"

    def _put_manifest(self, following: Manifest) -> None:
        document = manifest.write(following)
        _require_small(following, document)
        _require_readable(following, document)
        signed = signing.sign(document, self.signer.signing_key)
        # Does the private key belong to the public one that hosts were given?
        signing.verify(signed, [self.signer.working], what=f"{self.wanted.name}: the new manifest")
        # The sequence is remembered before it is used: a crash after the PUT must not use it twice.
        sequence = max(self.record.sequence, following.sequence)
        leaves = records.append(self.record.leaves, following)
        self._remember(records.Record(sequence, leaves, document.decode(), arrived=False))
        self.store.put(manifest.manifest_key(self.wanted.name), signed)
        self._remember(replace(self.record, arrived=True))

    def _tidy(self, current: Manifest) -> tuple[str, ...]:
        """Remove from the store what nobody may have or needs any more; return warnings. Raises StoreError.

        This comes last: an object that cannot be deleted must not keep a release from the hosts.
        """
        name = self.wanted.name
        keys = self.store.list(manifest.releases_prefix(name))
        is_sealing = self.signer.encryption != "none"
        unsealed = sealed_keys.unsealed(keys) if is_sealing else []
        strays = sealed_keys.strays(keys, self.signer.recipients(name)) if is_sealing else []
        outdated = records.outdated(self.record, current)
        old = [
            key for leaf in outdated for key in keys if key.startswith(manifest.release_key(name, leaf, ""))
        ]
        doomed = list(dict.fromkeys([*unsealed, *strays, *old]))
        whole = sealed_keys.purge(self.store, doomed[: sealed_keys.AT_ONCE])
        if outdated and len(doomed) <= sealed_keys.AT_ONCE:
            self._remember(records.without(self.record, outdated))
        warnings = []
        if unsealed:
            warnings.append(
                "a private key lay open in the bucket, from a time without sealing, and is gone now; whoever "
                f"could read the bucket may have it: `certcast renew --replace {name} --reason superseded`"
            )
        if (unsealed or strays) and not whole:
            warnings.append(
                "older versions of deleted keys may be left in the bucket: delete there every version of\n"
                + "\n".join(f"{self.store.url}/{key}" for key in [*unsealed, *strays][:10])
            )
        return tuple(warnings)

    def _remember(self, record: Record) -> None:
        self.record = record
        records.write(self.signer.folder, self.wanted.name, record)

    # -- what is published

    def _read_manifest(self) -> tuple[Manifest | None, str | None]:
        """Return what is published, and whose signature it has; neither if only our record is legible.

        What somebody else has written there is no different from what a disk has garbled.
        """
        name, signer, recorded = self.wanted.name, self.signer, self.recorded
        key = manifest.manifest_key(name)
        try:
            found = self.store.get(key, limit=manifest.LIMIT)
            if found is None:
                return None, None
            assert not isinstance(found, Unchanged)  # no condition was sent
            if signer.former and recorded and (words := _signed_by_former(found.body, signer.former)):
                if words == manifest.write(recorded):
                    return recorded, signer.former.fingerprint
                if not self.record.arrived and _is_before(words, recorded):
                    return None, None  # the last one never came; before it, this was its own
            verified = signing.verify(found.body, signer.pinned, what=f"{name}: the published manifest")
            found_there = manifest.read(verified.document, store=self.store.url, certificate=name)
        except (ManifestInvalid, SignatureInvalid, StoreTooLarge) as error:
            if recorded is not None:
                self.alarm = self._foreign(type(error), "the manifest", error.found or error.what)
                return None, None
            raise type(error)(
                f"{name}: the published manifest cannot be believed, and this host did not write it",
                found=error.found or error.what,
                kept="nothing was published",
                next="does this host replace another one? Then store.publishers here needs its public key. "
                f"If not, look at {self.store.url}/{key}; if nobody needs it, delete it and run again",
            ) from None
        self._alarm_if_replayed(found_there)
        return found_there, verified.publisher

    def _alarm_if_replayed(self, found: Manifest) -> None:
        """Keep an alarm if an older manifest of ours stands where the last one had arrived."""
        last = self.recorded
        if last is None or not self.record.arrived:  # a run that was interrupted leaves the one before
            return
        if (found.sequence, found.expires) < (last.sequence, last.expires):
            dated = f"sequence {found.sequence}, published {utc_text(found.published_at)}: an earlier one"
            self.alarm = self._foreign(ManifestReplayed, "the manifest", dated)

    def _foreign(self, kind: type[CertcastError], what: str, found: str) -> CertcastError:
        return kind(
            f"{self.wanted.name}: {what} in the store was not what this host had published last",
            expected="its own, as it had put it there",
            found=found,
            kept="this run has put its own back; hosts refused the other one",
            next=f"who else may write to {self.store.url}? Withdraw that right (`certcast policy "
            "publisher`), and look at the bucket's access log",
        )


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
