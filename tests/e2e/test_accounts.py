"""A company with several cloud accounts: stories of zones and a bucket that don't share one AccessKey.

    example.test          the account of [dns], its key in the environment
    example-role.test     another account's, reached by a RAM role that the first may assume
    example-world.test    an account of another site: another endpoint, where the keys of the first
                          are unknown; its key is a profile of ~/.aliyun/config.json

pebble, DNS, nginx are real; STS and both sites' Alidns are emulated, each checking
signatures, tokens and policies for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from certcast_lab.aliyun.alidns_api import AlidnsApi
from certcast_lab.aliyun.cloud import ACCOUNT, NAMESERVERS, PREFIX
from certcast_lab.aliyun.ram import Ram, Role, User
from certcast_lab.lab import Lab
from certcast_lab.serving.asgi import Server, server_context
from journey import Done, Journey

WORLD, ROLES = "5000000000000005", "7000000000000007"
NAMES = ("example.test", "*.example.test", "*.example-role.test", "*.example-world.test")
RECORDS = ("AddDomainRecord", "DeleteDomainRecord", "DescribeDomainRecords", "DescribeDomainInfo")


def policy(account: str, zone: str, *actions: str) -> dict[str, Any]:
    return {
        "Version": "1",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [f"alidns:{action}" for action in actions],
                "Resource": f"acs:alidns:*:{account}:domain/{zone}",
            }
        ],
    }


def trusting(*callers: str) -> dict[str, Any]:
    return {
        "Version": "1",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"RAM": list(callers)}}],
    }


class Company:
    """Three accounts, STS and a second site, and a renewal host that knows of them."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab = lab
        self.sts_url = self._serve_tls(stack)
        sites = Ram()
        self.world = sites.add(
            User(WORLD, "world", "lab-world", "lab-world-secret", policies=[self.may(WORLD, "world")])
        )
        self.world_api = AlidnsApi(sites, lab.cloud.zones)
        self.world_url = stack.enter_context(Server(self.world_api.app)).url
        self.role = lab.cloud.ram.add_role(
            Role(ROLES, "dns", trusting(lab.cloud.renewal.arn), [self.may(ROLES, "role")])
        )
        self.let_assume(lab.cloud.renewal, self.role)
        for name, account in (("example-role.test", ROLES), ("example-world.test", WORLD)):
            lab.cloud.zones.create(name, account, NAMESERVERS)
        self.journey = Journey(lab, {"example.test": NAMES})
        self.configure(endpoint=self.world_url)
        self.write_profiles()

    @staticmethod
    def may(account: str, what: str, *actions: str) -> dict[str, Any]:
        return policy(account, f"example-{what}.test", *(actions or RECORDS))

    @staticmethod
    def let_assume(user: User, role: Role) -> None:
        statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role.arn}
        user.policies = [*user.policies, {"Version": "1", "Statement": [statement]}]

    def _serve_tls(self, stack: ExitStack) -> str:
        """STS, to which official clients speak https alone."""
        tls = server_context(*self.lab.authority.issue("localhost"))
        return f"https://localhost:{stack.enter_context(Server(self.lab.cloud.sts.app, tls=tls)).port}"

    def configure(self, *, endpoint: str) -> None:
        """Write the renewal host's configuration; `endpoint` is that of the other site's zone."""
        self.journey.configure()
        nameservers = json.dumps([f"{host}:{port}" for host, port in map(_address, self.lab.dns.servers)])
        with self.journey.renewal.certcast_toml.open("a") as file:
            file.write(
                f"""
[[zone]]
name = "example-role.test"
nameservers = {nameservers}
role_arn = "{self.role.arn}"
sts_endpoint = "{self.sts_url}"

[[zone]]
name = "example-world.test"
nameservers = {nameservers}
endpoint = "{endpoint}"
profile = "world"
"""
            )

    def write_profiles(self, **others: User) -> None:
        """Write ~/.aliyun/config.json, as `aliyun configure` does: `world`, and others by their names."""
        folder = self.journey.renewal.root / "root/.aliyun"
        folder.mkdir(parents=True, exist_ok=True)
        profiles = [
            {
                "name": name,
                "mode": "AK",
                "access_key_id": user.access_key_id,
                "access_key_secret": user.access_key_secret,
            }
            for name, user in {"world": self.world, **others}.items()
        ]
        (folder / "config.json").write_text(json.dumps({"current": "world", "profiles": profiles}))
        (folder / "config.json").chmod(0o600)

    @property
    def environment(self) -> dict[str, str]:
        """Return what the renewal host has beside the key: a home, and trust for STS among the system's."""
        return {
            "HOME": str(self.journey.renewal.root / "root"),
            "SSL_CERT_FILE": str(self.lab.ca_file),
        }

    def renew(self) -> Done:
        return self.journey.renew_with(self.environment, without="ALIBABA_CLOUD_PROFILE")

    def told(self) -> dict[tuple[str, str], set[str]]:
        """Return which zones each caller mentioned, by site and user."""
        said: dict[tuple[str, str], set[str]] = {}
        for site, api in (("home", self.lab.cloud.alidns), ("world", self.world_api)):
            for logged in api.log:
                zone = logged.parameters.get("DomainName")
                said.setdefault((site, logged.user), set()).update([zone] if zone else ())
        return said

    def asked_by_the_ca(self) -> list[str]:
        queries = self.lab.dns.resolver.queries
        return [query.name for query in queries if query.name.startswith("_acme-challenge")]


