"""Several endpoints of one bucket, some of which fail: which one is asked, when, and what is said."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
import stamina
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from certcast.config.model import StoreConfig
from certcast.credentials import Keys
from certcast.report.errors import ConfigInvalid, StoreDenied, StoreUnreachable
from certcast.storage import open_store, oss
from certcast.storage.oss import HURRIED_CONNECT_SECONDS, REMEMBERED_SECONDS, OssStore
from certcast.storage.store import Object
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket, Stored
from certcast_lab.serving.asgi import Server

ACCOUNT = "1234567890"
BODY = b"a manifest"
EVERYTHING = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "oss:*", "Resource": "*"}]}


class Ways:
    """Two ways to one bucket: each an emulator of its own, so that faults strike one of them."""

    def __init__(self, stack: ExitStack) -> None:
        ram = Ram()
        self.user = ram.add(User(ACCOUNT, "consumer", "LTAIconsumer", "secret", policies=[EVERYTHING]))
        self.near, self.far = OssApi(ram), OssApi(ram)
        bucket = Bucket("bucket", account=ACCOUNT)
        bucket.put("manifest", Stored(BODY, 0))
        for api in (self.near, self.far):
            api.add_bucket(bucket)
        self.urls = [stack.enter_context(Server(api)).url for api in (self.near, self.far)]

    def open(self, *endpoints: str, deadline: float = 20.0) -> OssStore:
        return OssStore(
            "oss://bucket",
            region="cn-hangzhou",
            endpoints=endpoints or self.urls,
            keys=lambda: Keys("LTAIconsumer", "secret"),
            deadline=deadline,
        )

    @property
    def asked(self) -> tuple[int, int]:
        """How many requests each of the two got."""
        return len(self.near.requests), len(self.far.requests)


@pytest.fixture
def ways() -> Iterator[Ways]:
    with ExitStack() as stack:
        yield Ways(stack)


@pytest.fixture
def no_pauses() -> Iterator[None]:
    """The same attempts, without the waits in between."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def assert_read(store: OssStore) -> None:
    found = store.get("manifest", limit=100)
    assert isinstance(found, Object)
    assert BODY == found.body


@pytest.mark.usefixtures("no_pauses")
def test_one_lost_reply_is_no_reason_to_leave(ways):
    """A connection that breaks once is made again at the same endpoint, and the other one isn't asked."""
    ways.near.faults.turn_on("lost_reply", times=1)
    assert_read(ways.open())
    assert (2, 0) == ways.asked


@pytest.mark.usefixtures("no_pauses")
def test_an_endpoint_that_always_breaks_is_left(ways):
    """The second break in a row hands over to the next endpoint, which is asked first from then on."""
    ways.near.faults.turn_on("lost_reply")
    store = ways.open()

    assert_read(store)
    assert (2, 1) == ways.asked
    assert_read(store)
    assert_read(store)
    assert (2, 3) == ways.asked


@pytest.mark.usefixtures("no_pauses")
def test_a_better_endpoint_gets_its_chance_again(ways, monkeypatch):
    """A process that runs for months returns to the configured order, however often the other one served."""
    ways.near.faults.turn_on("lost_reply", times=2)
    store = ways.open()
    for _ in range(3):
        assert_read(store)
    assert (2, 3) == ways.asked

    later = SimpleNamespace(monotonic=lambda: time.monotonic() + REMEMBERED_SECONDS + 1)
    monkeypatch.setattr(oss, "time", later)
    for _ in range(2):
        assert_read(store)
    assert (4, 3) == ways.asked


@pytest.mark.usefixtures("no_pauses")
def test_a_throttled_bucket_is_not_asked_the_other_way(ways):
    """OSS that asks to slow down has answered: going round by another door would not be slower."""
    ways.near.faults.turn_on("throttle")

    with pytest.raises(StoreUnreachable, match="no usable answer"):
        ways.open().get("manifest", limit=100)

    assert (5, 0) == ways.asked


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("status", [403, 404, 502])
def test_a_page_of_somebody_else_hands_over_at_once(ways, status):
    """A portal's or a load balancer's page in the first endpoint's place: the next one serves."""
    seen: list[str] = []
    with portal(status, seen=seen) as url:
        assert_read(ways.open(url, ways.urls[1]))
    assert 1 == len(seen)
    assert (0, 1) == ways.asked


@contextmanager
def portal(
    status: int, body: str = "<html>Please log in</html>", seen: list[str] | None = None
) -> Iterator[str]:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if seen is not None:
            seen.append(scope["path"])
        await Response(body, status)(scope, receive, send)

    with Server(page) as server:
        yield server.url


@contextmanager
def black_hole() -> Iterator[str]:
    """A port that takes no connection and refuses none, like a firewall that drops."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):  # more than its queue holds
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(hole.getsockname())
        yield f"http://127.0.0.1:{hole.getsockname()[1]}"


def test_a_network_that_drops_costs_two_seconds_once(ways):
    """From outside, a run waits for the internal endpoint briefly, and at its first request alone."""
    with black_hole() as url:
        store = ways.open(url, ways.urls[1])
        start = time.monotonic()
        assert_read(store)
        first = time.monotonic() - start
        assert_read(store)
        second = time.monotonic() - start - first

    assert HURRIED_CONNECT_SECONDS <= first < HURRIED_CONNECT_SECONDS + 1
    assert second < 0.5


CLOSED = "<Error><Code>PublicEndpointForbidden</Code><Message>No.</Message><RequestId>1</RequestId></Error>"


@pytest.mark.usefixtures("no_pauses")
def test_closed_here_and_unreachable_there(ways):
    """The internal endpoint is down, the public one closed: worth another try; both are told."""
    with portal(400, CLOSED) as public, pytest.raises(StoreUnreachable) as failure:
        ways.open("http://127.0.0.1:9", public).get("manifest", limit=100)

    assert "Connection refused" in str(failure.value.found)
    assert "PublicEndpointForbidden" in str(failure.value.found)
    assert "https://oss-cn-hangzhou-internal.aliyuncs.com" in str(failure.value.expected)


@pytest.mark.usefixtures("no_pauses")
def test_a_refusal_is_not_remembered(ways):
    """An endpoint that refuses does not serve: the configured order stays for the next request."""
    ways.near.faults.turn_on("lost_reply", times=2)
    ways.user.policies = []
    store = ways.open()
    with pytest.raises(StoreDenied):
        store.get("manifest", limit=100)
    assert (2, 1) == ways.asked
    ways.user.policies = [EVERYTHING]
    assert_read(store)
    assert (3, 1) == ways.asked


def test_an_s3_store_has_one_endpoint():
    """Several endpoints of an s3:// store are a mistake that is named, not a choice that is made."""
    several = StoreConfig("s3://bucket/prefix", "us-east-1", ("https://a.example", "https://b.example"))
    with pytest.raises(ConfigInvalid, match="s3:// store has one endpoint"):
        open_store(several)
