"""RAM policies as they follow from a configuration; nothing is sent here."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from certcast.access import policy_remarks, ram_policies
from certcast.access.isolation import isolate
from certcast.config.model import Config, Zone
from certcast.config.reading import load
from certcast.release import manifest
from certcast.report.errors import ConfigInvalid
from certcast_lab.aliyun.ram import User, is_allowed

BASE = """
host = "web1"
[store]
url = "oss://bucket/some/prefix"
region = "cn-hangzhou"
[[certificate]]
name = "a.test"
names = ["a.test", "*.a.test"]
[renewal]
[consumer]
[[consumer.nginx]]
"""

# Any public key: its fields are of the right lengths (RFC 8709 section 4).
KEY = "ssh-ed25519 " + b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()


@pytest.fixture
def config(tmp_path: Path):
    """Read BASE and more lines; `change` replaces a text in it."""

    def read(more: str = "", *change: str) -> Config:
        path = tmp_path / "certcast.toml"
        path.write_text(BASE.replace(*change) + more if change else BASE + more)
        return load(path)

    return read


def zones_of(policies: list[ram_policies.Policy]) -> dict[str, list[str]]:
    """The policies of one key as action → zones."""
    (one,) = policies
    return {
        action.removeprefix("alidns:"): [what.rpartition("/")[2] for what in statement["Resource"]]
        for statement in one.statements
        for action in statement["Action"]
    }


def each(zones: list[str], *actions: str) -> dict[str, list[str]]:
    return dict.fromkeys(actions, zones)


SERVERS = 'nameservers = ["192.0.2.1:53"]\n'
RECORDS = ("AddDomainRecord", "DeleteDomainRecord", "DescribeDomainRecords")
INFO = "DescribeDomainInfo"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param(
            "",
            {**each(["a.test"], *RECORDS, INFO), "DescribeDomains": ["*"]},
            id="no zone is named",
        ),
        pytest.param(
            '[dns]\npropagation = "wait:30s"\n',
            {**each(["a.test"], *RECORDS), "DescribeDomains": ["*"]},
            id="a fixed wait asks no nameserver",
        ),
        pytest.param(
            '[[zone]]\nname = "a.test"\n[[zone]]\nname = "b.test"\n',
            each(["a.test", "b.test"], *RECORDS, INFO),
            id="two zones, one for a CNAME",
        ),
        pytest.param(
            f'[[zone]]\nname = "a.test"\n{SERVERS}[[zone]]\nname = "b.test"\n',
            {**each(["a.test", "b.test"], *RECORDS), INFO: ["b.test"]},
            id="nameservers of one are known",
        ),
        pytest.param(
            f'[dns]\nfollow_cname = false\n[[zone]]\nname = "a.test"\n{SERVERS}[[zone]]\nname = "b.test"\n',
            each(["a.test"], *RECORDS),
            id="no CNAME is followed",
        ),
    ],
)
def test_rights_over_records(config, more, expected):
    """The DNS key may do what a renewal does with this configuration, in its zones, and nothing else."""
    assert expected == zones_of(ram_policies.dns(config(more)))


def test_without_zones_every_possible_one_is_named(config):
    """Which zone holds a deep name shows only in the account; a lone label is never one."""
    names = 'names = ["www.shop.b.test", "*.b.test"]'
    found = ram_policies.dns_zones(config("", 'names = ["a.test", "*.a.test"]', names))
    assert ["www.shop.b.test", "shop.b.test", "b.test"] == found


def test_each_source_of_keys_has_a_policy_of_its_own(config):
    """
    Zones of three accounts: nobody gets rights over another's zone, a role gets the rights, and its
    caller the one to assume it.
    """
    policies = ram_policies.dns(
        config(
            f"""
