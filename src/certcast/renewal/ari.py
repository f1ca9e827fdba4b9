"""Ask the CA when a certificate should be replaced (ACME Renewal Information, RFC 9773).

certbot asks as well, but then not again for six hours (the CA's Retry-After),
and a certificate that the CA is about to revoke has 24 hours. One GET without
an account or a key; what it says only ever makes renewal earlier. A CA that answers
octet by octet, or without an end, is cut off (certcast/transport.py).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

_SECONDS = 10.0  # for each answer, whole; a slow CA must not hold up a renewal that is due anyway


@dataclass(frozen=True)
class Window:
    """`suggestedWindow` of RFC 9773, 4.2; both ends carry their offset."""

    start: datetime
    end: datetime


class CaUnreachable(Exception):
    """The ACME directory cannot be read: no order can be made now either."""


def suggested_window(directory_url: str, leaf: x509.Certificate) -> Window | None:
    """Return the window that the CA suggests, or None if it does not say.

    Raises CaUnreachable. A CA without ARI, an answer that is not one, and an
    error of the renewalInfo resource alone are all "does not say" (RFC 9773,
    4.3.3: clients fall back to their own schedule).
    """
    from acme import messages
    from josepy.errors import DeserializationError

    try:
        directory = _document(directory_url)
    except ValueError as error:
        raise CaUnreachable(f"{directory_url}: {error}") from None
    base = directory.get("renewalInfo") if isinstance(directory, dict) else None
    if not isinstance(base, str):
        return None
    try:
        found = _document(f"{base.rstrip('/')}/{certificate_id(leaf)}")
        window = messages.RenewalInfo.from_json(found).suggested_window
    except (ValueError, DeserializationError):
        return None
    return Window(window.start, window.end)


def require_reachable(directory_url: str) -> None:
    """Raise CaUnreachable if the ACME directory cannot be read."""
    try:
        _document(directory_url)
    except ValueError as error:
        raise CaUnreachable(f"{directory_url}: {error}") from None


def _document(url: str) -> Any:
    """Return the JSON document at `url`; ValueError if there is none, or not in time."""
    from requests import RequestException, Session
    from urllib3.exceptions import HTTPError

    from certcast.transport import BoundedAdapter, Cutter, reason

    cutter = Cutter()
    with Session() as session, cutter.within(_SECONDS):
        for scheme in ("https://", "http://"):
            session.mount(scheme, BoundedAdapter(cutter))
        try:
            answer = session.get(url, timeout=_SECONDS)
            answer.raise_for_status()
            return answer.json()
        except (RequestException, HTTPError, OSError, ValueError) as error:
            # What was cut off may look like a broken connection, and like a whole answer.
            late = f"no complete answer within {_SECONDS:g} s"
            raise ValueError(late if cutter.has_cut else reason(error)) from None


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


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
