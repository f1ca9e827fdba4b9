"""The lab's OSS answers as the real one does, as far as documents and seen answers say.

Requests are signed by the official SDK's signer and sent by requests, so that
neither half of a conversation is ours alone.
"""

import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
import requests
from alibabacloud_oss_v2 import HttpRequest, SigningContext
from alibabacloud_oss_v2.credentials import Credentials
from alibabacloud_oss_v2.signer import SignerV1, SignerV4
from starlette.types import Receive, Scope, Send

from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.oss.oss_api import Logged, OssApi
from certcast_lab.oss.oss_bucket import Bucket, Stored, crc64
from certcast_lab.serving.asgi import Server

ACCOUNT = "1234567890"
PUBLISHER = User(
    ACCOUNT,
    "publisher",
    "LTAIpublisher",
    "publisher-secret",
    policies=[{"Version": "1", "Statement": [{"Effect": "Allow", "Action": "oss:*", "Resource": "*"}]}],
)


class Lab:
    """The emulator with one bucket, and the means to talk to it in the name of any user."""

    def __init__(self, api: OssApi, url: str) -> None:
        self.api = api
        self.url = url
        self.bucket = api.add_bucket(Bucket("bucket", account=ACCOUNT, accepts_v1=True))

    def user(self, **changes: object) -> User:
        """One more RAM user, like the publisher but for these attributes."""
        number = len(self.api.requests)
        name = f"user{number}"
        return self.api.ram.add(
            replace(PUBLISHER, name=name, access_key_id=f"LTAI{name}", **changes)  # type: ignore[arg-type]
        )

    def send(
        self,
        method: str,
        key: str | None,
        *,
        query: str = "",
        body: bytes | Iterator[bytes] = b"",
        user: User = PUBLISHER,
        region: str = "cn-hangzhou",
        version: int = 4,
        bucket: str = "bucket",
        host: str | None = None,
        **headers: str,
    ) -> requests.Response:
        path = f"/{key or ''}" if host else f"/{bucket}/{key or ''}"
        request = HttpRequest(method, self.url + path + (f"?{query}" if query else ""))
        request.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        keys = Credentials(user.access_key_id, user.access_key_secret, user.security_token)
        context = SigningContext("oss", region, bucket, key, request, credentials=keys)
        (SignerV4() if version == 4 else SignerV1()).sign(context)
        if host:
            request.headers["Host"] = host
        return requests.request(method, request.url, headers=dict(request.headers), data=body, timeout=30)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, list[OssApi]]]:
    """One server for all tests, as starting one takes 0.2 s, and the place of the API behind it."""
    current: list[OssApi] = []

    async def latest(scope: Scope, receive: Receive, send: Send) -> None:
        await current[-1](scope, receive, send)

    with Server(latest) as server:
        yield server.url, current


@pytest.fixture
def lab(address) -> Lab:
    url, current = address
    ram = Ram()
    ram.add(PUBLISHER)
    current[:] = [OssApi(ram)]
    return Lab(current[0], url)


def refusal(answer: requests.Response) -> tuple[int, str | None]:
    """Status and Code of an error document, which also has the parts that clients log."""
    error = ET.fromstring(answer.content)
    assert "Error" == error.tag
    assert answer.headers["x-oss-request-id"] == error.findtext("RequestId")
    assert error.findtext("HostId")
    return answer.status_code, error.findtext("Code")


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"", 0), (b"123456789", 11051210869376104954), (b"hello", 11177612005948864433)],
)
def test_the_checksum_is_the_one_that_the_sdk_compares(body, expected):
    """An upload isn't taken for damaged because the lab counts differently."""
    assert expected == crc64(body)


def test_put_answers_with_the_digests_of_what_was_stored(lab):
    """A publisher can tell from the answer that the bucket holds what was sent."""
    answer = lab.send("PUT", "a/key", body=b"123456789")

    assert 200 == answer.status_code
    assert '"25F9E794323B453885F5181F1B624D0B"' == answer.headers["ETag"]
    assert "11051210869376104954" == answer.headers["x-oss-hash-crc64ecma"]
    assert "JfnnlDI7RTiF9RgfG2JNCw==" == answer.headers["Content-MD5"]
    assert 24 == len(answer.headers["x-oss-request-id"])


