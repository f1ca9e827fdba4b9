"""The lab's STS, held against clients that we didn't write, and what certcast makes of its answers.

The official credentials package is what certcast uses. The older core SDK (`scripts/foreign-clients`)
signs in its own code, knows only the real addresses, and goes all the way: AssumeRole at
sts.aliyuncs.com, then Alidns with the token, both led here by the proxy. The current core SDK signs with
ACS3.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import alibabacloud_oss_v2 as oss
import pytest
from alibabacloud_credentials.provider import RamRoleArnCredentialsProvider
from alibabacloud_tea_openapi.client import Client as OpenApiClient
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from alibabacloud_tea_openapi.models import Config, OpenApiRequest, Params
from darabonba.runtime import RuntimeOptions

from certcast import credentials
from certcast.config.model import KeySource
from certcast.credentials import CredentialsMissing, RoleRefused, StsClock, StsUnavailable
from certcast_lab.aliyun.alidns_api import AlidnsApi
from certcast_lab.aliyun.ram import Ram, Role, User
from certcast_lab.aliyun.sts_api import StsApi
from certcast_lab.dns.zones import Zones
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.intercept import Intercept

FOREIGN_PYTHON = Path(__file__).parents[2] / ".venv-clients/bin/python"
CALLER, OWNER = "100", "200"
ASSUME = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": f"acs:ram::{OWNER}:role/*"}
LIST = {"Effect": "Allow", "Action": "alidns:DescribeDomains", "Resource": f"acs:alidns:*:{OWNER}:domain/*"}


def document(statement: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "1", "Statement": [statement]}


class Cloud:
    """STS and Alidns over one RAM; a user of one account, and a role of another that trusts it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        authority = Authority("lab")
        self.trust = folder / "authority.pem"
        self.trust.write_bytes(authority.pem)
        self.ram = Ram()
        self.user = self.ram.add(User(CALLER, "dns", "LTAI-dns", "secret-dns", policies=[document(ASSUME)]))
        self.role = self.ram.add_role(
            Role(OWNER, "dns", trusting(f"acs:ram::{CALLER}:user/dns"), [document(LIST)])
        )
        self.zones = Zones()
        self.zones.create("example.test", OWNER, ("ns1.lab.test",))
        self.sts = StsApi(self.ram)
        self.alidns = AlidnsApi(self.ram, self.zones)
        tls = server_context(*authority.issue("localhost", "sts.aliyuncs.com", "alidns.aliyuncs.com"))
        self.server = stack.enter_context(Server(self.sts.app, tls=tls))
        alidns = stack.enter_context(Server(self.alidns.app, tls=tls))
        self.plain = stack.enter_context(Server(self.alidns.app)).url
        routes = {"sts.aliyuncs.com": self.server.port, "alidns.aliyuncs.com": alidns.port}
        self.proxy = stack.enter_context(Intercept(routes))

    @property
    def host(self) -> str:
        return f"localhost:{self.server.port}"

    def source(self, role: str | None = None) -> KeySource:
        return KeySource(role_arn=role or self.role.arn, sts_endpoint=f"https://{self.host}")


def trusting(principal: str) -> dict[str, Any]:
    return document({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"RAM": [principal]}})


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with ExitStack() as stack:
        cloud = Cloud(tmp_path, stack)
        monkeypatch.setenv("SSL_CERT_FILE", str(cloud.trust))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cloud.trust))
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", cloud.user.access_key_id)
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", cloud.user.access_key_secret)
        yield cloud


# -- clients that we didn't write


