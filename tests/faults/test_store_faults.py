"""A bucket that misbehaves, as certcast's store shows it to the rest of the program.

Either the user gets the right bytes a little later, or an error that says what
happened; never wrong bytes, and never a wait without an end.
"""

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import stamina
from alibabacloud_oss_v2.crc import Crc64
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from certcast.config.model import StoreConfig
from certcast.credentials import Keys
from certcast.report.errors import StoreClock, StoreDenied, StoreError, StoreNoBucket, StoreUnreachable
from certcast.storage.objects import ObjectsStore
from certcast.storage.oss import OssStore
from certcast.storage.store import Object
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket
from certcast_lab.serving.asgi import Server
from sockets import answering, dripping, port_where

ACCOUNT = "1234567890"
BODY = b"a manifest"
EVERYTHING = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "oss:*", "Resource": "*"}]}


class Cloud:
    """The emulator, one bucket with one object, and the store that reads it."""

    def __init__(self, api: OssApi, url: str) -> None:
        api.ram.add(User(ACCOUNT, "consumer", "LTAIconsumer", "consumer-secret", policies=[EVERYTHING]))
        self.api = api
        self.url = url
        self.faults = api.faults
        self.user = api.ram.by_access_key("LTAIconsumer")
        self.bucket = api.add_bucket(Bucket("bucket", account=ACCOUNT))
        self.store = self.open()
        self.store.put("manifest", BODY)

    def open(self, deadline: float = 10.0, region: str = "cn-hangzhou", bucket: str = "bucket") -> OssStore:
        return OssStore(
            f"oss://{bucket}/certcast",
            region=region,
            endpoints=[self.url],
            keys=lambda: Keys("LTAIconsumer", "consumer-secret"),
            deadline=deadline,
        )

    def asked(self, action: str) -> int:
        return sum(request.action == action for request in self.api.requests)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, list[OssApi]]]:
    """One server for all tests, as each start and stop takes its time, and the place of the API behind it."""
    current: list[OssApi] = []

    async def latest(scope: Scope, receive: Receive, send: Send) -> None:
        await current[-1](scope, receive, send)

    with Server(latest) as server:
        yield server.url, current


@pytest.fixture
def cloud(address) -> Cloud:
    url, current = address
    current[:] = [OssApi(Ram())]
    return Cloud(current[0], url)


@pytest.fixture
def no_pauses() -> Iterator[None]:
    """The same attempts, without the waits in between."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def body_of(found: object) -> bytes:
    assert isinstance(found, Object)
    return found.body


@pytest.mark.parametrize("kind", ["throttle", "server_error", "lost_reply", "truncated", "flipped"])
@pytest.mark.usefixtures("no_pauses")
def test_a_passing_fault_costs_a_retry_and_nothing_else(cloud, kind):
    """Throttling, a server error, a lost, shortened or damaged answer: the host gets the right object."""
    cloud.faults.turn_on(kind, action="GetObject", times=2)

    assert BODY == body_of(cloud.store.get("manifest", limit=100))
    assert 2 == cloud.faults.consumed(kind)


@pytest.mark.parametrize("kind", ["throttle", "server_error", "lost_reply", "flipped"])
@pytest.mark.usefixtures("no_pauses")
def test_publishing_survives_a_passing_fault(cloud, kind):
    """The publisher's object arrives whole, and the answer names what is really stored."""
    cloud.faults.turn_on(kind, action="PutObject", times=2)

    etag = cloud.store.put("manifest", b"the next one")

    assert 2 == cloud.faults.consumed(kind)
    assert b"the next one" == body_of(cloud.store.get("manifest", limit=100))
    assert cloud.bucket.get("certcast/manifest").etag == etag


@pytest.mark.usefixtures("no_pauses")
def test_a_damaged_upload_never_becomes_an_object(cloud):
    """An upload that is damaged each time ends in an error, and the old object stays as it was."""
    cloud.faults.turn_on("flipped", action="PutObject")

    with pytest.raises(StoreUnreachable, match="no usable answer") as failure:
        cloud.store.put("manifest", b"the next one")

    assert "InvalidDigest" in failure.value.report()
    assert BODY == cloud.bucket.get("certcast/manifest").body


