"""When the CA wants a certificate replaced (ACME Renewal Information, RFC 9773).

One GET without an account or a key. The answer only ever makes a renewal earlier: without a usable answer,
certcast's own schedule holds (RFC 9773, 4.3.3). Retry-After is obeyed, between a minute and a day.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509

    from certcast.acme.ca import Ca

_USUALLY = timedelta(hours=6)  # Let's Encrypt's Retry-After
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True)
class Suggestion:
    """The CA's answer: `suggestedWindow` in UTC, or None; its reason; the moment for the next question."""

    ask_again: datetime
    start: datetime | None = None
    end: datetime | None = None
    explanation_url: str | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether the window has ended, by which a CA announces that it will revoke."""
        return self.end is not None and self.end <= now

    def chosen(self, leaf_sha256: str) -> datetime | None:
        """Return the moment in the window at which to renew (RFC 9773, 4.2); None without a window.

        The leaf's digest chooses it: each run chooses the same, and a thousand clients don't come at once.
        """
        if self.start is None or self.end is None:
            return None
        return self.start + (self.end - self.start) * (int(leaf_sha256[:8], 16) / 2**32)


def suggestion(ca: Ca, certificate_id: str, now: datetime) -> Suggestion:
    """Ask the CA about one certificate. Raises NoAnswer, Problem and ValueError of the directory alone."""
    from certcast.acme.protocol.answers import NoAnswer, Problem, retry_after

    base = ca.directory.get("renewalInfo")
    silent = Suggestion(now + _USUALLY)
    if not isinstance(base, str):
        return silent
    try:
        answer, response = ca.read(f"{base.rstrip('/')}/{certificate_id}")
        window = answer["suggestedWindow"]
        start, end = _moment(window["start"]), _moment(window["end"])
        if end <= start:
            raise ValueError("the window ends before it begins")
    except (NoAnswer, Problem, ValueError, TypeError, KeyError, OverflowError):
        return silent
    ask_again = retry_after(response, now) or now + _USUALLY
    ask_again = min(max(ask_again, now + _SHORTEST), now + _LONGEST)
    url = answer.get("explanationURL")
    return Suggestion(ask_again, start, end, url if isinstance(url, str) else None)


def certificate_id(leaf: x509.Certificate) -> str:
    """Return the unique identifier of RFC 9773, 4.1; ValueError without an Authority Key Identifier."""
    from cryptography import x509 as x509_

    try:
        aki = leaf.extensions.get_extension_for_class(x509_.AuthorityKeyIdentifier).value.key_identifier
    except x509_.ExtensionNotFound:
        aki = None
    if aki is None:
        raise ValueError("the certificate has no authorityKeyIdentifier")
    # The DER content octets of the serial: a leading zero where the top bit is set.
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1, "big")
    return f"{_base64url(aki)}.{_base64url(serial)}"


def _moment(text: Any) -> datetime:
    """Return a time of RFC 3339 in UTC; ValueError, TypeError, OverflowError for anything else."""
    import pyrfc3339

    moment = pyrfc3339.parse(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset, and would be this host's own time")
    return moment.astimezone(timezone.utc)


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
