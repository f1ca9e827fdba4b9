"""Least privilege: what `certcast policy` prints is enough for the journey, and none of it is too much.

The lab's RAM decides by the very documents that are printed; pebble, DNS, nginx are real.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from certcast.config.model import DnsConfig
from certcast.dns01.alidns.alidns import Alidns
from certcast.report.errors import DnsDenied
from certcast_lab.aliyun.cloud import ACCOUNT, NAMESERVERS
from certcast_lab.aliyun.ram import Statement, User, parse_policy
from certcast_lab.lab import CERTCAST, Lab
from journey import Done, Journey

Documents = list[dict[str, Any]]


def ask(journey: Journey, *arguments: str, host: str = "renewal") -> Done:
    toml = journey.lab.host(host).certcast_toml
    return journey.lab.certcast(toml, "policy", *arguments, user="renewal")


def printed(done: Done) -> Documents:
    """Read stdout, which has documents and nothing else."""
    assert 0 == done.returncode, done.stderr
    text, documents = done.stdout.strip(), []
    while text:
        document, end = json.JSONDecoder().raw_decode(text)
        documents.append(document)
        text = text[end:].strip()
    return documents


def statements(documents: Any) -> list[Statement]:
    return [statement for document in documents for statement in parse_policy(document)]


def rewrite(journey: Journey, old: str, new: str = "") -> None:
    """Replace what a pattern matches in the renewal host's configuration, everywhere."""
    toml = journey.renewal.certcast_toml
    text = re.sub(old, new, toml.read_text(), flags=re.MULTILINE)
    assert text != toml.read_text()
    toml.write_text(text)


def without_zones(journey: Journey) -> None:
    rewrite(journey, r"^\[\[zone\]\]\nname = .*\nnameservers = .*\n")


def usual(_journey: Journey) -> None:
    pass


def two_zones(journey: Journey) -> None:
    journey.lab.cloud.add_zone("other.test")
    journey.configure()


def no_zone(journey: Journey) -> None:
    without_zones(journey)
    journey.lab.cloud.let_find(zones=True, nameservers=True)


def no_zone_and_a_fixed_wait(journey: Journey) -> None:
    without_zones(journey)
    rewrite(journey, r"^\[dns\]$", '[dns]\npropagation = "wait:10ms"')
    journey.lab.cloud.let_find(zones=True)


@pytest.mark.row(1)
@pytest.mark.parametrize("kind", [usual, two_zones, no_zone, no_zone_and_a_fixed_wait])
def test_the_renewal_host_may_do_what_is_printed_and_no_more(lab: Lab, kind: Any) -> None:
    """The lab's renewal key, with which every story here is told, has exactly the printed policies."""
    journey = Journey(lab)
    kind(journey)

    found = printed(ask(journey, "dns")) + printed(ask(journey, "publisher"))

    assert statements(lab.cloud.renewal.policies) == statements(found)


def test_a_consumer_may_do_what_is_printed_and_no_more(lab: Lab) -> None:
    """Two hosts that share a key: it has the printed policies of both, one of them with two certificates."""
    journey = Journey(lab, {"example.test": ("*.example.test",), "www": ("www.example.test",)})
    journey.consumer("web1")
    journey.certificates.pop("www")
    journey.consumer("web2")

    found = [*printed(ask(journey, "consumer", host="web1")), *printed(ask(journey, "consumer", host="web2"))]

    assert statements(lab.cloud.consumer.policies) == statements(found)


# -- enough, and not too much


def full_journey(journey: Journey) -> Done | None:
    """Do everything for which a key is used; return the first run that failed, None if all went well.

    Renew, pull; take a host off, in a bucket with versions; renew anew, and pull that.
    """
    journey.lab.cloud.bucket.versioning = "Enabled"
    if (done := journey.renew()).returncode:
        return done
    host = journey.consumer("web1")
    if 39 != (done := journey.pull("web1")).returncode:
        return done
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    hosts = journey.lab.trust.hosts_file
    hosts.write_text("".join(line for line in hosts.read_text().splitlines(True) if "web3" not in line))
    for run in (journey.renew, lambda: journey.pull("web1")):
        if (done := run()).returncode:
            return done
    journey.want_replaced()
    for run in (journey.renew, lambda: journey.pull("web1", "--now")):
        if (done := run()).returncode:
            return done
    assert journey.live().leaf.sha256 == journey.served("web1")
    return None


