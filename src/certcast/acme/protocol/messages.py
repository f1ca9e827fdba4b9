"""What `acme` has no message for: a newOrder with `replaces` (RFC 9773, 5), before any CSR is made."""

from __future__ import annotations

import josepy as jose
from acme import messages


class NewOrder(messages.NewOrder):
    """newOrder's payload (RFC 8555, 7.4), with the certificate that this one follows."""

    replaces: str | None = jose.field("replaces", omitempty=True)


def new_order(names: tuple[str, ...], profile: str | None, replaces: str | None) -> NewOrder:
    """Return the payload for these DNS names; None leaves a field out."""
    identifiers = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in names]
    return NewOrder(identifiers=identifiers, profile=profile, replaces=replaces)