@pytest.mark.parametrize("kind", ["throttle", "lost_reply"])
@pytest.mark.usefixtures("no_pauses")
def test_listing_and_deleting_are_tried_again(cloud, kind):
    """Pruning old releases doesn't fail for one refused request."""
    for action in ("ListObjectsV2", "DeleteObject"):
        cloud.faults.turn_on(kind, action=action, times=1)

    assert ["manifest"] == cloud.store.list("")
    cloud.store.delete("manifest")

    assert [] == cloud.store.list("")


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("throttle", "503 ServiceUnavailable"),
        ("server_error", "500 InternalError"),
        ("truncated", "IncompleteRead"),
        ("lost_reply", "closed connection"),
        ("flipped", "CRC-64"),
    ],
)
@pytest.mark.usefixtures("no_pauses")
def test_a_lasting_fault_ends_with_what_was_seen(cloud, kind, found):
    """After five attempts the operator reads what the bucket did, and wrong bytes are never handed over."""
    before = cloud.asked("GetObject")
    cloud.faults.turn_on(kind, action="GetObject")

    with pytest.raises(StoreUnreachable) as failure:
        cloud.store.get("manifest", limit=100)

    assert found in failure.value.report()
    assert 5 == cloud.asked("GetObject") - before


def test_attempts_are_spread_over_some_time(cloud):
    """A throttled host doesn't hammer: about half a second lies between the first and the third attempt."""
    cloud.faults.turn_on("throttle", action="GetObject", times=2)
    start = time.monotonic()
    cloud.store.get("manifest", limit=100)
    assert 0.3 < time.monotonic() - start < 3


def refused(cloud: Cloud, change: Callable[[], OssStore | None]) -> StoreError:
    store = change() or cloud.store
    before = cloud.asked("GetObject")
    with pytest.raises(StoreError) as failure:
        store.get("manifest", limit=100)
    assert 1 == cloud.asked("GetObject") - before, "no attempt mends this"
    return failure.value


def test_a_wrong_clock_is_named_with_the_right_time(cloud):
    """A host whose clock is off is told so, and not that its key is bad."""
    error = refused(cloud, lambda: setattr(cloud.api, "clock", lambda: time.time() + 3600))
    assert isinstance(error, StoreClock)
    assert time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() + 3600)) in str(error.expected)


def test_a_missing_right_is_named(cloud):
    """The operator reads which right the host's RAM user lacks."""
    error = refused(cloud, lambda: setattr(cloud.user, "policies", []))
    assert isinstance(error, StoreDenied)
    assert "oss:GetObject" in str(error.next)


@pytest.mark.parametrize("missing", ["oss:ListObjectVersions", "oss:DeleteObjectVersion"])
def test_purging_without_a_right_says_what_may_be_left(cloud, missing):
    """Who may not see or delete versions reads which right is missing, and that old ones may be readable."""
    rights = {"oss:DeleteObject", "oss:ListObjectVersions", "oss:DeleteObjectVersion"} - {missing}
    cloud.bucket.versioning = "Enabled"
    cloud.user.policies = [
        {"Version": "1", "Statement": [{"Effect": "Allow", "Action": sorted(rights), "Resource": "*"}]}
    ]

    with pytest.raises(StoreDenied) as failure:
        cloud.store.purge("manifest")

    assert missing in str(failure.value.next)
    assert "older versions of it may still be read" in str(failure.value.kept)
    assert cloud.bucket.get("certcast/manifest") is None


@pytest.mark.parametrize("kind", ["throttle", "server_error", "lost_reply"])
@pytest.mark.usefixtures("no_pauses")
def test_purging_survives_a_passing_fault(cloud, kind):
    """A host's key is gone with all versions although the bucket stumbled on the way."""
    cloud.bucket.versioning = "Enabled"
    cloud.store.put("manifest", b"the next one")
    for action in ("DeleteObject", "ListObjectVersions"):
        cloud.faults.turn_on(kind, action=action, times=2)

    assert cloud.store.purge("manifest")

    assert [] == cloud.bucket.versions()


def test_one_deadline_is_around_all_of_a_purge(cloud):
    """A slow bucket with many versions of a key holds the command for one deadline, not for one each."""
    cloud.bucket.versioning = "Enabled"
    for number in range(20):
        cloud.store.put("manifest", b"%d" % number)
    cloud.faults.turn_on("delay", action="DeleteObject", seconds=0.15)

    start = time.monotonic()
    with pytest.raises(StoreUnreachable, match=r"no complete answer within 0\.5 s") as failure:
        cloud.open(deadline=0.5).purge("manifest")

    assert time.monotonic() - start < 2
    assert "older versions of it may still be read" in str(failure.value.kept)


def test_a_wrong_secret_is_named_and_not_shown(cloud):
    """A mistyped secret is recognised, and neither it nor a signature is in the report."""
    error = refused(cloud, lambda: setattr(cloud.user, "access_key_secret", "another"))
    assert isinstance(error, StoreDenied)
    assert "AccessKey secret" in str(error.next)
    assert "consumer-secret" not in error.report()
    assert "OSS4-HMAC" not in error.report()


def test_a_disabled_key_is_named(cloud):
    """Someone switched the key off in the console: that is what the host reports."""
    error = refused(cloud, lambda: setattr(cloud.user, "active", False))
    assert isinstance(error, StoreDenied)
    assert "active" in str(error.next)


