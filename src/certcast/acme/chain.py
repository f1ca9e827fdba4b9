"""The certificate with its chain, as the CA sends it (RFC 8555, 7.4.2).

A certificate counts only if it is the ordered one: for our key and names, in time, and each certificate of
its chain is issued by the next.

Not here: whether the chain ends at a trusted root. The hosts know their roots, and check it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from certcast.release import certificate

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from requests import Response

    from certcast.release.certificate import Chain, Leaf

_MOST_ALTERNATES = 8


def alternate_urls(response: Response) -> list[str]:
    """Return the URLs of other chains for the same certificate, from the answer's Link header."""
    from requests.utils import parse_header_links

    from certcast.acme.ca import is_url

    links = parse_header_links(response.headers.get("Link", ""))
    urls = [link.get("url") for link in links if link.get("rel") == "alternate"]
    return [url for url in urls if url is not None and is_url(url)][:_MOST_ALTERNATES]


def is_issued_under(fullchain: bytes, common_name: str) -> bool:
    """Whether this common name issued the topmost certificate. ValueError if `fullchain` is no chain."""
    from cryptography.x509.oid import NameOID

    chain = certificate.read_chain(fullchain)
    issuer = [chain.leaf, *chain.intermediates][-1].issuer
    return any(name.value == common_name for name in issuer.get_attributes_for_oid(NameOID.COMMON_NAME))


def describe_pair(fullchain: bytes, privkey: bytes) -> Leaf:
    """Return the facts of the leaf. ValueError if a file is damaged, or `privkey` is not the leaf's key."""
    leaf = certificate.describe(certificate.read_chain(fullchain).leaf)
    if not certificate.key_fits(certificate.read_key(privkey), leaf):
        raise ValueError("the private key does not belong to its certificate")
    return leaf


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
    for subject, issuer in pairwise([chain.leaf, *chain.intermediates]):
        try:
            subject.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise ValueError(
                f"the chain is broken: {subject.subject.rfc4514_string()!r} was not issued by the next"
            ) from error
