"""Reconcile the certificates of the renewal host: what is, towards what should be.

    look      nothing to ask (last_look.py)? the live release, the CA's word (ARI), what was asked for
      → order     what is due, all together (ordering.py)
      → publish   whatever happened: live release against store
      → alarm     if a newer certificate should be here by now

- Nothing depends on a hook or an earlier run. A failed publication never leads to another order: the next
  run publishes what this host holds.
- A certificate of `source = "certbot"` is read and published, never ordered.
- A certificate that is replaced before its time (replacement.py) goes the same way.

Not here: installing on this host, mail and exit status (commands/), the CA's revocation (revocation.py).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.publisher.chosen_source import source_of
from certcast.renewal import last_look, replacement
from certcast.renewal.candidate import Candidate
from certcast.report.errors import Busy, CertcastError, IssuedUnusable, LineageUnusable, SourceUndecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from certcast.acme.ca import Ca
    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.publisher.record import Record
    from certcast.publisher.releases import Releases
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release, Source
    from certcast.renewal.last_look import LastLook
    from certcast.renewal.replacement import Replacement
    from certcast.storage.store import Store


@dataclass
class Renewal:
    """One run of `certcast renew`.

    `open_store` and `releases` are called where they are needed; `clock` and not one moment, since orders may
    take minutes. `urgent`: a person asks now, so the CA and the store are asked in any case. In an
    `emergency` a person waits for a replacement, which may use the last order of the week.
    """

    config: Config
    settings: RenewalConfig
    open_store: Callable[[], Store]
    releases: Callable[[CertificateConfig], Releases]
    clock: Callable[[], datetime]
    progress: Callable[[str], None]
    warn: Callable[[str], None]
    note: Callable[[str], None]
    urgent: bool = False
    emergency: bool = False
    left: list[CertcastError] = field(default_factory=list)
    """Why TXT records of this run's orders could not be removed."""
    _cas: dict[str, Ca] = field(default_factory=dict)

    def run(self, certificates: Iterable[CertificateConfig]) -> list[Candidate]:
        """Renew what is due and publish what is newer; failures of one certificate are collected with it.

        KeyboardInterrupt after a signal, with no TXT record left.
        """
        candidates = [Candidate(wanted, self.source(wanted)) for wanted in certificates]
        for candidate in candidates:
            candidate.is_idle = self._is_settled(candidate)
            if candidate.is_idle:
                self.progress(f"{candidate.wanted.name}: nothing to do")
        busy = [candidate for candidate in candidates if not candidate.is_idle]
        for candidate in busy:
            self.attempt(candidate, self.look)
        if any(candidate.is_due for candidate in busy):
            from certcast.renewal.ordering import Ordering

            Ordering(self).order(busy)
        for candidate in busy:
            self.attempt(candidate, self._publish)
        for candidate in busy:
            self.attempt(candidate, self._remember)
        return candidates

    def source(self, wanted: CertificateConfig) -> Source:
        """Return where the releases of a certificate lie on this host."""
        return source_of(
            wanted, state_dir=self.config.state_dir, certbot_config_dir=self.settings.certbot_config_dir
        )

    def ca(self, url: str | None = None) -> Ca:
        """Return the CA at this directory URL, or the configured one."""
        from certcast.acme.ca import Ca

        url = url or self.settings.directory
        if url not in self._cas:
            self._cas[url] = Ca(url, self.config.state_dir, self.settings, clock=self.clock, note=self.note)
        return self._cas[url]

    def attempt(self, candidate: Candidate, step: Callable[[Candidate], None]) -> None:
        """Do a step for one certificate; its failure is kept with it."""
        try:
            step(candidate)
        except CertcastError as failure:
            candidate.fail(failure)

    # -- nothing to do?

    def _is_settled(self, candidate: Candidate) -> bool:
        """Whether nothing needs to be asked about this certificate."""
        name = candidate.wanted.name
        if self.urgent or self.emergency:
            return False
        before = last_look.read(self.config.state_dir, name)
        if before is None:
            return False
        try:
            mark = candidate.source.mark()
        except (OSError, CertcastError):
            return False
        now = self.clock()
        if not before.settles(mark, self._surroundings, now):
            return False
        if name in self._replacements or self._has_order(candidate.wanted):
            return False
        if before.is_ca_due(now):
            before = self._ask_ca_alone(name, before, now)
        return not before.is_due_by_ca(now)

    def _ask_ca_alone(self, name: str, before: LastLook, now: datetime) -> LastLook:
        said = self._ask(before.ca_id, now)
        if said is None:
            return before
        before = before.with_word(said)
        last_look.write(self.config.state_dir, name, before)
        return before

    @cached_property
    def _surroundings(self) -> str:
        """What a look into the store was true for: configuration, host list, keys."""
        from certcast.publisher.keys.key_files import all_files

        paths = [self.config.path, self.settings.hosts_file, *all_files(self.settings.signing_key)]
        return last_look.mark_of(paths)

    @cached_property
    def _replacements(self) -> dict[str, Replacement]:
        return replacement.everything(self.config.state_dir)

    def _has_order(self, wanted: CertificateConfig) -> bool:
        """Whether a run that was killed has left an order."""
        return wanted.source == "acme" and (self.source(wanted).place / ".pending").exists()

    # -- what there is

    def look(self, candidate: Candidate) -> None:
        """Find out what is live, and decide. What cannot be read is a failure, and may be ordered anew."""
        from certcast.renewal.due import decide

        wanted, source = candidate.wanted, candidate.source
        candidate.replacement = replacement.pending(self.config.state_dir, wanted.name)
        candidate.live = candidate.due = None
        if source.exists():
            try:
                candidate.live = source.live()
                candidate.mark = source.mark()
            except (IssuedUnusable, LineageUnusable) as failure:
                candidate.failures.append(failure)
        if wanted.source == "certbot":
            if candidate.live is None and not candidate.failures:
                source.live()  # raises what is the matter
            candidate.suggestion = self._suggestion(candidate, self.clock())
            return
        if candidate.live is None and not candidate.failures:
            self._require_not_certbots(wanted)
        now = self.clock()
        candidate.suggestion = self._suggestion(candidate, now)
        candidate.stepped_back = self._published_instead(candidate)
        candidate.due = decide(
            candidate, directory=self.settings.directory, under_way=self._has_order(wanted), now=now
        )
        self.progress(f"{wanted.name}: {candidate.due.why}")

    def _require_not_certbots(self, wanted: CertificateConfig) -> None:
        """Order nothing where a certbot has the certificate: it may be renewed there."""
        from certcast.certbot.lineage import Lineage

        lineage = Lineage(self.settings.certbot_config_dir, wanted.name)
        if lineage.exists():
            raise SourceUndecided(
                f"{wanted.name}: certbot has this certificate, so none is ordered",
                expected=f"nothing of it in {lineage.config_dir}, or one word of yours",
                found=f"{lineage.config_dir}/live/{wanted.name}",
                next=f"`certcast renew --adopt {wanted.name}` takes it over without a new order; or write "
                f'source = "certbot" into its [[certificate]] in {self.config.path}, if certbot is to go on',
            )

    def _suggestion(self, candidate: Candidate, now: datetime) -> Suggestion | None:
        """Return what the CA says of the live certificate, or has said where it is not to be asked yet."""
        if candidate.live is None or not self._is_from_our_ca(candidate.live):
            return None
        before = last_look.read(self.config.state_dir, candidate.wanted.name)
        is_known = before is not None and before.live == candidate.mark and before.at <= now
        if before is not None and is_known and not self.urgent and not before.is_ca_due(now):
            return before.suggestion()
        return self._ask(candidate.ca_id, now)

    def _ask(self, ca_id: str, now: datetime) -> Suggestion | None:
        """Ask the CA; None if it is away, which is an alarm only where the CA is needed."""
        from certcast.acme.protocol.answers import NoAnswer, Problem
        from certcast.acme.renewal_info import suggestion

        try:
            return suggestion(self.ca(), ca_id, now)
        except (NoAnswer, Problem, ValueError):
            return None

    def _is_from_our_ca(self, live: Release) -> bool:
        """Whether the configured CA has issued a release, as far as that is known."""
        return live.directory in {None, self.settings.directory}

    def _published_instead(self, candidate: Candidate) -> Manifest | None:
        """Return what this host has published by a step back while `live` is held off, or None."""
        name, live = candidate.wanted.name, candidate.live
        last = self._record(name).last(self.config.store.url, name)
        is_held_off = last is not None and live is not None and live.leaf.sha256 in last.held_off
        return last if is_held_off else None

    def _record(self, name: str) -> Record:
        from certcast.publisher import record

        return record.read(self.config.state_dir / "publisher", name)

    # -- publishing

    def _publish(self, candidate: Candidate) -> None:
        """Publish what this host holds now, if it is newer; then alarm if a newer one should be here."""
        from certcast.renewal import due

        wanted = candidate.wanted
        if not candidate.source.exists():
            return  # a failure says why
        live = candidate.source.live()
        if candidate.live is None or candidate.live.leaf != live.leaf:
            candidate.suggestion = None  # it was about another certificate
        candidate.live, candidate.mark = live, candidate.source.mark()
        now = self.clock()
        published = candidate.published = replacement.publish(
            partial(self.releases, wanted), live, now=now, note=candidate.notes.append
        )
        if published.alarm is not None:
            candidate.failures.append(published.alarm)
        if published.result in {"unchanged", "re-dated"}:  # the caller tells of changes
            is_now = due.published_text(published.manifest, live, now)
            self.progress(f"{wanted.name}: already published; {is_now}")
        alarm = due.alarm(candidate, live, now)
        if alarm is not None:
            candidate.failures.append(alarm)

    def _remember(self, candidate: Candidate) -> None:
        """Keep a good look; of any other, the next run looks at everything."""
        from certcast.release import manifest

        name, live, published = candidate.wanted.name, candidate.live, candidate.published
        if candidate.failures or published is None or live is None or candidate.source.exposed():
            last_look.forget(self.config.state_dir, name)
            return
        if candidate.wanted.source == "acme":
            self._tidy(candidate, published.manifest)
        look = last_look.LastLook(
            live=candidate.mark,
            leaf=live.leaf.sha256,
            window_start=live.leaf.life.window_start,
            at=self.clock(),
            true_for=self._surroundings,
            sign_again=published.manifest.expires - manifest.EXPIRES_AFTER / 2,
            ca_id=candidate.ca_id if self._is_from_our_ca(live) else "",
        )
        if candidate.suggestion is not None:
            look = look.with_word(candidate.suggestion)
        last_look.write(self.config.state_dir, name, look)

    def _tidy(self, candidate: Candidate, published: Manifest) -> None:
        from certcast.acme.issued import Issued

        state_dir, name = self.config.state_dir, candidate.wanted.name
        named = {published.leaf.sha256, *self._record(name).leaves, *published.held_off}
        if candidate.replacement is not None:
            named |= set(candidate.replacement.leaves)  # a compromised key signs its own revocation
        # Not while another run prepares a version there; the next run tidies, too.
        with suppress(Busy), files.lock(state_dir / "renewing.lock"):
            Issued(state_dir, name).tidy(named)
