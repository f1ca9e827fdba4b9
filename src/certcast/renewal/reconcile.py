"""Reconcile the certificates of the renewal host: what is, towards what should be.

    look      nothing to ask (last_look.py)? the live release, the CA's word (ARI), what was asked for
      → order     what is due, all together (acme/issuance.py)
      → publish   whatever happened: live release against store
      → alarm     if a newer certificate should be here by now

Nothing depends on a hook or an earlier run. A failed publication never leads to another order: the next run
publishes what this host holds. A certificate of `source = "certbot"` is read and published, never ordered.
Nothing is ordered that could not be published: before an order, the store is read and the signing key looked
at.

What is to be replaced before its time (replacement.py) goes the same way: as long as an old leaf is live,
each run orders; then the new one is published, and the old ones as revoked.

Not here: installing on this host (consumer/takeover.py does it), mail (cli.py), the CA's revocation
(revocation.py).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.publisher.chosen_source import source_of
from certcast.renewal import last_look, replacement
from certcast.renewal.candidate import Look, Renewed, certificate_id_of, due
from certcast.report.errors import Busy, CertcastError, IssuedUnusable, LineageUnusable, SourceUndecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from certcast.acme.ca import Ca
    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.publisher.signer import Signer
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release, Source
    from certcast.renewal.last_look import Looked
    from certcast.renewal.replacement import Replacement
    from certcast.storage.store import Store

_STAYS = "what is published and served stays"


@dataclass
class Renewal:
    """One run of `certcast renew`.

    `open_store` and `signer` are called where they are needed; `clock` and not one moment, since orders may
    take minutes. `urgent`: a person asks now, so the CA and the store are asked in any case. In an
    `emergency` a person waits for a replacement, which may use the last order of the week.
    """

    config: Config
    settings: RenewalConfig
    open_store: Callable[[], Store]
    signer: Callable[[], Signer]
    clock: Callable[[], datetime]
    progress: Callable[[str], None]
    warn: Callable[[str], None]
    note: Callable[[str], None]
    urgent: bool = False
    emergency: bool = False
    left: list[CertcastError] = field(default_factory=list)
    """Why TXT records of this run's orders could not be removed."""
    _cas: dict[str, Ca] = field(default_factory=dict)

    def run(self, certificates: Iterable[CertificateConfig]) -> list[Renewed]:
        """Renew what is due and publish what is newer; failures of one certificate are collected with it.

        KeyboardInterrupt after a signal, with no TXT record left.
        """
        looks, results = [], []
        for wanted in certificates:
            done = Renewed(wanted)
            results.append(done)
            look = Look(wanted, done, self.source(wanted))
            if self._is_settled(look):
                done.idle = True
                self.progress(f"{wanted.name}: nothing to do")
            else:
                looks.append(look)
        for look in looks:
            self.collected(look, self.look)
        if due(looks):
            from certcast.renewal.ordering import Ordering

            Ordering(self).order(looks)
        for look in looks:
            self.collected(look, self._publish)
        for look in looks:
            self.collected(look, self._remember)
        return results

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

    def collected(self, look: Look, step: Callable[[Look], None]) -> None:
        """Do a step for one certificate; its failure is kept with it."""
        try:
            step(look)
        except CertcastError as failure:
            look.fail(failure)

    # -- nothing to do?

    def _is_settled(self, look: Look) -> bool:
        """Whether nothing needs to be asked about this certificate."""
        if self.urgent or self.emergency:
            return False
        found = last_look.read(self.config.state_dir, look.wanted.name)
        if found is None:
            return False
        try:
            mark = look.source.mark()
        except (OSError, CertcastError):
            return False
        now = self.clock()
        if not found.settles(mark, self._surroundings, now):
            return False
        if look.wanted.name in self._replacements or self._under_way(look.wanted):
            return False
        if found.is_ca_due(now):
            found = self._asked_again(look, found, now)
        return not found.is_due_by_ca(now)

    def _asked_again(self, look: Look, found: Looked, now: datetime) -> Looked:
        """Ask the CA alone; one that is away is an alarm only where it is needed."""
        from certcast.acme.protocol.answers import NoAnswer, Problem
        from certcast.acme.renewal_info import suggestion

        try:
            found = found.with_word(suggestion(self.ca(), found.ca_id, now))
        except (NoAnswer, Problem, ValueError):
            return found
        last_look.write(self.config.state_dir, look.wanted.name, found)
        return found

    @property
    def _surroundings(self) -> str:
        """What a look into the store was true for: configuration, host list, keys."""
        if self._mark is None:
            from certcast.publisher.keys.key_files import all_files

            paths = [self.config.path, self.settings.hosts_file, *all_files(self.settings.signing_key)]
            self._mark = last_look.mark_of(paths)
        return self._mark

    _mark: str | None = None

    @property
    def _replacements(self) -> dict[str, Replacement]:
        if self._asked is None:
            self._asked = replacement.everything(self.config.state_dir)
        return self._asked

    _asked: dict[str, Replacement] | None = None

    def _under_way(self, wanted: CertificateConfig) -> bool:
        return wanted.source == "acme" and (self.source(wanted).place / ".pending").exists()

    # -- what there is

    def look(self, look: Look) -> None:
        """Find out what is live, and decide. What cannot be read is a failure, and may be ordered anew."""
        from certcast.renewal.due import decide

        wanted, source = look.wanted, look.source
        look.asked = replacement.pending(self.config.state_dir, wanted.name)
        look.live = look.decided = None
        if source.exists():
            try:
                look.live = source.live()
                look.mark = source.mark()
            except (IssuedUnusable, LineageUnusable) as failure:
                look.done.failures.append(failure)
        if wanted.source == "certbot":
            if look.live is None and not look.done.failures:
                source.live()  # raises what is the matter
            look.suggestion = self._ask_ca(look, self.clock())
            return
        if look.live is None and not look.done.failures:
            self._require_not_certbots(wanted)
        now = self.clock()
        look.suggestion = self._ask_ca(look, now)
        look.decided = decide(
            wanted,
            look.live,
            directory=self.settings.directory,
            under_way=self._under_way(wanted),
            asked=look.asked,
            stepped_back=self._published_instead(wanted, look.live),
            suggestion=look.suggestion,
            now=now,
        )
        self.progress(f"{wanted.name}: {look.decided.why}")

    def _require_not_certbots(self, wanted: CertificateConfig) -> None:
        """Order nothing where a certbot has the certificate: it may be renewed there."""
        from certcast.certbot.lineage import Lineage

        lineage = Lineage(self.settings.certbot_config_dir, wanted.name)
        if lineage.exists():
            raise SourceUndecided(
                f"{wanted.name}: certbot has this certificate, so none is ordered",
                expected=f"nothing of it in {lineage.config_dir}, or one word of yours",
                found=f"{lineage.config_dir}/live/{wanted.name}",
                kept=_STAYS,
                next=f"`certcast renew --adopt {wanted.name}` takes it over without a new order; or write "
                f'source = "certbot" into its [[certificate]] in {self.config.path}, if certbot is to go on',
            )

    def _ask_ca(self, look: Look, now: datetime) -> Suggestion | None:
        """Return what the CA says of the live certificate, or has said where it is not to be asked yet."""
        if look.live is None or not self._is_from_our_ca(look.live):
            return None
        before = last_look.read(self.config.state_dir, look.wanted.name)
        known = before is not None and before.live == look.mark and before.at <= now
        if before is not None and known and not self.urgent and not before.is_ca_due(now):
            return before.suggestion()
        from certcast.acme.protocol.answers import NoAnswer, Problem
        from certcast.acme.renewal_info import suggestion

        try:
            return suggestion(self.ca(), certificate_id_of(look.live), now)
        except (NoAnswer, Problem, ValueError):
            return None  # a CA that is away is an alarm only where it is needed

    def _is_from_our_ca(self, live: Release) -> bool:
        """Whether the configured CA has issued a release, as far as that is known."""
        return live.directory in {None, self.settings.directory}

    def _published_instead(self, wanted: CertificateConfig, live: Release | None) -> Manifest | None:
        """Return what this host has published by a step back while `live` is held off, or None."""
        from certcast.publisher import record

        last = record.read(self.config.state_dir / "publisher", wanted.name, self.config.store.url).manifest
        held_off = last is not None and live is not None and live.leaf.sha256 in last.held_off
        return last if held_off else None

    # -- publishing

    def _publish(self, look: Look) -> None:
        """Publish what this host holds now, if it is newer; then alarm if a newer one should be here."""
        from certcast.renewal.overdue import certbot_must_renew, certbot_must_replace, overdue, published_text
        from certcast.renewal.publishing import publish_release

        wanted, done = look.wanted, look.done
        if not look.source.exists():
            return  # a failure says why
        live = look.source.live()
        if look.live is None or look.live.leaf != live.leaf:
            look.suggestion = None  # it was about another certificate
        look.live, look.mark = live, look.source.mark()
        now = self.clock()
        done.published = publish_release(
            wanted, live, open_store=self.open_store, signer=self.signer, now=now, note=done.notes.append
        )
        if done.published.alarm is not None:
            done.failures.append(done.published.alarm)
        if done.published.result in {"unchanged", "re-dated"}:  # the caller tells of changes
            self.progress(
                f"{wanted.name}: already published; {published_text(done.published.manifest, live, now)}"
            )
        if wanted.source == "certbot" and look.is_old:
            done.failures.append(certbot_must_replace(look))
        elif wanted.source == "certbot" and look.suggestion is not None and look.suggestion.is_over(now):
            done.failures.append(certbot_must_renew(wanted, live, look.suggestion, now))
        elif not done.failures and now >= live.leaf.life.overdue_at:
            done.failures.append(overdue(wanted, live, now))

    def _remember(self, look: Look) -> None:
        """Keep a good look; of any other, the next run looks at everything."""
        from certcast.release import manifest

        done, state_dir, now = look.done, self.config.state_dir, self.clock()
        if done.failures or done.published is None or look.live is None or look.source.exposed():
            last_look.forget(state_dir, look.wanted.name)
            return
        if look.wanted.source == "acme":
            self._tidy(look, done.published.manifest)
        kept = last_look.Looked(
            live=look.mark,
            leaf=look.live.leaf.sha256,
            window_start=look.live.leaf.life.window_start,
            at=now,
            true_for=self._surroundings,
            sign_again=done.published.manifest.expires - manifest.EXPIRES_AFTER / 2,
            ca_id=certificate_id_of(look.live) if self._is_from_our_ca(look.live) else "",
        )
        if look.suggestion is not None:
            kept = kept.with_word(look.suggestion)
        last_look.write(state_dir, look.wanted.name, kept)

    def _tidy(self, look: Look, published: Manifest) -> None:
        from certcast.acme.issued import Issued
        from certcast.publisher import record

        state_dir, name = self.config.state_dir, look.wanted.name
        kept = record.read(state_dir / "publisher", name, self.config.store.url)
        named = {published.leaf.sha256, *kept.leaves, *published.held_off}
        if look.asked is not None:
            named |= set(look.asked.leaves)  # a compromised key signs its own revocation
        # Not while another run prepares a version there; the next run tidies, too.
        with suppress(Busy), files.lock(state_dir / "renewing.lock"):
            Issued(state_dir, name).tidy(named)
