"""Faults of a CA, one small named switch each, set while it runs.

    faults = lab.acme_faults
    faults.turn_on("problem", action="newOrder", times=1, status=429, type="rateLimited", retry_after=60)
    faults.turn_on("lost_reply", action="finalize", times=1)
    faults.consumed("problem")           # 1, once it has happened

An action is named as in the directory of RFC 8555 section 7.1.1, or by what the URL is of: `account`,
`order`, `authz`, `challenge`, `finalize`, `certificate`. What happens on the wire is in faults.py. Beyond:

    problem         a problem document (section 6.7); the CA isn't asked
    refuse_nonces   a POST's good nonce is called bad, a fresh one is given; the CA isn't asked
    not_found       404, as for what was forgotten; the CA isn't asked
    processing      the CA has issued, and the order still says "processing": for `times` polls
    no_nonce        the CA has accepted, and its Replay-Nonce is missing
    no_location     the CA has accepted, and the URL of what it made is missing
    garbage         the CA has done it, and a 200 with something else arrives
    rewrite         the CA has done it, and `change` makes another body of its answer
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from certcast_lab.serving.faults import Faults, Kind, Switch

AcmeKind = Literal[
    "problem", "refuse_nonces", "not_found", "processing", "no_nonce", "no_location", "garbage", "rewrite"
]  # fmt: skip
RetryAfter = int | datetime | None  # seconds, an HTTP date, no header (RFC 9110 section 10.2.3)
Change = Callable[[Any], Any]

URN = "urn:ietf:params:acme:error:"
# Actions whose answer is JSON with URLs in it.
_NAMING = {"directory", "newOrder", "order", "finalize", "authz"}
HTML = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"


@dataclass
class AcmeSwitch(Switch):
    """A switch that answers itself, or changes the CA's answer."""

    problem: Mapping[str, object]
    retry_after: RetryAfter
    body: object
    change: Change


class AcmeFaults(Faults):
    """The switches of one CA: those of every service, and those that only a CA has."""

    def __init__(self) -> None:
        super().__init__()
        self._answering: list[AcmeSwitch] = []
        self._answered: Counter[str] = Counter()

    def turn_on(  # the parameters of all kinds, so that a wrong one is seen by the type checker
        self,
        kind: Kind | AcmeKind,
        *,
        action: str = "*",
        target: str = "*",
        times: int | None = None,
        seconds: float = 0,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        type: str = "serverInternal",  # noqa: A002  # RFC 7807's word
        detail: str = "refused by the lab, on purpose",
        subproblems: Sequence[Mapping[str, object]] = (),
        retry_after: RetryAfter = None,
        body: object = HTML,
        change: Change = lambda body: body,
    ) -> None:
        """
        From now on, `kind` befalls requests whose action and path match these shell patterns.

        `action`, `target`, `times` and `seconds` are those of `Faults.turn_on`; `target` is the URL's
        path. `status`, `type` (with or without its URN), `detail` and `subproblems` make a `problem`;
        `retry_after` goes with it and with `processing`. `body` is the `garbage`: bytes are HTML, all
        else is JSON. `change` gets a JSON body parsed and any other as bytes, and returns its like.
        """
        if kind in get_args(Kind):
            super().turn_on(kind, action=action, target=target, times=times, seconds=seconds)  # type: ignore[arg-type]  # narrowed by `in`
            return
        if kind not in get_args(AcmeKind):
            raise ValueError(f"no such fault: {kind!r}; there are {', '.join(_all_kinds())}")
        document: dict[str, object] = {"type": urn(type), "detail": detail, "status": int(status)}
        if subproblems:
            document["subproblems"] = list(subproblems)
        with self._lock:
            self._answering.append(
                AcmeSwitch(kind, action, target, times, seconds, document, retry_after, body, change)  # type: ignore[arg-type]  # Switch knows the kinds of the wire
            )

    def turn_off(self, kind: Kind | AcmeKind | None = None) -> None:
        """Turn off every switch of this kind, or of all kinds; consumed faults stay counted."""
        if kind is None or kind in get_args(Kind):
            super().turn_off(kind)  # type: ignore[arg-type]  # narrowed by `in`
        with self._lock:
            self._answering = [switch for switch in self._answering if kind not in (None, switch.kind)]

    def consumed(self, kind: Kind | AcmeKind) -> int:
        """How many requests this fault has struck so far."""
        if kind in get_args(Kind):
            return super().consumed(kind)  # type: ignore[arg-type]  # narrowed by `in`
        with self._lock:
            return self._answered[kind]

    def reset(self) -> None:
        """Turn everything off, and count anew."""
        self.turn_off()
        with self._lock:
            self._answered.clear()
            self._consumed.clear()

    def instead(self, action: str, path: str, *, is_post: bool) -> Response | None:
        """Return the answer to a request that the CA never sees; None to ask the CA."""
        if switch := self._strike("problem", action, path):
            return _problem(switch.problem, switch.retry_after)
        if self._strike("not_found", action, path):
            # Boulder's words and status for an order or authorization that is gone.
            gone = {"type": urn("malformed"), "detail": "No such object", "status": HTTPStatus.NOT_FOUND}
            return _problem(gone)
        if is_post and self._strike("refuse_nonces", action, path):
            return BadNonce()
        return None

    def afterwards(self, action: str, path: str, answer: Response) -> Response:
        """Return what arrives of the CA's answer to a request that it has dealt with."""
        if action in {"finalize", "order"} and answer.status_code == HTTPStatus.OK:
            answer = self._still_processing(action, path, answer)
        accepted = answer.status_code < HTTPStatus.BAD_REQUEST
        for kind, header in (("no_nonce", "replay-nonce"), ("no_location", "location")):
            if accepted and header in answer.headers and self._strike(kind, action, path):
                del answer.headers[header]
        if switch := self._strike("garbage", action, path):
            if isinstance(switch.body, bytes):
                return Response(switch.body, media_type="text/html")
            return JSONResponse(switch.body)
        if switch := self._strike("rewrite", action, path):
            answer = _with_body(answer, switch.change)
        return answer

    def _still_processing(self, action: str, path: str, answer: Response) -> Response:
        order = json.loads(bytes(answer.body))
        if order["status"] not in {"valid", "processing"}:
            return answer
        # Finalize's own answer is no poll: it says the same, and uses nothing up.
        switch = self._strike("processing", "order", path, uses=int(action == "order"))
        if switch is None:
            return answer
        hidden = {**order, "status": "processing"}
        hidden.pop("certificate", None)
        answer = _with_body(answer, lambda _: hidden)
        del answer.headers["retry-after"]  # the CA's own
        answer.headers.update(_retry_after(switch.retry_after))
        return answer

    def _strike(self, kind: AcmeKind | str, action: str, path: str, *, uses: int = 1) -> AcmeSwitch | None:
        """The switch that strikes this request, as `Faults.hit` has it; `uses` 0 leaves it as it is."""
        with self._lock:
            for switch in self._answering:
                if not switch.applies(kind, action, path):  # type: ignore[arg-type]  # one kind more
                    continue
                self._answered[kind] += uses
                if switch.times is not None:
                    switch.times -= uses
                    if switch.times <= 0:
                        self._answering.remove(switch)
                return switch
        return None


