"""One suite for every store, unchanged: what store.py promises, on real implementations.

oss runs against the lab's emulator, s3 against moto, file and memory as they are. What
a reader is promised holds without credentials, too: by HTTP from an nginx that has a copy
of the objects, and from one in front of a bucket that lets the nginx in.
"""

import io
import itertools
import os
import stat
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import obstore
import pytest
from moto.server import ThreadedMotoServer

from certcast.config.model import StoreConfig
from certcast.report.errors import CertcastError, ConfigInvalid, StoreNoBucket, StoreTooLarge
from certcast.storage import open_reader, open_store
from certcast.storage.store import Object, Reader, Store, Unchanged
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket, Stored
from certcast_lab.serving.asgi import Server
from certcast_lab.web.relay import Relay

EVERYTHING = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "oss:*", "Resource": "*"}]}


@dataclass
class Place:
    """Where one implementation keeps its objects, and a place of the same kind that isn't there."""

    config: StoreConfig
    missing: StoreConfig | None

    def open(self, below: str = "") -> Store:
        config = self.config
        if config.url.startswith("file://"):
            Path(config.url.removeprefix("file://") + below).mkdir(exist_ok=True)
        return open_store(StoreConfig(config.url + below, config.region, config.endpoints))


@pytest.fixture(scope="module")
def emulator() -> Iterator[tuple[OssApi, str]]:
    """The lab's OSS and its endpoint."""
    ram = Ram()
    ram.add(User("1234567890", "publisher", "LTAIexample", "secret-of-oss", policies=[EVERYTHING]))
    api = OssApi(ram)
    with Server(api) as server:
        yield api, server.url


@contextmanager
def oss_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    environ, (api, endpoint) = request.getfixturevalue("monkeypatch"), request.getfixturevalue("emulator")
    environ.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAIexample")
    environ.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret-of-oss")
    api.add_bucket(Bucket("bucket", account="1234567890"))
    yield Place(
        StoreConfig("oss://bucket/prefix", "cn-hangzhou", (endpoint,)),
        StoreConfig("oss://absent/prefix", "cn-hangzhou", (endpoint,)),
    )


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """moto's endpoint. One for all tests: stopping it takes half a second."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    with redirect_stdout(io.StringIO()):
        server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    environ, endpoint = request.getfixturevalue("monkeypatch"), request.getfixturevalue("moto")
    environ.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    environ.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-s3")
    for method, path in (("POST", "/moto-api/reset"), ("PUT", "/bucket")):
        urllib.request.urlopen(urllib.request.Request(endpoint + path, method=method)).close()
    yield Place(
        StoreConfig("s3://bucket/prefix", "us-east-1", (endpoint,)),
        StoreConfig("s3://absent/prefix", "us-east-1", (endpoint,)),
    )


@contextmanager
def file_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    folder = request.getfixturevalue("tmp_path")
    (folder / "bucket").mkdir()
    yield Place(StoreConfig(f"file://{folder}/bucket"), StoreConfig(f"file://{folder}/absent"))


@contextmanager
def memory_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield Place(StoreConfig(f"memory://{request.node.name}"), None)


PLACES = {"oss": oss_place, "s3": s3_place, "file": file_place, "memory": memory_place}


@pytest.fixture(params=PLACES)
def place(request) -> Iterator[Place]:
    with PLACES[request.param](request) as place:
        yield place


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


class Relayed:
    """A store that is written with credentials and read without; `age` makes an object an old one.

    An ETag is of no use with another store. So `put` returns the one that a reader gets, seconds later.
    """

    def __init__(self, writer: Store, reader: Reader, age: Callable[[str], None]) -> None:
        self.url = reader.url
        self.list, self.delete, self.purge = writer.list, writer.delete, writer.purge
        self.get = reader.get
        self._writer, self._age = writer, age

    def put(self, key: str, body: bytes) -> str:
        self._writer.put(key, body)
        self._age(key)
        found = self.get(key, limit=len(body))
        assert isinstance(found, Object)
        assert found.etag, "an object of some age has an ETag that can be relied on"
        return found.etag


@dataclass
class RelayedPlace(Place):
    """The same place, and where a relay shows it."""

    read_from: str = ""
    age: Callable[[str], None] = print

    def open(self, below: str = "") -> Store:
        config = StoreConfig(self.config.url + below, read_from=self.read_from + below)
        folder = below.removeprefix("/") + "/" if below else ""
        return Relayed(super().open(below), open_reader(config), lambda key: self.age(folder + key))


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A folder, and the relay that serves it."""
    root = tmp_path_factory.mktemp("copies")
    with Relay(root / "nginx", "copies", root=root) as relay:
        yield root, relay.url