def test_get_and_head_give_the_same_headers(lab):
    """A client that asks first and downloads later meets the same object."""
    lab.send("PUT", "a/key", body=b"body", Content_Type="application/json", x_oss_meta_host="renewal")

    got, headed = lab.send("GET", "a/key"), lab.send("HEAD", "a/key")

    assert (b"body", b"") == (got.content, headed.content)
    for name in ("ETag", "Last-Modified", "Content-Length", "Content-Type", "x-oss-object-type"):
        assert got.headers[name] == headed.headers[name]
    assert ("4", "application/json") == (got.headers["Content-Length"], got.headers["Content-Type"])
    assert "renewal" == got.headers["x-oss-meta-host"]


def test_a_missing_key_is_named_in_the_error(lab):
    """A client can tell a missing object from every other failure."""
    answer = lab.send("GET", "certs/none")

    assert (404, "NoSuchKey") == refusal(answer)
    assert "certs/none" == ET.fromstring(answer.content).findtext("Key")
    assert "0026-00000001" == ET.fromstring(answer.content).findtext("EC")


def test_the_error_of_a_head_request_is_in_a_header(lab):
    """HEAD has no body, and still says why."""
    answer = lab.send("HEAD", "certs/none")

    assert (404, b"") == (answer.status_code, answer.content)
    error = ET.fromstring(base64.b64decode(answer.headers["x-oss-err"]))
    assert ("NoSuchKey", "0026-00000001") == (error.findtext("Code"), answer.headers["x-oss-ec"])


def test_a_missing_bucket_is_not_a_missing_key(lab):
    """A mistyped bucket is reported as that."""
    assert (404, "NoSuchBucket") == refusal(lab.send("GET", "key", bucket="absent"))


def test_delete_is_content_with_a_missing_key(lab):
    """Deleting twice is harmless."""
    lab.send("PUT", "key", body=b"1")
    assert [204, 204] == [lab.send("DELETE", "key").status_code for _ in range(2)]
    assert 404 == lab.send("GET", "key").status_code


MODIFIED = 1_790_000_000
BEFORE, THEN, AFTER = (
    time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(MODIFIED + shift)) for shift in (-60, 0, 60)
)
ETAG = '"841A2D689AD86BD1611447453C22C6FC"'  # of b"body"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("status", "conditions"),
    [
        (200, {"If_Match": ETAG}),
        (412, {"If_Match": '"other"'}),
        (304, {"If_None_Match": ETAG}),
        (304, {"If_None_Match": "*"}),
        (200, {"If_None_Match": '"other"'}),
        (304, {"If_Modified_Since": THEN}),
        (304, {"If_Modified_Since": AFTER}),
        (200, {"If_Modified_Since": BEFORE}),
        (200, {"If_Modified_Since": "yesterday"}),
        (412, {"If_Unmodified_Since": BEFORE}),
        (200, {"If_Unmodified_Since": THEN}),
        (200, {"If_None_Match": '"other"', "If_Modified_Since": AFTER}),
        (412, {"If_Match": '"other"', "If_None_Match": ETAG}),
    ],
)
def test_conditions_on_reading(lab, method, status, conditions):
    """A reader that knows the object is spared the body; one that insists on a state gets it or nothing."""
    lab.bucket.put("key", Stored(b"body", MODIFIED))

    answer = lab.send(method, "key", **conditions)

    assert status == answer.status_code
    if status == 304:
        assert (b"", ETAG) == (answer.content, answer.headers["ETag"])


@pytest.mark.parametrize("header", ["If_Match", "If_None_Match", "If_Modified_Since", "If_Unmodified_Since"])
def test_no_condition_on_writing(lab, header):
    """OSS has no conditional PUT: who builds a lock on one learns it here, and nothing is written."""
    answer = lab.send("PUT", "key", body=b"1", **{header: "*"})

    assert (400, "NotImplemented") == refusal(answer)
    assert header.replace("_", "-") == ET.fromstring(answer.content).findtext("Header")
    assert lab.bucket.get("key") is None


