"""A client's signed requests to the lab's CA, opened where they pass the proxy before it.

said = overheard(lab.renewal_info, monkeypatch)
[order] = named(said, "newOrder")
order.header["alg"], order.payload["identifiers"]
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from certcast_lab.acme.renewal_info import RenewalInfo


@dataclass(frozen=True)
class Said:
    """One signed request that the CA has dealt with: the JWS's protected header and its payload."""

    action: str
    header: dict[str, Any]
    payload: dict[str, Any]
    status: int


def overheard(proxy: RenewalInfo, monkeypatch: pytest.MonkeyPatch) -> list[Said]:
    """Return the list to which every signed request is added from now on."""
    said: list[Said] = []
    of_request: dict[Request, Said] = {}
    forward, refuse = proxy._forward, proxy._with_fresh_nonce

    def forward_and_note(method: str, target: str, request: Request, body: bytes) -> Response:
        answer = forward(method, target, request, body)
        if method == "POST":
            jws = json.loads(body)
            header, payload = _opened(jws["protected"]), _opened(jws["payload"])
            of_request[request] = Said(proxy._actions.of(target), header, payload, answer.status_code)
            said.append(of_request[request])
        return answer

    def refuse_and_forget(request: Request, answer: Response) -> Response:
        """An order that the proxy holds back (nonces.py) is placed once more, and counts once."""
        if request in of_request:
            said.remove(of_request[request])
        return refuse(request, answer)

    monkeypatch.setattr(proxy, "_with_fresh_nonce", refuse_and_forget)
    monkeypatch.setattr(proxy, "_forward", forward_and_note)
    return said


def named(said: list[Said], action: str) -> list[Said]:
    """Return what was said to one of the CA's actions."""
    return [request for request in said if request.action == action]


def _opened(part: str) -> dict[str, Any]:
    """Decode a part of a JWS; POST-as-GET has an empty payload."""
    text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    document: dict[str, Any] = json.loads(text) if text else {}
    return document
