"""How Alibaba Cloud's RPC services take a request: Alidns and STS alike.

There are two signature schemes (signatures.py). Each step has its own refusal:

    1. read         action, version, time, nonce and key: headers of ACS3, parameters of RPC-SHA1
    2. key          known and active; its security token fits and has not expired
    3. time         inside the scheme's window
    4. signature    computed again and compared
    5. nonce        not used in the last 15 minutes
    6. perform      the service's own part

The order of 2 to 5 is an assumption; all refusals are documented. Only a right
signature uses a nonce up: otherwise strangers could.

Replies are JSON for ACS3; for RPC-SHA1 the `Format` parameter decides, and XML
is its default. Every request is remembered in `log` without its secrets.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from certcast_lab.aliyun import signatures
from certcast_lab.aliyun.alidns_errors import Refusal, invalid, missing
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.serving.faults import Faults, Reply

NONCE_MEMORY = timedelta(minutes=15)

_COMMON = {
    *("AccessKeyId", "Action", "Format", "SecurityToken", "Signature", "SignatureMethod", "SignatureNonce"),
    *("SignatureType", "SignatureVersion", "Timestamp", "Version"),
}


@dataclass
class Logged:
    """One request as it was understood; `code` is None when it succeeded."""

    scheme: str = ""
    action: str = ""
    user: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None


@dataclass(frozen=True)
class Signed:
    """A request as read: what it asks for, and all that its signature says and rests on."""

    scheme: str
    action: str
    version: str
    access_key_id: str
    security_token: str | None
    timestamp: str
    window: timedelta
    nonce: str
    signature: str
    string_to_sign: str
    expected: Callable[[str], str]  # secret -> signature
    parameters: Mapping[str, str]


class RpcApi:
    """One service; `app` is its ASGI application, the switches of `faults` may be turned any time.

    A subclass names the service and does the work in `perform`. `lock` is what requests exclude each
    other by: a check and the change after it belong together, and two servers (plain and TLS) may run
    one application in two threads.
    """

    host: str
    product: str

    def __init__(
        self,
        ram: Ram,
        *,
        lock: AbstractContextManager[object] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        request_id: Callable[[], str] = lambda: str(uuid.uuid4()).upper(),
    ) -> None:
        self.ram = ram
        self.faults = Faults()
        self.log: list[Logged] = []
        self._now = now
        self._lock = lock or threading.RLock()
        self._request_id = request_id
        self._nonces: dict[tuple[str, str], datetime] = {}
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
        self.app = Starlette(routes=[Route("/", self._endpoint, methods=methods)])

    def perform(self, signed: Signed, user: User, request: Request) -> dict[str, Any]:
        """Return the fields of the reply to a request that passed the doors, or raise Refusal."""
        raise NotImplementedError

    def count(self, action: str) -> int:
        """How many requests for this action came in so far, refused ones included."""
        return sum(logged.action == action for logged in list(self.log))

    async def _endpoint(self, request: Request) -> Reply:
        body = await request.body()
        logged = Logged()
        as_xml = "authorization" not in request.headers and _format(request, body) != "JSON"
        with self._lock:
            self.log.append(logged)
            try:
                fields, status = self._answer(request, body, logged), 200
                root = f"{logged.action}Response"
            except Refusal as refusal:
                logged.code = refusal.code
                fields, status = self._error_fields(refusal), refusal.status
                root = "Error"
        request_id = self._request_id()
        fields["RequestId"] = request_id
        if status != 200:
            fields["Recommend"] = (
                f"https://api.aliyun.com/troubleshoot?q={fields['Code']}"
                f"&product={self.product}&requestId={request_id}"
            )
        response = Response(
            _xml(root, fields) if as_xml else json.dumps(fields, separators=(",", ":")),
            status,
            {
                "Date": format_datetime(self._now(), usegmt=True),
                "X-Acs-Request-Id": request_id,
                "Access-Control-Allow-Origin": "*",
            },
            media_type="text/xml;charset=utf-8" if as_xml else "application/json;charset=utf-8",
        )
        return Reply(response, self.faults, logged.action, logged.parameters.get("DomainName", ""))

    def _answer(self, request: Request, body: bytes, logged: Logged) -> dict[str, Any]:
        if request.method not in ("GET", "POST"):
            raise Refusal("UnsupportedHTTPMethod")
        signed = read_acs3(request, body) if "authorization" in request.headers else read_rpc(request, body)
        logged.scheme, logged.action, logged.parameters = signed.scheme, signed.action, signed.parameters
        user = self._authenticate(signed)
        logged.user = user.name
        return self.perform(signed, user, request)

    def _authenticate(self, signed: Signed) -> User:
        user = self.ram.by_access_key(signed.access_key_id)
        if user is None:
            raise Refusal("InvalidAccessKeyId")
        if not user.active:
            raise Refusal("InvalidAccessKeyId.Inactive")
        if signed.security_token != user.security_token:
            raise Refusal("InvalidSecurityToken.MismatchWithAccessKey")
        now = self._now()
        if user.expires is not None and now.timestamp() >= user.expires:
            raise Refusal("InvalidSecurityToken.Expired")
        if abs(now - _moment(signed.timestamp)) > signed.window:
            raise Refusal("InvalidTimeStamp.Expired")
        if not compare_digest(signed.expected(user.access_key_secret).encode(), signed.signature.encode()):
            raise Refusal(
                "SignatureDoesNotMatch",
                "Specified signature is not matched with our calculation. "
                f"server string to sign is:{signed.string_to_sign}",
            )
        while self._nonces and now - next(iter(self._nonces.values())) >= NONCE_MEMORY:
            del self._nonces[next(iter(self._nonces))]  # the oldest comes first
        if (user.access_key_id, signed.nonce) in self._nonces:
            raise Refusal("SignatureNonceUsed")
        self._nonces[user.access_key_id, signed.nonce] = now
        return user

    def _error_fields(self, refusal: Refusal) -> dict[str, Any]:
        return {"HostId": self.host, "Code": refusal.code, "Message": refusal.message, **refusal.details}


# -- reading a request


def read_acs3(request: Request, body: bytes) -> Signed:
    """A request signed in its Authorization header; business parameters in the query or a form."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        authorization = signatures.Acs3Authorization.parse(headers["authorization"])
    except ValueError:
        raise Refusal("IncompleteSignature") from None
    for name, parameter in (("x-acs-action", "Action"), ("x-acs-version", "Version")):
        if name not in headers:
            raise missing(parameter)
    for name in ("x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"):
        if name not in headers:
            raise missing({"x-acs-date": "Timestamp"}.get(name, name))
    # The documentation also wants content-type signed; the Go SDK doesn't, and is served all the same.
    must_be_signed = {name for name in headers if name.startswith("x-acs-")} | {"host"}
    if not must_be_signed <= set(authorization.signed_headers):
        raise Refusal("IncompleteSignature")
    query = _pairs(request.url.query)
    string_to_sign = signatures.acs3_string_to_sign(
        signatures.acs3_canonical_request(
            request.method,
            request.url.path,
            query,
            headers=headers,
            signed_headers=authorization.signed_headers,
            body=body,
        )
    )
    return Signed(
        scheme="ACS3",
        action=headers["x-acs-action"],
        version=headers["x-acs-version"],
        access_key_id=authorization.access_key_id,
        security_token=headers.get("x-acs-security-token"),
        timestamp=headers["x-acs-date"],
        window=timedelta(minutes=15),
        nonce=headers["x-acs-signature-nonce"],
        signature=authorization.signature,
        string_to_sign=string_to_sign,
        expected=lambda secret: signatures.acs3_signature(string_to_sign, secret),
        parameters=dict([*query, *_form(request, body)]),
    )


