"""A relay that misbehaves, as a host without credentials meets it.

Nothing that it says is believed: either the host gets what was published, or an error that
tells the operator what came instead. The relay is a real nginx wherever an nginx can do it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import stamina
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from certcast.config.model import StoreConfig
from certcast.report.errors import (
    ConfigInvalid,
    ManifestExpired,
    ManifestMissing,
    SignatureInvalid,
    StoreDenied,
    StoreNoBucket,
    StoreTooLarge,
    StoreUnreachable,
)
from certcast.storage import open_reader, open_store
from certcast.storage.store import Object, Unchanged
from certcast.storage.web import WebStore
from certcast_lab.aliyun.ram import Ram
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket, Stored
from certcast_lab.serving.asgi import Server
from certcast_lab.serving.authority import Authority
from certcast_lab.web.relay import Relay
from consuming import DAY, Consumer, consumer
from sockets import answering, dripping, port_where

URL = "oss://bucket/certcast"
BODY = b"a manifest"
LONG_AGO = 1_700_000_000


@pytest.fixture
def no_pauses() -> Iterator[None]:
    """The same attempts, without the waits in between."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def copy(tmp_path) -> Path:
    """The folder that a relay serves, with one object of some age."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "manifest").write_bytes(BODY)
    os.utime(folder / "manifest", (0, LONG_AGO))
    return folder


def relay(copy: Path, extra: str = "", **options: object) -> Relay:
    return Relay(copy.parent / "nginx", "certcast", root=copy, extra=extra, **options)  # type: ignore[arg-type]


def store(read_from: str, deadline: float = 10.0) -> WebStore:
    return WebStore(URL, read_from, deadline=deadline)


def get(read_from: str, unless: str | None = None) -> Object | Unchanged | None:
    return store(read_from).get("manifest", limit=100, unless=unless)


def body_of(found: object) -> bytes:
    assert isinstance(found, Object)
    return found.body


# -- what a pull makes of it


@pytest.fixture
def web(tmp_path) -> Iterator[Consumer]:
    """A host that serves release A, and reads through a relay from now on."""
    with consumer(tmp_path) as web:
        web.publish("A")
        web.first_pull()
        yield web


def pull_through(web: Consumer, relay: Relay) -> None:
    web.pull(store=WebStore(web.config.store.url, relay.url), force=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ("return 200 '<html>Please log in</html>';", SignatureInvalid),
        ("return 404;", ManifestMissing),
        ("return 302 https://login.example.test/?from=relay;", StoreUnreachable),
        ("deny all;", StoreDenied),
        ("return 503;", StoreUnreachable),
    ],
    ids=["page", "not found", "redirect", "forbidden", "unavailable"],
)
@pytest.mark.usefixtures("no_pauses")
def test_the_host_keeps_what_it_serves(web, extra, error):
    """Whatever another server says instead of the manifest, the host keeps its certificate and reports it."""
    web.publish("B")
    with (
        Relay(web.host.root / "nginx", "certcast", root=web.host.root.parent / "store", extra=extra) as relay,
        pytest.raises(error) as failure,
    ):
        pull_through(web, relay)

    assert failure.value.next
    assert web.leaf("A") == web.served()
    assert [] == web.leftovers()


@pytest.mark.usefixtures("no_pauses")
def test_a_host_goes_on_when_the_relay_is_back(web):
    """With the relay down the host serves on and reports it; with the relay back it takes the new one."""
    web.publish("B")
    relay = Relay(web.host.root / "nginx", "certcast", root=web.host.root.parent / "store")
    with relay:
        relay.stop()
        with pytest.raises(StoreUnreachable, match="cannot be reached") as failure:
            pull_through(web, relay)
        assert "store.read_from" in str(failure.value.next)
        assert web.leaf("A") == web.served()

        relay.start()
        pull_through(web, relay)
    assert web.leaf("B") == web.served()


def test_a_relay_that_stands_still_freezes_nobody_silently(web, tmp_path):
    """A copy that nobody brings up to date says 304 for ever; when its manifest has expired, that is told."""
    web.publish("B", expires=DAY + timedelta(days=7))
    copy = shutil.copytree(tmp_path / "store", tmp_path / "copy")
    for path in copy.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    with Relay(tmp_path / "nginx", "certcast", root=copy) as relay:
        through = WebStore(web.config.store.url, relay.url)
        web.pull(store=through, force=True)
        web.publish("C")

        web.pull(now=DAY + timedelta(days=6), store=through, force=True)
        with pytest.raises(ManifestExpired):
            web.pull(now=DAY + timedelta(days=8), store=through, force=True)

        assert [" 304"] * 2 == [line[-4:] for line in relay.asked() if "/manifest" in line][1:]
    assert web.leaf("B") == web.served()


# -- what the store makes of it


@pytest.mark.usefixtures("no_pauses")
def test_a_redirect_is_not_followed(copy):
    """A relay that leads elsewhere is named with that place, without what may be secret, and asked once."""
    with (
        relay(copy, "return 302 https://someone:hush@login.example.test/?token=hush;") as front,
        pytest.raises(StoreUnreachable, match="leads elsewhere") as failure,
    ):
        get(front.url)
    assert "https://login.example.test" in failure.value.report()
    assert "hush" not in failure.value.report()
    assert ["/certcast/manifest 302"] == front.asked()


@pytest.mark.parametrize(("status", "attempts"), [(503, 3), (500, 3), (429, 3), (418, 1), (206, 1)])
@pytest.mark.usefixtures("no_pauses")
def test_what_may_pass_is_tried_again_and_nothing_else(status, attempts):
    """An overloaded relay costs a retry; an answer that has no meaning here is not asked for again."""
    seen = []

    async def stumbling(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        answer = Response(status_code=status) if len(seen) < 3 else Response(BODY)
        await answer(scope, receive, send)

    with Server(stumbling) as server:
        if attempts == 1:
            with pytest.raises(StoreUnreachable, match="no usable answer"):
                get(server.url)
        else:
            assert BODY == body_of(get(server.url))
    assert attempts == len(seen)


def test_the_error_page_of_a_bucket_is_understood():
    """A bucket that doesn't let this host's network in says so, and the operator reads it."""
    statement = {
        "Effect": "Allow",
        "Principal": ["*"],
        "Action": ["oss:GetObject"],
        "Resource": ["acs:oss:*:*:bucket/*"],
        "Condition": {"StringEquals": {"acs:SourceVpc": ["vpc-other"]}},
    }
    api = OssApi(Ram())
    bucket = Bucket("bucket", account="1234567890", policy={"Version": "1", "Statement": [statement]})
    api.add_bucket(bucket).put("manifest", Stored(BODY, LONG_AGO))

    with Server(api) as server, pytest.raises(StoreDenied) as denied:
        get(f"{server.url}/bucket")

    assert "403 AccessDenied" in denied.value.report()
    assert 1 == len(api.requests)


@pytest.mark.usefixtures("no_pauses")
def test_a_bucket_that_is_gone_is_not_an_empty_one():
    """A deleted bucket behind the relay is named, and never taken for "nothing was published"."""

    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("<Error><Code>NoSuchBucket</Code></Error>", 404)(scope, receive, send)

    with Server(gone) as server, pytest.raises(StoreNoBucket):
        get(server.url)


@pytest.mark.usefixtures("no_pauses")
def test_nobody_is_asked_with_credentials(monkeypatch, tmp_path):
    """What the host sends holds no AccessKey, no password of ~/.netrc, no cookie; it asks for plain bytes."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password hush\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIcanary")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "canary-secret")
    seen: list[dict[str, str]] = []

    async def remembering(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(Request(scope).headers))
        await Response(BODY, headers={"set-cookie": "who=you"})(scope, receive, send)

    with Server(remembering) as server:
        reader = store(server.url)
        for unless in (None, '"1"'):
            reader.get("manifest", limit=100, unless=unless)

    allowed = {"host", "user-agent", "accept", "accept-encoding", "cache-control", "connection"}
    assert [allowed, allowed | {"if-none-match"}] == [set(headers) for headers in seen]
    assert ("identity", "no-cache", '"1"') == tuple(
        seen[1][name] for name in ("accept-encoding", "cache-control", "if-none-match")
    )


