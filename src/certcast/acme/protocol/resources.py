"""The CA's resources, with every field looked at before it is used (RFC 8555, 7.1 and 7.4.2).

    order, authorization    each field is of its kind
    certificate             for our key and names, in time, each one in the chain issued by the next

A mutated answer ends in a ValueError here, which `explained` turns into CA-ANSWER.
Not here: whether a chain ends at a trusted root. The hosts know their roots, and check it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from certcast.acme.ca import is_url
from certcast.acme.protocol.answers import Subproblem, identifier, json_object, subproblem
from certcast.release import certificate

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    import josepy as jose
    from requests import Response

    from certcast.release.certificate import Chain

_MOST_ALTERNATES = 8
_STATUSES = {"pending", "ready", "processing", "valid", "invalid"}


@dataclass(frozen=True)
class Authorization:
    """An authorization, with its DNS-01 challenge where it is pending and has one.

    `validation` is the TXT value (RFC 8555, 8.4); `offered` are the kinds of challenge.
    """

    url: str
    name: str
    status: str
    offered: tuple[str, ...] = ()
    challenge_url: str = ""
    challenge_status: str = ""
    validation: str = ""


def read_location(response: Response, request: str) -> str:
    """Return the URL of what a request like newOrder has made (RFC 8555, 7.3 and 7.4). ValueError."""
    url = response.headers.get("Location")
    if not is_url(url):
        raise ValueError(f"{request} was answered without a URL (Location)")
    return str(url)


def read_order(response: Response) -> dict[str, Any]:
    """Return the order object of an answer; its fields are what they have to be. ValueError."""
    order = json_object(response)
    urls, status = order.get("authorizations"), order.get("status")
    if not isinstance(urls, list) or not urls or not all(map(is_url, urls)):
        raise ValueError("the order has no list of authorizations")
    if not is_url(order.get("finalize")):
        raise ValueError("the order has no finalize URL")
    if status not in _STATUSES:
        raise ValueError(f"the order's status is {status!r}")
    if status == "valid" and not is_url(order.get("certificate")):
        raise ValueError("the order is valid and has no certificate URL")
    return order


def read_authorization(
    url: str, response: Response, ordered: Collection[str], key: jose.JWK | None
) -> Authorization:
    """Return the authorization at `url` for an `ordered` name; `key` is the account's. ValueError."""
    from acme import challenges

    document = json_object(response)
    name, status = identifier(document.get("identifier")), document.get("status")
    if name not in ordered:
        raise ValueError(f"an authorization for {name!r}, which was not ordered")
    if status == "valid":
        return Authorization(url, name, "valid")
    if status != "pending":
        raise ValueError(f"the authorization for {name} is {status!r}")
    offered = _challenges(document)
    kinds = tuple(str(challenge.get("type"))[:100] for challenge in offered)
    for challenge in offered:
        if challenge.get("type") == "dns-01" and is_url(challenge.get("url")):
            dns01 = challenges.DNS01.from_json(challenge)
            assert isinstance(dns01, challenges.DNS01)
            assert key is not None
            return Authorization(
                url,
                name,
                "pending",
                kinds,
                challenge["url"],
                str(challenge.get("status")),
                dns01.validation(key),
            )
    return Authorization(url, name, "pending", kinds)


def read_failures(response: Response) -> list[Subproblem]:
    """Return why the challenges of an authorization failed."""
    document = json_object(response)
    name = identifier(document.get("identifier"))
    errors = [challenge.get("error") for challenge in _challenges(document)]
    return [subproblem(error, name) for error in errors if isinstance(error, dict)]


def _challenges(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed = document.get("challenges")
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


# -- the certificate with its chain


def alternate_urls(response: Response) -> list[str]:
    """Return the URLs of other chains for the same certificate, from the answer's Link header."""
    from requests.utils import parse_header_links

    links = parse_header_links(response.headers.get("Link", ""))
    urls = [link.get("url") for link in links if link.get("rel") == "alternate"]
    return [url for url in urls if url is not None and is_url(url)][:_MOST_ALTERNATES]


def is_issued_under(fullchain: bytes, common_name: str) -> bool:
    """Whether this common name issued the topmost certificate. ValueError if `fullchain` is no chain."""
    from cryptography.x509.oid import NameOID

    chain = certificate.read_chain(fullchain)
    issuer = [chain.leaf, *chain.intermediates][-1].issuer
    return any(name.value == common_name for name in issuer.get_attributes_for_oid(NameOID.COMMON_NAME))


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