@contextmanager
def relayed_file_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    root, url = request.getfixturevalue("copies")
    name = f"{len(list(root.iterdir()))}"
    (root / name).mkdir()
    long_ago = itertools.count(1_700_000_000)  # nginx's ETag has nothing but size and this

    def age(key: str) -> None:
        os.utime(root / name / key, (0, next(long_ago)))

    yield RelayedPlace(StoreConfig(f"file://{root}/{name}"), None, f"{url}/{name}", age)


@pytest.fixture(scope="module")
def before_the_bucket(emulator, tmp_path_factory) -> Iterator[str]:
    """The address of a relay that asks the emulated bucket."""
    with Relay(tmp_path_factory.mktemp("relay"), "certs", behind=f"{emulator[1]}/bucket/prefix") as relay:
        yield relay.url


OPEN_TO_THE_NETWORK = {
    "Version": "1",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": ["*"],
            "Action": ["oss:GetObject"],
            "Resource": ["acs:oss:*:1234567890:bucket/prefix/*"],
            "Condition": {"StringEquals": {"acs:SourceVpc": ["vpc-lab"]}},
        }
    ],
}


@contextmanager
def relayed_oss_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    url = request.getfixturevalue("before_the_bucket")
    with oss_place(request) as place:
        bucket = Bucket("bucket", account="1234567890", policy=OPEN_TO_THE_NETWORK)
        request.getfixturevalue("emulator")[0].add_bucket(bucket)

        def age(key: str) -> None:
            stored = bucket.get(f"prefix/{key}")
            assert stored
            bucket.put(f"prefix/{key}", replace(stored, modified=stored.modified - 60))

        yield RelayedPlace(place.config, None, url, age)


READABLE = {**PLACES, "relayed file": relayed_file_place, "relayed oss": relayed_oss_place}


@pytest.fixture(params=READABLE)
def readable_place(request) -> Iterator[Place]:
    """Every place, and those that are read without credentials."""
    with READABLE[request.param](request) as place:
        yield place


@pytest.fixture
def readable(readable_place: Place) -> Store:
    return readable_place.open()


def body_of(found: object) -> bytes:
    assert isinstance(found, Object)
    return found.body


def test_what_was_put_is_what_is_got(readable):
    """A release comes out of the bucket octet by octet as it went in."""
    body = bytes(range(256)) * 40

    etag = readable.put("certs/example.com/manifest", body)

    found = readable.get("certs/example.com/manifest", limit=len(body))
    assert body == body_of(found)
    assert etag == found.etag


def test_an_empty_object_is_an_object(readable):
    """Nothing stored isn't confused with nothing there."""
    readable.put("empty", b"")
    assert b"" == body_of(readable.get("empty", limit=0))


def test_a_key_that_was_never_put_is_missing_without_fuss(readable):
    """A host that looks before anything was published gets a plain "not there"."""
    readable.put("certs/example.com/manifest", b"m")

    assert readable.get("certs/example.org/manifest", limit=10) is None
    assert readable.get("certs/example.com", limit=10) is None
    assert readable.get("certs", limit=10, unless='"0"') is None
    assert [] == readable.list("hosts/")
    readable.delete("hosts/web-1.json")


def test_an_unchanged_object_is_not_sent_again(readable):
    """A host that has the manifest already learns so without downloading it."""
    etag = readable.put("manifest", b"first")

    assert readable.get("manifest", limit=10, unless=etag) is Unchanged.UNCHANGED

    second = readable.put("manifest", b"second")
    assert b"second" == body_of(readable.get("manifest", limit=10, unless=etag))
    assert readable.get("manifest", limit=10, unless=second) is Unchanged.UNCHANGED


def test_an_empty_etag_asks_for_the_whole_object(readable):
    """A host whose last answer came without an ETag to rely on gets the object again, and nothing worse."""
    readable.put("manifest", b"first")
    assert b"first" == body_of(readable.get("manifest", limit=10, unless=""))


def test_an_etag_never_hides_other_bytes(readable):
    """Whatever happens to an object in between, "unchanged" means the bytes that the host knows."""
    first = readable.put("manifest", b"aaaa")
    readable.delete("manifest")
    readable.put("manifest", b"bbbb")

    assert b"bbbb" == body_of(readable.get("manifest", limit=10, unless=first))


