"""One run on a host that serves: from the lock to the proof.

    lock → state → due? → manifest → newer? → fetch → digests → unseal → gate → version → derived files
         → copies, switch → nginx -t → reload → proof (switch.py) → state → prune

Whatever fails, what was served before is still served, and the next run goes on
from what *is*: an accepted release that is not proved yet makes every run due and
sends no ETag, so that a crash cannot hide behind the window or behind a 304.

A run that has done its work may still end with an alarm: nothing is sealed to this host any
more, the manifest has expired, or a newer certificate is overdue. The work comes first.

Not here: mail (the caller's); what may be believed (current.py), opened (fetch.py), served (gate.py).

Imported by runs that have nothing to do: X.509, TLS and the store come late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from certcast.consumer import outcome as outcomes
from certcast.consumer import state as memory
from certcast.consumer.disk.copies import Copies
from certcast.consumer.disk.versions import Folder, version_name
from certcast.host import files
from certcast.report.errors import CertcastError, NotProved

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from certcast.config.model import CertificateConfig, Config, ConsumerConfig
    from certcast.consumer.incoming.current import Published
    from certcast.consumer.outcome import Outcome
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
    installed: Callable[[Outcome], None] = _ignore,
) -> Outcome:
    """Bring one certificate on this host up to date.

    `open_store` is called only when there is something to look at. `force` ignores
    window and idle check, and tries a release again that broke handshakes.
    `progress` gets lines for a person, `after` the name of each step when it is done.
    `installed` gets the outcome of an installation at once, since the run may
    still end with an alarm.

    Raises LocalFault, Busy, StoreError, ReleaseError, InstallError or Overdue, all
    with `kept` filled in.
    """
    consumer = config.consumer or config.lacks("consumer", "certcast pull")
    folder = Folder(config.state_dir, certificate.name, consumer.nginx_of(certificate.name))
    with files.lock(folder.lock):
        state = memory.load(folder.state).at(config.store.url)
        copies = Copies(folder, consumer.copies_of(certificate.name), after=after)
        run = _Run(config, consumer, certificate, folder, copies, state, now, progress, after)
        try:
            with files.reported(f"install {certificate.name}", kept="what nginx has loaded stays as it is"):
                outcome, alarm = run.go(open_store, force=force)
            if outcome.result == "installed":
                installed(outcome)
            if alarm is not None:
                if outcome.result == "installed":
                    alarm.kept = "installed and proved in this run"
                raise alarm
        except CertcastError as error:
            error.kept = f"{outcomes.served(run.state, now)}; {error.kept or 'nginx was not touched'}"
            raise
    return outcome


@dataclass
class _Run:
    """The facts of one run; `state` follows what is on the disk."""

    config: Config
    consumer: ConsumerConfig
    certificate: CertificateConfig
    folder: Folder
    copies: Copies
    state: memory.State
    now: datetime
    progress: Callable[[str], None]
    after: Callable[[str], None]
    store: Reader | None = None

    def go(self, open_store: Callable[[], Reader], *, force: bool) -> tuple[Outcome, CertcastError | None]:
        """Do the run in its order; return what it came to, and the alarm that it must still end with."""
        self.copies.settle()
        self.folder.sweep()
        self.after("locked")
        reason = "asked for" if force else memory.due(self.state, self.now, self.consumer.idle_check)
        reason = reason or self._another_identity()
        if reason is None:
            return self._came_to("nothing due"), None
        self.progress(f"{self.certificate.name}: asking {self.config.store.url} ({reason})")
        published, trouble = self._look(open_store)
        manifest = published.manifest
        if self._in_service(manifest):
            self._save(etag=published.etag)
            alarm = self._not_sealed_to_us(manifest) or outcomes.expired(manifest, self.now)
            return self._came_to("current"), alarm or outcomes.overdue(manifest, self.now)
        # From here on every run is due, until the proof; and it reloads nginx, if this one is killed.
        standing_with = None if force else self.state.standing_with
        self.state = self.state.accepting(manifest.leaf.sha256)
        self._save()
        self.after("accepted")
        if not force:
            self._require_not_broken_before(manifest)
        version = self._held(manifest) or self._download(manifest, trouble)
        if version != self.state.standing or not self._stands(version):
            standing_with = None
        self.folder.add_files(version, self._derived(version))
        self.after("derived")
        alarm = trouble or outcomes.expired(manifest, self.now)
        try:
            return self._put_into_service(version, published, standing_with), alarm
        except CertcastError as failure:
            if alarm is not None:  # who mends the one should know that no newer release can come
                besides = f"besides, {alarm.what} ({alarm.code})"
                failure.found = f"{failure.found}\n{besides}" if failure.found else besides
            raise

    # -- what is published

    def _look(self, open_store: Callable[[], Reader]) -> tuple[Published, CertcastError | None]:
        """Return the manifest to go by, and the trouble that kept a newer one away.

        An unfinished installation is finished even when the store fails or shows
        something unacceptable: its manifest was accepted before.
        """
        from certcast.consumer.incoming import current

        try:
            self.store = open_store()
            found = current.look(self.store, self.config, self.certificate, self.state, self.folder)
        except CertcastError as trouble:
            accepted = current.last_seen(self.state, self.config, self.certificate.name)
            if self.state.unfinished is None or accepted is None:
                raise
            return accepted, trouble
        self.state = replace(
            self.state,
            last_checked=self.now,
            sequence=found.manifest.sequence,
            seen=found.text,
            seen_by=found.signed_by,
            former=found.former,
            expires=found.manifest.expires,
        )
        return found, None

    def _in_service(self, manifest: Manifest) -> bool:
        """Whether the published leaf is the proved one, and every file of this host still says so."""
        proved = self.state.proved
        return (
            proved is not None
            and self.state.unfinished is None
            and proved.leaf.sha256 == manifest.leaf.sha256
            and proved.leaf.sha256 not in manifest.revoked
            and self._stands(proved.version)
        )

    def _stands(self, version: str) -> bool:
        """Whether every file that is written for a version is as it should be."""
        return (
            self.folder.is_pointed_at(version)
            and self.folder.has_files(version, self._derived(version))
            and self.copies.is_in_place(version)
        )

    def _another_identity(self) -> str | None:
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

    def _not_sealed_to_us(self, manifest: Manifest) -> CertcastError | None:
        """Return the alarm if this host could not open the release that it serves, if it fetched it now."""
        from certcast.consumer.incoming.fetch import Fetcher

        if self.store is None:
            return None
        state = self.state
        try:
            ours = {"sealed_leaf": manifest.leaf.sha256, "sealed_to": self._identity()}
            # Of another object the ETag says nothing: a relay may make it of size and time alone.
            same = ours == {"sealed_leaf": state.sealed_leaf, "sealed_to": state.sealed_to}
            etag = Fetcher(self.config, self.store).look_at_sealed(
                manifest, state.sealed_etag if same else None
            )
        except CertcastError as error:
            return error
        self._save(sealed_etag=etag, **ours)
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

    def _held(self, manifest: Manifest) -> str | None:
        """Return the version that an earlier run has downloaded, checked once more: time has passed."""
        from certcast.consumer.incoming import gate

        version = self.folder.find_version(manifest.leaf.sha256)
        if version is None:
            return None
        pair = self.folder.read_files(version)
        if not gate.published(pair, manifest):
            return None
        self._check(pair, manifest)
        return version

    def _download(self, manifest: Manifest, trouble: CertcastError | None) -> str:
        """Fetch the release into a staging folder; a version if it passes every check."""
        from certcast.consumer.incoming import gate
        from certcast.consumer.incoming.fetch import Fetcher
        from certcast.release.manifest import FULLCHAIN, PAIR, PRIVKEY

        if trouble is not None:
            raise trouble
        assert self.store is not None  # _look opened it, or there was trouble
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

    def _put_into_service(self, version: str, published: Published, standing_with: str | None) -> Outcome:
        from certcast.consumer import switch
        from certcast.consumer.disk.versions import choose_rollback
        from certcast.consumer.incoming import gate
        from certcast.consumer.proof import explanation

        manifest, old = published.manifest, self.state.proved
        pair = self.folder.read_files(version)
        key_type = gate.key_type(pair)
        back = choose_rollback(
            self.folder,
            self.state,
            manifest,
            self.now,
            instead_of=version,
            copies=bool(self.copies.entries),
        )
        previous = back.version if back else None
        # nginx may have these loaded: they stay, too (Folder.prune).
        loaded = (self.state.standing, old.version if old else None)
        self.progress(f"{manifest.certificate}: switching to version {version}")
        change = switch.Change(
            self.folder,
            self.copies,
            version,
            previous,
            manifest.leaf.sha256,
            ours=self.state.leaves,
            key_types=(self._proved_key_type(), key_type),
            flaw=back.flaw if back else None,
            standing_with=standing_with,
            stands=lambda configuration: self._save(standing=version, standing_with=configuration),
        )
        try:
            seen = switch.put_into_service(change, self.consumer, self.certificate.names, after=self.after)
        except explanation.HandshakesBroke:
            self._save(broke=manifest.leaf.sha256)
            raise
        self.after("proved")
        self.state = self.state.proving(memory.Proved(manifest.leaf, version, gate.md5_of(pair), key_type))
        self._save(etag=published.etag, last_downloaded=self.now)
        self.after("saved")
        self.folder.prune(keep=(version, previous, *loaded))
        self.after("pruned")
        outcome = self._came_to("installed")
        return replace(
            outcome,
            proved=seen.places,
            remarks=seen.remarks,
            previous=old.leaf if old else None,
            text=f"{outcome.text}; {seen.summary}",
        )

    def _save(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        memory.save(self.folder.state, self.state)

    def _came_to(self, result: Literal["nothing due", "current", "installed"]) -> Outcome:
        return outcomes.of(self.certificate.name, result, self.state, self.now)
