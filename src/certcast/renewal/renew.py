"""Reconcile one certificate on the renewal host: what is, towards what should be.

    due? (due.py: no lineage, other names, window, ARI, to be replaced)
      → certbot, which decides for itself too and places the order
      → whatever happened: live lineage against store → publish
      → alarm if a newer certificate should be here by now

Nothing depends on a hook having run, and a failed publish never leads to another
order: the next run publishes what certbot already holds. certbot decides by itself
when to renew; due.py only bounds the number of orders, and forces the
renewal that certbot would sleep through (ARI window in the past). A lineage that
another certbot renews through hooks is only published, never ordered.

What is to be replaced before its time (replacement.py) goes the same way: as long as an old
leaf is live, each run orders; then the new one is published, and the old ones as revoked.

Not here: installing on this host (consumer/pull.py does it), mail (cli.py), the CA's revocation
(revocation.py).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast import files
from certcast.errors import Busy, CertcastError, LineageUnusable, OrderCapReached, Overdue
from certcast.lifetime import remaining_text, utc_text
from certcast.renewal import certbot, due, lineage, orders, record, replacement
from certcast.renewal.desk import Published
from certcast.renewal.publish import publish, published_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from certcast.config import CertificateConfig, Config, RenewalConfig
    from certcast.manifest import Manifest
    from certcast.renewal.due import Due
    from certcast.renewal.lineage import Lineage
    from certcast.renewal.press import Press
    from certcast.renewal.replacement import Replacement
    from certcast.storage.store import Store

_PATIENCE = 600.0  # as long as certbot waits for another one (certbot.py)


@dataclass
class Renewed:
    """What a run did for one certificate; `failures` in the order in which they happened.

    `warnings` are about what went well, by other means than it should; `notes` tell of changes.
    """

    certificate: str
    published: Published | None = None
    failures: list[CertcastError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def renew(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    open_store: Callable[[], Store],
    press: Callable[[], Press],
    clock: Callable[[], datetime],
    progress: Callable[[str], None],
    emergency: bool = False,
) -> Renewed:
    """Renew what is due and publish what is newer; never raises a CertcastError, but collects them.

    In an `emergency` a person waits for a replacement, which may use the last order of the week.
    `press` gathers who signs and who may read. `clock` and not one moment: certbot may take minutes, and the
    new certificate's life begins after that.
    """
    done = Renewed(wanted.name)
    try:
        with _one_at_a_time(config, wanted, progress):
            _order(
                config,
                renewal,
                wanted,
                done,
                press=press,
                clock=clock,
                progress=progress,
                emergency=emergency,
            )
    except CertcastError as failure:
        done.failures.append(failure)
        return done
    now = clock()
    try:
        live = lineage.read(renewal.config_dir, wanted.name)
        done.published = _publish(
            wanted, live, open_store=open_store, press=press, now=now, note=done.notes.append
        )
        if done.published.alarm is not None:
            done.failures.append(done.published.alarm)
        if done.published.result in {"unchanged", "re-dated"}:  # the caller tells of changes
            progress(
                f"{wanted.name}: already published; {_published_text(done.published.manifest, live, now)}"
            )
        if not done.failures and now >= live.leaf.life.overdue_at:
            done.failures.append(_overdue(wanted, live, now))
    except CertcastError as failure:
        if not _said_already(failure, done, lineage.exists(renewal.config_dir, wanted.name)):
            done.failures.append(failure)
    return done


@contextmanager
def _one_at_a_time(
    config: Config, wanted: CertificateConfig, progress: Callable[[str], None]
) -> Iterator[None]:
    """Decide and order alone: a second run waits, and then finds what the first one has got.

    Publishing has a lock of its own, so that a deploy hook of certbot's waits for nobody.
    """
    lock = config.state_dir / "renewing" / f"{wanted.name}.lock"
    with ExitStack() as held:
        try:
            held.enter_context(files.lock(lock))
        except Busy:
            progress(f"{wanted.name}: another `certcast renew` is at work; waiting for it")
            held.enter_context(files.lock(lock, wait=_PATIENCE))
        yield


def _order(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    done: Renewed,
    *,
    press: Callable[[], Press],
    clock: Callable[[], datetime],
    progress: Callable[[str], None],
    emergency: bool,
) -> None:
    """Order what is due; a failure of that goes to `done`. Raises CertcastError if nothing may follow."""
    before = _live(renewal, wanted)
    # To publish the new one without what is to be revoked would be no replacement.
    asked = replacement.pending(config.state_dir, wanted.name)
    if before is None:
        press()  # a first order has time until somebody has made a signing key
    try:
        _let_certbot_renew(
            config,
            renewal,
            wanted,
            before=before,
            asked=asked,
            emergency=emergency,
            now=clock(),
            progress=progress,
            warn=done.warnings.append,
        )
    except CertcastError as failure:
        # Going on is right: an earlier run may have left something to publish.
        done.failures.append(_not_replaced(failure, asked) if _is_old(before, asked) else failure)


def publish_live(
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    open_store: Callable[[], Store],
    press: Callable[[], Press],
    now: datetime,
    note: Callable[[str], None],
) -> Published:
    """Publish what certbot has just written; for the deploy hook. `note` gets changes, in words.

    Raises LineageUnusable if it is not fresh, and whatever `publish` raises.
    """
    live = lineage.read(renewal.config_dir, wanted.name)
    lineage.require_fresh(live, now)
    return _publish(wanted, live, open_store=open_store, press=press, now=now, note=note)


def _publish(
    wanted: CertificateConfig,
    live: Lineage,
    *,
    open_store: Callable[[], Store],
    press: Callable[[], Press],
    now: datetime,
    note: Callable[[str], None],
) -> Published:
    try:
        own, store = press(), open_store()
        asked = replacement.pending(own.state_dir, wanted.name)
        if asked is None or _is_old(live, asked):
            return publish(wanted, live, store, own, now=now)
        current = published_now(wanted, store, own) if asked.published_at is None else None
        if current is not None and current.leaf.sha256 != live.leaf.sha256:
            asked = replacement.add(own.state_dir, wanted.name, current.leaf)
        done = publish(wanted, live, store, own, now=now, revoke=asked.leaves)
        following = replacement.published(own.state_dir, wanted.name, now)
        if asked.published_at is None:
            note(following.text())
        return done
    except CertcastError as failure:
        failure.kept = failure.kept or "what is published and served stays"  # a store knows only of requests
        raise


def _is_old(live: Lineage | None, asked: Replacement | None) -> bool:
    """Whether certbot still holds what is to be replaced."""
    return live is not None and asked is not None and live.leaf.sha256 in asked.leaves


def _not_replaced(failure: CertcastError, asked: Replacement | None) -> CertcastError:
    """Add to a failure of the order what it means for a replacement."""
    assert asked is not None  # there is an old one
    failure.kept = f"nothing was revoked; {failure.kept or 'what is published and served stays'}"
    more = f"the next `certcast renew` goes on with the replacement; {asked.command} does so at once"
    failure.next = f"{failure.next}\n{more}" if failure.next else more
    return failure


def _published_text(published: Manifest, live: Lineage, now: datetime) -> str:
    if published.leaf.sha256 == live.leaf.sha256:
        return live.text(now)
    back = published.leaf
    by = min(back.life.critical_at, live.leaf.life.window_start)
    return (
        f"serial {back.serial}, by a step back, valid for {remaining_text(back.not_after, now)} more; "
        f"serial {live.leaf.serial} is held off, and another one will be ordered at {utc_text(by)}"
    )


def _said_already(failure: CertcastError, done: Renewed, issued: bool) -> bool:
    """Whether an earlier failure explains this one: nothing was issued, or the same files are the trouble."""
    return any(not issued or type(failure) is type(first) is LineageUnusable for first in done.failures)


def _live(renewal: RenewalConfig, wanted: CertificateConfig) -> Lineage | None:
    """The lineage before certbot runs; None also where certbot has to mend it first."""
    try:
        return lineage.read(renewal.config_dir, wanted.name)
    except CertcastError:
        return None


def _let_certbot_renew(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    before: Lineage | None,
    asked: Replacement | None,
    emergency: bool,
    now: datetime,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    held_off = _published_instead(config, wanted, before)
    decided = due.decide(renewal, wanted, before, asked=asked, stepped_back=held_off, now=now)
    progress(f"{wanted.name}: {decided.why}")
    manager = lineage.authenticator(renewal.config_dir, wanted.name)
    if manager not in {None, certbot.PLUGIN}:
        _leave_to_other_certbot(wanted, before, decided, now)
        return
    if lineage.exists(renewal.config_dir, wanted.name):
        lineage.require_complete(renewal.config_dir, wanted.name)
    try:
        orders.begin(config.state_dir, wanted.names, now, caps=_caps(decided, emergency))
    except OrderCapReached:
        if decided.may_order:
            raise
        return  # nothing is due, so nothing is withheld
    try:
        certbot.obtain(
            config,
            renewal,
            wanted,
            force=decided.force,
            new_key=decided.new_key,
            progress=progress,
            warn=warn,
        )
    except certbot.DnsStepFailed as stopped:
        orders.strike_out(config.state_dir, wanted.names, now)
        raise stopped.failure from None
    except certbot.DnsStepInterrupted:
        orders.strike_out(config.state_dir, wanted.names, now)
        raise
    after = _live(renewal, wanted)
    if before is not None and after is not None and after.leaf == before.leaf:
        orders.strike_out(config.state_dir, wanted.names, now)


def _caps(decided: Due, emergency: bool) -> orders.Caps:
    if not decided.new_key:  # nothing is to be replaced
        return orders.USUAL
    return orders.EMERGENCY if emergency else orders.REPLACING


def _published_instead(config: Config, wanted: CertificateConfig, before: Lineage | None) -> Manifest | None:
    """Return what this host has published by a step back while the lineage is held off, or None."""
    last = record.read(config.state_dir / "publisher", wanted.name, config.store.url).manifest
    held_off = last is not None and before is not None and before.leaf.sha256 in last.held_off
    return last if held_off else None


def _leave_to_other_certbot(
    wanted: CertificateConfig, before: Lineage | None, decided: Due, now: datetime
) -> None:
    """Order nothing for a lineage that is renewed through hooks by a certbot that is already there.

    Renewing it here would write our plugin into its configuration, which that certbot does not have:
    its next run would fail. Raises Overdue where it ought to renew at once and cannot know.
    """
    if decided.force and before is not None:
        options = "--force-renewal" + (" --new-key" if decided.new_key else "")
        raise Overdue(
            f"{wanted.name}: {decided.why.partition(':')[0]}, and its own certbot has not renewed it",
            found="its authenticator is not certcast, so this run leaves it alone",
            kept=before.text(now),
            next=f"run `certbot renew --cert-name {wanted.name} {options}` with that certbot",
        )


def _overdue(wanted: CertificateConfig, live: Lineage, now: datetime) -> Overdue:
    return Overdue(
        f"{wanted.name}: due since {utc_text(live.leaf.life.window_start)}, and certbot did not renew",
        kept=live.text(now),
        next=f"run `certbot renew --cert-name {wanted.name} --dry-run` and read what it says",
    )