# -- time and size


@pytest.mark.usefixtures("no_pauses")
def test_an_endless_answer_does_not_fill_the_memory():
    """A relay that never stops sending is cut off one octet behind the limit, with a length or without."""
    sent = 0

    def flood(connection: socket.socket, over: threading.Event) -> None:
        nonlocal sent
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent += 0x10000

    header = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"
    for place in (port_where(flood), answering(header)):
        with place as port, pytest.raises(StoreTooLarge):
            get(f"http://127.0.0.1:{port}")
    assert sent < 16 * 1024 * 1024, "what the system buffers, and no more"


HANDSHAKE = b"\x16\x03\x03\x40\x00"  # the beginning of a TLS record that is never finished
HEADER = b"HTTP/1.1 200 OK\r\nX-Padding: "
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
ERROR = b"HTTP/1.1 503 Wait\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [("https", HANDSHAKE), ("http", HEADER), ("http", BEGUN), ("http", ERROR)],
    ids=["handshake", "header", "body", "error"],
)
def test_the_deadline_cuts_wherever_the_answer_drips(protocol, answer):
    """Handshake, header, object or error page: a relay can hold a host for the deadline, not for hours."""
    threads = threading.active_count()
    with dripping(answer) as port:
        start = time.monotonic()
        with pytest.raises(StoreUnreachable, match="no complete answer within 1 s"):
            store(f"{protocol}://127.0.0.1:{port}", deadline=1).get("manifest", limit=100_000)
        assert 0.9 < time.monotonic() - start < 2
    assert threads == threading.active_count()


