"""The lab's OSS signatures against numbers that we did not compute first.

Where they come from: the V4 ones with `sk` are in the official Python SDK's own
tests, the others in the OSS developer reference.
"""

import hashlib
from dataclasses import replace

import pytest

from certcast_lab.oss.oss_signatures import (
    Claim,
    Malformed,
    SignedRequest,
    canonical_request,
    matches,
    parse,
    signature,
    string_to_sign,
)

SDK_QUERY = [
    ("param1", "value1"),
    ("+param1", "value3"),
    ("|param1", "value4"),
    ("+param2", ""),
    ("|param2", ""),
    ("param2", ""),
]
SDK_HEADERS = {
    "x-oss-head1": "value",
    "abc": "value",
    "zabc": "value",
    "xyz": "value",
    "content-type": "text/plain",
    "x-oss-content-sha256": "UNSIGNED-PAYLOAD",
}


def v4(headers, scope, additional=()):
    request = SignedRequest("PUT", "bucket", "1234+-/123/1.txt", SDK_QUERY, {**SDK_HEADERS, **headers})
    return request, Claim("ak", "", scope, additional)


@pytest.mark.parametrize(
    ("headers", "additional", "expected"),
    [
        (
            {"x-oss-date": "20231216T162057Z"},
            (),
            "e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe",
        ),
        (
            {"x-oss-date": "20231217T034736Z", "x-oss-security-token": "token"},
            (),
            "b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea",
        ),
        (
            {"x-oss-date": "20231216T172512Z"},
            ("abc", "zabc"),
            "4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f",
        ),
    ],
    ids=["plain", "security-token", "additional-headers"],
)
def test_a_v4_signature_is_what_the_official_sdk_expects(headers, additional, expected):
    """A real client's request is accepted: empty values lose their "=", and only some headers count."""
    request, claim = v4(headers, (headers["x-oss-date"][:8], "cn-hangzhou", "oss"), additional)
    assert expected == signature("sk", string_to_sign(request, claim), claim.scope)


DOCUMENTED = SignedRequest(
    "PUT",
    "examplebucket",
    "exampleobject",
    [],
    {
        "content-disposition": "attachment",
        "content-length": "3",
        "content-md5": "ICy5YqxZB1uWSwcVLSNLcA==",
        "content-type": "text/plain",
        "x-oss-content-sha256": "UNSIGNED-PAYLOAD",
        "x-oss-date": "20250411T064124Z",
    },
)


def test_the_v4_example_is_followed_up_to_its_misprint():
    """
    The reference's worked example agrees up to the hash of the canonical
    request; the signature printed below it belongs to another secret.
    """
    claim = Claim("AK", "", ("20250411", "cn-hangzhou", "oss"), ("content-disposition", "content-length"))

    digest = hashlib.sha256(canonical_request(DOCUMENTED, claim.additional_headers).encode()).hexdigest()
    made = signature("yourAccessKeySecret", string_to_sign(DOCUMENTED, claim), claim.scope)

    assert digest.startswith("c46d9639")
    assert "d3694c2dfc5371ee6acd35e88c4871ac95a7ba01d3a2f476768fe61218590097" == made
    assert not made.startswith("053edbf5")


NELSON = SignedRequest(
    "PUT",
    "oss-example",
    "nelson",
    [],
    {
        "content-md5": "ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=",
        "content-type": "text/html",
        "date": "Thu, 17 Nov 2005 18:49:58 GMT",
        "x-oss-magic": "abracadabra",
        "x-oss-meta-author": "foo@bar.com",
        "host": "oss-example.oss-cn-hangzhou.aliyuncs.com",
    },
)
NELSON_SECRET = "OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV"


def test_a_v1_signature_is_the_documented_one():
    """An old client, which knows only V1, is understood."""
    claim = parse("OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA=")
    assert matches(NELSON_SECRET, NELSON, claim)


@pytest.mark.parametrize(
    "changed",
    [
        replace(NELSON, key="nelson2"),
        replace(NELSON, method="GET"),
        replace(NELSON, query=[("acl", "")]),
        replace(NELSON, headers={**NELSON.headers, "x-oss-magic": "hocus"}),
    ],
    ids=["key", "method", "sub-resource", "header"],
)
def test_a_v1_signature_covers_what_it_names(changed):
    """A signed request can't be turned into another one on its way."""
    claim = parse("OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA=")
    assert not matches(NELSON_SECRET, changed, claim)


@pytest.mark.parametrize("separator", [",", ", "], ids=["oss-v2", "oss2"])
def test_both_spellings_of_a_v4_header_are_read(separator):
    """The two official Python SDKs write the header differently, and both are understood."""
    fields = [
        "Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request",
        "AdditionalHeaders=abc;zabc",
        "Signature=f00",
    ]
    assert Claim("ak", "f00", ("20231216", "cn-hangzhou", "oss"), ("abc", "zabc")) == parse(
        "OSS4-HMAC-SHA256 " + separator.join(fields)
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic dTpw",
        "OSS ak",
        "OSS :x",
        "OSS4-HMAC-SHA256",
        "OSS4-HMAC-SHA256 Credential=ak/1/2/oss/aliyun_v4_request",
        "OSS4-HMAC-SHA256 Credential=ak/oss,Signature=f",
        "OSS4-HMAC-SHA256 Credential=ak/1/2/oss/aws4_request,Signature=f",
    ],
)
def test_any_other_header_is_called_malformed(header):
    """A client with a wrong header is told so, and doesn't crash the lab."""
    with pytest.raises(Malformed):
        parse(header)