def used(lab: Lab, user: User) -> set[str]:
    """The RAM actions of all calls that this user made, as the two APIs saw them."""
    records = {f"alidns:{logged.action}" for logged in lab.cloud.alidns.log if logged.user == user.name}
    objects = set()
    for asked in lab.cloud.oss.requests:
        if asked.user == user.name:
            assert 403 != asked.status, f"{asked.right} {asked.key} was refused"
            objects.add(asked.right)
    return records | objects


def granted(user: User) -> set[str]:
    return {action for statement in statements(user.policies) for action in statement.actions}


def withdraw(user: User, action: str) -> None:
    """Deny one action, whatever else allows it."""
    denied = {"Effect": "Deny", "Action": action, "Resource": "*"}
    user.policies = [*user.policies, {"Version": "1", "Statement": [denied]}]


def test_every_right_is_used(lab: Lab) -> None:
    """
    A journey with exactly the printed policies succeeds and is refused nothing; and each right in
    them was used, but for the report, which hosts do not write yet.
    """
    journey = Journey(lab)

    assert None is full_journey(journey)

    assert granted(lab.cloud.renewal) == used(lab, lab.cloud.renewal)
    assert granted(lab.cloud.consumer) - {"oss:PutObject"} == used(lab, lab.cloud.consumer)


RENEWAL = (
    *("alidns:AddDomainRecord", "alidns:DeleteDomainRecord", "alidns:DescribeDomainRecords"),
    *("oss:GetObject", "oss:PutObject", "oss:ListObjects"),
    *("oss:DeleteObject", "oss:DeleteObjectVersion", "oss:ListObjectVersions"),
)


@pytest.mark.parametrize("action", RENEWAL)
def test_without_one_right_the_renewal_host_fails_and_names_it(lab: Lab, action: str) -> None:
    """
    None of the printed rights is superfluous: without it a run ends in an error that says which is missing.
    """
    journey = Journey(lab)
    withdraw(lab.cloud.renewal, action)

    done = full_journey(journey)

    assert done is not None
    assert action.partition(":")[2] in done.stderr


@pytest.mark.parametrize("action", ["alidns:DescribeDomains", "alidns:DescribeDomainInfo"])
def test_without_a_right_to_find_zones_they_must_be_configured(lab: Lab, action: str) -> None:
    """What a configuration without zones needs beyond the usual is needed, each of the two."""
    journey = Journey(lab)
    no_zone(journey)
    withdraw(lab.cloud.renewal, action)

    done = journey.renew()

    assert 12 == done.returncode
    assert f"may not do {action.partition(':')[2]}" in done.stderr


def test_consumer_without_the_right_to_read(lab: Lab) -> None:
    """The consumer's one right in use is needed."""
    journey = Journey(lab)
    assert 0 == journey.renew().returncode
    journey.consumer("web1")
    withdraw(lab.cloud.consumer, "oss:GetObject")

    done = journey.pull("web1")

    assert 21 == done.returncode
    assert "oss:GetObject" in done.stderr


# -- isolation


