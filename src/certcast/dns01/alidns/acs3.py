"""Sign a request to an Alibaba Cloud API with ACS3-HMAC-SHA256, the documentation's "signature V3".

    canonical request   method, path, query, signed headers, their names, SHA-256 of the body
    string to sign      the algorithm's name, SHA-256 of the canonical request
    signature           HMAC-SHA256 of the string to sign, keyed with the AccessKey's secret

- Query and headers are sorted by name. Names and values of the query are percent-encoded as in RFC 3986.
- `host`, `content-type` and every `x-acs-*` are signed, as the documentation demands. A proxy may change
  any other header.
- Everything here but `new_nonce` is pure: time and nonce are arguments.

Source: https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature (ADR 0019)
Not here: sending (alidns_api.py); OSS, which signs in its own way.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import timezone
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from certcast.credentials import Keys

_ALGORITHM = "ACS3-HMAC-SHA256"
_SIGNED = ("host", "content-type")  # and each x-acs-*


def new_nonce() -> str:
    """Return a value that no request had before: Alibaba Cloud refuses a second use for 15 minutes."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class ApiRequest:
    """A request to be signed: `path` is percent-encoded, `query` is not, `headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


def sign(request: ApiRequest, keys: Keys, now: datetime, nonce: str) -> dict[str, str]:
    """Return the request's headers, completed and with their Authorization: all that it must carry.

    Among its headers are host, x-acs-action and x-acs-version. `now` is an aware datetime. Temporary keys
    add their token.
    """
    body_sha256 = hashlib.sha256(request.body).hexdigest()
    headers = {
        **request.headers,
        "x-acs-date": f"{now.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "x-acs-signature-nonce": nonce,
        "x-acs-content-sha256": body_sha256,
    }
    if keys.security_token:
        headers["x-acs-accesskey-id"] = keys.access_key_id
        headers["x-acs-security-token"] = keys.security_token
    headers["Authorization"] = authorization(replace(request, headers=headers), body_sha256, keys)
    return headers


def authorization(request: ApiRequest, body_sha256: str, keys: Keys) -> str:
    """Return the Authorization header: whose key, which headers are signed, the signature in hexadecimal."""
    names = sorted(name for name in request.headers if name in _SIGNED or name.startswith("x-acs-"))
    signed_names = ";".join(names)
    canonical_headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in names)
    query = canonical_query(request.query)
    canonical_request = "\n".join(
        [request.method, request.path, query, canonical_headers, signed_names, body_sha256]
    )
    string_to_sign = f"{_ALGORITHM}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"
    signature = hmac.new(keys.access_key_secret.encode(), string_to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{_ALGORITHM} Credential={keys.access_key_id},SignedHeaders={signed_names},Signature={signature}"


def canonical_query(query: Mapping[str, str]) -> str:
    """Return the query sorted by name and percent-encoded; an empty value keeps its `=`."""
    return "&".join(f"{_encoded(name)}={_encoded(query[name])}" for name in sorted(query))


def _encoded(text: str) -> str:
    # By default "/" would be safe, too. Unreserved characters (RFC 3986 section 2.3) always are.
    return quote(text, safe="")
