"""Whether another certificate is to be ordered now, and the alarm where one should be here already.

    none yet · an order under way · to be replaced · other names · another CA
    in the renewal window · the CA suggests it (ARI) · a step back has lasted too long      → order

Pure: a candidate comes in, a decision or an alarm goes out. The caps are not here (acme/limits.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.release.lifetime import remaining_text, utc_text
from certcast.report.errors import Overdue

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release
    from certcast.renewal.candidate import Candidate

_STAYS = "what is published and served stays"


@dataclass(frozen=True)
class Due:
    """Whether to order, why in words, and whether with another key.

    `remark` is what a person is told of an order for which this host has no reason of its own.
    """

    order: bool
    why: str
    new_key: bool = False
    remark: str | None = None


def decide(candidate: Candidate, *, directory: str, under_way: bool, now: datetime) -> Due:
    """Decide by the live release, by a replacement that was asked for, and by what the CA suggests.

    `directory` is the configured one. `under_way`: a run that was killed has left an order.
    """
    live, replacement = candidate.live, candidate.replacement
    if live is None:
        return Due(True, "no certificate yet: ordering the first one")
    if replacement is not None and candidate.is_to_be_replaced:
        return Due(True, f"to be replaced ({replacement.reason}): ordering another one", new_key=True)
    if under_way:
        return Due(True, "an order is under way: going on with it")
    is_moved = live.directory is not None and live.directory != directory
    back = candidate.stepped_back
    if back is not None and now >= back.leaf.life.critical_at:
        left = remaining_text(back.leaf.not_after, now)
        why = f"the release that was stepped back to is valid for {left} more: ordering another one"
    elif set(live.leaf.names) != set(candidate.wanted.names):
        why = f"the configured names differ from {', '.join(live.leaf.names)}: ordering"
    elif is_moved:
        why = f"issued by {live.directory}, and renewal.directory is {directory} now: ordering"
    elif live.leaf.life.in_window(now):
        why = f"valid for {remaining_text(live.leaf.not_after, now)} more: due"
    else:
        left = remaining_text(live.leaf.not_after, now)
        by_the_ca = _by_the_ca(live, candidate.suggestion, now)
        return by_the_ca or Due(False, f"valid for {left} more: not due")
    return Due(True, why, remark=why if is_moved else None)


def _by_the_ca(live: Release, suggestion: Suggestion | None, now: datetime) -> Due | None:
    if suggestion is None or suggestion.end is None:
        return None
    explained = f"; the CA explains: {suggestion.explanation_url}" if suggestion.explanation_url else ""
    chosen = suggestion.chosen(live.leaf.sha256)
    if suggestion.end <= now:
        # Such a window is how a CA announces that it will revoke.
        why = f"the CA wanted it replaced by {utc_text(suggestion.end)}"
    elif chosen is not None and chosen <= now:
        why = f"the CA suggests to replace it since {utc_text(chosen)}"
    else:
        return None
    return Due(True, f"{why}: ordering", remark=f"{why}{explained}")


def published_text(published: Manifest, live: Release, now: datetime) -> str:
    """Return what is published now, for a person: the live release, or one by a step back."""
    if published.leaf.sha256 == live.leaf.sha256:
        return live.text(now)
    back = published.leaf
    by = min(back.life.critical_at, live.leaf.life.window_start)
    return (
        f"serial {back.serial}, by a step back, valid for {remaining_text(back.not_after, now)} more; "
        f"serial {live.leaf.serial} is held off, and another one will be ordered at {utc_text(by)}"
    )


# -- alarms: by its own life, by the CA's word or by a person's wish, the next one should be here


def alarm(candidate: Candidate, live: Release, now: datetime) -> Overdue | None:
    """Return the alarm for a live certificate that should have been renewed by now; None if it should not.

    A failed order is the better alarm than "did not renew it".
    """
    wanted, suggestion = candidate.wanted, candidate.suggestion
    if wanted.source == "certbot" and candidate.is_to_be_replaced:
        return _not_replaced(candidate, live)
    if wanted.source == "certbot" and suggestion is not None and suggestion.is_over(now):
        return _not_renewed_by_certbot(wanted, live, suggestion, now)
    if not candidate.failures and now >= live.leaf.life.overdue_at:
        return _not_renewed(wanted, live, now)
    return None


def _not_replaced(candidate: Candidate, live: Release) -> Overdue:
    assert candidate.replacement is not None
    name = candidate.wanted.name
    return Overdue(
        f"{name}: is to be replaced ({candidate.replacement.reason}), and only its own certbot can order",
        expected="another certificate, with another key",
        found=f'source = "certbot", still serial {live.leaf.serial}',
        kept=f"nothing was revoked; {_STAYS}",
        next=f"`certbot renew --cert-name {name} --force-renewal --new-key` with that certbot; its "
        "deploy hook, or the next `certcast renew`, publishes the new one and then revokes the old one",
    )


def _not_renewed_by_certbot(
    wanted: CertificateConfig, live: Release, said: Suggestion, now: datetime
) -> Overdue:
    """certbot before 4.1 never asks the CA, and later ones ask every six hours."""
    assert said.end is not None
    why = f"\nthe CA explains why: {said.explanation_url}" if said.explanation_url else ""
    return Overdue(
        f"{wanted.name}: the CA wanted it replaced by {utc_text(said.end)}, and its own certbot did not",
        expected="another certificate: by such a window a CA announces that it will revoke",
        found=live.text(now) + why,
        kept=_STAYS,
        next=f"`certbot renew --cert-name {wanted.name} --force-renewal`; its deploy hook, or the next "
        "`certcast renew`, publishes the new one",
    )


def _not_renewed(wanted: CertificateConfig, live: Release, now: datetime) -> Overdue:
    by = "its own certbot" if wanted.source == "certbot" else "certcast"
    name = wanted.name
    return Overdue(
        f"{name}: due since {utc_text(live.leaf.life.window_start)}, and {by} did not renew it",
        kept=live.text(now),
        next=f"run `certbot renew --cert-name {name} --dry-run` and read what it says"
        if wanted.source == "certbot"
        else f"`certcast renew --now {name}` shows why",
    )