@pytest.mark.parametrize("size", [1, 64 * 1024, 3 * 1024 * 1024])
def test_a_reader_takes_no_more_than_its_limit(readable, size):
    """Who can write to the bucket can't fill a host's memory: one octet too many is refused."""
    readable.put("manifest", b"x" * size)

    assert size == len(body_of(readable.get("manifest", limit=size)))
    with pytest.raises(StoreTooLarge, match="manifest is larger"):
        readable.get("manifest", limit=size - 1)


def test_putting_again_replaces(readable):
    """A new manifest takes the place of the old one under the same key."""
    readable.put("manifest", b"old, and longer")
    readable.put("manifest", b"new")
    assert b"new" == body_of(readable.get("manifest", limit=100))
    assert ["manifest"] == readable.list("")


def test_a_deleted_object_is_gone(readable):
    """A release that was pruned is not offered any more, and pruning twice is harmless."""
    readable.put("releases/1/fullchain.pem", b"1")
    readable.put("releases/2/fullchain.pem", b"2")

    readable.delete("releases/1/fullchain.pem")
    readable.delete("releases/1/fullchain.pem")

    assert readable.get("releases/1/fullchain.pem", limit=10) is None
    assert ["releases/2/fullchain.pem"] == readable.list("releases")


def test_a_purged_object_is_gone(place):
    """What is purged is gone like what is deleted, and only a store that may keep older versions says so."""
    store = place.open()
    for key in ("keys/web1.age", "keys/web1.age.old"):
        store.put(key, b"1")

    whole = [store.purge("keys/web1.age"), store.purge("keys/web1.age"), store.purge("never/there")]

    assert [not place.config.url.startswith("s3://")] * 3 == whole
    assert store.get("keys/web1.age", limit=10) is None
    assert ["keys/web1.age.old"] == store.list("")


@pytest.mark.parametrize("later", ["Enabled", "Suspended"])
def test_purging_leaves_no_version_of_a_key(request, emulator, later):
    """
    A host's key leaves a bucket with versioning whole: what was put before, during and
    after, and the markers of earlier deletions. Keys that begin alike keep theirs.
    """
    with oss_place(request) as place:
        store, bucket = place.open(), emulator[0].add_bucket(Bucket("bucket", account="1234567890"))
        for state in (None, "Enabled", later):
            bucket.versioning = state
            for key in ("key", "key.old", "key/below"):
                store.put(key, b"1")
                store.delete(key)
                store.put(key, b"2")
        others = [(key, one) for key, one in bucket.versions() if key != "prefix/key"]
        kept, before = len(bucket.versions()) - len(others), len(emulator[0].requests)

        assert store.purge("key")

        assert others == bucket.versions()
        # One for the marker that hides the rest, and in a bucket that is Enabled that marker.
        sent = [request.action for request in emulator[0].requests[before:]].count("DeleteObject")
        assert kept + (2 if later == "Enabled" else 1) == sent


def test_purging_goes_beyond_one_page_of_versions(request, emulator):
    """However often a key was written, each version goes; while that lasts, none of them is readable."""
    with oss_place(request) as place:
        bucket = emulator[0].add_bucket(Bucket("bucket", account="1234567890", versioning="Enabled"))
        for number in range(1001):
            bucket.put("prefix/key", Stored(b"%d" % number, 0))
        readable, delete_version = [], bucket.delete_version

        def deleting(key: str, version_id: str) -> object:
            gone = delete_version(key, version_id)
            readable.append(bucket.get(key))
            return gone

        bucket.delete_version = deleting
        assert place.open().purge("key")

    assert [] == bucket.versions()
    assert 1002 == len(readable)
    assert {None} == set(readable)


def test_listing_is_by_prefix_and_sorted(store):
    """All releases of one certificate are found, and none of another whose name begins alike."""
    for key in ["certs/b/2", "certs/b/10", "certs/b", "certs/bc/1", "certs/a/1", "hosts/b"]:
        if key != "certs/b":  # a folder can't hold a file and a folder of one name
            store.put(key, b"")

    assert ["certs/b/10", "certs/b/2"] == store.list("certs/b/")
    assert ["certs/b/10", "certs/b/2", "certs/bc/1"] == store.list("certs/b")
    assert ["certs/a/1", "certs/b/10", "certs/b/2", "certs/bc/1", "hosts/b"] == store.list("")