WHOLE = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 5\r\n\r\nhello'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("whole", [WHOLE, CHUNKED], ids=["length", "chunks"])
@pytest.mark.usefixtures("no_pauses")
def test_an_answer_that_breaks_off_anywhere_is_no_answer(whole):
    """A connection lost in header or body never gives an empty or a shortened object."""
    with answering(whole) as port:
        assert b"hello" == body_of(get(f"http://127.0.0.1:{port}"))
    # With the zero of the last chunk, nothing can be missing any more.
    for length in range(len(whole.removesuffix(b"0\r\n\r\n"))):
        with answering(whole[:length]) as port, pytest.raises(StoreUnreachable):
            get(f"http://127.0.0.1:{port}")


@pytest.mark.usefixtures("no_pauses")
def test_an_answer_whose_end_nobody_can_tell_is_refused():
    """Where an answer ends with the connection, a broken one looks the same: the error asks for a length."""
    with (
        answering(b"HTTP/1.0 200 OK\r\n\r\nhello") as port,
        pytest.raises(StoreUnreachable) as failure,
    ):
        get(f"http://127.0.0.1:{port}")
    assert "Content-Length" in str(failure.value.expected)


# -- ETags and compression


def test_a_file_that_has_just_changed_has_no_reliable_etag(copy):
    """Of two manifests of one second and one size, which have one ETag at nginx, the host sees the second."""
    manifest = copy / "manifest"
    with relay(copy) as front:
        now = time.time()
        manifest.write_bytes(b"first!")
        os.utime(manifest, (now, now))
        first = get(front.url)
        assert isinstance(first, Object)

        manifest.write_bytes(b"second")
        os.utime(manifest, (now, now))
        assert b"second" == body_of(get(front.url, unless=first.etag))


# What is changed on the way loses its strong ETag; SSI is a filter that can be had without gzip.
WEAK = "ssi on; ssi_types *; ssi_last_modified on;"


def test_weak_etags_save_the_transfer_too(copy):
    """Behind a server that weakens ETags, an unchanged manifest isn't sent again, and a new one is seen."""
    with relay(copy, WEAK) as front:
        first = get(front.url)
        assert isinstance(first, Object)
        assert first.etag.startswith('W/"')
        assert get(front.url, unless=first.etag) is Unchanged.UNCHANGED

        (copy / "manifest").write_bytes(b"the next one")
        os.utime(copy / "manifest", (0, LONG_AGO + 1))
        assert b"the next one" == body_of(get(front.url, unless=first.etag))


def test_a_relay_that_compresses_is_asked_not_to(copy):
    """With gzip on for everything, the object still comes as it was published, with its strong ETag."""
    with relay(copy, "gzip on; gzip_types *; gzip_min_length 1;") as front:
        found = get(front.url)
    assert isinstance(found, Object)
    assert (BODY, '"') == (found.body, found.etag[0])


