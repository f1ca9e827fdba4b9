"""Ask the Alidns emulator, request by request, signed by hand.

Requests are signed with the lab's own signature functions, which have the
documentation's vectors as their test; clients that we didn't write come in
contract/test_alidns_clients.py.
"""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from certcast_lab.aliyun.alidns_api import AlidnsApi
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.aliyun.signatures import (
    acs3_canonical_request,
    acs3_signature,
    acs3_string_to_sign,
    encode,
    rpc_signature,
    rpc_string_to_sign,
)
from certcast_lab.dns.zones import Zone, Zones
from certcast_lab.serving.asgi import Server

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EVERYTHING = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class Cloud:
    """The API with two accounts, a clock that tests turn, and a way to ask it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.time = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
        self.zones = Zones(now=lambda: self.time)
        self.ram = Ram()
        self.user = self.ram.add(User("100", "dns", "LTAI-dns", "secret-dns", policies=[EVERYTHING]))
        self.stranger = self.ram.add(
            User("200", "other", "LTAI-other", "secret-other", policies=[EVERYTHING])
        )
        self.zone: Zone = self.zones.create("example.test", "100", ("ns1.lab.test", "ns2.lab.test"))
        self.foreign: Zone = self.zones.create("foreign.test", "200", ("ns1.lab.test",))
        self.api = AlidnsApi(
            self.ram,
            self.zones,
            now=lambda: self.time,
            request_id=lambda: "4D60C75B-0000-0000-0000-000000000000",
        )
        self._address = address
        self._nonces = (f"nonce-{number}" for number in itertools.count())

    def send(self, method: str, query: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        try:
            connection.request(method, f"/?{query}", body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def acs3(
        self,
        action: str,
        *,
        user: User | None = None,
        secret: str = "",
        nonce: str = "",
        date: str = "",
        signed: set[str] | None = None,
        token: str | None = None,
        version: str = "2015-01-09",
        **parameters: str,
    ) -> tuple[int, dict[str, Any]]:
        user = user or self.user
        headers = {
            "host": "{}:{}".format(*self._address),
            "x-acs-action": action,
            "x-acs-version": version,
            "x-acs-date": date or self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": nonce or next(self._nonces),
            "x-acs-content-sha256": EMPTY_SHA256,
        }
        if token is not None:
            headers["x-acs-security-token"] = token
        names = sorted(signed if signed is not None else headers)
        canonical = acs3_canonical_request(
            "POST", "/", parameters.items(), headers=headers, signed_headers=names, body=b""
        )
        signature = acs3_signature(acs3_string_to_sign(canonical), secret or user.access_key_secret)
        headers["authorization"] = (
            f"ACS3-HMAC-SHA256 Credential={user.access_key_id},"
            f"SignedHeaders={';'.join(names)},Signature={signature}"
        )
        status, body = self.send("POST", urlencode(parameters), headers)
        return status, json.loads(body)

    def rpc(
        self,
        action: str,
        *,
        secret: str = "",
        in_form: bool = False,
        changed: dict[str, str] | None = None,
        **parameters: str,
    ) -> tuple[int, bytes]:
        """As acme.sh and its like sign; `changed` is altered after signing."""
        method = "POST" if in_form else "GET"
        given = {
            "AccessKeyId": self.user.access_key_id,
            "Action": action,
            "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0",
            "SignatureNonce": next(self._nonces),
            "Timestamp": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Version": "2015-01-09",
            **parameters,
        }
        text = rpc_string_to_sign(method, given)
        given["Signature"] = rpc_signature(text, secret or self.user.access_key_secret)
        given |= changed or {}
        if in_form:
            form = urlencode(given).encode()
            return self.send(method, "", {"content-type": "application/x-www-form-urlencoded"}, form)
        return self.send(method, "&".join(f"{name}={encode(value)}" for name, value in given.items()), {})

    def ok(self, action: str, **parameters: Any) -> dict[str, Any]:
        status, fields = self.acs3(action, **parameters)
        assert 200 == status, fields
        return fields

    def refused(self, action: str, **parameters: Any) -> tuple[int, str]:
        """Status and code; what every refusal has in common is checked on the way."""
        status, fields = self.acs3(action, **parameters)
        assert {"RequestId", "Message", "Recommend", "HostId", "Code"} <= set(fields)
        assert "PageNumber" not in json.dumps(fields)  # acme.sh takes that word for "zone found"
        return status, fields["Code"]

    def add(self, rr: str = "_acme-challenge", value: str = "v", **more: str) -> str:
        wanted = {"DomainName": "example.test", "RR": rr, "Type": "TXT", "Value": value, **more}
        record_id: str = self.ok("AddDomainRecord", **wanted)["RecordId"]
        return record_id

    def values(self, **search: str) -> list[str]:
        """The values that DescribeDomainRecords finds, in its order."""
        listed = self.ok("DescribeDomainRecords", DomainName="example.test", **search)
        return [record["Value"] for record in listed["DomainRecords"]["Record"]]


@contextmanager
def one_server() -> Iterator[dict[str, Any]]:
    """One HTTP server for a module's tests; `app` in the dict is what answers at present."""
    holder: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await holder["app"](scope, receive, send)

    with Server(app) as server:
        holder["address"] = ("127.0.0.1", server.port)
        yield holder
