"""ACME Renewal Information before a CA that has none: RFC 9773.

Debian 12's pebble has no renewal information, and newer ones have their own. This
proxy stands before any of them, adds `renewalInfo` to the directory and answers
there. Everything else passes unchanged, to the CA and back. No URL is rewritten:
pebble makes its URLs, and checks those in a JWS, from the Host header, which the
proxy leaves alone.

The suggested window is what Boulder suggests: 2/3 of the certificate's life
(1/2 if it is under ten days) give or take 1 %, and already past when the
certificate is revoked. A test can set it per certificate.

The proxy sees every request that reaches the CA: `orders` is how many orders the CA
has accepted, which is what rate limits count. It also refuses nonces (nonces.py).
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http import HTTPStatus

from cryptography import x509
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from certcast_lab.acme.acme_faults import AcmeFaults, Actions, BadNonce
from certcast_lab.acme.nonces import Nonces
from certcast_lab.acme.pebble import Pebble
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.faults import Reply

# What belongs to one connection (RFC 9110 section 7.6.1), and what each server writes itself.
_NOT_PASSED = {"connection", "keep-alive", "transfer-encoding", "content-length", "date"}

RETRY_AFTER = timedelta(hours=6)  # Let's Encrypt's


@dataclass(frozen=True)
class Window:
    """RFC 9773 section 4.2: renew at a random time between `start` and `end` (aware datetimes)."""

    start: datetime
    end: datetime
    explanation_url: str | None = None


@dataclass(frozen=True)
class Passed:
    """A request that went to the CA and the status that came back."""

    method: str
    path: str
    status: int
    action: str = field(default="", compare=False)


@dataclass(frozen=True)
class Asked:
    """A client's request and the status that it was told, by the CA or by a fault."""

    action: str
    method: str
    path: str
    status: int
    at: float  # monotonic seconds, when the request came in