def test_listing_hides_foreign_keys(request, place):
    """A folder that somebody made in the console, or an object of an odd name, is left out and left alone."""
    store = place.open()
    store.put("certs/a/1", b"ours")
    odd = ["with blank", "privkey.pem\u00e9", ".hidden", "semi;colon"]
    if place.config.url.startswith("oss://"):
        bucket = Bucket("bucket", account="1234567890")
        request.getfixturevalue("emulator")[0].add_bucket(bucket)
        store.put("certs/a/1", b"ours")
        for key in ("", *odd, "control\x01", "line\nfeed"):
            bucket.put(f"prefix/certs/a/{key}", Stored(b"theirs", 0))
    elif place.config.url.startswith("file://"):
        for key in odd:
            Path(place.config.url.removeprefix("file://"), "certs/a", key).write_bytes(b"theirs")
    else:
        for key in odd:
            obstore.put(store._inner, f"certs/a/{key}", b"theirs")

    assert ["certs/a/1"] == store.list("certs/a/")
    assert ["certs/a/1"] == store.list("")


def test_a_long_listing_is_complete(place):
    """More hosts than fit on one page of the API are all seen."""
    store = place.open()
    keys = sorted(f"hosts/web-{number}.json" for number in range(1001))
    for key in keys:
        store.put(key, b"{}")
    assert keys == store.list("hosts/")


def test_stores_with_different_prefixes_do_not_meet(readable_place):
    """Two fleets can share a bucket; neither sees the other's objects."""
    one, other = readable_place.open("/one"), readable_place.open("/one-more")
    one.put("manifest", b"one")

    assert other.get("manifest", limit=10) is None
    assert [] == other.list("")
    assert ["manifest"] == one.list("")
    assert readable_place.config.url + "/one" == one.url


@pytest.mark.parametrize(
    "key", ["", "/certs", "certs/", "certs//x", "../x", "certs/../x", "certs/.x", "a b", "a?b", "a%2Fb", "ä"]
)
def test_a_key_that_stores_understand_differently_is_refused(readable, key):
    """No name can reach out of the prefix, or mean one thing in a bucket and another in a folder."""
    for call in (
        lambda: readable.get(key, limit=1),
        lambda: readable.put(key, b""),
        lambda: readable.delete(key),
    ):
        with pytest.raises(ValueError, match="not a key"):
            call()


@pytest.fixture(params=[name for name in PLACES if name != "memory"])
def absent(request) -> Iterator[Callable[[], Store]]:
    with PLACES[request.param](request) as place:
        yield lambda: open_store(place.missing)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("manifest", limit=10),
        lambda store: store.put("manifest", b""),
        lambda store: store.list(""),
        lambda store: store.delete("manifest"),
        lambda store: store.purge("manifest"),
    ],
    ids=["get", "put", "list", "delete", "purge"],
)
def test_a_missing_bucket_is_not_an_empty_one(absent, call):
    """A mistyped bucket or an unmounted disk is named as such, and never taken for "nothing published"."""
    with pytest.raises(StoreNoBucket) as failure:
        call(absent())
    assert failure.value.next


def test_readers_see_the_old_or_the_new_object_and_nothing_else(readable_place):
    """A host that pulls in the very moment of publishing gets one manifest or the other, whole."""
    bodies = [letter * 50_000 for letter in (b"a", b"b")]
    writer, reader = readable_place.open(), readable_place.open()
    writer.put("manifest", bodies[0])
    done = threading.Event()

    def rewrite() -> None:
        for turn in itertools.count():
            if done.is_set():
                return
            writer.put("manifest", bodies[turn % 2])

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        seen = [body_of(reader.get("manifest", limit=50_000)) for _ in range(60)]
    finally:
        done.set()
        thread.join()
    assert set(seen) <= set(bodies)


def test_a_folder_keeps_keys_from_other_users(tmp_path):
    """What is published into a folder is readable by its owner alone, whatever the umask."""
    store = open_store(StoreConfig(f"file://{tmp_path}"))

    store.put("certs/example.com/privkey.pem", b"key")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {"certs": 0o700, "example.com": 0o700, "privkey.pem": 0o600} == modes


@pytest.mark.parametrize(
    ("config", "mistake"),
    [
        (StoreConfig("oss://bucket/prefix"), "store.region is missing"),
        (StoreConfig("oss://Bucket", "cn-hangzhou"), "Bucket is not the name of a bucket"),
    ],
)
def test_impossible_store_is_refused_unsent(config, mistake):
    """A half-written [store] is explained at once, in the words of the configuration file."""
    with pytest.raises(ConfigInvalid, match=mistake):
        open_store(config)


def test_every_error_says_what_to_do_next(absent):
    """An operator never meets a failure of the bucket without a next step."""
    with pytest.raises(CertcastError) as failure:
        absent().get("manifest", limit=10)
    assert "next" in failure.value.report()