def test_overwriting_can_be_forbidden(lab):
    """The one protection that OSS has for an object that is there already."""
    assert 200 == lab.send("PUT", "key", body=b"1", x_oss_forbid_overwrite="true").status_code
    answer = lab.send("PUT", "key", body=b"2", x_oss_forbid_overwrite="true")
    assert (409, "FileAlreadyExists") == refusal(answer)
    assert (400, "InvalidArgument") == refusal(lab.send("PUT", "key", x_oss_forbid_overwrite="yes"))
    assert 200 == lab.send("PUT", "key", body=b"3", x_oss_forbid_overwrite="false").status_code
    assert b"3" == lab.send("GET", "key").content


def test_a_body_that_is_not_the_announced_one_is_not_stored(lab):
    """With Content-MD5, an upload damaged on its way never becomes an object."""
    announced = base64.b64encode(hashlib.md5(b"sent").digest()).decode()

    assert (400, "InvalidDigest") == refusal(lab.send("PUT", "key", body=b"came", Content_MD5=announced))
    assert lab.bucket.get("key") is None
    assert 200 == lab.send("PUT", "key", body=b"sent", Content_MD5=announced).status_code


def test_a_key_has_a_greatest_length(lab):
    """1,023 octets, as documented."""
    assert 200 == lab.send("PUT", "k" * 1023).status_code
    assert (400, "InvalidObjectName") == refusal(lab.send("PUT", "k" * 1024))


def test_a_body_needs_a_length_or_chunks(lab):
    """A client that streams is understood, and one that announces no body at all is told what is missing."""
    assert 200 == lab.send("PUT", "key", body=iter([b"1", b"2"])).status_code
    assert b"12" == lab.send("GET", "key").content

    signed = lab.send("PUT", "key").request
    connection = HTTPConnection(signed.url.split("/")[2], timeout=30)
    with closing(connection):
        connection.putrequest("PUT", signed.path_url)
        for name in ("Authorization", "x-oss-date", "x-oss-content-sha256"):
            connection.putheader(name, signed.headers[name])
        connection.endheaders()
        assert 411 == connection.getresponse().status


def listed(answer: requests.Response) -> dict[str, Any]:
    assert 200 == answer.status_code, answer.text
    page = ET.fromstring(answer.content)
    return {
        "keys": [found.findtext("Key") for found in page.iter("Contents")],
        "prefixes": [found.findtext("Prefix") for found in page.iter("CommonPrefixes")],
        "truncated": page.findtext("IsTruncated"),
        "token": page.findtext("NextContinuationToken"),
        "count": page.findtext("KeyCount"),
    }


@pytest.fixture
def tree(lab) -> Lab:
    for key in ["certs/a/1", "certs/a/2", "certs/b/1", "certs/ä b+c", "certs/z", "hosts/1"]:
        lab.bucket.put(key, Stored(b"", MODIFIED))
    return lab


def test_listing_by_prefix(tree):
    """Only what begins with the prefix, in the order of the octets."""
    found = listed(tree.send("GET", None, query="list-type=2&prefix=certs%2F"))
    assert ["certs/a/1", "certs/a/2", "certs/b/1", "certs/z", "certs/ä b+c"] == found["keys"]
    assert ("false", "5") == (found["truncated"], found["count"])


def test_listing_by_folder(tree):
    """A delimiter turns what lies below it into common prefixes."""
    found = listed(tree.send("GET", None, query="list-type=2&prefix=certs%2F&delimiter=%2F"))
    assert ["certs/a/", "certs/b/"] == found["prefixes"]
    assert ["certs/z", "certs/ä b+c"] == found["keys"]


