"""Ask the CA when a certificate should be replaced (ACME Renewal Information, RFC 9773).

certbot asks as well, but then not again for six hours (the CA's Retry-After),
and a certificate that the CA is about to revoke has 24 hours. One GET without
an account or a key; what it says only ever makes renewal earlier.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

_TIMEOUT = 10.0  # seconds; a slow CA must not hold up a renewal that is due anyway


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
    import requests
    from acme import messages
    from josepy.errors import DeserializationError

    try:
        answer = requests.get(directory_url, timeout=_TIMEOUT)
        answer.raise_for_status()
        directory = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise CaUnreachable(f"{directory_url}: {error}") from None
    base = directory.get("renewalInfo") if isinstance(directory, dict) else None
    if not isinstance(base, str):
        return None
    try:
        answer = requests.get(f"{base.rstrip('/')}/{certificate_id(leaf)}", timeout=_TIMEOUT)
        answer.raise_for_status()
        window = messages.RenewalInfo.from_json(answer.json()).suggested_window
    except (requests.RequestException, ValueError, DeserializationError):
        return None
    return Window(window.start, window.end)


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