class RenewalInfo(Server):
    """The proxy before `pebble`; `retry_after` and the switches in `faults` may be changed at any time."""

    def __init__(self, pebble: Pebble, authority: Authority, nonces: Nonces | None = None) -> None:
        self.retry_after = RETRY_AFTER
        self.faults = AcmeFaults()
        self.passed: list[Passed] = []
        self.asked: list[Asked] = []
        self._pebble = pebble
        self._trust = ssl.create_default_context(cadata=authority.pem.decode())
        self._lock = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._actions = Actions()
        self._issued_before = pebble.issued
        self._nonces = nonces or Nonces(reuse_authorizations=False)
        app = Starlette(
            routes=[
                Route("/dir", self._faulty(self._directory, "directory")),
                Route("/renewal-info/{certificate_id}", self._faulty(self._renewal_info, "renewalInfo")),
                Route("/{path:path}", self._faulty(self._pass), methods=["GET", "HEAD", "POST"]),
            ]
        )
        super().__init__(app, tls=server_context(*authority.issue("localhost", ips=("127.0.0.1",))))
        self.directory_url = f"{self.url}/dir"

    @property
    def orders(self) -> int:
        """How many orders the CA has accepted so far (RFC 8555 section 7.4: 201 from newOrder)."""
        return self._accepted("newOrder", HTTPStatus.CREATED)

    @property
    def finalized(self) -> int:
        """How many times the CA has taken a CSR (RFC 8555 section 7.4: 200 from finalize)."""
        return self._accepted("finalize", HTTPStatus.OK)

    @property
    def issued(self) -> int:
        """How many certificates the CA has made, downloaded or not."""
        return self._pebble.issued - self._issued_before

    def _accepted(self, action: str, status: HTTPStatus) -> int:
        return sum(p.action == action and p.status == status for p in list(self.passed))

    def suggest(self, certificate_pem: bytes, window: Window) -> None:
        """From now on, suggest this window for the certificate (the first one in the PEM)."""
        with self._lock:
            self._windows[certificate_id(certificate_pem)] = window

    def reset(self) -> None:
        """Turn every fault off; forget every window that was set, every request, and what was issued."""
        self.retry_after = RETRY_AFTER
        self.faults.reset()
        self.passed.clear()
        self.asked.clear()
        self._issued_before = self._pebble.issued
        with self._lock:
            self._windows.clear()

    def _faulty(
        self, answering: Callable[[Request], Awaitable[Response]], action: str | None = None
    ) -> Callable[[Request], Awaitable[Reply]]:
        """The endpoint with the faults that are on; `action` where the proxy itself gives out the URL."""

        async def answer(request: Request) -> Reply:
            at, path, is_post = time.monotonic(), request.url.path, request.method == "POST"
            named, faults = action or self._actions.of(path), self.faults
            response = faults.instead(named, path, is_post=is_post)
            if response is None:
                response = await answering(request)
                # A refusal by chance uses no fault up: the next try meets it.
                if isinstance(response, BadNonce):
                    faults = AcmeFaults()
                response = faults.afterwards(named, path, response)
            elif is_post:
                self._nonces.refused_otherwise()
                response = await run_in_threadpool(self._with_fresh_nonce, request, response)
            self.asked.append(Asked(named, request.method, path, response.status_code, at))
            return Reply(response, faults, named, path)

        return answer

    async def _directory(self, request: Request) -> Response:
        answer = await self._pass(request)
        self._actions.learn("directory", answer)
        directory = json.loads(bytes(answer.body))
        return JSONResponse({**directory, "renewalInfo": f"{self.url}/renewal-info"})

    async def _renewal_info(self, request: Request) -> Response:
        asked = request.path_params["certificate_id"]
        window = self._windows.get(asked) or await run_in_threadpool(self._boulders_window, asked)
        if window is None:
            return JSONResponse(
                {"type": "urn:ietf:params:acme:error:malformed", "detail": "no such certificate"},
                status_code=404,
                media_type="application/problem+json",
            )
        body: dict[str, object] = {
            "suggestedWindow": {"start": _rfc3339(window.start), "end": _rfc3339(window.end)}
        }
        if window.explanation_url:
            body["explanationURL"] = window.explanation_url
        retry_after = str(int(self.retry_after.total_seconds()))
        return JSONResponse(body, headers={"Retry-After": retry_after})

    def _boulders_window(self, asked: str) -> Window | None:
        try:
            serial = int.from_bytes(base64.urlsafe_b64decode(asked.partition(".")[2] + "=="), "big")
        except ValueError:
            return None
        status = self._pebble.certificate_status(serial)
        if status is None or certificate_id(status.certificate_pem) != asked:
            return None
        if status.revoked:
            an_hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
            return Window(an_hour_ago, an_hour_ago + timedelta(minutes=30))
        leaf = x509.load_pem_x509_certificate(status.certificate_pem)
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        renew_at = leaf.not_valid_before_utc + (life / 2 if life < timedelta(days=10) else life * 2 / 3)
        return Window(renew_at - life / 100, renew_at + life / 100)

    async def _pass(self, request: Request) -> Response:
        body = await request.body()
        action = self._actions.of(request.url.path)
        is_post = request.method == "POST"
        is_new_order = is_post and action == "newOrder"
        if is_post and self._nonces.refuses_post(is_new_order=is_new_order):
            answer = await run_in_threadpool(self._with_fresh_nonce, request, BadNonce())
        else:
            answer = await run_in_threadpool(self._forward, request.method, _target(request), request, body)
            self._actions.learn(action, answer)
            if is_new_order and answer.status_code == HTTPStatus.CREATED:
                order = json.loads(bytes(answer.body))
                if self._nonces.refuses_order(order["authorizations"]):
                    answer = await run_in_threadpool(self._with_fresh_nonce, request, BadNonce())
        self.passed.append(Passed(request.method, request.url.path, answer.status_code, action))
        return answer

    def _with_fresh_nonce(self, request: Request, answer: Response) -> Response:
        """A refusal has a nonce for the next try (RFC 8555 section 6.5), where a directory said whence."""
        if not self._actions.new_nonce:
            return answer
        fresh = self._forward("HEAD", self._actions.new_nonce, request, b"")
        answer.headers["Replay-Nonce"] = fresh.headers["replay-nonce"]
        return answer

    def _forward(self, method: str, target: str, request: Request, body: bytes) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED}
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._pebble.port, context=self._trust, timeout=30
        )
        try:
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            response = Response(answer.read(), answer.status)
            # As a list: Link comes twice, and a mapping would keep one.
            response.raw_headers += [
                (name.lower().encode(), value.encode())
                for name, value in answer.getheaders()
                if name.lower() not in _NOT_PASSED
            ]
        finally:
            connection.close()
        return response


def _target(request: Request) -> str:
    """The request line's target, with its query."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def certificate_id(certificate_pem: bytes) -> str:
    """Return RFC 9773 section 4.1's name for the first certificate of the PEM."""
    leaf = x509.load_pem_x509_certificate(certificate_pem)
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert issuer is not None  # every CA that the lab knows puts one in
    number = leaf.serial_number
    # The content octets of a DER INTEGER, which is signed: a leading one bit needs a zero octet.
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return f"{_base64url(issuer)}.{_base64url(serial)}"


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