def test_listing_page_by_page(tree):
    """Following the tokens gives every entry once."""
    query, keys, sizes, token = "list-type=2&max-keys=2&delimiter=%2F&prefix=certs%2F", [], [], ""
    while token is not None:
        found = listed(tree.send("GET", None, query=query + token))
        keys += [*found["prefixes"], *found["keys"]]
        sizes.append(found["count"])
        token = found["token"] and f"&continuation-token={quote(found['token'])}"
    assert ["certs/a/", "certs/b/", "certs/z", "certs/ä b+c"] == keys
    assert ["2", "2"] == sizes


def test_listing_with_encoded_names(tree):
    """Names that XML can't carry come percent-encoded when asked for."""
    found = listed(tree.send("GET", None, query="list-type=2&prefix=certs%2F%C3%A4&encoding-type=url"))
    assert ["certs%2F%C3%A4%20b%2Bc"] == found["keys"]


@pytest.mark.parametrize("query", ["max-keys=0", "max-keys=1001", "max-keys=x", "continuation-token=x%21"])
def test_listing_refuses_senseless_parameters(lab, query):
    """A wrong parameter is an error, not an empty list."""
    assert (400, "InvalidArgument") == refusal(lab.send("GET", None, query=f"list-type=2&{query}"))


def allow(action: object, resource: str, **condition: object) -> list[dict[str, object]]:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **condition}
    return [{"Version": "1", "Statement": [statement]}]


@pytest.fixture
def reader(lab) -> User:
    return lab.user(policies=allow("oss:GetObject", f"acs:oss:*:{ACCOUNT}:bucket/certs/*"))


def test_a_policy_is_kept_to_its_prefix_and_its_action(tree, reader):
    """A consumer's key reads the certificates and can do nothing else."""
    assert 200 == tree.send("GET", "certs/z", user=reader).status_code
    assert 200 == tree.send("HEAD", "certs/z", user=reader).status_code
    assert (403, "AccessDenied") == refusal(tree.send("GET", "hosts/1", user=reader))
    assert (403, "AccessDenied") == refusal(tree.send("PUT", "certs/z", user=reader))
    assert (403, "AccessDenied") == refusal(tree.send("DELETE", "certs/z", user=reader))
    assert (403, "AccessDenied") == refusal(tree.send("GET", None, query="list-type=2", user=reader))


def test_listing_can_be_allowed_for_a_prefix_only(tree):
    """`oss:Prefix` in a condition is what the request names as its prefix."""
    condition = {"Condition": {"StringLike": {"oss:Prefix": ["certs/*"]}}}
    user = tree.user(policies=allow("oss:ListObjects", "acs:oss:*:*:bucket", **condition))

    assert 200 == tree.send("GET", None, query="list-type=2&prefix=certs%2Fa", user=user).status_code
    for query in ("list-type=2", "list-type=2&prefix=hosts%2F"):
        assert (403, "AccessDenied") == refusal(tree.send("GET", None, query=query, user=user))


def test_another_account_has_no_say_in_a_bucket(lab):
    """A policy of one's own account opens nobody else's bucket."""
    assert (403, "AccessDenied") == refusal(lab.send("GET", "key", user=lab.user(account="99")))


def test_who_does_not_sign_is_nobody(lab):
    """The bucket is private."""
    assert (403, "AccessDenied") == refusal(requests.get(f"{lab.url}/bucket/key", timeout=30))
    header = {"Authorization": "Bearer x"}
    answer = requests.get(f"{lab.url}/bucket/key", headers=header, timeout=30)
    assert (400, "InvalidArgument") == refusal(answer)


@pytest.mark.parametrize(("network", "status"), [("vpc-lab", 200), ("vpc-other", 403)])
def test_a_bucket_policy_lets_a_network_in_without_signature(lab, network, status):
    """Hosts of the named network read below the named prefix without a key, and can do nothing else."""
    lab.send("PUT", "certs/1", body=b"1")
    lab.send("PUT", "other", body=b"2")
    (policy,) = allow(
        ["oss:GetObject"],
        "acs:oss:*:1234567890:bucket/certs/*",
        Condition={"StringEquals": {"acs:SourceVpc": [network]}},
    )
    policy["Statement"][0]["Principal"] = ["*"]
    lab.bucket.policy = policy

    assert status == requests.get(f"{lab.url}/bucket/certs/1", timeout=30).status_code
    assert 403 == requests.get(f"{lab.url}/bucket/other", timeout=30).status_code
    assert 403 == requests.get(f"{lab.url}/bucket/?list-type=2", timeout=30).status_code
    assert 403 == requests.put(f"{lab.url}/bucket/certs/1", data=b"3", timeout=30).status_code
    assert b"1" == lab.send("GET", "certs/1").content