class Actions:
    """Which action each URL of one CA is, learned from the answers that pass: RFC 8555 lets a CA choose."""

    def __init__(self) -> None:
        self._by_path: dict[str, str] = {}
        self.new_nonce = ""

    def of(self, path: str) -> str:
        """Return the action, or "other" for a URL that no answer has named."""
        return self._by_path.get(path, "other")

    def learn(self, action: str, answer: Response) -> None:
        """Remember the URLs that are in the CA's answer to this action."""
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            return
        made = {"newAccount": "account", "newOrder": "order"}
        if action in made and "location" in answer.headers:
            self._is(answer.headers["location"], made[action])
        if action == "certificate":
            for link in answer.headers.getlist("link"):
                if 'rel="alternate"' in link:
                    self._is(link[link.index("<") + 1 : link.index(">")], "certificate")
        elif action in _NAMING:
            self._learn_body(action, json.loads(bytes(answer.body)))

    def _learn_body(self, action: str, body: Mapping[str, Any]) -> None:
        if action == "directory":
            for name, url in body.items():
                if isinstance(url, str):
                    self._is(url, name)
            self.new_nonce = urlsplit(body["newNonce"]).path
        elif action in {"newOrder", "order", "finalize"}:
            for url in body["authorizations"]:
                self._is(url, "authz")
            self._is(body["finalize"], "finalize")
            if "certificate" in body:
                self._is(body["certificate"], "certificate")
        else:
            for challenge in body["challenges"]:
                self._is(challenge["url"], "challenge")

    def _is(self, url: str, action: str) -> None:
        self._by_path[urlsplit(url).path] = action


def subproblem(name: str, type: str, detail: str) -> dict[str, object]:  # noqa: A002  # RFC 7807's word
    """Return the part of a problem that is about one DNS name (RFC 8555 section 6.7.1)."""
    return {"type": urn(type), "detail": detail, "identifier": {"type": "dns", "value": name}}


def urn(type: str) -> str:  # noqa: A002  # RFC 7807's word
    """Return an error type of RFC 8555 section 6.7 in full; one that is a URN already, as it is."""
    return type if ":" in type else URN + type


class BadNonce(JSONResponse):
    """The refusal that a client MUST try again after, with a fresh nonce (section 6.5)."""

    def __init__(self) -> None:
        document = {"type": urn("badNonce"), "detail": "refused by the lab, on purpose", "status": 400}
        super().__init__(document, status_code=400, media_type="application/problem+json")


def _problem(document: Mapping[str, Any], retry_after: RetryAfter = None) -> Response:
    return JSONResponse(
        document,
        status_code=document["status"],
        headers=_retry_after(retry_after),
        media_type="application/problem+json",
    )


def _retry_after(moment: RetryAfter) -> dict[str, str]:
    if moment is None:
        return {}
    if isinstance(moment, datetime):
        return {"Retry-After": format_datetime(moment.astimezone(timezone.utc), usegmt=True)}
    return {"Retry-After": str(moment)}


def _with_body(answer: Response, change: Change) -> Response:
    """The same answer with another body; its other headers stay, a list because Link comes twice."""
    is_json = "json" in answer.headers.get("content-type", "")
    body = bytes(answer.body)
    changed = json.dumps(change(json.loads(body))).encode() if is_json else change(body)
    another = Response(changed, answer.status_code)
    kept = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
    another.raw_headers += kept
    return another


def _all_kinds() -> tuple[str, ...]:
    return (*get_args(Kind), *get_args(AcmeKind))