[dns]
profile = "main"
[[zone]]
name = "a.test"
{SERVERS}
[[zone]]
name = "b.test"
role_arn = "acs:ram::7:role/dns"
{SERVERS}
[[zone]]
name = "c.test"
profile = "other"
{SERVERS}
[[zone]]
name = "d.test"
endpoint = "https://alidns.elsewhere.test"
{SERVERS}
"""
        )
    )
    said = {
        one.holder: [resource for statement in one.statements for resource in statement["Resource"]]
        for one in policies
    }
    main = "the RAM user or role of profile main in ~/.aliyun/config.json"
    assert {
        main: ["acs:alidns:*:*:domain/a.test"],
        "the RAM role acs:ram::7:role/dns": ["acs:alidns:*:*:domain/b.test"],
        "the RAM user or role whose keys this host has": ["acs:ram::7:role/dns"],
        main.replace("main", "other"): ["acs:alidns:*:*:domain/c.test"],
        f"{main}, at https://alidns.elsewhere.test": ["acs:alidns:*:*:domain/d.test"],
    } == said


def may(policies: list[ram_policies.Policy], action: str, key: str | None, prefix: str = "") -> bool:
    """Whether a user with these policies may do this in the bucket, as RAM decides it."""
    user = User("7", "someone", "id", "secret", policies=[one.document for one in policies])
    resource = "acs:oss:cn-hangzhou:7:bucket" + (f"/{key}" if key else "")
    return is_allowed(user, f"oss:{action}", resource, {"oss:Prefix": prefix})


def test_a_publisher_works_below_its_prefix_alone(config):
    """Get, put, delete and list there; nothing beside it, and no older version is read."""
    policies = ram_policies.publisher(config())
    for action in ("GetObject", "PutObject", "DeleteObject", "DeleteObjectVersion"):
        assert may(policies, action, "some/prefix/certs/a.test/manifest")
        assert not may(policies, action, "some/prefixes/x")
        assert not may(policies, action, "other")
    for action in ("ListObjects", "ListObjectVersions"):
        assert may(policies, action, None, "some/prefix/certs/")
        assert not may(policies, action, None, "some/")
        assert not may(policies, action, None, "")
    assert not may(policies, "GetObjectVersion", "some/prefix/certs/a.test/manifest")


def test_a_store_without_a_prefix_is_the_whole_bucket(config):
    """A bucket of certcast's own needs no condition on the prefix."""
    policies = ram_policies.publisher(config("", "bucket/some/prefix", "bucket"))
    assert may(policies, "PutObject", "certs/a.test/manifest")
    assert may(policies, "ListObjects", None, "")
    assert not any("Condition" in statement for one in policies for statement in one.statements)


def test_a_consumer_reads_its_certificates_and_puts_its_report(config):
    """A host's key gives no other certificates, no other host's report, and changes nothing published."""
    policies = ram_policies.consumer(config())
    published = [
        manifest.manifest_key("a.test"),
        manifest.release_key("a.test", "0" * 64, "fullchain.pem"),
        manifest.release_key("a.test", "0" * 64, "keys/web1.0123456789abcdef.age"),
    ]
    for key in published:
        assert may(policies, "GetObject", f"some/prefix/{key}")
        assert not may(policies, "PutObject", f"some/prefix/{key}")
        assert not may(policies, "DeleteObject", f"some/prefix/{key}")
    assert not may(policies, "GetObject", "some/prefix/certs/b.test/manifest")
    assert not may(policies, "GetObject", "some/prefix/certs/a.test.evil/manifest")
    assert may(policies, "PutObject", "some/prefix/hosts/web1.json")
    assert not may(policies, "PutObject", "some/prefix/hosts/web2.json")
    assert not may(policies, "ListObjects", None, "some/prefix/")


def test_a_group_puts_the_report_of_the_group(config):
    """Hosts that share an identity share the name under which they report."""
    policies = ram_policies.consumer(config("", "[consumer]", '[consumer]\ngroup = "web"'))
    assert may(policies, "PutObject", "some/prefix/hosts/web.json")


def test_a_role_gets_the_rights_and_its_caller_may_assume_it(config):
    """[store] role_arn: two policies, one for the role and one for whoever assumes it."""
    region = 'region = "cn-hangzhou"'
    policies = ram_policies.consumer(config("", region, f'{region}\nrole_arn = "acs:ram::7:role/reader"'))
    assert ["the RAM role acs:ram::7:role/reader", "the RAM user or role whose keys this host has"] == [
        one.holder for one in policies
    ]
    (assume,) = policies[1].statements
    assert (["sts:AssumeRole"], ["acs:ram::7:role/reader"]) == (assume["Action"], assume["Resource"])


