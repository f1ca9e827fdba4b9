"""The Alidns emulator, held against clients that we didn't write, unmodified.

The official SDK in its two forms (typed models; the generic call) and with both
of its signature algorithms, pointed at the emulator by its own `endpoint`
setting. And two third parties' certbot plugins that know only the real address,
led here by the proxy, which obtain a real certificate from pebble each:
certbot-dns-aliyun (RPC-SHA1) and certbot-dns-multi, which is lego (ACS3).
"""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_alidns20150109 import models
from alibabacloud_alidns20150109.client import Client
from alibabacloud_tea_openapi.client import Client as OpenApiClient
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from alibabacloud_tea_openapi.models import Config, OpenApiRequest, Params
from cryptography import x509
from darabonba.runtime import RuntimeOptions

from certcast_lab.acme.pebble import Pebble
from certcast_lab.aliyun.alidns_api import HOST, AlidnsApi
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zone, Zones
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.intercept import Intercept

FOREIGN_CERTBOT = Path(__file__).parents[2] / ".venv-clients/bin/certbot"

# What both certbot plugins' documentation asks for: they list the zones, so one zone is not enough.
POLICY = {
    "Version": "1",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["alidns:AddDomainRecord", "alidns:DeleteDomainRecord", "alidns:DescribeDomainRecords"],
            "Resource": "acs:alidns:*:100:domain/example.test",
        },
        {"Effect": "Allow", "Action": "alidns:DescribeDomains", "Resource": "*"},
    ],
}


class Cloud:
    """Alidns under its plain address and, behind the proxy, under its real name; DNS; the CA."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.zones = Zones()
        self.zone: Zone = self.zones.create("example.test", "100", ("ns1.lab.test", "ns2.lab.test"))
        ram = Ram()
        self.user = ram.add(User("100", "dns", "LTAI-dns", "secret-dns", policies=[POLICY]))
        self.api = AlidnsApi(ram, self.zones)
        self.plain = stack.enter_context(Server(self.api.app))
        authority = Authority("lab")
        self.trust = folder / "authority.pem"
        self.trust.write_bytes(authority.pem)
        tls = stack.enter_context(Server(self.api.app, tls=server_context(*authority.issue(HOST))))
        self.proxy = stack.enter_context(Intercept({HOST: tls.port}))
        dns = NameService(self.zones, self.zone.nameservers)
        stack.callback(dns.stop)
        self.resolver = f"127.0.0.1:{dns.resolver.port}"
        self.ca = Pebble(folder / "pebble", authority, resolver=dns.resolver.address)
        stack.callback(self.ca.stop)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield Cloud(tmp_path_factory.mktemp("cloud"), stack)


@pytest.fixture
def cloud(running: Cloud) -> Cloud:
    """The running cloud with nothing in it."""
    for record in running.zones.records(running.zone):
        running.zones.delete(record)
    running.api.log.clear()
    running.proxy.connected.clear()
    running.proxy.refused.clear()
    running.user.security_token = None
    return running


def values(cloud: Cloud) -> list[str]:
    return [record.value for record in cloud.zones.records(cloud.zone)]


# -- the official SDK


def config(cloud: Cloud, algorithm: str | None, **more: str) -> Any:
    return Config(
        access_key_id=cloud.user.access_key_id,
        access_key_secret=cloud.user.access_key_secret,
        endpoint=f"127.0.0.1:{cloud.plain.port}",
        protocol="http",
        signature_algorithm=algorithm,
        **more,
    )


ALGORITHMS = pytest.mark.parametrize(("algorithm", "scheme"), [(None, "ACS3"), ("v2", "RPC-SHA1")])


@ALGORITHMS
def test_the_typed_sdk_adds_finds_and_deletes(cloud, algorithm, scheme):
    """The SDK's own models understand every reply, whichever way it signs."""
    client = Client(config(cloud, algorithm))
    added = client.add_domain_record(
        models.AddDomainRecordRequest(
            domain_name="example.test", rr="_acme-challenge", type="TXT", value="a b*~/+é", ttl=600
        )
    )
    listed = client.describe_domain_records(
        models.DescribeDomainRecordsRequest(domain_name="example.test", rrkey_word="_acme", page_size=500)
    )
    (record,) = listed.body.domain_records.record
    assert (added.body.record_id, "a b*~/+é", "ENABLE") == (record.record_id, record.value, record.status)
    domains = client.describe_domains(models.DescribeDomainsRequest()).body.domains.domain
    assert ["example.test"] == [domain.domain_name for domain in domains]
    deleted = client.delete_domain_record(models.DeleteDomainRecordRequest(record_id=record.record_id))
    assert record.record_id == deleted.body.record_id
    assert [] == values(cloud)
    assert {scheme} == {logged.scheme for logged in cloud.api.log}