def test_the_official_package_assumes_a_role(cloud):
    """alibabacloud-credentials understands the answer: a temporary key, its token, and an hour."""
    official = RamRoleArnCredentialsProvider(
        access_key_id="LTAI-dns",
        access_key_secret="secret-dns",
        role_arn=cloud.role.arn,
        sts_endpoint=cloud.host,
    )

    keys = official.get_credentials()

    assert keys.get_access_key_id().startswith("STS.")
    session = cloud.ram.by_access_key(keys.get_access_key_id())
    assert (session.access_key_secret, session.security_token, int(session.expires)) == (
        keys.get_access_key_secret(),
        keys.get_security_token(),
        keys.get_expiration(),
    )
    assert keys.get_access_key_id() == official.get_credentials().get_access_key_id()
    assert [("RPC-SHA1", None)] == [(logged.scheme, logged.code) for logged in cloud.sts.log]


FOREIGN = """
import json, sys
from aliyunsdkcore.auth.credentials import RamRoleArnCredential
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest
credential = RamRoleArnCredential("LTAI-dns", "secret-dns", sys.argv[1], "foreign")
client = AcsClient("cn-hangzhou", credential=credential, verify=sys.argv[2])
request = CommonRequest("alidns.aliyuncs.com", "2015-01-09", "DescribeDomains", product="Alidns")
request.set_method("GET"); request.set_protocol_type("https"); request.set_accept_format("JSON")
print(client.do_action_with_exception(request).decode())
"""


def test_the_older_sdk_assumes_a_role_and_works_with_it(cloud):
    """aliyun-python-sdk-core: STS under its real name, then Alidns with the token, unmodified."""
    if not FOREIGN_PYTHON.exists():
        pytest.fail("other people's clients are not installed: run scripts/foreign-clients")
    ran = subprocess.run(
        [FOREIGN_PYTHON, "-c", FOREIGN, cloud.role.arn, cloud.trust],
        env={"PATH": os.environ["PATH"], "HTTPS_PROXY": cloud.proxy.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    assert ["example.test"] == [zone["DomainName"] for zone in json.loads(ran.stdout)["Domains"]["Domain"]]
    assert [("RPC-SHA1", "dns", None)] == [(one.scheme, one.user, one.code) for one in cloud.sts.log]
    assert ["dns/foreign"] == [logged.user for logged in cloud.alidns.log]


def test_the_current_sdk_calls_it_with_its_own_signature(cloud):
    """alibabacloud-tea-openapi signs AssumeRole with ACS3, and its Alidns client works with the keys."""
    asked = {"RoleArn": cloud.role.arn, "RoleSessionName": "current", "DurationSeconds": "900"}
    user = Config(access_key_id="LTAI-dns", access_key_secret="secret-dns")
    given = call(user, cloud.host, "https", ("AssumeRole", "2015-04-01"), asked)["Credentials"]

    session = Config(
        access_key_id=given["AccessKeyId"],
        access_key_secret=given["AccessKeySecret"],
        security_token=given["SecurityToken"],
    )
    plain = cloud.plain.removeprefix("http://")
    listed = call(session, plain, "http", ("DescribeDomains", "2015-01-09"), {})

    assert 1 == listed["TotalCount"]
    assert ["ACS3"] == [logged.scheme for logged in cloud.sts.log]
    with pytest.raises(AlibabaCloudException) as refused:
        call(session, plain, "http", ("DescribeDomainInfo", "2015-01-09"), {"DomainName": "example.test"})
    assert "Forbidden.RAM" == refused.value.code, "exactly the role's policies"


def call(
    config: Any, endpoint: str, protocol: str, action: tuple[str, str], query: dict[str, str]
) -> dict[str, Any]:
    config.endpoint, config.protocol = endpoint, protocol
    params = Params(
        action=action[0],
        version=action[1],
        protocol=protocol.upper(),
        method="POST",
        auth_type="AK",
        style="RPC",
        pathname="/",
        req_body_type="json",
        body_type="json",
    )
    body: dict[str, Any] = OpenApiClient(config).call_api(
        params, OpenApiRequest(query=query), RuntimeOptions()
    )["body"]
    return body


def test_a_token_that_has_ended_opens_nothing(cloud):
    """After its end the temporary key is refused by Alidns and by OSS, as each of them says it."""
    cloud.role.policies = [document({"Effect": "Allow", "Action": "*", "Resource": "*"})]
    keys = credentials.provider(cloud.source())()
    triple = (keys.access_key_id, keys.access_key_secret, keys.security_token)
    cloud.ram.by_access_key(keys.access_key_id).expires = time.time()

    config = Config(access_key_id=triple[0], access_key_secret=triple[1], security_token=triple[2])
    with pytest.raises(AlibabaCloudException) as refused:
        call(config, cloud.plain.removeprefix("http://"), "http", ("DescribeDomains", "2015-01-09"), {})
    assert "InvalidSecurityToken.Expired" == refused.value.code

    api = OssApi(cloud.ram)
    api.add_bucket(Bucket("bucket", account=OWNER))
    with Server(api) as server:
        signed = oss.credentials.StaticCredentialsProvider(*triple)
        client = oss.Client(oss.Config("cn-hangzhou", server.url, credentials_provider=signed))
        with pytest.raises(oss.exceptions.OperationError, match="SecurityTokenExpired"):
            client.get_object(oss.GetObjectRequest("bucket", "key"))


# -- what certcast says of its refusals


def refused(cloud: Cloud, role: str | None = None) -> CredentialsMissing:
    with pytest.raises(CredentialsMissing) as failure:
        credentials.provider(cloud.source(role))()
    said = str(failure.value)
    for secret in ("secret-dns", "Signature", "LTAI-dns"):
        assert secret not in said.replace("SignatureDoesNotMatch", "")
    return failure.value


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda cloud: setattr(cloud.role, "trust", trusting("acs:ram::9:root")), "NoPermission"),
        (lambda cloud: setattr(cloud.user, "policies", []), "NoPermission"),
        (lambda cloud: setattr(cloud.user, "active", False), "InvalidAccessKeyId.Inactive"),
        (lambda cloud: setattr(cloud.user, "access_key_secret", "other"), "SignatureDoesNotMatch"),
    ],
    ids=["not trusted", "no right", "disabled", "wrong secret"],
)
def test_a_role_that_is_not_given(cloud, change, code):
    """Role, STS and its word for it are named; keys, signatures and what was signed are not."""
    change(cloud)
    refusal = refused(cloud)
    assert isinstance(refusal, RoleRefused)
    assert f"STS at https://{cloud.host} refused to give {cloud.role.arn}: {code}" == str(refusal)
    assert "assumed with ALIBABA_CLOUD_ACCESS_KEY_ID of the environment" in refusal.source


