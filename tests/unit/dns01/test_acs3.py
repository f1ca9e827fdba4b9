"""Our ACS3 signatures, held against numbers that are not ours and against the official SDK.

The documentation's worked example and two values of the SDK's own tests; then
1,000 drawn requests that the SDK and we sign alike.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from alibabacloud_tea_openapi.utils import Utils
from darabonba.request import DaraRequest

from certcast.credentials import Keys
from certcast.dns01.alidns import acs3

# https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature, its worked example
RUN_INSTANCES = {
    "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
    "RegionId": "cn-shanghai",
}


def test_the_documented_request_is_signed_as_documented():
    """Alibaba Cloud takes our signature: that of its documentation's worked example is the same."""
    request = acs3.ApiRequest(
        "POST",
        "/",
        RUN_INSTANCES,
        {
            "host": "ecs.cn-shanghai.aliyuncs.com",
            "x-acs-action": "RunInstances",
            "x-acs-version": "2014-05-26",
        },
    )
    headers = acs3.sign(
        request,
        keys=Keys("YourAccessKeyId", "YourAccessKeySecret"),
        now=datetime(2023, 10, 26, 18, 22, 32, tzinfo=timezone(timedelta(hours=8))),
        nonce="3156853299f313e23d1673dc12e1703d",
    )
    assert "2023-10-26T10:22:32Z" == headers["x-acs-date"]
    assert (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" == headers["x-acs-content-sha256"]
    )
    assert (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;"
        "x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    ) == headers["Authorization"]


def test_the_sdks_own_test_has_the_same_authorization():
    """A query with an empty value is signed as the official SDK's own tests expect.

    github.com/aliyun/darabonba-openapi, 276c3be, python/tests/test_utils.py, test_get_authorization
    """
    assert (
        "ACS3-HMAC-SHA256 Credential=acesskey,SignedHeaders=x-acs-test,"
        "Signature=d16b30a7699ae9e43875b13195b2f81bcc3ed10c14a9b5eb780e51619aa50be1"
    ) == acs3.authorization(
        acs3.ApiRequest("GET", "/", {"test": "ok", "empty": ""}, {"x-acs-test": "http,https"}),
        body_sha256="55e12e91650d2fec56ec74e1d3e4ddbfce2ef3a65890c2a19ecf88a307e76a23",
        keys=Keys("acesskey", "secret"),
    )


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        # the same file, test_get_canonical_query_string
        ({"test": " ~/*-+"}, "test=%20~%2F%2A-%2B"),
        # The documentation has names encoded, too, and sorted before that; the SDK encodes only values.
        ({"é": "1", "a b": "", "Z": '"'}, "Z=%22&a%20b=&%C3%A9=1"),
        ({}, ""),
    ],
    ids=["the SDK's own test", "names", "nothing"],
)
def test_a_query_is_encoded_as_rfc_3986_says(query, canonical):
    """A TXT value with any character in it is signed as the server reads it."""
    assert canonical == acs3.canonical_query(query)


def test_a_thousand_requests_are_signed_as_the_sdk_does(pytestconfig):
    """For every request that certcast could send, ours is the official SDK's signature to the letter."""
    drawn = random.Random(8)
    for number in range(10_000 if pytestconfig.getoption("--long") else 1_000):
        request, how = draw(drawn)
        more = replace(request, headers={**request.headers, **UNSIGNED})
        ours = acs3.sign(more, **how)
        assert sdk_authorization(request, **how) == ours["Authorization"], (number, request, how)


# A proxy may add or change these, so a signature must not depend on them.
UNSIGNED = {"accept": "application/json", "user-agent": "python-requests", "content-length": "0"}
AWKWARD = " ~*+%=&?#/.,;:\"'\\<>[]{}|^`@!$()-_\n\t\0é中文🔒\u202e"
PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def draw(drawn: random.Random) -> tuple[acs3.ApiRequest, dict[str, Any]]:
    """Draw a request, and how it is signed.

    Names of parameters are of characters that need no encoding, since the SDK leaves names as they are.
    """

    def text(alphabet: str, longest: int, shortest: int = 1) -> str:
        return "".join(drawn.choices(alphabet, k=drawn.randint(shortest, longest)))

    headers = {
        "host": text(PLAIN + "-.", 30) + drawn.choice(["", ":8443"]),
        "x-acs-action": text(PLAIN, 30),
        "x-acs-version": drawn.choice(["2015-01-09", " 2014-05-26 "]),
    }
    if drawn.random() < 0.3:
        headers["content-type"] = drawn.choice(["application/json", "application/x-www-form-urlencoded"])
    if drawn.random() < 0.3:
        headers[f"x-acs-{text(PLAIN.lower(), 8)}"] = text(PLAIN + " ", 20)
    token = drawn.choice([None, "", text(PLAIN + "+/=", 400)])
    zone = timezone(timedelta(minutes=15 * drawn.randint(-48, 56)))
    request = acs3.ApiRequest(
        drawn.choice(["POST", "GET", "PUT"]),
        drawn.choice(["/", "/api/v1/clusters/%E4%B8%AD"]),
        {text(PLAIN + "-._~", 12): text(AWKWARD + PLAIN, 60, shortest=0) for _ in range(drawn.randint(0, 8))},
        headers,
        drawn.choice([b"", drawn.randbytes(40)]),
    )
    return request, {
        "keys": Keys(text(PLAIN, 30), text(AWKWARD + PLAIN, 40), token),
        "now": datetime.fromtimestamp(drawn.randrange(2**32), zone),
        "nonce": text(PLAIN, 40),
    }


def sdk_authorization(drawn: acs3.ApiRequest, *, keys: Keys, now: datetime, nonce: str) -> str:
    """Let the official SDK sign, in the way in which its generic call completes the headers."""
    body_sha256 = hashlib.sha256(drawn.body).hexdigest()
    request = DaraRequest()
    request.method, request.pathname, request.query = drawn.method, drawn.path, dict(drawn.query)
    request.headers = {
        **drawn.headers,
        "x-acs-date": now.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-content-sha256": body_sha256,
    }
    if keys.security_token:
        request.headers["x-acs-accesskey-id"] = keys.access_key_id
        request.headers["x-acs-security-token"] = keys.security_token
    return str(
        Utils.get_authorization(
            request, "ACS3-HMAC-SHA256", body_sha256, keys.access_key_id, keys.access_key_secret
        )
    )


def test_no_nonce_comes_twice():
    """Alidns refuses a nonce that it has seen, so no two requests share one."""
    assert 1000 == len({acs3.new_nonce() for _ in range(1000)})


ONE_CALL = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from certcast.config.model import DnsConfig
from certcast.dns01.alidns.alidns_api import Api


class Alidns(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"Signed": "%s"}' % self.headers["Authorization"].split()[0].encode())

    def log_message(self, *said):
        pass


with HTTPServer(("127.0.0.1", 0), Alidns) as server:
    Thread(target=server.handle_request, daemon=True).start()
    api = Api(DnsConfig(endpoint=f"http://127.0.0.1:{server.server_port}"))
    print(api.call("DescribeDomains", {"PageSize": "1"}, lambda body: body["Signed"]))
print(sorted({"alibabacloud_tea_openapi", "darabonba", "Tea", "aiohttp"} & set(sys.modules)))
"""


def test_a_signed_call_imports_no_sdk():
    """A hook with one call doesn't pay for the SDK: no package of it is loaded."""
    keys = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", ONE_CALL],
        env={**os.environ, **keys},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "ACS3-HMAC-SHA256\n[]\n" == done.stdout, done.stderr