def _address(server: Any) -> tuple[str, int]:
    host, port = server.address
    return host, port


@pytest.fixture
def company(lab: Lab) -> Iterator[Company]:
    with ExitStack() as stack:
        yield Company(lab, stack)


def test_three_accounts(company: Company) -> None:
    """
    One certificate over three accounts' zones: by the environment's key, an assumed role, and a profile
    at another site. Each account hears of its own zone alone, and no TXT record is left.
    """
    done = company.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert set(NAMES) == set(company.journey.live().leaf.names)
    assert [] == company.lab.cloud.challenge_records()
    assert {
        ("home", "renewal"): {"example.test"},
        ("home", "dns/certcast"): {"example-role.test"},
        ("world", "world"): {"example-world.test"},
    } == company.told()
    assert 4 == company.lab.cloud.alidns.count("AddDomainRecord") + company.world_api.count("AddDomainRecord")
    assert company.journey.live().leaf.sha256 == company.journey.published()
    assert_no_secrets(company, done)


def test_one_account_lacks_the_right(company: Company) -> None:
    """
    The other site's key may not add records: the order stops before the CA looks, the other
    accounts' records are gone again, and the report says whose key it is.
    """
    company.world.policies = [company.may(WORLD, "world", "DescribeDomainRecords", "DeleteDomainRecord")]

    done = company.renew()

    assert 12 == done.returncode, done.stderr
    assert [] == company.asked_by_the_ca()
    assert [] == company.lab.cloud.challenge_records()
    assert "the AccessKey may not do AddDomainRecord in example-world.test" in done.stderr
    assert "profile world of ~/.aliyun/config.json" in done.stderr
    assert_no_secrets(company, done)


def test_a_key_of_the_other_site(company: Company) -> None:
    """A zone without its endpoint: the first site doesn't know the key, and the report names the two."""
    company.configure(endpoint=company.lab.alidns_url)

    done = company.renew()

    assert 12 == done.returncode, done.stderr
    assert "InvalidAccessKeyId" in done.stderr
    assert "profile world" in done.stderr
    assert f"at {company.lab.alidns_url.removeprefix('http://')}" in done.stderr
    assert [] == company.lab.cloud.challenge_records()


def test_a_role_that_trusts_nobody(company: Company) -> None:
    """The other account has not let us assume its role: the report names role, caller and both policies."""
    company.role.trust = trusting("acs:ram::1:root")

    done = company.renew()

    assert 12 == done.returncode, done.stderr
    assert f"refused to give {company.role.arn}: NoPermission" in done.stderr
    assert "assumed with ALIBABA_CLOUD_ACCESS_KEY_ID of the environment" in done.stderr
    assert "the role's trust policy" in done.stderr
    assert [] == company.lab.cloud.challenge_records()
    assert_no_secrets(company, done)


def test_a_token_that_ends_during_the_wait(company: Company) -> None:
    """
    The role's token ends while a slow nameserver is waited for: the record is removed with a new one, and
    no request was ever sent with one that had ended.
    """
    company.role.cut = 3
    company.lab.dns.servers[1].lag = 4.0

    done = company.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == company.lab.cloud.challenge_records()
    assert 2 <= company.lab.cloud.sts.count("AssumeRole")
    assert {None} == {logged.code for logged in company.lab.cloud.alidns.log if "dns/" in logged.user}


