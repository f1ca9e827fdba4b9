"""The lab's OSS against clients that nobody here wrote, unmodified.

oss-v2 is what certcast uses. oss2 and opendal know OSS from other years and, in
opendal's case, from another language; they run in an environment of their own
(`scripts/foreign-clients`). What works with all of these was not invented here.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import alibabacloud_oss_v2 as oss
import pytest

from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket
from certcast_lab.serving.asgi import Server

FOREIGN_PYTHON = Path(__file__).parents[2] / ".venv-clients/bin/python"
EVERYTHING = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "oss:*", "Resource": "*"}]}
KEY_ID, SECRET, TOKEN = "LTAIclient", "client-secret", "client-token"


@pytest.fixture
def api() -> OssApi:
    ram = Ram()
    ram.add(User("1234567890", "client", KEY_ID, SECRET, TOKEN, policies=[EVERYTHING]))
    ram.add(User("1234567890", "client", KEY_ID + "2", SECRET, policies=[EVERYTHING]))
    api = OssApi(ram)
    api.add_bucket(Bucket("bucket", account="1234567890", accepts_v1=True))
    return api


@pytest.fixture
def endpoint(api) -> Iterator[str]:
    with Server(api) as server:
        yield server.url


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("v4", (KEY_ID, SECRET, TOKEN)),
        ("v4", (KEY_ID + "2", SECRET)),
        # Without a token: oss-v2 1.4.1 puts V1's into a header `security-token`, which no document names.
        ("v1", (KEY_ID + "2", SECRET)),
    ],
)
def test_the_official_sdk(api, endpoint, version, keys):
    """oss-v2 does all that a certificate store needs, with its own checks of digests switched on."""
    provider = oss.credentials.StaticCredentialsProvider(*keys)
    client = oss.Client(
        oss.Config("cn-hangzhou", endpoint, signature_version=version, credentials_provider=provider)
    )
    key = "certs/ä b+c&d=e?f/1"

    put = client.put_object(oss.PutObjectRequest("bucket", key, body=b"hello", metadata={"host": "renewal"}))
    assert ('"5D41402ABC4B2A76B9719D911017C592"', "11177612005948864433") == (put.etag, put.hash_crc64)

    got = client.get_object(oss.GetObjectRequest("bucket", key))
    assert (b"hello", {"host": "renewal"}) == (got.body.read(), got.metadata)

    head = client.head_object(oss.HeadObjectRequest("bucket", key))
    assert (5, put.etag, "Normal") == (head.content_length, head.etag, head.object_type)
    assert client.is_object_exist("bucket", key)
    assert not client.is_object_exist("bucket", "none")

    with pytest.raises(oss.exceptions.OperationError) as failure:
        client.get_object(oss.GetObjectRequest("bucket", key, if_none_match=put.etag))
    assert 304 == failure.value.unwrap().status_code

    with pytest.raises(oss.exceptions.OperationError, match="FileAlreadyExists"):
        client.put_object(oss.PutObjectRequest("bucket", key, body=b"", forbid_overwrite=True))

    pages = client.list_objects_v2_paginator(limit=1)
    client.put_object(oss.PutObjectRequest("bucket", "certs/z", body=b""))
    request = oss.ListObjectsV2Request("bucket", prefix="certs/")
    assert ["certs/z", key] == [found.key for page in pages.iter_page(request) for found in page.contents]
    request = oss.ListObjectsV2Request("bucket", delimiter="/")
    (page,) = client.list_objects_v2_paginator().iter_page(request)
    assert ["certs/"] == [found.prefix for found in page.common_prefixes]

    client.delete_object(oss.DeleteObjectRequest("bucket", key))
    with pytest.raises(oss.exceptions.OperationError, match="NoSuchKey"):
        client.get_object(oss.GetObjectRequest("bucket", key))
    assert {"client"} == {request.user for request in api.requests}


def test_the_official_sdk_and_versions(endpoint):
    """oss-v2 switches versioning on, sees every version and marker, page by page, and deletes each."""
    provider = oss.credentials.StaticCredentialsProvider(KEY_ID, SECRET, TOKEN)
    client = oss.Client(oss.Config("cn-hangzhou", endpoint, credentials_provider=provider))
    key = "certs/ä b/1"
    assert client.get_bucket_versioning(oss.GetBucketVersioningRequest("bucket")).version_status is None
    old = client.put_object(oss.PutObjectRequest("bucket", key, body=b"old"))
    assert old.version_id is None

    wanted = oss.VersioningConfiguration("Enabled")
    client.put_bucket_versioning(oss.PutBucketVersioningRequest("bucket", wanted))

    state = client.get_bucket_versioning(oss.GetBucketVersioningRequest("bucket"))
    assert "Enabled" == state.version_status
    put = client.put_object(oss.PutObjectRequest("bucket", key, body=b"new"))
    marker = client.delete_object(oss.DeleteObjectRequest("bucket", key))
    assert marker.delete_marker
    pages = list(
        client.list_object_versions_paginator(limit=2).iter_page(oss.ListObjectVersionsRequest("bucket"))
    )
    assert 2 == len(pages)
    found = [(one.key, one.version_id, one.is_latest) for page in pages for one in page.version or ()]
    assert [(key, put.version_id, False), (key, "null", False)] == found
    assert [(key, marker.version_id, True)] == [
        (one.key, one.version_id, one.is_latest) for page in pages for one in page.delete_marker or ()
    ]
    got = client.get_object(oss.GetObjectRequest("bucket", key, version_id="null"))
    assert b"old" == got.body.read()
    for version_id in ("null", put.version_id, marker.version_id):
        client.delete_object(oss.DeleteObjectRequest("bucket", key, version_id))
    listing = client.list_object_versions(oss.ListObjectVersionsRequest("bucket"))
    assert (None, None) == (listing.version, listing.delete_marker)


def foreign(script: str, endpoint: str) -> object:
    """Run `script` with other people's packages; what it prints, as JSON."""
    if not FOREIGN_PYTHON.exists():
        pytest.fail("other people's clients are not installed: run scripts/foreign-clients")
    prelude = f"import json\nendpoint, key_id, secret, token = {(endpoint, KEY_ID, SECRET, TOKEN)!r}\n"
    ran = subprocess.run(
        [FOREIGN_PYTHON, "-c", prelude + script],
        env={"PATH": os.environ["PATH"], "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr
    return json.loads(ran.stdout)


OSS2 = """
import oss2
auth = oss2.StsAuth(key_id, secret, token, auth_version=VERSION)
bucket = oss2.Bucket(auth, endpoint, "bucket", region="cn-hangzhou")
key = "certs/\\u00e4 b+c/1"
etag = bucket.put_object(key, b"hello").etag
said = {"etag": etag, "body": bucket.get_object(key).read().decode(), "there": bucket.object_exists(key)}
said["size"] = bucket.head_object(key).content_length
bucket.put_object("certs/z", b"")
said["keys"] = [found.key for found in oss2.ObjectIteratorV2(bucket, prefix="certs/", max_keys=1)]
for name, call in {
    "condition": lambda: bucket.get_object(key, headers={"If-None-Match": '"%s"' % etag}),
    "overwrite": lambda: bucket.put_object(key, b"", headers={"x-oss-forbid-overwrite": "true"}),
    "missing": lambda: bucket.head_object("none"),
}.items():
    try:
        call()
    except oss2.exceptions.OssError as error:
        said[name] = [error.status, error.code]
bucket.delete_object(key)
said["after"] = bucket.object_exists(key)
print(json.dumps(said))
"""


@pytest.mark.parametrize("version", ["v4", "v1"])
def test_oss2(api, endpoint, version):
    """The older official SDK, which writes its header and its paths differently, gets the same answers."""
    script = OSS2.replace("VERSION", repr(version))
    assert {
        "etag": "5D41402ABC4B2A76B9719D911017C592",
        "body": "hello",
        "there": True,
        "size": 5,
        "keys": ["certs/z", "certs/ä b+c/1"],
        "condition": [304, ""],
        "overwrite": [409, "FileAlreadyExists"],
        "missing": [404, "NoSuchKey"],
        "after": False,
    } == foreign(script, endpoint)
    assert {"client"} == {request.user for request in api.requests}


OSS2_VERSIONS = """
import oss2
from oss2.models import BucketVersioningConfig
bucket = oss2.Bucket(oss2.StsAuth(key_id, secret, token), endpoint, "bucket", region="cn-hangzhou")
bucket.put_object("key", b"old")
config = BucketVersioningConfig()
config.status = "Enabled"
bucket.put_bucket_versioning(config)
said = {"status": bucket.get_bucket_versioning().status}
new = bucket.put_object("key", b"new").versionid
marker = bucket.delete_object("key")
said["marker"] = marker.delete_marker
found = bucket.list_object_versions()
said["versions"] = [[one.key, one.versionid == new or one.versionid, one.is_latest] for one in found.versions]
said["markers"] = [[one.key, one.versionid == marker.versionid] for one in found.delete_marker]
said["old"] = bucket.get_object("key", params={"versionId": "null"}).read().decode()
for version in ("null", new, marker.versionid):
    bucket.delete_object("key", params={"versionId": version})
found = bucket.list_object_versions()
said["left"] = len(found.versions) + len(found.delete_marker)
print(json.dumps(said))
"""


def test_oss2_and_versions(endpoint):
    """The older official SDK sees the same versions, by the older signature."""
    assert {
        "status": "Enabled",
        "marker": True,
        "versions": [["key", True, False], ["key", "null", False]],
        "markers": [["key", True]],
        "old": "old",
        "left": 0,
    } == foreign(OSS2_VERSIONS, endpoint)


OPENDAL = """
import opendal
bucket = opendal.Operator(
    "oss", bucket="bucket", root="/", endpoint=endpoint, addressing_style="path",
    access_key_id=key_id, access_key_secret=secret, security_token=token,
)
bucket.write("certs/1", b"hello")
etag = bucket.stat("certs/1").etag
said = {"etag": etag, "body": bytes(bucket.read("certs/1")).decode()}
said["keys"] = sorted(found.path for found in bucket.list("certs/"))
for name, call in {
    "condition": lambda: bucket.read("certs/1", if_none_match=etag),
    "overwrite": lambda: bucket.write("certs/1", b"", if_not_exists=True),
    "missing": lambda: bucket.read("none"),
}.items():
    try:
        call()
    except Exception as error:  # opendal has no common base class
        said[name] = type(error).__name__
bucket.delete("certs/1")
said["after"] = bucket.exists("certs/1")
print(json.dumps(said))
"""


def test_opendal(api, endpoint):
    """A client in Rust, by other authors, gets the same answers."""
    assert {
        "etag": '"5D41402ABC4B2A76B9719D911017C592"',
        "body": "hello",
        "keys": ["certs/1"],
        "condition": "ConditionNotMatch",
        "overwrite": "ConditionNotMatch",
        "missing": "NotFound",
        "after": False,
    } == foreign(OPENDAL, endpoint)
    assert {"client"} == {request.user for request in api.requests}