@ALGORITHMS
def test_the_generic_call_works_like_the_typed_one(cloud, algorithm, scheme):
    """The SDK's generic call, which is all that certcast loads, is served the same."""
    client = OpenApiClient(config(cloud, algorithm))
    reply = client.call_api(
        Params(
            action="AddDomainRecord",
            version="2015-01-09",
            protocol="HTTP",
            method="POST",
            auth_type="AK",
            style="RPC",
            pathname="/",
            req_body_type="json",
            body_type="json",
        ),
        OpenApiRequest(
            query={"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "generic call"}
        ),
        RuntimeOptions(),
    )
    assert cloud.zones.by_id(reply["body"]["RecordId"]) is not None
    assert ["generic call"] == values(cloud)
    assert {scheme} == {logged.scheme for logged in cloud.api.log}


@ALGORITHMS
def test_the_sdk_raises_the_services_codes(cloud, algorithm, scheme):
    """A refusal reaches the SDK's caller with code, status and message, so that it can be acted upon."""
    client = Client(config(cloud, algorithm))
    with pytest.raises(AlibabaCloudException) as refused:
        client.describe_domain_records(models.DescribeDomainRecordsRequest(domain_name="elsewhere.test"))
    assert ("Forbidden.RAM", 400) == (refused.value.code, refused.value.status_code)
    cloud.api.faults.turn_on("throttle", times=1)
    with pytest.raises(AlibabaCloudException) as throttled:
        client.describe_domains(models.DescribeDomainsRequest())
    assert "Throttling.User" == throttled.value.code


@ALGORITHMS
def test_the_sdk_signs_with_a_temporary_key(cloud, algorithm, scheme):
    """A token from STS is sent and signed as the SDK does it."""
    cloud.user.security_token = "sts-token"
    client = Client(config(cloud, algorithm, security_token="sts-token"))
    assert 1 == client.describe_domains(models.DescribeDomainsRequest()).body.total_count


# -- other people's clients, through the proxy


def obtain(
    cloud: Cloud, folder: Path, *plugin: str | Path, credentials: str
) -> subprocess.CompletedProcess[str]:
    """Run a foreign certbot to the end, in `folder`, with a plugin that believes to speak to the cloud."""
    if not FOREIGN_CERTBOT.exists():
        pytest.fail("other people's clients are not installed; run scripts/foreign-clients")
    file = folder / "credentials.ini"
    file.write_text(credentials)
    file.chmod(0o600)
    argv: list[str | Path] = [
        *(FOREIGN_CERTBOT, "certonly", "-n", "--agree-tos", "--register-unsafely-without-email"),
        *("--server", cloud.ca.directory_url, "-d", "example.test", "-d", "*.example.test"),
        *("--config-dir", folder, "--work-dir", folder, "--logs-dir", folder),
        *plugin,
        file,
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HTTPS_PROXY": cloud.proxy.url,
        "NO_PROXY": "127.0.0.1",  # the CA is asked directly
        "REQUESTS_CA_BUNDLE": str(cloud.trust),  # Python's clients
        "SSL_CERT_FILE": str(cloud.trust),  # Go's
    }
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90, check=False)


def names_in(fullchain: Path) -> set[str]:
    leaf = x509.load_pem_x509_certificates(fullchain.read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


PLUGINS = pytest.mark.parametrize(
    ("plugin", "credentials", "scheme"),
    [
        pytest.param(
            ("-a", "dns-aliyun", "--dns-aliyun-propagation-seconds", "0", "--dns-aliyun-credentials"),
            "dns_aliyun_access_key = {id}\ndns_aliyun_access_key_secret = {secret}\n",
            "RPC-SHA1",
            id="certbot-dns-aliyun",
        ),
        pytest.param(
            (
                *("-a", "dns-multi", "--dns-multi-propagation-seconds", "0"),
                *("--dns-multi-nameservers", "{resolver}", "--dns-multi-credentials"),
            ),
            "dns_multi_provider = alidns\nALICLOUD_ACCESS_KEY = {id}\nALICLOUD_SECRET_KEY = {secret}\n",
            "ACS3",
            id="certbot-dns-multi (lego)",
        ),
    ],
)


@PLUGINS
def test_other_peoples_plugins_obtain_a_wildcard_certificate(cloud, tmp_path, plugin, credentials, scheme):
    """A plugin written for the real service gets its certificate here and leaves no record behind."""
    done = obtain(
        cloud,
        tmp_path,
        *(word.format(resolver=cloud.resolver) for word in plugin),
        credentials=credentials.format(id=cloud.user.access_key_id, secret=cloud.user.access_key_secret),
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert {"example.test", "*.example.test"} == names_in(tmp_path / "live/example.test/fullchain.pem")
    assert 2 == cloud.api.count("AddDomainRecord")
    assert [] == values(cloud)
    assert {(scheme, None)} == {(logged.scheme, logged.code) for logged in cloud.api.log}
    assert {f"{HOST}:443"} == set(cloud.proxy.connected)
    assert [] == cloud.proxy.refused


@PLUGINS
def test_other_peoples_plugins_fail_with_a_wrong_secret(cloud, tmp_path, plugin, credentials, scheme):
    """The same run with a wrong secret ends in an error: the signatures are really looked at."""
    done = obtain(
        cloud,
        tmp_path,
        *(word.format(resolver=cloud.resolver) for word in plugin),
        credentials=credentials.format(id=cloud.user.access_key_id, secret="wrong"),
    )

    assert 0 != done.returncode
    assert {(scheme, "SignatureDoesNotMatch")} == {(logged.scheme, logged.code) for logged in cloud.api.log}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("CONNECT", "example.com:443"),
        ("CONNECT", f"{HOST}:80"),
        ("CONNECT", "127.0.0.1:443"),
        ("GET", f"http://{HOST}/"),
    ],
)
def test_the_proxy_leads_nowhere_else(cloud, method, target):
    """What isn't the emulated service is refused and remembered, so nothing under test leaves the machine."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.proxy.port, timeout=30)
    try:
        connection.request(method, target)
        assert 403 == connection.getresponse().status
    finally:
        connection.close()
    assert ([target], []) == (cloud.proxy.refused, cloud.proxy.connected)