def read_rpc(request: Request, body: bytes) -> Signed:
    """A request that carries everything, its signature too, as parameters of query and form."""
    given = dict([*_pairs(request.url.query), *_form(request, body)])
    for name in ("Action", "Version", "AccessKeyId", "Timestamp", "SignatureNonce", "Signature"):
        if not given.get(name):
            raise missing(name)
    for name, value in (("SignatureMethod", "HMAC-SHA1"), ("SignatureVersion", "1.0")):
        if given.get(name) != value:
            raise invalid(name)
    string_to_sign = signatures.rpc_string_to_sign(request.method, given)
    return Signed(
        scheme="RPC-SHA1",
        action=given["Action"],
        version=given["Version"],
        access_key_id=given["AccessKeyId"],
        security_token=given.get("SecurityToken"),
        timestamp=given["Timestamp"],
        window=timedelta(minutes=31),
        nonce=given["SignatureNonce"],
        signature=given["Signature"],
        string_to_sign=string_to_sign,
        expected=lambda secret: signatures.rpc_signature(string_to_sign, secret),
        parameters={name: value for name, value in given.items() if name not in _COMMON},
    )


def _pairs(encoded: str) -> list[tuple[str, str]]:
    """Decoded pairs; a `+` is a space, as the Python SDK's own encoding of its URL has it."""
    return parse_qsl(encoded, keep_blank_values=True)


def _form(request: Request, body: bytes) -> list[tuple[str, str]]:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return []
    return _pairs(body.decode("utf-8", "replace"))


def _format(request: Request, body: bytes) -> str:
    return dict([*_pairs(request.url.query), *_form(request, body)]).get("Format", "XML").upper()


def _moment(timestamp: str) -> datetime:
    """`2015-01-09T12:00:00Z`, and nothing else: dns-lexicon's `+00:00Z` is refused as the page demands."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", timestamp):
        raise Refusal("InvalidTimeStamp.Format")
    try:
        return datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refusal("InvalidTimeStamp.Format") from None


# -- writing a reply


def _xml(root: str, fields: Mapping[str, Any]) -> bytes:
    """The same fields as XML; a list is its element repeated."""

    def fill(parent: ElementTree.Element, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            for item in value if isinstance(value, list) else [value]:
                element = ElementTree.SubElement(parent, name)
                if isinstance(item, Mapping):
                    fill(element, item)
                else:
                    element.text = str(item).lower() if isinstance(item, bool) else str(item)

    document = ElementTree.Element(root)
    fill(document, fields)
    encoded: bytes = ElementTree.tostring(document, encoding="utf-8", xml_declaration=True)
    return encoded