def test_a_host_that_reads_without_credentials_needs_no_policy(tmp_path):
    """read_from: there is no key that anything could be allowed to."""
    (tmp_path / "certcast.toml").write_text(
        BASE.replace("[renewal]\n", "").replace(
            "[store]\n", f'[store]\nread_from = "https://relay.test"\npublishers = ["{KEY}"]\n'
        )
    )
    reading = load(tmp_path / "certcast.toml")
    assert [] == ram_policies.consumer(reading)


def test_a_store_elsewhere_has_no_ram_policy(config):
    """Buckets of others and folders have their own rules; the report says where to read what is needed."""
    with pytest.raises(ConfigInvalid, match=r"no policy for the store file:///srv") as refused:
        ram_policies.publisher(config("", "oss://bucket/some/prefix", "file:///srv"))
    assert "docs/least-privilege.md" in refused.value.next


def test_isolation_puts_each_name_below_the_throwaway_zone(config):
    """Wildcard and apex share one record, no two names share a target, and one zone is left to be changed."""
    names = 'names = ["a.test", "*.a.test", "www.b.test"]'
    more = '[dns]\nfollow_cname = false\n[[zone]]\nname = "a.test"\n'
    found = isolate(config(more, 'names = ["a.test", "*.a.test"]', names), Zone("acme.test"))
    assert (
        ("_acme-challenge.a.test", "_acme-challenge.a.test.acme.test"),
        ("_acme-challenge.www.b.test", "_acme-challenge.www.b.test.acme.test"),
    ) == found.records
    assert each(["acme.test"], *RECORDS, INFO) == zones_of(ram_policies.dns(found.config))


@pytest.mark.parametrize("zone", ["a.test", "test"])
def test_a_zone_that_holds_a_name_isolates_nothing(config, zone):
    """Who gives the zone of the names themselves would confine the key to what it must not touch."""
    with pytest.raises(ValueError, match=f"a.test lies in {zone}"):
        isolate(config(), Zone(zone))


def test_a_zone_below_the_names_own_is_a_zone_of_its_own(config):
    """acme.a.test may be a zone apart, whose parent this key cannot change."""
    assert ("_acme-challenge.a.test", "_acme-challenge.a.test.acme.a.test") in isolate(
        config(), Zone("acme.a.test")
    ).records


def test_names_that_get_too_long_for_dns_are_refused(config):
    """253 characters are a name's most."""
    label = "a" * 60
    long = f"{label}.{label}.{label}.{label[:40]}.test"
    with pytest.raises(ValueError, match="characters shorter"):
        isolate(
            config("", '"a.test", "*.a.test"', f'"{long}"'), Zone("a-throw-away-zone.for-challenges.test")
        )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "names no [[zone]]"),
        ('[[zone]]\nname = "b.test"\n', "No [[zone]] holds a.test"),
        ('[[zone]]\nname = "xn--fiq228c.test"\n', "internationalised"),
    ],
)
def test_what_ram_cannot_express_is_said(config, more, said):
    """Whoever attaches the policy learns what it cannot prevent, and what narrows it down."""
    remarks = policy_remarks.about_dns(config(more))
    assert any(said in remark for remark in remarks), remarks
    assert "can change every record of" in remarks[0]


def test_a_consumers_remarks(config):
    """A shared role, a host name that is this machine's, and keys that lie open are pointed out."""
    remarks: Any = policy_remarks.about_consumer(
        config("", 'host = "web1"\n[store]', '[store]\nencryption = "none"')
    )
    assert 3 == len(remarks)
    assert 1 == len(policy_remarks.about_consumer(config()))


def test_a_policy_that_ram_would_not_take_is_announced():
    """A hundred zones make a policy that is too long; nobody should learn that from the console."""
    assert [] == policy_remarks.about_length(6144)
    assert "6,144" in policy_remarks.about_length(6145)[0]