def test_an_unknown_or_disabled_key_is_refused(lab):
    """Disabling an access key in the console works at once."""
    user = lab.user()
    assert 404 == lab.send("GET", "key", user=user).status_code
    user.active = False
    assert (403, "InvalidAccessKeyId") == refusal(lab.send("GET", "key", user=user))
    stranger = replace(user, access_key_id="LTAIstranger")
    assert (403, "InvalidAccessKeyId") == refusal(lab.send("GET", "key", user=stranger))


@pytest.mark.parametrize("version", [4, 1])
def test_a_wrong_secret_is_refused_with_what_was_signed(lab, version):
    """Someone who writes a client can compare the two strings to sign."""
    thief = replace(PUBLISHER, access_key_secret="guessed")
    answer = lab.send("PUT", "key", body=b"1", user=thief, version=version)

    assert (403, "SignatureDoesNotMatch") == refusal(answer)
    assert ET.fromstring(answer.content).findtext("StringToSign")
    assert "publisher-secret" not in answer.text
    assert lab.bucket.get("key") is None


@pytest.mark.parametrize("version", [4, 1])
@pytest.mark.parametrize(("minutes", "accepted"), [(-16, False), (-14, True), (14, True), (16, False)])
def test_a_clock_may_be_a_quarter_of_an_hour_off(lab, version, minutes, accepted):
    """A host whose clock is wrong learns the right time from the refusal."""
    lab.bucket.put("key", Stored(b"", MODIFIED))
    lab.api.clock = lambda: time.time() + minutes * 60

    answer = lab.send("GET", "key", version=version)

    if accepted:
        assert 200 == answer.status_code
    else:
        assert (403, "RequestTimeTooSkewed") == refusal(answer)
        assert "900000" == ET.fromstring(answer.content).findtext("MaxAllowedSkewMilliseconds")


def test_a_signature_names_the_region_of_the_bucket(lab):
    """`oss-cn-hangzhou` is an endpoint and no region: the mistake is named."""
    answer = lab.send("GET", "key", region="oss-cn-hangzhou")
    assert (400, "InvalidArgument") == refusal(answer)
    assert "0002-00000226" == ET.fromstring(answer.content).findtext("EC")


def test_a_temporary_key_needs_its_token(lab):
    """An STS key without its token, or with an old one, opens nothing."""
    user = lab.user(security_token="token")
    assert 404 == lab.send("GET", "key", user=user).status_code
    for token in (None, "old"):
        answer = lab.send("GET", "key", user=replace(user, security_token=token))
        assert (403, "InvalidSecurityToken") == refusal(answer)


def test_new_buckets_refuse_the_old_signature(lab):
    """V1 works on an old bucket and not on a new one, which is why certcast signs V4."""
    assert 404 == lab.send("GET", "key", version=1).status_code
    lab.api.add_bucket(Bucket("bucket", account=ACCOUNT))
    answer = lab.send("GET", "key", version=1)
    assert (403, "0002-00000080") == (answer.status_code, ET.fromstring(answer.content).findtext("EC"))


def test_the_bucket_may_be_in_path_host_or_domain(lab):
    """Each way of addressing a bucket leads to the same object."""
    lab.api.add_bucket(Bucket("bucket", account=ACCOUNT, domain="certs.example.test"))
    lab.send("PUT", "key", body=b"1")

    for host in ("bucket.oss-cn-hangzhou.aliyuncs.com", "certs.example.test", "certs.example.test:8080"):
        assert b"1" == lab.send("GET", "key", host=host).content


