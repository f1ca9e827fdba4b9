"""Whether certbot may place an order now, and whether we make it.

    no lineage yet · other names than configured · in the window · the CA suggests it   → it may
    to be replaced · the CA's window has ended · a step back has lasted too long        → it must

certbot decides for itself too when to renew; what stands here bounds the number of orders, and
forces the renewal that certbot would sleep through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast import certificate
from certcast.errors import CertbotFailed
from certcast.lifetime import remaining_text, utc_text
from certcast.renewal import ari

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.config import CertificateConfig, RenewalConfig
    from certcast.manifest import Manifest
    from certcast.renewal.lineage import Lineage
    from certcast.renewal.replacement import Replacement


@dataclass(frozen=True)
class Due:
    """Whether certbot may place an order now, whether we make it, with another key, and why."""

    may_order: bool
    force: bool
    why: str
    new_key: bool = False


def decide(
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    before: Lineage | None,
    *,
    asked: Replacement | None,
    stepped_back: Manifest | None,
    now: datetime,
) -> Due:
    """Decide by the lineage, what was `asked`, and the CA's word.

    `stepped_back` is what is published in place of the lineage, which is held off. Raises CertbotFailed if
    due and the CA cannot be reached.
    """
    if before is None:
        try:
            ari.require_reachable(renewal.server)  # certbot's own failure would count as an order
        except ari.CaUnreachable as error:
            raise _unreachable(wanted, error, kept="what is published and served stays") from None
        return Due(True, False, "no certificate yet: asking the CA for the first one")
    if asked is not None and before.leaf.sha256 in asked.leaves:
        return Due(True, True, f"to be replaced ({asked.reason}): asking the CA for another", new_key=True)
    if stepped_back is not None and now >= stepped_back.leaf.life.critical_at:
        left = remaining_text(stepped_back.leaf.not_after, now)
        return Due(True, True, f"the release that was stepped back to is valid for {left} more: renewing now")
    if set(before.leaf.names) != set(wanted.names):
        due = Due(True, False, f"the configured names differ from {', '.join(before.leaf.names)}")
    elif before.leaf.life.in_window(now):
        due = Due(True, False, f"valid for {remaining_text(before.leaf.not_after, now)} more: due")
    else:
        due = Due(False, False, f"valid for {remaining_text(before.leaf.not_after, now)} more: not due")
    return _with_the_ca_s_word(due, renewal, wanted, before, now)


def _with_the_ca_s_word(
    due: Due, renewal: RenewalConfig, wanted: CertificateConfig, before: Lineage, now: datetime
) -> Due:
    try:
        window = ari.suggested_window(renewal.server, certificate.read_chain(before.fullchain).leaf)
    except ari.CaUnreachable as error:
        if not due.may_order:
            return due
        raise _unreachable(wanted, error, kept=before.text(now)) from None
    if window is not None and window.end <= now:
        # Such a window is how a CA announces that it will revoke.
        return Due(True, True, f"the CA wanted it replaced by {utc_text(window.end)}: renewing now")
    if window is not None and window.start <= now:
        return Due(True, due.force, f"the CA suggests to replace it since {utc_text(window.start)}")
    return due


def _unreachable(wanted: CertificateConfig, error: ari.CaUnreachable, *, kept: str) -> CertbotFailed:
    return CertbotFailed(
        f"{wanted.name}: the CA cannot be reached",
        found=str(error),
        kept=kept,
        next="look at renewal.server and the network of this host, then run "
        f"`certcast renew {wanted.name}`; the timer does",
    )