def test_an_sts_that_stumbles_costs_a_retry(company: Company) -> None:
    """STS answers 503 twice: the order waits a moment and goes on."""
    company.lab.cloud.sts.faults.turn_on("server_error", action="AssumeRole", times=2)

    done = company.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert 2 == company.lab.cloud.sts.faults.consumed("server_error")
    assert [] == company.lab.cloud.challenge_records()


def test_an_unknown_profile(company: Company) -> None:
    """A misspelt profile is named with the file that lacks it; nothing was added anywhere."""
    toml = company.journey.renewal.certcast_toml
    toml.write_text(toml.read_text().replace('profile = "world"', 'profile = "wrold"'))

    done = company.renew()

    assert 12 == done.returncode, done.stderr
    assert "none in profile wrold of ~/.aliyun/config.json" in done.stderr
    assert "add profile wrold to ~/.aliyun/config.json" in done.stderr
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID" not in done.stderr, "the environment is not asked beside a profile"
    assert [] == company.lab.cloud.challenge_records()


def test_a_store_by_an_assumed_role(company: Company) -> None:
    """
    A consumer whose own key has no right to the bucket reads it through a role, and installs what was
    published; without the role, it is told that the right is missing.
    """
    journey, lab = company.journey, company.lab
    assert 0 == company.renew().returncode
    journey.consumer("web1")
    reader = lab.cloud.ram.add_role(
        Role(ACCOUNT, "reader", trusting(lab.cloud.consumer.arn), lab.cloud.consumer.policies)
    )
    lab.cloud.consumer.policies = []
    company.let_assume(lab.cloud.consumer, reader)
    assert 21 == journey.pull("web1").returncode

    by_role = f'[store]\nrole_arn = "{reader.arn}"\nsts_endpoint = "{company.sts_url}"\n'
    by_role_alone = lab.cloud.consumer.policies
    host = journey.consumer("web1", "[store]\n", by_role)
    lab.cloud.consumer.policies = by_role_alone
    assert 39 == pull(company, "web1").returncode
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    done = pull(company, "web1")

    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.served("web1")
    users = {asked.user for asked in lab.cloud.oss.requests if asked.status == 200 and asked.method == "GET"}
    assert "reader/certcast" in users
    assert f"{PREFIX}/certs/" in "".join(asked.key or "" for asked in lab.cloud.oss.requests)


def test_a_store_by_a_profile(company: Company) -> None:
    """
    A consumer whose environment holds another key, without a right to the bucket, reads it with the key of
    the profile that [store] names, and installs what was published.
    """
    journey, lab = company.journey, company.lab
    assert 0 == company.renew().returncode
    journey.consumer("web1")
    reader = User(ACCOUNT, "reader", "lab-reader", "lab-reader-secret")
    reader.policies = lab.cloud.consumer.policies
    company.write_profiles(reader=lab.cloud.ram.add(reader))
    lab.cloud.consumer.policies = []
    assert 21 == pull(company, "web1").returncode

    host = journey.consumer("web1", "[store]\n", '[store]\nprofile = "reader"\n')
    lab.cloud.consumer.policies = []  # each configuration comes with the rights that it needs
    before = len(lab.cloud.oss.requests)
    assert 39 == pull(company, "web1").returncode
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    done = pull(company, "web1")

    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.served("web1")
    assert {"reader"} == {asked.user for asked in lab.cloud.oss.requests[before:]}


def pull(company: Company, host: str) -> Done:
    """Run `certcast pull` on a consumer that trusts STS."""
    toml = company.lab.host(host).certcast_toml
    return company.lab.certcast(toml, "pull", user="consumer", extra=company.environment)


def assert_no_secrets(company: Company, done: Done) -> None:
    """Neither a secret, nor a token, nor a signature is in what the operator reads, or in what is kept."""
    kept = [path for path in company.journey.renewal.certcast_folder.rglob("*") if path.is_file()]
    assert "account.json" in {path.name for path in kept}
    said = "".join([done.stdout, done.stderr, *(path.read_text(errors="replace") for path in kept)])
    assert "a new account was made" in said
    for secret in (company.world.access_key_secret, company.lab.cloud.renewal.access_key_secret):
        assert secret not in said
    for word in ("Signature=", "SecurityToken", "AccessKeyId=", "security-token"):
        assert word not in said
