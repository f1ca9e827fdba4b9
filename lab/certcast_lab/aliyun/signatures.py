"""Request signatures of Alibaba Cloud's RPC APIs, Alidns among them.

Two schemes are in use, and clients of both are alive:

    RPC-SHA1   everything in the query (or a form body), HMAC-SHA1. The documentation
               calls it "signature method V2 (RPC)", the SDK signature_algorithm='v2'.
    ACS3       ACS3-HMAC-SHA256, in the Authorization header; what today's SDKs send.

Both go the same way: canonical request -> string to sign -> HMAC. The functions
here only compute. The server uses the same ones as a client: it signs what
arrived, and compares.

Sources: https://help.aliyun.com/document_detail/29747.html (RPC-SHA1) and
https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature
(ACS3), both with test vectors, which are tests here.

Not here: whose signature it is, and whether it is fresh (rpc_api.py); OSS, which
signs its own way (oss_signatures.py).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

ACS3 = "ACS3-HMAC-SHA256"


def encode(text: str) -> str:
    """Percent-encode as both schemes do: all but RFC 3986 unreserved characters, a space is %20."""
    return quote(text, safe="-_.~")


# -- RPC-SHA1


def rpc_string_to_sign(method: str, parameters: Mapping[str, str]) -> str:
    """
    The string to sign for decoded request parameters, query and form body together.

    `Signature` itself is left out, `SecurityToken` is signed like any other.
    """
    return (
        f"{method}&{encode('/')}&{encode(_query((k, v) for k, v in parameters.items() if k != 'Signature'))}"
    )


def rpc_signature(string_to_sign: str, secret: str) -> str:
    """base64(HMAC-SHA1), the key being the secret and an ampersand."""
    digest = hmac.new(f"{secret}&".encode(), string_to_sign.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


# -- ACS3-HMAC-SHA256


@dataclass(frozen=True)
class Acs3Authorization:
    """What the Authorization header says: whose key, which headers are signed, the signature (hex)."""

    access_key_id: str
    signed_headers: tuple[str, ...]
    signature: str

    @classmethod
    def parse(cls, header: str) -> Acs3Authorization:
        """Read `ACS3-HMAC-SHA256 Credential=…,SignedHeaders=a;b,Signature=…`; else ValueError."""
        algorithm, _, rest = header.partition(" ")
        fields = dict(field.strip().partition("=")[::2] for field in rest.split(","))
        if algorithm != ACS3 or set(fields) != {"Credential", "SignedHeaders", "Signature"}:
            raise ValueError(f"not an {ACS3} authorization")
        return cls(fields["Credential"], tuple(fields["SignedHeaders"].split(";")), fields["Signature"])


def acs3_canonical_request(
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    *,
    headers: Mapping[str, str],
    signed_headers: Sequence[str],
    body: bytes,
) -> str:
    """
    The canonical request. `query` holds decoded pairs, `headers` lower-case names.

    Which headers are signed is taken from the request and not from a list: the Python SDK signs all it
    sends, the Go SDK only host and x-acs-*. What must be signed at least, the door asks.
    """
    return "\n".join(
        [
            method,
            path,
            _query(query),
            "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in signed_headers),
            ";".join(signed_headers),
            hashlib.sha256(body).hexdigest(),
        ]
    )


def acs3_string_to_sign(canonical_request: str) -> str:
    return f"{ACS3}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"


def acs3_signature(string_to_sign: str, secret: str) -> str:
    """hex(HMAC-SHA256), the key being the bare secret."""
    return hmac.new(secret.encode(), string_to_sign.encode(), hashlib.sha256).hexdigest()


def _query(pairs: Iterable[tuple[str, str]]) -> str:
    """Names sorted as they are, before encoding (case-sensitive); an empty value keeps its `=`."""
    return "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(pairs))
