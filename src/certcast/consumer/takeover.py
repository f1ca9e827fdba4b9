"""One run on a host that serves: from the lock to the proof.

    lock → state → due? → manifest → newer? → fetch → digests → unseal → gate → version → derived files
         → copies, switch → nginx -t → reload → proof (switch.py) → state → prune

Whatever fails, what was served before is still served. The next run goes on from what *is*: an accepted
release that is not proved yet makes every run due and sends no ETag, so that a crash cannot hide behind the
window or behind a 304.

Imported by runs that have nothing to do: X.509, TLS and the store come late.

Not here: mail (the caller's); what may be believed (current.py), opened (fetch.py), served (gate.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from certcast.consumer.disk.copies import Copies
from certcast.consumer.disk.versions import Folder, choose_rollback, version_name
from certcast.consumer.outcome import Outcome, expired, overdue, served_text
from certcast.consumer.state import ProvedRelease, State
from certcast.host import files
from certcast.report.errors import CertcastError, NotProved

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from certcast.config.model import CertificateConfig, Config, ConsumerConfig
    from certcast.consumer.incoming.current import TrustedManifest
    from certcast.consumer.outcome import Result
    from certcast.release.manifest import Manifest
    from certcast.storage.store import Reader

# What `after` is called with, in this order; a test may end the process at each. Between "derived" and
# "snippet", and after the proof, copies.py adds its own.
STEPS = (
    "locked", "accepted", "fetched", "checked", "version", "derived",
    "snippet", "current", "tested", "reloaded", "proved", "saved", "pruned",
)  # fmt: skip


def _ignore(_: object) -> None:
    pass


def pull(
    config: Config,
    certificate: CertificateConfig,
    *,
    open_store: Callable[[], Reader],
    now: datetime,
    force: bool = False,
    progress: Callable[[str], None] = _ignore,
    after: Callable[[str], None] = _ignore,
) -> Outcome:
    """Bring one certificate on this host up to date; the caller raises the outcome's alarm, if there is one.

    `open_store` is called only when the store is to be asked. `force` ignores window and idle check, and
    tries a release again that broke handshakes. `progress` gets lines for a person, `after` the name of each
    step when it is done.

    Raises LocalFault, Busy, StoreError, ReleaseError or InstallError, all with `kept` filled in.
    """
    consumer = config.consumer or config.lacks("consumer", "certcast pull")
    folder = Folder(config.state_dir, certificate.name, consumer.nginx_of(certificate.name))
    with files.lock(folder.lock):
        state = State.read(folder.state).at(config.store.url)
        copies = Copies(folder, consumer.copies_of(certificate.name), after=after)
        takeover = _Takeover(config, consumer, certificate, folder, copies, state, now, progress, after)
        try:
            with files.reported(f"install {certificate.name}", kept="what nginx has loaded stays as it is"):
                outcome = takeover.run(open_store, force=force)
        except CertcastError as failure:
            raise takeover.with_served(failure) from failure
    alarm = outcome.alarm
    if alarm is None:
        return outcome
    if outcome.result == "installed":
        alarm = alarm.but(kept="installed and proved in this run")
    return replace(outcome, alarm=takeover.with_served(alarm))


@dataclass
class _Takeover:
    """The facts of one run; `state` follows what is on the disk.

    `lookup_failure` kept the newest manifest away, where an earlier one is taken up without it.
    """

    config: Config
    consumer: ConsumerConfig
    certificate: CertificateConfig
    folder: Folder
    copies: Copies
    state: State
    now: datetime
    progress: Callable[[str], None]
    after: Callable[[str], None]
    store: Reader | None = None
    lookup_failure: CertcastError | None = None

    def run(self, open_store: Callable[[], Reader], *, force: bool) -> Outcome:
        """Do the run in its order."""
        self.copies.settle()
        self.folder.sweep()
        self.after("locked")
        reason = "asked for" if force else self.state.why_due(self.now, self.consumer.idle_check)
        reason = reason or self._why_another_identity()
        if reason is None:
            return self._outcome("nothing due")
        self.progress(f"{self.certificate.name}: asking {self.config.store.url} ({reason})")
        trusted = self._ask(open_store)
        manifest = trusted.manifest
        if self._is_in_service(manifest):
            self._save(etag=trusted.etag)
            alarm = self._check_sealed(manifest) or expired(manifest, self.now) or overdue(manifest, self.now)
            return self._outcome("current", alarm=alarm)
        return self._install(trusted, force=force)

    def with_served(self, failure: CertcastError) -> CertcastError:
        """Return the failure with what is served now before what was kept."""
        kept = failure.kept or "nginx was not touched"
        return failure.but(kept=f"{served_text(self.state, self.now)}; {kept}")

    def _install(self, trusted: TrustedManifest, *, force: bool) -> Outcome:
        manifest = trusted.manifest
        # From here on every run is due, until the proof; and it reloads nginx, if this one is killed.
        reloaded_config = None if force else self.state.reloaded_config
        self.state = self.state.accepting(manifest.leaf.sha256)
        self._save()
        self.after("accepted")
        if not force:
            self._require_not_broken_before(manifest)
        version = self._find_version(manifest) or self._download(manifest)
        if version != self.state.reloaded_version or not self._is_in_place(version):
            reloaded_config = None
        self.folder.add_files(version, self._derived(version))
        self.after("derived")
        alarm = self.lookup_failure or expired(manifest, self.now)
        try:
            return self._put_into_service(version, trusted, reloaded_config, alarm)
        except CertcastError as failure:
            if alarm is None:
                raise
            # Mending this failure does not bring a newer release: the report says so.
            besides = f"besides, {alarm.what} ({alarm.code})"
            found = f"{failure.found}\n{besides}" if failure.found else besides
            raise failure.but(found=found) from failure

    # -- what is published

    def _ask(self, open_store: Callable[[], Reader]) -> TrustedManifest:
        """Return the manifest to go by.

        An unfinished installation is finished even when the store fails or shows something unacceptable:
        its manifest was accepted before.
        """
        from certcast.consumer.incoming import current

        try:
            self.store = open_store()
            found = current.fetch_trusted(self.store, self.config, self.certificate, self.state, self.folder)
        except CertcastError as failure:
            accepted = current.last_trusted(self.state, self.config, self.certificate.name)
            if self.state.unfinished is None or accepted is None:
                raise
            self.lookup_failure = failure
            return accepted
        self.state = replace(
            self.state,
            last_checked=self.now,
            sequence=found.manifest.sequence,
            seen=found.text,
            seen_by=found.signed_by,
            former=found.former,
            expires=found.manifest.expires,
        )
        return found

    def _is_in_service(self, manifest: Manifest) -> bool:
        """Whether the published leaf is the proved one, and every file of this host still says so."""
        proved = self.state.proved
        return (
            proved is not None
            and self.state.unfinished is None
            and proved.leaf.sha256 == manifest.leaf.sha256
            and proved.leaf.sha256 not in manifest.revoked
            and self._is_in_place(proved.version)
        )

    def _is_in_place(self, version: str) -> bool:
        """Whether every file that is written for a version is as it should be."""
        return (
            self.folder.is_pointed_at(version)
            and self.folder.has_files(version, self._derived(version))
            and self.copies.is_in_place(version)
        )

    def _why_another_identity(self) -> str | None:
        """Return why the store is to be asked though nothing is due: what lies there may not open here."""
        if self.state.sealed_to is None or self.state.sealed_to == self._identity():
            return None
        return "this host has another identity"

    def _identity(self) -> str | None:
        """Return the fingerprint of this host's identity: one file and no crypto library, at each run."""
        if self.config.store.encryption == "none":
            return None
        from certcast.release import host_identity

        return host_identity.load(self.config.identity).public.fingerprint

    def _check_sealed(self, manifest: Manifest) -> CertcastError | None:
        """Return the alarm if this host could not open the release that it serves, if it fetched it now."""
        from certcast.consumer.incoming.fetch import Fetcher

        if self.store is None:
            return None
        leaf = manifest.leaf.sha256
        try:
            sealed_to = self._identity()
            # An ETag is only comparable for the same object: a relay may make it of size and time alone.
            is_same = (leaf, sealed_to) == (self.state.sealed_leaf, self.state.sealed_to)
            fetcher = Fetcher(self.config, self.store)
            etag = fetcher.check_key(manifest, self.state.sealed_etag if is_same else None)
        except CertcastError as failure:
            return failure
        self._save(sealed_etag=etag, sealed_leaf=leaf, sealed_to=sealed_to)
        return None

    def _derived(self, version: str) -> dict[str, bytes]:
        """Return the files that the configuration wants made of a version's two."""
        if not self.consumer.derive:
            return {}
        from certcast.consumer.disk.versions import derive

        return derive(self.folder.read_files(version), self.consumer.derive)

    # -- from the bucket to a version

    def _require_not_broken_before(self, manifest: Manifest) -> None:
        """Refuse to repeat what broke handshakes: each try would break them again for a moment."""
        if self.state.broke == manifest.leaf.sha256:
            raise NotProved(
                f"{manifest.certificate}: the published release broke handshakes here and was taken back",
                expected="a release with which every handshake works",
                found=f"serial {manifest.leaf.serial}, sequence {manifest.sequence}",
                next=f"mend nginx's configuration, then run `certcast pull --now {manifest.certificate}`",
            )

    def _find_version(self, manifest: Manifest) -> str | None:
        """Return the version that an earlier run has downloaded, checked once more: time has passed."""
        from certcast.consumer.incoming import gate

        version = self.folder.find_version(manifest.leaf.sha256)
        if version is None:
            return None
        pair = self.folder.read_files(version)
        if not gate.is_published(pair, manifest):
            return None
        self._check(pair, manifest)
        return version

    def _download(self, manifest: Manifest) -> str:
        """Fetch the release into a staging folder; a version if it passes every check."""
        from certcast.consumer.incoming import gate
        from certcast.consumer.incoming.fetch import Fetcher
        from certcast.release.manifest import FULLCHAIN, PAIR, PRIVKEY

        if self.lookup_failure is not None:
            raise self.lookup_failure
        assert self.store is not None  # _ask opened it
        version = version_name(manifest.sequence, manifest.leaf.sha256)
        with self.folder.staging() as incoming:
            self.progress(f"{manifest.certificate}: fetching sequence {manifest.sequence}")
            fetcher = Fetcher(self.config, self.store)
            files.write_new(incoming / FULLCHAIN, fetcher.chain(manifest))
            gate.require_published({FULLCHAIN: (incoming / FULLCHAIN).read_bytes()}, manifest)
            privkey, etag = fetcher.privkey(manifest)
            files.write_new(incoming / PRIVKEY, privkey)
            self.after("fetched")
            # Read back: what is checked is what nginx will read.
            pair = {name: (incoming / name).read_bytes() for name in PAIR}
            gate.require_published(pair, manifest)
            self._check(pair, manifest)
            self.after("checked")
            self.folder.promote(incoming, version)
        self._save(sealed_etag=etag, sealed_leaf=manifest.leaf.sha256, sealed_to=self._identity())
        self.after("version")
        return version

    def _check(self, pair: dict[str, bytes], manifest: Manifest) -> None:
        from certcast.consumer.incoming import gate

        proved = self.state.proved
        gate.require_fit(
            pair,
            manifest,
            names=self.certificate.names,
            trust_roots=self.consumer.trust_roots,
            proved=proved.leaf if proved else None,
            now=self.now,
        )
        allowed = self.consumer.allow_key_type_change
        gate.require_key_type(pair, manifest, proved=None if allowed else self._proved_key_type())
        gate.require_changed(pair, manifest, proved, allow_reused_key=self.consumer.allow_reused_key)

    def _proved_key_type(self) -> str | None:
        """Return the type of the key that is served; of an older state, from the version itself."""
        from certcast.consumer.incoming import gate

        proved = self.state.proved
        if proved is None:
            return None
        if proved.key_type is None and proved.version in self.folder.list_versions():
            return gate.key_type(self.folder.read_files(proved.version))
        return proved.key_type

    # -- into service

    def _put_into_service(
        self,
        version: str,
        trusted: TrustedManifest,
        reloaded_config: str | None,
        alarm: CertcastError | None,
    ) -> Outcome:
        from certcast.consumer.incoming import gate
        from certcast.consumer.proof.explanation import HandshakesBroke
        from certcast.consumer.switch import Switch

        manifest, old = trusted.manifest, self.state.proved
        pair = self.folder.read_files(version)
        key_type = gate.key_type(pair)
        has_copies = bool(self.copies.entries)
        back = choose_rollback(
            self.folder, self.state, manifest, self.now, instead_of=version, copies=has_copies
        )
        previous = back.version if back else None
        # nginx may have these loaded: they stay, too (Folder.prune).
        loaded = (self.state.reloaded_version, old.version if old else None)
        self.progress(f"{manifest.certificate}: switching to version {version}")
        switch = Switch(
            self.folder,
            self.copies,
            self.consumer,
            self.certificate.names,
            version,
            previous,
            manifest.leaf.sha256,
            self.after,
            known_leaves=self.state.leaves,
            key_types=(self._proved_key_type(), key_type),
            flaw=back.flaw if back else None,
            reloaded_config=reloaded_config,
            on_reloaded=lambda config: self._save(reloaded_version=version, reloaded_config=config),
        )
        try:
            proof = switch.put_into_service()
        except HandshakesBroke:
            self._save(broke=manifest.leaf.sha256)
            raise
        self.after("proved")
        self.state = self.state.proving(ProvedRelease(manifest.leaf, version, gate.md5_of(pair), key_type))
        self._save(etag=trusted.etag, last_downloaded=self.now)
        self.after("saved")
        self.folder.prune(keep=(version, previous, *loaded))
        self.after("pruned")
        return self._outcome(
            "installed",
            f"; {proof.summary}",
            proved=proof.places,
            remarks=proof.remarks,
            previous=old.leaf if old else None,
            alarm=alarm,
        )

    def _save(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self.state.write(self.folder.state)

    def _outcome(self, result: Result, more: str = "", **rest: Any) -> Outcome:
        name, leaf = self.certificate.name, self.state.proved.leaf if self.state.proved else None
        text = f"{name}: {result}; {served_text(self.state, self.now)}{more}"
        return Outcome(name, result, leaf, text, **rest)
