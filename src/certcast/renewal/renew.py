"""Reconcile one certificate on the renewal host: what is, towards what should be.

    due? (no lineage, other names, window, ARI)
      → certbot, which decides for itself too and places the order
      → whatever happened: live lineage against store → publish
      → alarm if a newer certificate should be here by now

Nothing depends on a hook having run, and a failed publish never leads to another
order: the next run publishes what certbot already holds. certbot decides by itself
when to renew; what stands here only bounds the number of orders, and forces the
renewal that certbot would sleep through (ARI window in the past). A lineage that
another certbot renews through hooks is only published, never ordered.

Not here: installing on this host (consumer/pull.py does it), mail (cli.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast import certificate
from certcast.errors import CertbotFailed, CertcastError, LineageUnusable, OrderCapReached, Overdue
from certcast.lifetime import remaining_text, utc_text
from certcast.renewal import ari, certbot, lineage, orders
from certcast.renewal.publish import Published, publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from certcast.config import CertificateConfig, Config, RenewalConfig
    from certcast.renewal.lineage import Lineage
    from certcast.renewal.press import Press
    from certcast.storage.store import Store


@dataclass
class Renewed:
    """What a run did for one certificate; `failures` in the order in which they happened.

    `warnings` are about what went well, by other means than it should.
    """

    certificate: str
    published: Published | None = None
    failures: list[CertcastError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Due:
    """Whether certbot may place an order now, whether we make it, and why, for a person."""

    may_order: bool
    force: bool
    why: str


def renew(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    open_store: Callable[[], Store],
    press: Callable[[], Press],
    clock: Callable[[], datetime],
    progress: Callable[[str], None],
) -> Renewed:
    """Renew what is due and publish what is newer; never raises a CertcastError, but collects them.

    `press` gathers who signs and who may read. `clock` and not one moment: certbot may take minutes, and the
    new certificate's life begins after that.
    """
    done = Renewed(wanted.name)
    before = _live(renewal, wanted)
    try:
        _let_certbot_renew(
            config,
            renewal,
            wanted,
            before=before,
            now=clock(),
            progress=progress,
            warn=done.warnings.append,
        )
    except CertcastError as failure:
        # Going on is right: an earlier run may have left something to publish.
        done.failures.append(failure)
    now = clock()
    try:
        live = lineage.read(renewal.config_dir, wanted.name)
        done.published = _publish(wanted, live, open_store=open_store, press=press, now=now)
        if done.published.result in {"unchanged", "re-dated"}:  # the caller tells of changes
            progress(f"{wanted.name}: already published; {_still(live, now)}")
        if not done.failures and now >= live.leaf.life.overdue_at:
            done.failures.append(_overdue(wanted, live, now))
    except CertcastError as failure:
        if not _said_already(failure, done, lineage.exists(renewal.config_dir, wanted.name)):
            done.failures.append(failure)
    return done


def publish_live(
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    open_store: Callable[[], Store],
    press: Callable[[], Press],
    now: datetime,
) -> Published:
    """Publish what certbot has just written; for the deploy hook.

    Raises LineageUnusable if it is not fresh, and whatever `publish` raises.
    """
    live = lineage.read(renewal.config_dir, wanted.name)
    lineage.require_fresh(live, now)
    return _publish(wanted, live, open_store=open_store, press=press, now=now)


def _publish(
    wanted: CertificateConfig,
    live: Lineage,
    *,
    open_store: Callable[[], Store],
    press: Callable[[], Press],
    now: datetime,
) -> Published:
    try:
        return publish(wanted, live, open_store(), press(), now=now)
    except CertcastError as failure:
        failure.kept = failure.kept or "what is published and served stays"  # a store knows only of requests
        raise


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
    now: datetime,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    due = _due(renewal, wanted, before, now)
    progress(f"{wanted.name}: {due.why}")
    manager = lineage.authenticator(renewal.config_dir, wanted.name)
    if manager not in {None, certbot.PLUGIN}:
        _leave_to_other_certbot(wanted, before, due, now)
        return
    if lineage.exists(renewal.config_dir, wanted.name):
        lineage.require_complete(renewal.config_dir, wanted.name)
    try:
        orders.begin(config.state_dir, wanted.names, now)
    except OrderCapReached:
        if due.may_order:
            raise
        return  # nothing is due, so nothing is withheld
    try:
        certbot.obtain(config, renewal, wanted, force=due.force, progress=progress, warn=warn)
    except certbot.DnsStepFailed as stopped:
        orders.strike_out(config.state_dir, wanted.names, now)
        raise stopped.failure from None
    after = _live(renewal, wanted)
    if before is not None and after is not None and after.leaf == before.leaf:
        orders.strike_out(config.state_dir, wanted.names, now)


def _leave_to_other_certbot(
    wanted: CertificateConfig, before: Lineage | None, due: Due, now: datetime
) -> None:
    """Order nothing for a lineage that is renewed through hooks by a certbot that is already there.

    Renewing it here would write our plugin into its configuration, which that certbot does not have:
    its next run would fail. Raises Overdue where it ought to renew at once and cannot know.
    """
    if due.force and before is not None:
        raise Overdue(
            f"{wanted.name}: {due.why.partition(':')[0]}, and the certbot that manages it has not renewed",
            found="its authenticator is not certcast, so this run leaves it alone",
            kept=_still(before, now),
            next=f"run `certbot renew --cert-name {wanted.name} --force-renewal` with that certbot",
        )


def _still(live: Lineage, now: datetime) -> str:
    return f"serial {live.leaf.serial}, valid for {remaining_text(live.leaf.not_after, now)} more"


def _due(renewal: RenewalConfig, wanted: CertificateConfig, before: Lineage | None, now: datetime) -> Due:
    """Decide by the lineage and the CA's word. Raises CertbotFailed if due and the CA cannot be reached."""
    if before is None:
        due = Due(True, False, "no certificate yet: asking the CA for the first one")
    elif set(before.leaf.names) != set(wanted.names):
        due = Due(True, False, f"the configured names differ from {', '.join(before.leaf.names)}")
    elif before.leaf.life.in_window(now):
        due = Due(True, False, f"valid for {remaining_text(before.leaf.not_after, now)} more: due")
    else:
        due = Due(False, False, f"valid for {remaining_text(before.leaf.not_after, now)} more: not due")
    if before is None:
        return due
    try:
        window = ari.suggested_window(renewal.server, certificate.read_chain(before.fullchain).leaf)
    except ari.CaUnreachable as error:
        if not due.may_order:
            return due
        raise CertbotFailed(
            f"{wanted.name}: the CA cannot be reached",
            found=str(error),
            kept=_still(before, now),
            next=f"run `certcast renew {wanted.name}` later; the timer does",
        ) from None
    if window is not None and window.end <= now:
        # Such a window is how a CA announces that it will revoke.
        return Due(True, True, f"the CA wanted it replaced by {utc_text(window.end)}: renewing now")
    if window is not None and window.start <= now:
        return Due(True, due.force, f"the CA suggests to replace it since {utc_text(window.start)}")
    return due


def _overdue(wanted: CertificateConfig, live: Lineage, now: datetime) -> Overdue:
    return Overdue(
        f"{wanted.name}: due since {utc_text(live.leaf.life.window_start)}, and certbot did not renew",
        kept=_still(live, now),
        next=f"run `certbot renew --cert-name {wanted.name} --dry-run` and read what it says",
    )