def test_isolate(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With the printed records, configuration and policy, and nothing else, a certificate is issued and
    renewed; and the key cannot read, add or list anything in the zone that the names are in.
    """
    journey = Journey(lab)
    lab.cloud.zones.create("acme.test", ACCOUNT, NAMESERVERS)
    done = ask(journey, "dns", "--isolate", "acme.test")
    (policy,) = printed(done)

    for name, target in re.findall(r"^(\S+)\.  +600  IN  CNAME  (\S+)\.$", done.stderr, re.MULTILINE):
        lab.cloud.zones.add(lab.cloud.zone, name.removesuffix(".example.test"), "CNAME", target)
    assert "and remove [[zone]] example.test" in done.stderr
    (lines,) = re.findall(r'^\[\[zone\]\]\nname = "acme.test"\n', done.stderr, re.MULTILINE)
    nameservers = re.findall(r"^nameservers = .*\n", journey.renewal.certcast_toml.read_text(), re.MULTILINE)
    without_zones(journey)
    with journey.renewal.certcast_toml.open("a") as file:
        file.write(f"\n{lines}{nameservers[0]}")  # the lab's are on no usual port
    lab.cloud.renewal.policies = [policy, *printed(ask(journey, "publisher"))]

    assert 0 == journey.renew().returncode
    first = journey.published()
    journey.want_replaced()
    assert 0 == journey.renew().returncode

    assert first != journey.published() == journey.live().leaf.sha256
    assert [] == lab.cloud.challenge_records()
    assert {"acme.test"} == {
        logged.parameters.get("DomainName", "acme.test") for logged in lab.cloud.alidns.log
    }
    for name, value in lab.environment("renewal").items():
        monkeypatch.setenv(name, value)
    assert_closed_to(journey, "example.test")


def assert_closed_to(journey: Journey, zone: str) -> None:
    """Try the DNS key on a zone, as a thief would."""
    lab = journey.lab
    standing = lab.cloud.zones.add(lab.cloud.zone, "www", "TXT", "v=spf1 -all")
    thief = Alidns(DnsConfig(endpoint=lab.alidns_url))
    for crime in (
        lambda: thief.add_txt(zone, "_acme-challenge", "stolen"),
        lambda: thief.find_txt(zone, "www", "v=spf1 -all"),
        lambda: thief.remove(zone, standing.id),
        lambda: thief.nameservers(zone),
        thief.zones,
    ):
        with pytest.raises(DnsDenied):
            crime()
    assert ["v=spf1 -all"] == [r.value for r in lab.cloud.zones.records(lab.cloud.zone) if r.type == "TXT"]


# -- as a person and a script meet it


def test_output_into_a_file(lab: Lab) -> None:
    """stdout is JSON to the last octet, whatever there is to remark."""
    journey = Journey(lab)
    target = journey.renewal.root / "dns.json"
    command = [CERTCAST, "--config", str(journey.renewal.certcast_toml), "policy", "dns"]

    with target.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=True)

    assert "1" == json.loads(target.read_text())["Version"]
    assert "- RAM binds these actions to a whole zone" in done.stderr


@pytest.mark.parametrize("columns", [40, 200])
def test_narrow_terminal(lab: Lab, columns: int) -> None:
    """Remarks are filled to the terminal; records to be copied stay whole, however narrow it is."""
    journey = Journey(lab)
    toml = journey.renewal.certcast_toml
    environment = {"COLUMNS": str(columns)}

    done = lab.certcast(toml, "policy", "dns", "--isolate", "acme.test", user="renewal", extra=environment)

    record = "_acme-challenge.example.test.  600  IN  CNAME  _acme-challenge.example.test.acme.test."
    lines = done.stderr.splitlines()
    assert record in lines
    longest = max(len(line) for line in lines if line != record and " " in line.strip("- "))
    assert min(columns, 100) >= longest > min(columns, 100) - 30


def test_help(lab: Lab) -> None:
    """`certcast policy --help` says which part is for which host."""
    said = " ".join(ask(Journey(lab), "--help").stdout.split())
    assert "dns the records of challenges, for the host that renews" in said
    assert "consumer the bucket, for a host that serves" in said
    assert "--isolate ZONE" in said


@pytest.mark.parametrize(
    ("host", "arguments", "status", "said"),
    [
        ("web1", ["dns"], 3, "needs a [renewal] section"),
        ("web1", ["publisher"], 3, "needs a [renewal] section"),
        ("renewal", ["consumer"], 3, "needs a [consumer] section"),
        ("renewal", ["publisher", "--isolate", "acme.test"], 2, "is for `certcast policy dns`"),
        ("renewal", ["dns", "--isolate", "example.test"], 2, "lies in example.test"),
        ("renewal", ["dns", "--isolate", "中文.test"], 2, 'must be written as "xn--fiq228c.test"'),
        ("renewal", ["dns", "--isolate", "a b"], 2, "must be a DNS name"),
        ("renewal", ["everything"], 2, "is not one of"),
    ],
)
def test_a_policy_that_makes_no_sense_here(
    lab: Lab, host: str, arguments: list[str], status: int, said: str
) -> None:
    """On the wrong host, or with a wrong zone: a sentence and a status, and nothing on stdout to paste."""
    journey = Journey(lab)
    journey.consumer("web1")

    done = ask(journey, *arguments, host=host)

    assert (status, "") == (done.returncode, done.stdout)
    assert said in " ".join(done.stderr.split())


def test_several_sources_of_keys(lab: Lab) -> None:
    """Zones of two profiles: two documents in turn, each for its own zone; stderr says whose is whose."""
    journey = Journey(lab)
    with journey.renewal.certcast_toml.open("a") as file:
        file.write('[[zone]]\nname = "other.test"\nprofile = "other"\n')

    done = ask(journey, "dns")

    first, second = printed(done)
    assert "other.test" not in json.dumps(first)
    assert "example.test" not in json.dumps(second)
    assert "for the RAM user or role of profile other in ~/.aliyun/config.json:" in done.stderr