def test_a_role_that_is_not_there(cloud):
    """A mistyped role is named as STS names it."""
    assert "EntityNotExist.Role" in str(refused(cloud, f"acs:ram::{OWNER}:role/typo"))


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_is_recognised_at_sts(cloud, monkeypatch, hours):
    """A host whose clock is off learns that from STS too, with both times, and not that its key is bad."""
    from datetime import timedelta

    right = cloud.sts._now
    monkeypatch.setattr(cloud.sts, "_now", lambda: right() + timedelta(hours=hours))

    refusal = refused(cloud)

    assert isinstance(refusal, StsClock)
    assert refusal.wrong is not None
    assert ("behind" if hours > 0 else "ahead") in refusal.wrong.found


def test_an_sts_that_is_down_is_no_refusal(cloud):
    """An answer of 503, or none at all, asks to try again; the reason is one line, without the request."""
    cloud.sts.faults.turn_on("server_error", action="AssumeRole", times=1)
    keys = credentials.provider(cloud.source())
    with pytest.raises(StsUnavailable, match="answered 503 ServiceUnavailable"):
        keys()
    assert keys().access_key_id.startswith("STS.")

    cloud.server.stop()
    missing = refused(cloud)
    assert isinstance(missing, StsUnavailable)
    assert "cannot be reached: " in str(missing)
    assert "AccessKeyId" not in str(missing)


