"""What is certified: the key before the order, and the certificate with its chain after it (RFC 8555, 7.4.2).

A certificate counts only if it is the ordered one: for our key and names, in time, with a chain that holds
together. Whether the chain ends at a root that clients trust is for the hosts to say: they know their roots.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from certcast.release import certificate

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from requests import Response

    from certcast.release.certificate import Chain

_MOST_ALTERNATES = 8


def new_key(key_type: str) -> bytes:
    """Return a new private key of a type in the configuration (`p256`, `rsa2048`, …): PKCS#8, PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if key_type.startswith("p"):
        key = ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[key_type])
    else:
        key = rsa.generate_private_key(65537, int(key_type.removeprefix("rsa")))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def alternates(response: Response) -> list[str]:
    """Return the URLs of other chains for the same certificate, from the answer's Link header."""
    from requests.utils import parse_header_links

    from certcast.acme.ca import is_url

    links = parse_header_links(response.headers.get("Link", ""))
    found = [link.get("url") for link in links if link.get("rel") == "alternate"]
    return [url for url in found if url is not None and is_url(url)][:_MOST_ALTERNATES]


def ends_at(fullchain: bytes, common_name: str) -> bool:
    """Whether the topmost certificate was issued by this common name. ValueError if it is no chain."""
    from cryptography.x509.oid import NameOID

    chain = certificate.read_chain(fullchain)
    topmost = [chain.leaf, *chain.intermediates][-1]
    return any(one.value == common_name for one in topmost.issuer.get_attributes_for_oid(NameOID.COMMON_NAME))


def require_ordered(fullchain: bytes, privkey: bytes, names: Collection[str], now: datetime) -> None:
    """Raise ValueError unless this is the certificate of our key and names, in time, with its chain."""
    chain = certificate.read_chain(fullchain)
    leaf = certificate.describe(chain.leaf)
    if not certificate.key_fits(certificate.read_key(privkey), leaf):
        raise ValueError("the certificate is for another key than the one that was ordered")
    if set(leaf.names) != set(names):
        raise ValueError(f"the certificate holds {', '.join(leaf.names)}, which was not ordered")
    if leaf.not_after <= now:
        raise ValueError(f"the certificate has expired already, at {leaf.not_after}")
    require_linked(chain)


def require_linked(chain: Chain) -> None:
    """Raise ValueError unless each certificate of the chain was issued by the next one."""
    from cryptography.exceptions import InvalidSignature

    if not chain.intermediates:
        raise ValueError("the certificate came without its chain")
    issued = [chain.leaf, *chain.intermediates]
    for one, issuer in pairwise(issued):
        try:
            one.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise ValueError(
                f"the chain is broken: {one.subject.rfc4514_string()!r} was not issued by the next"
            ) from error