def test_an_endpoint_name_for_a_region_is_named(cloud):
    """`oss-cn-hangzhou` instead of `cn-hangzhou`: the next step says how a region is written."""
    error = refused(cloud, lambda: cloud.open(region="oss-cn-hangzhou"))
    assert isinstance(error, StoreDenied)
    assert "without oss-" in str(error.next)


def test_a_missing_bucket_is_named(cloud):
    """A mistyped bucket isn't tried five times."""
    assert isinstance(refused(cloud, lambda: cloud.open(bucket="absent")), StoreNoBucket)


@pytest.mark.parametrize("status", [200, 301, 403, 404])
@pytest.mark.usefixtures("no_pauses")
def test_a_page_of_somebody_else_is_not_an_answer_of_the_bucket(cloud, status):
    """A captive portal's page is never taken for "no such key", "denied", or an object that is whole."""

    async def portal(scope: Scope, receive: Receive, send: Send) -> None:
        page = Response("<html>Please log in</html>", status, {"location": "http://127.0.0.1:9/"})
        await page(scope, receive, send)

    with Server(portal) as server:
        cloud.url = server.url
        store = cloud.open()
        for call in (
            lambda: store.get("manifest", limit=100),
            lambda: store.put("manifest", b""),
            lambda: store.list(""),
        ):
            with pytest.raises(StoreUnreachable):
                call()


WHOLE = (
    b'HTTP/1.1 200 OK\r\nETag: "D41D8CD98F00B204E9800998ECF8427E"\r\n'
    b"x-oss-hash-crc64ecma: 11177612005948864433\r\nContent-Length: 5\r\n\r\nhello"
)


# oss-v2 forgets to close an answer whose Content-Length is no number.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
@pytest.mark.usefixtures("no_pauses")
def test_an_answer_that_breaks_off_anywhere_is_no_answer(length):
    """A connection lost in the middle of the header is not taken for an empty object."""
    with answering(WHOLE[:length]) as port:
        store = OssStore(
            "oss://bucket",
            region="cn-hangzhou",
            endpoints=[f"http://127.0.0.1:{port}"],
            keys=lambda: Keys("LTAIconsumer", "consumer-secret"),
        )
        for call in (
            lambda: store.get("manifest", limit=100),
            lambda: store.list(""),
        ):
            with pytest.raises(StoreUnreachable):
                call()


