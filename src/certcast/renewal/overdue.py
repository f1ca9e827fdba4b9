"""What is told of a certificate that is late, or stepped back.

A certificate is overdue where its successor should be here by now: by its own life, by the CA's word, or by
a person's wish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.release.lifetime import remaining_text, utc_text
from certcast.report.errors import Overdue

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.acme.renewal_info import Suggestion
    from certcast.config.model import CertificateConfig
    from certcast.release.manifest import Manifest
    from certcast.release.source import Release
    from certcast.renewal.candidate import Look

_STAYS = "what is published and served stays"


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


def certbot_must_replace(look: Look) -> Overdue:
    """Return the alarm for a certificate that only its own certbot can replace."""
    assert look.asked is not None
    assert look.live is not None
    name = look.wanted.name
    return Overdue(
        f"{name}: is to be replaced ({look.asked.reason}), and only its own certbot can order",
        expected="another certificate, with another key",
        found=f'source = "certbot", still serial {look.live.leaf.serial}',
        kept=f"nothing was revoked; {_STAYS}",
        next=f"`certbot renew --cert-name {name} --force-renewal --new-key` with that certbot; its "
        "deploy hook, or the next `certcast renew`, publishes the new one and then revokes the old one",
    )


def certbot_must_renew(wanted: CertificateConfig, live: Release, said: Suggestion, now: datetime) -> Overdue:
    """Return the alarm for a window of the CA that is over.

    certbot before 4.1 never asks the CA, and later ones ask every six hours.
    """
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


def overdue(wanted: CertificateConfig, live: Release, now: datetime) -> Overdue:
    """Return the alarm for a release whose window has begun too long ago."""
    by = "its own certbot" if wanted.source == "certbot" else "certcast"
    name = wanted.name
    return Overdue(
        f"{name}: due since {utc_text(live.leaf.life.window_start)}, and {by} did not renew it",
        kept=live.text(now),
        next=f"run `certbot renew --cert-name {name} --dry-run` and read what it says"
        if wanted.source == "certbot"
        else f"`certcast renew --now {name}` shows why",
    )