@pytest.mark.usefixtures("no_pauses")
def test_what_comes_compressed_all_the_same_is_refused(copy):
    """No bomb is unpacked: the error says what to switch off."""
    with (
        relay(copy, "add_header Content-Encoding gzip;") as front,
        pytest.raises(StoreUnreachable) as failure,
    ):
        get(front.url)
    assert "gzip off" in str(failure.value.next)
    assert 1 == len(front.asked())


@pytest.mark.parametrize("etag", ["bare", '"' + "x" * 300 + '"', '"a b"', ""])
def test_an_etag_that_is_none_is_not_kept(etag):
    """What isn't an ETag is never sent back, so that the host asks for the whole object again."""

    async def odd(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(BODY, headers={"etag": etag})(scope, receive, send)

    with Server(odd) as server:
        found = get(server.url)
    assert Object(BODY, "") == found


# -- whom to trust


@pytest.mark.usefixtures("no_pauses")
def test_a_relay_of_an_unknown_authority(copy, monkeypatch):
    """A company's authority: refused at once, with what to do; then trusted by the usual switches."""
    authority = Authority("Company Root")
    bundle = copy.parent / "company.pem"
    bundle.write_bytes(authority.pem)
    with relay(copy, tls=authority.issue(ips=("127.0.0.1",))) as front:
        with pytest.raises(StoreUnreachable) as failure:
            get(front.url)
        assert "certificate verify failed" in failure.value.report()
        assert "update-ca-certificates" in str(failure.value.next)
        assert [] == front.asked()

        for switch in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as environment:
                for other in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
                    environment.delenv(other, raising=False)
                environment.setenv(switch, str(bundle))
                assert BODY == body_of(get(front.url))


@pytest.mark.usefixtures("no_pauses")
def test_a_relay_with_another_servers_certificate(copy, monkeypatch):
    """A trusted authority isn't enough: the certificate must be the relay's."""
    authority = Authority("Company Root")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(copy.parent / "company.pem"))
    (copy.parent / "company.pem").write_bytes(authority.pem)
    with (
        relay(copy, tls=authority.issue("other.example.test")) as front,
        pytest.raises(StoreUnreachable, match="cannot be reached"),
    ):
        get(front.url)


# -- the configuration


@pytest.mark.parametrize(
    "address",
    ["https://someone:hush@relay.example.test/certs", "https://relay.example.test/certs?token=hush"],
)
def test_an_address_with_a_password_is_refused(address):
    """A password would end in reports and in a file that everybody reads; the refusal doesn't show it."""
    with pytest.raises(ConfigInvalid) as failure:
        open_reader(StoreConfig(URL, read_from=address))
    assert "hush" not in failure.value.report()


def test_plain_keys_do_not_go_over_plain_http():
    """Private keys that nothing protects are not fetched over a connection that nothing protects."""
    with pytest.raises(ConfigInvalid, match="plain text"):
        open_reader(StoreConfig(URL, read_from="http://relay.example.test", encryption="none"))
    open_reader(StoreConfig(URL, read_from="https://relay.example.test", encryption="none"))


def test_a_host_that_only_reads_opens_no_store_to_change():
    """What would write says that this host cannot, before any SDK is asked for keys."""
    with pytest.raises(ConfigInvalid, match="only reads"):
        open_store(StoreConfig(URL, "cn-hangzhou", read_from="https://relay.example.test"))


CHILD = """
import json, sys
from certcast.config.model import StoreConfig
from certcast.storage import open_reader

store = open_reader(StoreConfig("oss://bucket/certcast", "cn-hangzhou", read_from=sys.argv[1]))
said = store.get("manifest", limit=100).body.decode()
print(json.dumps([said, [name for name in sys.modules if "alibabacloud" in name or name == "obstore"]]))
"""


def test_a_host_without_credentials_needs_no_sdk(copy):
    """Neither the cloud's SDK nor its credentials package is loaded, with no AccessKey and no home folder."""
    with relay(copy) as front:
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, front.url],
            env={"HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "" == ran.stderr
    assert [BODY.decode(), []] == json.loads(ran.stdout)
