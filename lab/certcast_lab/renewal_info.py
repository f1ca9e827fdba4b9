"""ACME Renewal Information before a CA that has none: RFC 9773.

Debian 12's pebble cannot say when a certificate should be renewed, newer ones
say it in their own way. This proxy stands before any of them, adds
`renewalInfo` to the directory and answers there; everything else passes
through unchanged, to the CA and back. That works without rewriting a single
URL because pebble makes its URLs, and checks those in a JWS, from the Host
header, and the proxy leaves that header alone.

The suggested window is what Boulder suggests: 2/3 of the certificate's life
(1/2 if it is under ten days) give or take 1 %, and already past when the
certificate is revoked. A test can set it per certificate.

The proxy sees every request that reaches the CA: `orders` is how many orders
the CA has accepted, which is what rate limits count. And it refuses nonces, in
a way that a test can rely on (nonces.py).
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from urllib.parse import urlsplit

from cryptography import x509
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from certcast_lab.ca import Authority
from certcast_lab.nonces import Nonces
from certcast_lab.pebble import Pebble
from certcast_lab.serve import Server, server_context

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


class RenewalInfo:
    """The proxy before `pebble`; `retry_after` may be changed at any time."""

    def __init__(self, pebble: Pebble, authority: Authority, nonces: Nonces | None = None) -> None:
        self.retry_after = RETRY_AFTER
        self.passed: list[Passed] = []
        self._pebble = pebble
        self._trust = ssl.create_default_context(cadata=authority.pem.decode())
        self._lock = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._paths: dict[str, str] = {}  # of newOrder and newNonce, once a client asked for the directory
        self._nonces = nonces or Nonces(reuse_authorizations=False)
        app = Starlette(
            routes=[
                Route("/dir", self._directory),
                Route("/renewal-info/{certificate_id}", self._renewal_info),
                Route("/{path:path}", self._pass, methods=["GET", "HEAD", "POST"]),
            ]
        )
        pair = authority.issue("localhost", ips=("127.0.0.1",))
        self._server = Server(app, tls=server_context(*pair))
        self.directory_url = f"{self._server.url}/dir"

    @property
    def orders(self) -> int:
        """How many orders the CA has accepted so far (RFC 8555 section 7.4: 201 from newOrder)."""
        return self.passed.count(Passed("POST", self._paths.get("newOrder", ""), HTTPStatus.CREATED))

    def suggest(self, certificate_pem: bytes, window: Window) -> None:
        """From now on, suggest this window for the certificate (the first one in the PEM)."""
        with self._lock:
            self._windows[certificate_id(certificate_pem)] = window

    def reset(self) -> None:
        """Forget every window that was set, and every request that passed."""
        self.retry_after = RETRY_AFTER
        self.passed.clear()
        with self._lock:
            self._windows.clear()

    def stop(self) -> None:
        """End the proxy; harmless twice."""
        self._server.stop()

    async def _directory(self, request: Request) -> Response:
        answer = await self._pass(request)
        directory = json.loads(bytes(answer.body))
        self._paths = {field: urlsplit(directory[field]).path for field in ("newOrder", "newNonce")}
        return JSONResponse({**directory, "renewalInfo": f"{self._server.url}/renewal-info"})

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
        is_post = request.method == "POST"
        is_new_order = is_post and request.url.path == self._paths.get("newOrder")
        if is_post and self._paths and self._nonces.refuses_post(is_new_order=is_new_order):
            answer = await run_in_threadpool(self._bad_nonce, request)
        else:
            answer = await run_in_threadpool(self._forward, request.method, _target(request), request, body)
            if is_new_order and answer.status_code == HTTPStatus.CREATED:
                order = json.loads(bytes(answer.body))
                if self._nonces.refuses_order(order["authorizations"]):
                    answer = await run_in_threadpool(self._bad_nonce, request)
        self.passed.append(Passed(request.method, request.url.path, answer.status_code))
        return answer

    def _bad_nonce(self, request: Request) -> Response:
        """Refuse the request and hand out a fresh nonce, which the client MUST try again with."""
        fresh = self._forward("HEAD", self._paths["newNonce"], request, b"")
        return JSONResponse(
            {"type": "urn:ietf:params:acme:error:badNonce", "detail": "refused by the lab, on purpose"},
            status_code=400,
            headers={"Replay-Nonce": fresh.headers["replay-nonce"]},
            media_type="application/problem+json",
        )

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
