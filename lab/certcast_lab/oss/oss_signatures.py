"""The two signatures of Alibaba Cloud OSS, recomputed from a request as it arrived.

    Authorization: OSS AK:base64                                                    (V1)
    Authorization: OSS4-HMAC-SHA256 Credential=AK/20261123/cn-hangzhou/oss/aliyun_v4_request,Signature=hex

V4: canonical request → its SHA-256 in the string to sign → HMAC with a key that
is derived from secret, day, region and product. V1: one HMAC-SHA1 over method,
a few headers and the resource. In both, the resource is the *decoded* bucket
and key (oss2 sends a key's slashes as %2F and signs them as slashes), and the
bucket is part of it even when it was sent in the host name.

Rules: "Include a V4 signature in the Authorization header" and "Include
signatures in the Authorization header (V1)", OSS developer reference. The first
page's worked example prints a signing key and a signature that do not follow
from its secret; the test vectors say which of its numbers are right.

Not here: whose key it is, clock skew, and what is refused (oss_access.py).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

V4 = "OSS4-HMAC-SHA256"
# The only payload hash that V4 on OSS defines: the body is not signed.
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

# The query parameters that name a sub-resource, and so are signed by V1. `prefix`,
# `delimiter`, `list-type`, `max-keys` and `encoding-type` are not among them.
V1_SUB_RESOURCES = {
    "acl", "append", "bucketInfo", "callback", "callback-var", "cname", "comp", "continuation-token",
    "cors", "delete", "lifecycle", "location", "logging", "objectMeta", "partNumber", "position", "referer",
    "response-cache-control", "response-content-disposition", "response-content-encoding",
    "response-content-language", "response-content-type", "response-expires", "restore", "security-token",
    "sequential", "stat", "symlink", "tagging", "uploadId", "uploads", "versionId", "versioning",
    "versions", "website", "x-oss-process",
}  # fmt: skip


class Malformed(ValueError):
    """An Authorization header that is neither of the two."""


@dataclass(frozen=True)
class SignedRequest:
    """What a signature covers: everything decoded, header names in lower case, no body.

    `bare` is a bucket in a path that doesn't end in a slash, as opendal sends and signs it.
    """

    method: str
    bucket: str | None
    key: str | None
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    bare: bool = False

    @property
    def resource(self) -> str:
        """The path that is signed: `/`, `/bucket/` or `/bucket/key`."""
        if self.bucket is None:
            return "/"
        return f"/{self.bucket}" if self.bare else f"/{self.bucket}/{self.key or ''}"


@dataclass(frozen=True)
class Claim:
    """What an Authorization header claims. `scope` (day, region, product) is None for V1."""

    access_key_id: str
    signature: str
    scope: tuple[str, str, str] | None = None
    additional_headers: tuple[str, ...] = ()


def parse(authorization: str) -> Claim:
    """Read an Authorization header of either version. Malformed if it is neither."""
    scheme, _, rest = authorization.partition(" ")
    if scheme == "OSS":
        access_key_id, colon, signature = rest.partition(":")
        if not (access_key_id and colon and signature):
            raise Malformed(authorization)
        return Claim(access_key_id, signature)
    if scheme != V4:
        raise Malformed(authorization)
    # oss-v2 separates the fields with "," and oss2 with ", ".
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    try:
        access_key_id, day, region, product, terminator = fields["Credential"].split("/")
        signature = fields["Signature"]
    except (KeyError, ValueError):
        raise Malformed(authorization) from None
    if terminator != "aliyun_v4_request":
        raise Malformed(authorization)
    additional = tuple(name for name in fields.get("AdditionalHeaders", "").split(";") if name)
    return Claim(access_key_id, signature, (day, region, product), additional)


def string_to_sign(request: SignedRequest, claim: Claim) -> str:
    """Return what the client should have signed, as the claim's version defines it."""
    return _v1_string_to_sign(request) if claim.scope is None else _v4_string_to_sign(request, claim)


def signature(secret: str, text: str, scope: tuple[str, str, str] | None) -> str:
    """Sign a string to sign: hex for V4 (with a scope), base64 for V1."""
    if scope is None:
        return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()
    key = f"aliyun_v4{secret}".encode()
    for part in (*scope, "aliyun_v4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def matches(secret: str, request: SignedRequest, claim: Claim) -> bool:
    """Whether the claimed signature is the one that this secret makes."""
    expected = signature(secret, string_to_sign(request, claim), claim.scope)
    return hmac.compare_digest(expected.encode(), claim.signature.encode())


def canonical_request(request: SignedRequest, additional_headers: Sequence[str]) -> str:
    """Return V4's canonical request. A parameter without a value, or with an empty one, has no "="."""
    query = sorted((_encoded(name), _encoded(value)) for name, value in request.query)
    headers = "".join(
        f"{name}:{value.strip()}\n"
        for name, value in sorted(request.headers.items())
        if name.startswith("x-oss-") or name in {"content-type", "content-md5"} or name in additional_headers
    )
    return "\n".join(
        [
            request.method,
            quote(request.resource, safe="/-_.~"),
            "&".join(f"{name}={value}" if value else name for name, value in query),
            headers,
            ";".join(sorted(additional_headers)),
            request.headers.get("x-oss-content-sha256", UNSIGNED_PAYLOAD),
        ]
    )


def _v4_string_to_sign(request: SignedRequest, claim: Claim) -> str:
    assert claim.scope is not None
    scope = "/".join((*claim.scope, "aliyun_v4_request"))
    digest = hashlib.sha256(canonical_request(request, claim.additional_headers).encode()).hexdigest()
    return "\n".join([V4, request.headers.get("x-oss-date", ""), scope, digest])


def _v1_string_to_sign(request: SignedRequest) -> str:
    headers = request.headers
    signed = "".join(
        f"{name}:{value.strip()}\n" for name, value in sorted(headers.items()) if name.startswith("x-oss-")
    )
    sub = sorted((name, value) for name, value in request.query if name in V1_SUB_RESOURCES)
    resource = request.resource
    if sub:
        resource += "?" + "&".join(f"{name}={value}" if value else name for name, value in sub)
    return "\n".join(
        [
            request.method,
            headers.get("content-md5", ""),
            headers.get("content-type", ""),
            headers.get("x-oss-date") or headers.get("date", ""),
            signed + resource,
        ]
    )


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
