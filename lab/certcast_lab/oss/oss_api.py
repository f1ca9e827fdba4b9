"""Object Storage Service, as far as a certificate store needs it, faithful in what hurts.

    api = OssApi(ram)
    api.add_bucket(Bucket("certs", account="1234567890"))
    with Server(api) as server: ...        # clients: endpoint=server.url, region="cn-hangzhou"

The steps of a request: its target (path, virtual host or custom domain) → the user who
signed it → the bucket → RAM → the operation. Each step refuses as OSS does: an XML
error with Code and EC. An answer to HEAD has no body, so there it goes into the
`x-oss-err` header.

Operations: PutObject, GetObject, HeadObject, DeleteObject, ListObjectsV2, and those of
versioning (oss_versions.py). Faults are in `api.faults`: actions are named as here,
targets are `bucket/key`; `flipped` also strikes what PutObject receives.
`api.requests` lists user and request.

The Host decides, as it does for real:

    127.0.0.1:port                               the bucket is the path's beginning (lab and SDK only)
    certs.oss-cn-hangzhou.aliyuncs.com           public: closed to newer accounts (`Bucket.public`)
    certs.oss-cn-hangzhou-internal.aliyuncs.com  from inside Alibaba Cloud
    certs.example.test                           a custom domain (`Bucket.domain`): the bucket's name is in
                                                 neither host nor path, and still in what is signed

Sources: OSS API reference and error list; messages and ECs as real servers sent
them. Assumptions: that a missing key is 404 for a user who may not list, that a
closed public endpoint is said after the signature was checked, and how a domain
that is bound to no bucket is refused.

Not here: multipart, ranges (the whole object comes, as OSS itself
does for a range it can't satisfy) and ACLs.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from certcast_lab.aliyun.ram import Ram
from certcast_lab.oss import oss_listing, oss_versions
from certcast_lab.oss.oss_access import Asked, authenticate, authorize, moment
from certcast_lab.oss.oss_bucket import Bucket, Stored, content_md5
from certcast_lab.oss.oss_errors import OssError
from certcast_lab.serving.faults import Faults, Reply

MAX_KEY_OCTETS = 1023
ACTIONS = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
# Of a bucket: by method and sub-resource.
BUCKET_ACTIONS = {
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "versioning"): "GetBucketVersioning",
    ("PUT", "versioning"): "PutBucketVersioning",
}


@dataclass(frozen=True)
class Logged:
    """One answered request. `user` is the RAM user's name, None when none was recognised.

    `right` is the RAM action that it needed.
    """

    method: str
    action: str
    bucket: str | None
    key: str | None
    user: str | None
    status: int
    right: str = field(default="", compare=False)


class OssApi:
    """The service as an ASGI application. `clock` (seconds of the epoch) is what skew is measured by."""

    def __init__(
        self, ram: Ram, *, faults: Faults | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.ram = ram
        self.faults = faults or Faults()
        self.clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}
        self._requests: list[Logged] = []
        self._serial = 0

    def add_bucket(self, bucket: Bucket) -> Bucket:
        """Make the bucket known; one of the same name is replaced."""
        with self._lock:
            self._buckets[bucket.name] = bucket
        return bucket

    @property
    def requests(self) -> list[Logged]:
        """What was answered so far, oldest first."""
        with self._lock:
            return list(self._requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked = self._asked(request)
        body = await request.body()
        user = None
        request_id = self._next_request_id()
        try:
            self._fail_on_purpose(asked)
            bucket = self._bucket(asked.bucket)
            found = authenticate(asked, self.ram, bucket, self.clock())
            user = found.name
            _check_endpoint(asked, bucket)
            response = self._operate(asked, authorize(asked, found, bucket), body)
        except OssError as error:
            response = error.response(request_id, asked.headers.get("host", ""), head=asked.method == "HEAD")
        with self._lock:
            self._requests.append(
                Logged(
                    asked.method,
                    asked.action,
                    asked.bucket,
                    asked.key,
                    user,
                    response.status_code,
                    asked.right,
                )
            )
        response.headers.update(
            {
                "server": "AliyunOSS",
                "date": formatdate(self.clock(), usegmt=True),
                "x-oss-request-id": request_id,
                "x-oss-server-time": "1",
            }
        )
        await Reply(response, self.faults, asked.action, asked.target)(scope, receive, send)

    def _next_request_id(self) -> str:
        """24 digits of upper-case hex; real ones hold time and machine, ours count."""
        with self._lock:
            self._serial += 1
            return f"{self._serial:024X}"

    def _asked(self, request: Request) -> Asked:
        path = unquote(request.scope["raw_path"].decode("latin-1"))
        bucket, key = self._address(request.headers.get("host", ""), path)
        query = _query(request.scope["query_string"].decode("latin-1"))
        action = ACTIONS.get(request.method, "NotEmulated")
        if key is None:
            named = [
                BUCKET_ACTIONS[request.method, name]
                for name in query
                if (request.method, name) in BUCKET_ACTIONS
            ]
            listing = request.method == "GET" and query.get("list-type") == "2"
            action = "ListObjectsV2" if listing else (named or ["NotEmulated"])[0]
        headers = {name.lower(): value for name, value in request.headers.items()}
        source_ip = request.client.host if request.client else ""
        bare = path == f"/{bucket}"
        return Asked(action, request.method, bucket, key, query, headers, source_ip, bare)

    def _address(self, host: str, path: str) -> tuple[str | None, str | None]:
        """Bucket and key: from the path at an IP address, else from host and path."""
        name = host.rsplit(":", 1)[0]
        if _is_address(name):
            bucket, _, key = path.lstrip("/").partition("/")
            return bucket or None, key or None
        with self._lock:
            bound = [bucket.name for bucket in self._buckets.values() if bucket.domain == name]
        if not bound and not name.endswith(".aliyuncs.com"):
            return None, path[1:] or None
        return bound[0] if bound else name.split(".")[0], path[1:] or None

    def _bucket(self, name: str | None) -> Bucket | None:
        with self._lock:
            return self._buckets.get(name or "")

    def _fail_on_purpose(self, asked: Asked) -> None:
        if self.faults.hit("throttle", asked.action, asked.target):
            raise OssError(503, "ServiceUnavailable", "Thread pool is almost full, please retry later.")
        if self.faults.hit("server_error", asked.action, asked.target):
            raise OssError(500, "InternalError", "We encountered an internal error. Please try again.")

    def _operate(self, asked: Asked, bucket: Bucket, body: bytes) -> Response:
        if asked.action == "NotEmulated":
            raise OssError(400, "NotImplemented", f"The lab does not emulate {asked.method} here.")
        if asked.key is None:
            return self._of_bucket(asked, bucket, body)
        if len(asked.key.encode()) > MAX_KEY_OCTETS:
            raise OssError(400, "InvalidObjectName", "The specified object is not valid.")
        if asked.action == "PutObject":
            if body and self.faults.hit("flipped", asked.action, asked.target):
                body = bytes([body[0] ^ 0x01]) + body[1:]
            return _put(asked, bucket, asked.key, Stored(body, int(self.clock()), _kept(asked)))
        if asked.action == "DeleteObject":
            return oss_versions.delete(bucket, asked.key, asked.version_id)
        if asked.version_id is not None:
            version, stored = oss_versions.find(bucket, asked.key, asked.version_id)
            return _get(asked, stored, oss_versions.headers(bucket, version))
        about = oss_versions.headers(bucket, oss_versions.current(bucket, asked.key))
        current = bucket.get(asked.key, age=self._age(asked))
        if current is None:
            message = "The specified key does not exist."
            raise OssError(404, "NoSuchKey", message, ec="0026-00000001", headers=about, Key=asked.key)
        return _get(asked, current, about)

    def _of_bucket(self, asked: Asked, bucket: Bucket, body: bytes) -> Response:
        if asked.action == "ListObjectVersions":
            return oss_versions.listing(bucket, asked.query)
        if asked.action == "GetBucketVersioning":
            return oss_versions.state(bucket)
        if asked.action == "PutBucketVersioning":
            return oss_versions.change(bucket, body)
        return self._list(asked, bucket)

    def _list(self, asked: Asked, bucket: Bucket) -> Response:
        age = self._age(asked)
        keys = bucket.keys(asked.query.get("prefix", ""), age=age)
        objects = {key: stored for key in keys if (stored := bucket.get(key, age=age))}
        return Response(oss_listing.page(bucket.name, asked.query, objects), media_type="application/xml")

    def _age(self, asked: Asked) -> float:
        stale = self.faults.hit("stale", asked.action, asked.target)
        return stale.seconds if stale else 0


def _check_endpoint(asked: Asked, bucket: Bucket | None) -> None:
    """A public endpoint is for older accounts, and any endpoint for buckets of its region alone."""
    host = asked.headers.get("host", "").rsplit(":", 1)[0]
    if bucket is None or not host.endswith(".aliyuncs.com"):
        return
    endpoint = host.partition(".")[2]
    home = f"oss-{bucket.region}"
    if endpoint.removesuffix(".aliyuncs.com").removesuffix("-internal") != home:
        raise OssError(
            403,
            "AccessDenied",
            "The bucket you are attempting to access must be addressed using the specified endpoint. "
            "Please send all future requests to this endpoint.",
            Bucket=bucket.name,
            Endpoint=f"{home}.aliyuncs.com",
        )
    if not bucket.public and "-internal." not in endpoint:
        message = "Not allowed using the OSS public endpoint , please use CNAME instead."
        raise OssError(400, "PublicEndpointForbidden", message, ec="0048-00000401")


def _put(asked: Asked, bucket: Bucket, key: str, stored: Stored) -> Response:
    """Store the object, unless a condition is asked for (OSS has none on PUT) or it came damaged."""
    for name in sorted(asked.headers):
        if name.startswith("if-"):
            message = "A header you provided implies functionality that is not implemented."
            raise OssError(400, "NotImplemented", message, Header=name.title())
    if "content-length" not in asked.headers and asked.headers.get("transfer-encoding") != "chunked":
        raise OssError(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    digest = content_md5(stored.body)
    if asked.headers.get("content-md5", digest) != digest:
        raise OssError(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
    forbid = asked.headers.get("x-oss-forbid-overwrite", "false")
    if forbid not in {"true", "false"}:
        message = "The value of x-oss-forbid-overwrite is invalid."
        raise OssError(400, "InvalidArgument", message, ec="0017-00000279")
    # "PutObject" of the API reference: of no effect in a bucket that has or had versioning.
    if forbid == "true" and bucket.versioning is None and bucket.get(key):
        message = "The object you specified already exists and can not be overwritten."
        raise OssError(409, "FileAlreadyExists", message, ec="0026-00000002")
    version = bucket.put(key, stored)
    return Response(headers={**_digests(stored), **oss_versions.headers(bucket, version)})


def _get(asked: Asked, stored: Stored, about: dict[str, str]) -> Response:
    """The object, its headers alone for HEAD, or 304."""
    headers = {
        "content-type": "application/octet-stream",
        **stored.headers,
        **_digests(stored),
        **about,
        "last-modified": formatdate(stored.modified, usegmt=True),
        "accept-ranges": "bytes",
        "x-oss-object-type": "Normal",
        "x-oss-storage-class": "Standard",
    }
    if _unchanged(asked, stored):
        return Response(status_code=304, headers=headers)
    if asked.method == "HEAD":
        return Response(headers={**headers, "content-length": str(len(stored.body))})
    return Response(stored.body, headers=headers)


def _unchanged(asked: Asked, stored: Stored) -> bool:
    """Evaluate the four conditions in the order of RFC 9110, 13.2.2; a failed demand is a 412."""
    demand, unless = asked.headers.get("if-match"), asked.headers.get("if-none-match")
    until, since = (_date(asked.headers.get(f"if-{name}-since")) for name in ("unmodified", "modified"))
    not_newer = until is None or stored.modified <= until
    if not (not_newer if demand is None else _names(demand, stored.etag)):
        message = "At least one of the pre-conditions you specified did not hold."
        raise OssError(412, "PreconditionFailed", message)
    if unless is not None:
        return _names(unless, stored.etag)
    return since is not None and stored.modified <= since


def _names(condition: str, etag: str) -> bool:
    return condition == "*" or etag in (part.strip() for part in condition.split(","))


def _date(text: str | None) -> float | None:
    """A condition's date; one that isn't a date is no condition (RFC 9110, 13.1.3)."""
    try:
        return None if text is None else moment(text)
    except ValueError:
        return None


def _kept(asked: Asked) -> dict[str, str]:
    """The headers that stay with an object."""
    return {
        name: value
        for name, value in asked.headers.items()
        if name == "content-type" or name.startswith("x-oss-meta-")
    }


def _digests(stored: Stored) -> dict[str, str]:
    return {
        "etag": stored.etag,
        "content-md5": stored.content_md5,
        "x-oss-hash-crc64ecma": stored.crc64,
    }


def _query(text: str) -> dict[str, str]:
    """The decoded parameters. A "+" is a plus here; OSS clients write a space as %20."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
