"""Revoke a certificate at the CA that issued it (RFC 8555, 7.6).

The request is signed by the account, or by the certificate's own key: that needs no account, and proves that
whoever asks has the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.release import certificate

if TYPE_CHECKING:
    from certcast.acme.ca import Ca

# RFC 5280, 5.3.1.
REASON_CODES = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}


def revoke(ca: Ca, pem: bytes, *, privkey: bytes | None, reason: str) -> None:
    """Ask `ca` to revoke the first certificate of `pem`; one that is revoked already is no failure.

    Signed by `privkey`, PEM, or without it by the account. `reason` is a word of REASON_CODES.
    Raises Problem, NoAnswer, ValueError, and what opening the account raises.
    """
    from acme import messages

    from certcast.acme.protocol.answers import Problem

    network = ca.network() if privkey is None else ca.network(signed_by=certificate.read_key(privkey))
    wanted = messages.Revocation(certificate=certificate.read_chain(pem).leaf, reason=REASON_CODES[reason])
    try:
        network.post(ca.directory["revokeCert"], wanted)
    except Problem as problem:
        if problem.type != "alreadyRevoked":
            raise
