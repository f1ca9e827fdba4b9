"""A host whose clock is wrong: whatever word the cloud refuses it with, the clock is named before any key.

The servers' clocks are shifted here, which is the same to the host as its own being off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest
import stamina
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from certcast.config.model import DnsConfig, HttpUrl
from certcast.credentials import Keys
from certcast.dns01.alidns.alidns import Alidns
from certcast.report.errors import DnsDenied, DnsFailed, StoreClock, StoreDenied, StoreError, StoreUnreachable
from certcast.storage.oss import OssStore
from certcast_lab.aliyun.alidns_api import AlidnsApi
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.dns.zones import Zones
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.authority import Authority

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI-dns")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")


@contextmanager
def answering(answer: Callable[[], Response]) -> Iterator[str]:
    """A server that says one thing to everybody."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer()(scope, receive, send)

    with Server(app) as server:
        yield server.url


def store_at(url: str) -> OssStore:
    return OssStore(
        "oss://bucket/certcast",
        region="cn-hangzhou",
        endpoints=[url],
        keys=lambda: Keys("LTAI-dns", "secret"),
        whose="profile acme of ~/.aliyun/config.json",
    )


def said_by_oss(code: str, off: timedelta) -> StoreError:
    """What the store makes of a refusal whose Date is that far off."""
    body = f"<Error><Code>{code}</Code><Message>No.</Message><RequestId>1</RequestId></Error>"
    date = formatdate(time.time() + off.total_seconds(), usegmt=True)
    with (
        answering(lambda: Response(body, 403, {"date": date}, media_type="application/xml")) as url,
        pytest.raises(StoreError) as failure,
    ):
        store_at(url).get("manifest", limit=100)
    return failure.value


@pytest.mark.parametrize(
    "code",
    [
        "SignatureDoesNotMatch",
        "AccessDenied",
        "RequestTimeTooSkewed",
        "SecurityTokenExpired",
        "InvalidAccessKeyId",
    ],
)
def test_oss_refuses_and_its_date_is_another_day(code):
    """Whichever code OSS has for it, the report names the clock and both times."""
    error = said_by_oss(code, DAY)

    assert isinstance(error, StoreClock)
    assert "24 hours behind" in str(error.found)
    assert f"{datetime.now(timezone.utc) + DAY:%Y-%m-%dT%H}" in str(error.expected)
    assert "timedatectl" in str(error.next)


def test_oss_refuses_and_the_clocks_agree():
    """With both clocks within 15 minutes it is the key, and the report says which one."""
    error = said_by_oss("SignatureDoesNotMatch", timedelta(minutes=14))

    assert isinstance(error, StoreDenied)
    assert "profile acme of ~/.aliyun/config.json" in str(error.found)


def alidns_at(url: str) -> Alidns:
    return Alidns(DnsConfig(endpoint=HttpUrl(url)))


def test_alidns_finds_the_time_stamp_expired():
    """InvalidTimeStamp.Expired comes with the server's own time: how far this host is off is said."""
    ram = Ram()
    ram.add(User("100", "dns", "LTAI-dns", "secret"))
    api = AlidnsApi(ram, Zones(), now=lambda: datetime.now(timezone.utc) - timedelta(hours=5))
    with Server(api.app) as server, pytest.raises(DnsFailed, match="clock is wrong") as failure:
        alidns_at(server.url).zones()

    assert "5 hours ahead" in str(failure.value.found)
    assert 1 == len(api.log), "no repetition mends it"


@pytest.mark.parametrize(
    ("off", "kind"), [(DAY, DnsFailed), (-DAY, DnsFailed), (timedelta(minutes=10), DnsDenied)]
)
@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidSecurityToken.Expired"])
def test_alidns_blames_the_signature(code, off, kind):
    """A signature that doesn't match is the clock's fault where the clocks differ, else the key's."""
    date = formatdate(time.time() + off.total_seconds(), usegmt=True)
    refusal = {"Code": code, "Message": "server string to sign is:POST", "RequestId": "1"}
    with (
        answering(lambda: JSONResponse(refusal, 400, {"date": date})) as url,
        pytest.raises((DnsFailed, DnsDenied)) as failure,
    ):
        alidns_at(url).zones()

    assert kind is type(failure.value)
    assert ("clock" in failure.value.what) is (kind is DnsFailed)
    assert "string to sign" not in failure.value.report()


@pytest.mark.parametrize("off", [400 * DAY, -400 * DAY])
def test_tls_finds_the_certificate_out_of_its_dates(off, monkeypatch, tmp_path):
    """A clock that is a year off fails in TLS already; the report's next step is the clock."""
    authority = Authority("lab")
    begin = datetime.now(timezone.utc) + off
    pair = authority.issue("localhost", not_before=begin, not_after=begin + 90 * DAY)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("")(scope, receive, send)

    with Server(nobody, tls=server_context(*pair)) as server, stamina.set_testing(True, attempts=1):
        url = f"https://localhost:{server.port}"
        for fails in (lambda: store_at(url).get("x", limit=1), lambda: alidns_at(url).zones()):
            with pytest.raises((StoreUnreachable, DnsFailed)) as failure:
                fails()
            assert "timedatectl" in str(failure.value.next)
            assert "CERTIFICATE_VERIFY_FAILED" in str(failure.value.found)
