"""The CA's objects, with every field looked at before it is used (RFC 8555, 7.1.3 and 7.1.4).

A mutated answer ends in a ValueError here, which `problems.explained` turns into CA-ANSWER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certcast.acme.ca import is_url
from certcast.acme.protocol.answers import Subproblem, identifier, problem_type, text_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import josepy as jose

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


def order_state(document: dict[str, Any]) -> dict[str, Any]:
    """Return an order object whose fields are what they have to be. ValueError."""
    urls, status = document.get("authorizations"), document.get("status")
    if not isinstance(urls, list) or not urls or not all(map(is_url, urls)):
        raise ValueError("the order has no list of authorizations")
    if not is_url(document.get("finalize")):
        raise ValueError("the order has no finalize URL")
    if status not in _STATUSES:
        raise ValueError(f"the order's status is {status!r}")
    if status == "valid" and not is_url(document.get("certificate")):
        raise ValueError("the order is valid and has no certificate URL")
    return document


def authorization(
    url: str, document: dict[str, Any], ordered: Collection[str], key: jose.JWK | None
) -> Authorization:
    """Return an authorization object for one of the `ordered` names; `key` is the account's. ValueError."""
    from acme import challenges

    name, status = identifier(document.get("identifier")), document.get("status")
    if name not in ordered:
        raise ValueError(f"an authorization for {name!r}, which was not ordered")
    if status == "valid":
        return Authorization(url, name, "valid")
    if status != "pending":
        raise ValueError(f"the authorization for {name} is {status!r}")
    offered = _challenges(document)
    kinds = tuple(str(one.get("type"))[:100] for one in offered)
    for one in offered:
        if one.get("type") == "dns-01" and is_url(one.get("url")):
            challenge = challenges.DNS01.from_json(one)
            assert isinstance(challenge, challenges.DNS01)
            assert key is not None
            validation = challenge.validation(key)
            return Authorization(url, name, "pending", kinds, one["url"], str(one.get("status")), validation)
    return Authorization(url, name, "pending", kinds)


def failed_challenges(document: dict[str, Any]) -> list[Subproblem]:
    """Return what the CA found at the name of an authorization object, challenge by challenge."""
    name = identifier(document.get("identifier"))
    errors = [one.get("error") for one in _challenges(document)]
    return [
        Subproblem(problem_type(error), text_of(error.get("detail")), name)
        for error in errors
        if isinstance(error, dict)
    ]


def _challenges(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("challenges")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