@pytest.mark.usefixtures("no_pauses")
def test_an_endless_error_page_does_not_fill_the_memory(cloud):
    """A server that answers an error with gigabytes is cut off after 4 MiB."""

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        for _ in range(8):
            await send({"type": "http.response.body", "body": b"x" * 1024 * 1024, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with Server(flood) as server:
        cloud.url = server.url
        with pytest.raises(StoreUnreachable, match="cannot be reached") as failure:
            cloud.open().get("manifest", limit=100)
    assert "4,194,304" in failure.value.report()


def packed(status: bytes) -> tuple[bytes, bytes]:
    """An answer of some hundred octets in which there are megabytes, and its body."""
    body = gzip.compress(gzip.compress(bytes(64 * 1024 * 1024)))
    assert len(body) < 1000
    checksum = Crc64(0)
    checksum.update(body)
    head = b'HTTP/1.1 %s\r\nETag: "1"\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n%s'
    crc = b"x-oss-hash-crc64ecma: %d\r\n\r\n" % checksum.sum64()
    return head % (status, len(body), crc + body), body


@pytest.mark.parametrize("status", [b"200 OK", b"500 Internal Server Error"])
@pytest.mark.usefixtures("no_pauses")
def test_nothing_is_unpacked(status):
    """
    Who can write to the bucket can't fill a host's memory by an object that is packed: it is handed on as
    it is stored, which nobody has signed. Nor can an error page; and nothing packed is asked for.
    """
    answer, body = packed(status)
    heard = []

    def speak(connection: socket.socket, _over: threading.Event) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(answer)

    with port_where(speak) as port:
        store = OssStore(
            "oss://bucket",
            region="cn-hangzhou",
            endpoints=[f"http://127.0.0.1:{port}"],
            keys=lambda: Keys("LTAIconsumer", "consumer-secret"),
        )
        tracemalloc.start()
        try:
            if status == b"200 OK":
                assert body == body_of(store.get("manifest", limit=1000))
            else:
                with pytest.raises(StoreUnreachable, match="cannot be reached"):
                    store.get("manifest", limit=1000)
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert peak < 4 * 1024 * 1024
    assert b"accept-encoding: identity" in heard[0].lower()


@pytest.mark.parametrize("kind", ["delay", "drip"])
def test_the_deadline_cuts_a_slow_answer(cloud, kind):
    """A bucket that answers octet by octet holds a host for the deadline, not for hours."""
    cloud.faults.turn_on(kind, action="GetObject", seconds=0.6)
    cloud.store.put("manifest", BODY * 100)
    store = cloud.open(deadline=0.5)

    start = time.monotonic()
    with pytest.raises(StoreUnreachable, match=r"no complete answer within 0\.5 s"):
        store.get("manifest", limit=10_000)
    assert 0.4 < time.monotonic() - start < 1.5

    cloud.faults.turn_off()
    assert BODY * 100 == body_of(store.get("manifest", limit=10_000))


# The beginning of a TLS record of 16 KiB: a handshake that is never finished.
HANDSHAKE = b"\x16\x03\x03\x40\x00"
HEADER = b"HTTP/1.1 200 OK\r\nX-Padding: "
BEGUN = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: "1"\r\n'
    b"Last-Modified: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n"
)


@pytest.mark.parametrize("scheme", ["oss", "s3"])
@pytest.mark.parametrize(
    ("protocol", "answer"),
    [("https", HANDSHAKE), ("http", HEADER), ("http", BEGUN)],
    ids=["handshake", "header", "body"],
)
def test_the_deadline_cuts_wherever_the_answer_drips(scheme, protocol, answer, monkeypatch):
    """Handshake, header or body: no part of an answer can be drawn out beyond the deadline."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with dripping(answer) as port:
        endpoint = f"{protocol}://127.0.0.1:{port}"
        config = StoreConfig(f"{scheme}://bucket/prefix", "cn-hangzhou", (endpoint,))
        store = (
            ObjectsStore.from_config(config, deadline=1)
            if scheme == "s3"
            else OssStore(
                config.url,
                region="cn-hangzhou",
                endpoints=[endpoint],
                keys=lambda: Keys("LTAIconsumer", "consumer-secret"),
                deadline=1,
            )
        )
        start = time.monotonic()
        with pytest.raises(StoreUnreachable):
            store.get("manifest", limit=100_000)
        assert time.monotonic() - start < 2


def test_a_resident_host_recovers_after_every_cut(cloud):
    """After an operation was cut, the next one of the same process works, and no thread is left behind."""
    store = cloud.open(deadline=0.3)
    threads = threading.active_count()
    for _ in range(3):
        cloud.faults.turn_on("drip", action="GetObject", seconds=0.2, times=1)
        with pytest.raises(StoreUnreachable):
            store.get("manifest", limit=100)
        assert BODY == body_of(store.get("manifest", limit=100))
    assert threads == threading.active_count()


CHILD = """
import json, sys
from certcast.config.model import StoreConfig
from certcast.report.errors import StoreError
from certcast.storage import open_store

store = open_store(StoreConfig("oss://bucket/certcast", "cn-hangzhou", (sys.argv[1],)))
try:
    said = store.get("manifest", limit=100).body.decode()
except StoreError as error:
    said = error.report()
print(json.dumps([said, "alibabacloud_credentials" in sys.modules]))
"""


def child(endpoint: str, home: str, **environ: str) -> tuple[str, bool]:
    """What a host with this environment reads, and whether the official credentials package was loaded."""
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, endpoint],
        env={"HOME": home, "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "" == ran.stderr
    said, loaded = json.loads(ran.stdout)
    return said, loaded


def test_keys_in_the_environment_need_no_credentials_package(cloud, tmp_path):
    """The usual host starts without half a second of imports, and a retry that helped is not worth a word."""
    cloud.faults.turn_on("throttle", action="GetObject", times=1)
    said, loaded = child(
        cloud.url,
        str(tmp_path),
        ALIBABA_CLOUD_ACCESS_KEY_ID="LTAIconsumer",
        ALIBABA_CLOUD_ACCESS_KEY_SECRET="consumer-secret",
    )
    assert (BODY.decode(), False) == (said, loaded)


def test_the_official_chain_finds_temporary_keys(cloud, tmp_path):
    """A host without a key of its own works with one that a credentials URI hands out."""
    cloud.user.security_token = "sts"

    async def vending(scope: Scope, receive: Receive, send: Send) -> None:
        keys = {
            "Code": "Success",
            "AccessKeyId": "LTAIconsumer",
            "AccessKeySecret": "consumer-secret",
            "SecurityToken": "sts",
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
        }
        await JSONResponse(keys)(scope, receive, send)

    with Server(vending) as server:
        said, loaded = child(cloud.url, str(tmp_path), ALIBABA_CLOUD_CREDENTIALS_URI=server.url)
    assert (BODY.decode(), True) == (said, loaded)


def test_a_host_without_any_key_is_told_where_to_put_one(cloud, tmp_path):
    """No traceback and no hint at secrets: what is missing, and the three places for it."""
    said, _ = child(cloud.url, str(tmp_path))
    assert "there is no AccessKey to sign with" in said
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID" in said
