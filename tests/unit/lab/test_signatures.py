"""Signatures of the RPC APIs, held against the documentation's own examples."""

from __future__ import annotations

import hashlib

import pytest

from certcast_lab.aliyun.signatures import (
    Acs3Authorization,
    acs3_canonical_request,
    acs3_signature,
    acs3_string_to_sign,
    encode,
    rpc_signature,
    rpc_string_to_sign,
)

# https://help.aliyun.com/document_detail/29747.html
DESCRIBE_DOMAIN_RECORDS = {
    "Format": "XML",
    "AccessKeyId": "testid",
    "Action": "DescribeDomainRecords",
    "SignatureMethod": "HMAC-SHA1",
    "DomainName": "example.com",
    "SignatureNonce": "f59ed6a9-83fc-473b-9cc6-99c95df3856e",
    "SignatureVersion": "1.0",
    "Version": "2015-01-09",
    "Timestamp": "2016-03-24T16:41:54Z",
}

# The ECS documentation's example of the same scheme.
DESCRIBE_REGIONS = {
    "Format": "XML",
    "AccessKeyId": "testid",
    "Action": "DescribeRegions",
    "SignatureMethod": "HMAC-SHA1",
    "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
    "SignatureVersion": "1.0",
    "Version": "2014-05-26",
    "Timestamp": "2016-02-23T12:46:24Z",
}

# https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature
RUN_INSTANCES_QUERY = {
    "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
    "RegionId": "cn-shanghai",
}
RUN_INSTANCES_HEADERS = {
    "host": "ecs.cn-shanghai.aliyuncs.com",
    "x-acs-action": "RunInstances",
    "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
    "x-acs-date": "2023-10-26T10:22:32Z",
    "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
    "x-acs-version": "2014-05-26",
}


def run_instances(body: bytes = b"", **changed: str) -> str:
    return acs3_canonical_request(
        "POST",
        "/",
        RUN_INSTANCES_QUERY.items(),
        headers={**RUN_INSTANCES_HEADERS, **changed},
        signed_headers=sorted(RUN_INSTANCES_HEADERS),
        body=body,
    )


def test_rpc_string_to_sign_is_the_documented_one():
    """A request of the Alidns documentation is canonicalised as printed there, colons encoded twice."""
    assert (
        rpc_string_to_sign("GET", DESCRIBE_DOMAIN_RECORDS)
        == "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeDomainRecords%26DomainName%3Dexample.com"
        "%26Format%3DXML%26SignatureMethod%3DHMAC-SHA1"
        "%26SignatureNonce%3Df59ed6a9-83fc-473b-9cc6-99c95df3856e%26SignatureVersion%3D1.0"
        "%26Timestamp%3D2016-03-24T16%253A41%253A54Z%26Version%3D2015-01-09"
    )


@pytest.mark.parametrize(
    ("parameters", "signature"),
    [
        (DESCRIBE_DOMAIN_RECORDS, "uRpHwaSEt3J+6KQD//svCh/x+pI="),
        (DESCRIBE_REGIONS, "OLeaidS1JvxuMvnyHOwuJ+uX5qY="),
    ],
)
def test_rpc_signature_is_the_documented_one(parameters, signature):
    """What a client signs by the documentation is what the emulator expects."""
    assert signature == rpc_signature(rpc_string_to_sign("GET", parameters), "testsecret")


@pytest.mark.parametrize("name", DESCRIBE_DOMAIN_RECORDS)
def test_rpc_signature_covers_every_parameter(name):
    """No parameter of a signed request can be exchanged on the way."""
    forged = {**DESCRIBE_DOMAIN_RECORDS, name: "exchanged"}
    assert "uRpHwaSEt3J+6KQD//svCh/x+pI=" != rpc_signature(rpc_string_to_sign("GET", forged), "testsecret")


def test_an_rpc_signature_covers_method_and_secret():
    """A signature of a GET is none of a POST, and one key's is none of another's."""
    signature = "uRpHwaSEt3J+6KQD//svCh/x+pI="
    assert signature != rpc_signature(rpc_string_to_sign("POST", DESCRIBE_DOMAIN_RECORDS), "testsecret")
    assert signature != rpc_signature(rpc_string_to_sign("GET", DESCRIBE_DOMAIN_RECORDS), "testsecret2")


def test_rpc_leaves_the_signature_itself_out():
    """The server may canonicalise all parameters that arrived, the signature among them."""
    arrived = {**DESCRIBE_DOMAIN_RECORDS, "Signature": "uRpHwaSEt3J+6KQD//svCh/x+pI="}
    assert rpc_string_to_sign("GET", DESCRIBE_DOMAIN_RECORDS) == rpc_string_to_sign("GET", arrived)


def test_acs3_signature_is_the_documented_one():
    """What a client signs by the documentation is what the emulator expects."""
    canonical = run_instances()
    assert (
        "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
        == hashlib.sha256(canonical.encode()).hexdigest()
    )
    assert "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0" == acs3_signature(
        acs3_string_to_sign(canonical), "YourAccessKeySecret"
    )


@pytest.mark.parametrize("name", RUN_INSTANCES_HEADERS)
def test_acs3_covers_every_signed_header(name):
    """No signed header can be exchanged on the way."""
    assert run_instances() != run_instances(**{name: "exchanged"})


def test_acs3_covers_the_body():
    """The body is part of what is signed, whatever x-acs-content-sha256 says."""
    assert run_instances() != run_instances(body=b"more")


def test_acs3_authorization_is_read_from_its_header():
    """The header tells whose key signed what; fields may stand in any order, with spaces."""
    assert Acs3Authorization("id", ("host", "x-acs-date"), "5f") == Acs3Authorization.parse(
        "ACS3-HMAC-SHA256 Credential=id, Signature=5f, SignedHeaders=host;x-acs-date"
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "OSS id:5f",
        "ACS3-HMAC-SHA256",
        "ACS3-HMAC-SHA256 Credential=id,Signature=5f",
        "acs3 Credential=i,Signature=5,SignedHeaders=a",
    ],
)
def test_other_authorizations_are_not_taken_for_acs3(header):
    """A header of another scheme, or a cut one, is refused instead of half understood."""
    with pytest.raises(ValueError, match="not an ACS3"):
        Acs3Authorization.parse(header)


def test_encoding_is_rfc_3986():
    """Spaces, stars, tildes and slashes are where the clients' libraries differ by default."""
    assert "a%20b%2Ac~%2F%2B" == encode("a b*c~/+")