def test_what_is_not_emulated_says_so(lab):
    """A client that needs more than the lab has fails clearly."""
    assert (400, "NotImplemented") == refusal(lab.send("POST", "key", query="uploads"))
    assert (400, "NotImplemented") == refusal(lab.send("GET", None, query="bucketInfo"))


@pytest.fixture
def versioned(lab) -> Lab:
    """A bucket with versioning, in which `key` was put before and twice since."""
    lab.send("PUT", "key", body=b"0")
    lab.bucket.versioning = "Enabled"
    lab.send("PUT", "key", body=b"1")
    lab.send("PUT", "key", body=b"2")
    return lab


def versions(lab: Lab, query: str = "versions") -> list[tuple[str | None, str, str]]:
    """Key, kind and newness of every version, as listed."""
    answer = ET.fromstring(lab.send("GET", None, query=query).content)
    assert "ListVersionsResult" == answer.tag
    return [
        (one.findtext("Key"), one.tag, "latest" if one.findtext("IsLatest") == "true" else "older")
        for one in answer
        if one.tag in ("Version", "DeleteMarker")
    ]


def test_list_versions_without_versioning(tree):
    """Who asks for versions learns of every object in any bucket; the ids are empty."""
    answer = ET.fromstring(tree.send("GET", None, query="versions&prefix=certs%2F").content)
    found = [(one.findtext("Key"), one.findtext("VersionId")) for one in answer.iter("Version")]
    keys = listed(tree.send("GET", None, query="list-type=2&prefix=certs%2F"))["keys"]
    assert [(key, "") for key in keys] == found
    assert keys


def test_with_versioning_nothing_is_overwritten(versioned):
    """An old key in the bucket can be read by its version after a new one took its place."""
    assert [
        ("key", "Version", "latest"),
        ("key", "Version", "older"),
        ("key", "Version", "older"),
    ] == versions(versioned)
    assert b"2" == versioned.send("GET", "key").content
    assert b"0" == versioned.send("GET", "key", query="versionId=null").content
    for _, version in versioned.bucket.versions():
        answer = versioned.send("GET", "key", query=f"versionId={version.id}")
        assert (version.stored.body, version.id) == (answer.content, answer.headers["x-oss-version-id"])


def test_with_versioning_deleting_leaves_a_marker(versioned):
    """A deleted object looks gone, and all that it ever was is still there."""
    answer = versioned.send("DELETE", "key")
    marker = answer.headers["x-oss-version-id"]
    assert (204, "true") == (answer.status_code, answer.headers["x-oss-delete-marker"])

    gone = versioned.send("GET", "key")
    assert (404, "NoSuchKey") == refusal(gone)
    assert ("true", marker) == (gone.headers["x-oss-delete-marker"], gone.headers["x-oss-version-id"])
    by_id = versioned.send("GET", "key", query=f"versionId={marker}")
    assert ((405, "MethodNotAllowed"), "DELETE") == (refusal(by_id), by_id.headers["allow"])
    assert [] == listed(versioned.send("GET", None, query="list-type=2"))["keys"]
    assert ("key", "DeleteMarker", "latest") == versions(versioned)[0]
    assert 4 == len(versions(versioned))


def test_a_version_can_be_deleted_for_good(versioned):
    """Of an object with versions each one goes by itself; below a marker that is gone, the newest counts."""
    marker = versioned.send("DELETE", "key").headers["x-oss-version-id"]
    newest = versioned.bucket.versions()[1][1].id

    versioned.send("DELETE", "key", query=f"versionId={newest}")
    answer = versioned.send("DELETE", "key", query=f"versionId={marker}")

    assert (204, marker, "true") == (
        answer.status_code,
        answer.headers["x-oss-version-id"],
        answer.headers["x-oss-delete-marker"],
    )
    assert b"1" == versioned.send("GET", "key").content
    assert (404, "NoSuchVersion") == refusal(versioned.send("GET", "key", query=f"versionId={newest}"))