def test_a_token_is_asked_for_anew_before_its_end(cloud):
    """Keys last for an hour and are shared until a quarter of an hour is left; then there are new ones."""
    keys = credentials.provider(cloud.source())
    assert keys().access_key_id == keys().access_key_id
    assert 1 == cloud.sts.count("AssumeRole")

    cloud.role.cut = 14 * 60
    early = credentials.provider(cloud.source())
    assert early().access_key_id != early().access_key_id


CHILD = """
import json, sys
import certifi
certifi.where = lambda: sys.argv[2]  # behind a proxy the package trusts these CAs alone: the lab's, here
connected = []
def watch(event, arguments):
    if event == "socket.connect":
        connected.append(arguments[1][0])
        if not arguments[1][0] in ("127.0.0.1", "::1"):
            raise OSError("not in a test")
sys.addaudithook(watch)
from certcast import credentials
from certcast.config.model import KeySource
try:
    source = dict(zip(("profile", "role_arn", "sts_endpoint"), json.loads(sys.argv[1])))
    said = credentials.provider(KeySource(**source))().access_key_id[:4]
except credentials.CredentialsMissing as missing:
    said = f"{type(missing).__name__}: {missing}"
print(json.dumps([said, sorted(set(connected) - {"::1"})]))
"""


def asked_for_keys(cloud: Cloud, home: Path, *source: str | None, **environ: str) -> tuple[str, list[str]]:
    """Ask for the keys of a source in a process of its own: what came, and which addresses were called."""
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(source), str(cloud.trust)],
        env={
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            **{"HOME": str(home), "HTTPS_PROXY": cloud.proxy.url},
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (ran.returncode, ran.stderr)
    said, connected = json.loads(ran.stdout)
    return said, connected


@pytest.fixture
def home(cloud: Cloud, tmp_path: Path) -> Path:
    """A home directory with a profile that the official command line tool would use: it assumes the role."""
    profile = {
        "name": "by-role",
        "mode": "RamRoleArn",
        "access_key_id": "LTAI-dns",
        "access_key_secret": "secret-dns",
        "ram_role_arn": cloud.role.arn,
        "ram_session_name": "tool",
        "expired_seconds": 900,
    }
    (tmp_path / ".aliyun").mkdir()
    text = json.dumps({"current": "by-role", "profiles": [profile]})
    (tmp_path / ".aliyun/config.json").write_text(text)
    (tmp_path / ".aliyun/config.json").chmod(0o600)
    return tmp_path


def test_a_profile_may_assume_a_role_by_itself(cloud, home):
    """A profile of mode RamRoleArn, as `aliyun configure` writes it, works without role_arn in our file."""
    assert ("STS.", ["127.0.0.1"]) == asked_for_keys(cloud, home, "by-role")
    assert ["sts.aliyuncs.com:443"] == cloud.proxy.connected


def test_what_the_package_says_is_cut_down_to_codes(cloud, home):
    """A profile whose role is refused: the code stays, the answer with the signed request in it goes."""
    cloud.user.access_key_secret = "other"
    said, _ = asked_for_keys(cloud, home, "by-role")
    assert said.startswith("CredentialsMissing: ")
    assert said.endswith("SignatureDoesNotMatch")
    assert "LTAI" not in said
    assert "string to sign" not in said


def test_no_instance_is_asked_where_keys_are_named(cloud, tmp_path):
    """With keys in the environment, or a profile, nothing asks the ECS metadata service, role or not."""
    keys = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI-dns", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret-dns"}
    role = (None, cloud.role.arn, "https://sts.aliyuncs.com")

    assert ("STS.", ["127.0.0.1"]) == asked_for_keys(cloud, tmp_path, *role, **keys)
    assert ("LTAI", []) == asked_for_keys(cloud, tmp_path, None, **keys)
    said, connected = asked_for_keys(cloud, tmp_path, "nobody")
    assert "unable to open credentials file" in said
    assert [] == connected