def test_suspended_versioning_keeps_what_there_was(versioned):
    """Switching versioning off afterwards removes no version; only `null` is replaced from then on."""
    versioned.send("PUT", None, query="versioning", body=b"<V><Status>Suspended</Status></V>")

    assert "null" == versioned.send("PUT", "key", body=b"3").headers["x-oss-version-id"]
    assert "null" == versioned.send("PUT", "key", body=b"4").headers["x-oss-version-id"]

    assert 3 == len(versions(versioned))
    assert b"4" == versioned.send("GET", "key").content
    versioned.send("DELETE", "key")
    assert ["DeleteMarker", "Version", "Version"] == [kind for _, kind, _ in versions(versioned)]


def test_versions_are_listed_page_by_page(versioned):
    """However many versions there are, a client comes by all of them."""
    versioned.send("PUT", "later", body=b"1")
    query, seen = "versions&max-keys=1", []
    for _ in range(4):
        answer = ET.fromstring(versioned.send("GET", None, query=query).content)
        seen.append((answer.findtext("Version/Key"), answer.findtext("Version/VersionId")))
        query = (
            f"versions&max-keys=1&key-marker={answer.findtext('NextKeyMarker')}"
            f"&version-id-marker={answer.findtext('NextVersionIdMarker')}"
        )
    assert [(key, version.id) for key, version in versioned.bucket.versions()] == seen
    assert "false" == answer.findtext("IsTruncated")
    assert [("later", "Version", "latest")] == versions(versioned, "versions&key-marker=key")
    assert (400, "InvalidArgument") == refusal(
        versioned.send("GET", None, query="versions&version-id-marker=x")
    )


def test_versions_need_rights_of_their_own(versioned):
    """Who may read and delete objects may not read or delete their older versions, nor list them."""
    user = versioned.user(
        policies=allow(["oss:GetObject", "oss:DeleteObject"], "acs:oss:*:*:bucket/*")
        + allow("oss:ListObjects", "acs:oss:*:*:bucket")
    )
    assert 200 == versioned.send("GET", "key", user=user).status_code
    for method, key, query in (
        ("GET", "key", "versionId=null"),
        ("DELETE", "key", "versionId=null"),
        ("GET", None, "versions"),
        ("GET", None, "versioning"),
    ):
        assert (403, "AccessDenied") == refusal(versioned.send(method, key, query=query, user=user))


def test_forbid_overwrite_with_versioning(versioned):
    """The header that guards an object elsewhere guards nothing here, as documented."""
    assert 200 == versioned.send("PUT", "key", body=b"3", x_oss_forbid_overwrite="true").status_code


def test_every_request_is_on_record(lab):
    """A test can count who asked for what."""
    lab.send("PUT", "a", body=b"1")
    lab.send("GET", "b")
    lab.send("GET", "a", user=replace(PUBLISHER, access_key_secret="guessed"))
    assert [
        Logged("PUT", "PutObject", "bucket", "a", "publisher", 200),
        Logged("GET", "GetObject", "bucket", "b", "publisher", 404),
        Logged("GET", "GetObject", "bucket", "a", None, 403),
    ] == lab.api.requests


def test_a_stale_read_shows_a_whole_earlier_state(lab):
    """A cache in between gives yesterday's object with yesterday's digests, not a mixture."""
    now = 1000.0
    bucket = Bucket("bucket", account=ACCOUNT, monotonic=lambda: now)
    lab.api.add_bucket(bucket)
    lab.send("PUT", "key", body=b"old")
    now += 100
    lab.send("PUT", "key", body=b"new")
    lab.send("PUT", "other", body=b"1")

    lab.api.faults.turn_on("stale", seconds=50)

    stale = lab.send("GET", "key")
    assert (b"old", f'"{hashlib.md5(b"old").hexdigest().upper()}"') == (stale.content, stale.headers["ETag"])
    assert ["key"] == listed(lab.send("GET", None, query="list-type=2"))["keys"]
    lab.api.faults.turn_off()
    assert b"new" == lab.send("GET", "key").content
