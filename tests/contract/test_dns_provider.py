"""The contract of dns01/provider.py, held by every implementation (Alidns is the one there is).

Against the emulator of Alidns, through the official SDK: signatures are
verified, nonces remembered, RAM policies enforced, records paged.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import stamina

from certcast.config.model import DnsConfig
from certcast.dns01.alidns.alidns import Alidns
from certcast.dns01.provider import MaybeAdded
from certcast.report.errors import DnsDenied, DnsFailed, ZoneMissing
from certcast_lab.aliyun.cloud import ACCOUNT, Cloud
from certcast_lab.serving.asgi import Server

ZONE, RR = "example.test", "_acme-challenge"


@pytest.fixture
def cloud():
    cloud = Cloud()
    cloud.let_find(zones=True, nameservers=True)
    return cloud


@pytest.fixture
def endpoint(cloud):
    with Server(cloud.alidns.app) as server:
        yield server.url


@pytest.fixture
def provider(cloud, endpoint, monkeypatch):
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", cloud.renewal.access_key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", cloud.renewal.access_key_secret)
    return Alidns(DnsConfig(endpoint=endpoint))


def values(cloud):
    return sorted(record.value for record in cloud.zones.records(cloud.zone) if record.type == "TXT")


def test_a_value_that_was_added_stands_in_the_zone(cloud, provider):
    """The value is in the zone under the id that is given back, with a TTL that every edition takes."""
    added = provider.add_txt(ZONE, RR, "value")

    record = cloud.zones.by_id(added.record_id)
    assert added.ours
    assert (RR, "TXT", "value", 600) == (record.rr, record.type, record.value, record.ttl)


def test_two_values_stand_at_one_name(cloud, provider):
    """Apex and wildcard are validated at one name: the second value doesn't replace the first."""
    ids = {provider.add_txt(ZONE, RR, value).record_id for value in ("apex", "wildcard")}

    assert 2 == len(ids)
    assert ["apex", "wildcard"] == values(cloud)


def test_all_values_of_a_zone_are_listed_at_once(cloud, provider):
    """One listing, of several pages, has the id of each TXT record at the names that contain a label."""
    ids = {
        (f"{RR}.n{n}", "value"): cloud.zones.add(cloud.zone, f"{RR}.n{n}", "TXT", "value").id
        for n in range(501)
    }
    other = cloud.zones.add(cloud.zone, "other", "TXT", "v=spf1 -all")
    cloud.zones.add(cloud.zone, RR, "CNAME", "elsewhere.test")

    assert ids == provider.txts(ZONE, RR)
    assert {**ids, ("other", other.value): other.id} == provider.txts(ZONE, "")
    assert 4 == cloud.alidns.count("DescribeDomainRecords")


def test_removal_takes_one_record_and_leaves_the_others(cloud, provider):
    """Only the record of this id goes; another value at the same name, whoever made it, survives."""
    cloud.zones.add(cloud.zone, RR, "TXT", "somebody else's")
    added = provider.add_txt(ZONE, RR, "value")

    provider.remove(ZONE, added.record_id)

    assert ["somebody else's"] == values(cloud)


def test_removing_a_record_that_is_gone_is_fine(cloud, provider):
    """A second removal, as after a crash, is no error."""
    added = provider.add_txt(ZONE, RR, "value")

    provider.remove(ZONE, added.record_id)
    provider.remove(ZONE, added.record_id)

    assert [] == values(cloud)


def test_a_value_that_was_there_is_somebody_elses(cloud, provider):
    """A value that stood in the zone before the first attempt is found and used, but not called ours."""
    standing = cloud.zones.add(cloud.zone, RR, "TXT", "value")

    added = provider.add_txt(ZONE, RR, "value")

    assert (standing.id, False) == (added.record_id, added.ours)


def test_a_record_is_found_by_name_and_value_exactly(cloud, provider):
    """Names and values that merely contain the wanted ones, other types and other zones are not it."""
    other = cloud.add_zone("other.test")
    for rr, value in [(f"x{RR}", "value"), (f"{RR}.sub", "value"), (RR, "value2"), (RR, "Value")]:
        cloud.zones.add(cloud.zone, rr, "TXT", value)
    cloud.zones.add(other, RR, "TXT", "value")
    assert provider.find_txt(ZONE, RR, "value") is None

    wanted = cloud.zones.add(cloud.zone, RR, "TXT", "value")

    assert wanted.id == provider.find_txt(ZONE, RR, "value")


def test_a_record_is_found_behind_a_page_full_of_others(cloud, provider):
    """In a zone with many records that look alike, the right one is found, on whatever page it is."""
    wanted = cloud.zones.add(cloud.zone, RR, "TXT", "value")
    for number in range(500):
        cloud.zones.add(cloud.zone, RR, "TXT", f"value-{number}")

    assert wanted.id == provider.find_txt(ZONE, RR, "value", wanted.id)
    assert 2 == cloud.alidns.count("DescribeDomainRecords")


def test_an_answer_that_was_not_expected_is_asked_for_twice(cloud, provider):
    """One damaged reply decides nothing: only the expected id, or the same answer again, is believed."""
    wanted = cloud.zones.add(cloud.zone, RR, "TXT", "value")

    for expected, looks in [(wanted.id, 1), (None, 2), ("17", 2)]:
        before = cloud.alidns.count("DescribeDomainRecords")
        assert wanted.id == provider.find_txt(ZONE, RR, "value", expected)
        assert looks == cloud.alidns.count("DescribeDomainRecords") - before


def test_answers_that_never_agree_are_an_error(cloud, provider, monkeypatch):
    """Where each look shows another id, none is taken for the record's."""
    look = cloud.alidns.zones.records

    def another_each_time(zone, at=None):
        for record in look(zone):
            cloud.zones.delete(record)
        cloud.zones.add(zone, RR, "TXT", "value")
        return look(zone, at)

    monkeypatch.setattr(cloud.alidns.zones, "records", another_each_time)

    with pytest.raises(DnsFailed, match="something else about the TXT value"):
        provider.find_txt(ZONE, RR, "value")


def test_an_error_says_whether_there_may_be_a_record(cloud, provider):
    """After a 5xx the value may stand in the zone; after a refusal it doesn't, and nobody looks for it."""
    with stamina.set_testing(True, attempts=2):
        cloud.alidns.faults.turn_on("server_error", action="AddDomainRecord")
        with pytest.raises(MaybeAdded):
            provider.add_txt(ZONE, RR, "value")
        cloud.alidns.faults.turn_off()

        with pytest.raises(DnsFailed) as refused:
            provider.add_txt(ZONE, RR, "value", ttl=1)
        assert type(refused.value) is DnsFailed

        # Carried out without a reply, and then the right to look for it is missing.
        cloud.alidns.faults.turn_on("lost_reply", action="AddDomainRecord", times=1)
        denied = {"Effect": "Deny", "Action": "alidns:DescribeDomainRecords", "Resource": "*"}
        cloud.renewal.policies = [*cloud.renewal.policies, {"Version": "1", "Statement": [denied]}]
        with pytest.raises(MaybeAdded, match="may not do DescribeDomainRecords"):
            provider.add_txt(ZONE, RR, "value")


def test_cnames_are_listed_by_their_own_names(cloud, provider):
    """What is a CNAME itself is listed with each target; a wildcard is its own name, what is off isn't."""
    for rr, target, line in [
        ("_acme-challenge", "A.acme.test", "default"),
        ("_acme-challenge", "a.acme.test", "oversea"),
        ("_acme-challenge.www", "b.acme.test", "default"),
        ("_acme-challenge.www", "c.acme.test", "oversea"),
        ("*", "cdn.test", "default"),
    ]:
        cloud.zones.add(cloud.zone, rr, "CNAME", target, line=line)
    cloud.zones.add(cloud.zone, "_acme-challenge.api", "TXT", "no CNAME")
    off = cloud.zones.add(cloud.zone, "_acme-challenge.off", "CNAME", "a.acme.test")
    cloud.zones.update(off, enabled=False)

    listed = provider.cnames(ZONE, RR)

    assert ["a.acme.test"] == listed[RR]
    assert ["b.acme.test", "c.acme.test"] == sorted(listed[f"{RR}.www"])
    assert {RR, f"{RR}.www"} == set(listed)


def test_sub_zones_are_the_names_with_ns_records(cloud, provider):
    """Names that the zone delegates to other zone data are listed, each once; the zone itself is not."""
    for rr in ("sub", "sub", "@"):
        cloud.zones.add(cloud.zone, rr, "NS", "ns1.elsewhere.test", line=rr)

    assert ["sub"] == provider.subzones(ZONE)


def test_the_zones_own_name_can_hold_a_value(cloud, provider):
    """A validation zone of its own, reached by CNAME, takes the value at its apex."""
    added = provider.add_txt(ZONE, "@", "value")

    assert ZONE == cloud.zones.by_id(added.record_id).name
    assert added.record_id == provider.find_txt(ZONE, "@", "value")


def test_all_zones_of_the_account_are_listed(cloud, provider):
    """The zone of a name is found among all of the account's zones, also when these fill several pages."""
    names = {ZONE, *(cloud.add_zone(f"zone{number}.test").name for number in range(120))}

    assert names == set(provider.zones())


IDN = "xn--fiq228c.test"  # 中文.test


@pytest.mark.parametrize("listed", [True, False])
def test_internationalised_zone(cloud, provider, listed):
    """The zone's name is punycode for certcast, whether it was listed or configured; Alidns gets its own."""
    zone = cloud.add_zone(IDN)
    if listed:
        assert {ZONE, IDN} == set(provider.zones())

    added = provider.add_txt(IDN, RR, "value")

    assert added.record_id == provider.find_txt(IDN, RR, "value")
    assert ["ns1.lab-dns.test", "ns2.lab-dns.test"] == provider.nameservers(IDN)
    assert {"中文.test"} == {
        logged.parameters["DomainName"] for logged in cloud.alidns.log if "DomainName" in logged.parameters
    }
    provider.remove(IDN, added.record_id)
    assert [] == cloud.zones.records(zone)


@pytest.mark.parametrize("label", ["xn--fiqs8s", "中国"])
def test_internationalised_labels_are_found_in_either_form(cloud, provider, label):
    """However Alidns lists a name below a zone, and a CNAME's target, it is the same name."""
    txt = cloud.zones.add(cloud.zone, f"{RR}.{label}", "TXT", "value")
    cloud.zones.add(cloud.zone, label, "CNAME", f"www.{label}.test")

    assert txt.id == provider.find_txt(ZONE, f"{RR}.xn--fiqs8s", "value")
    assert {"xn--fiqs8s": ["www.xn--fiqs8s.test"]} == provider.cnames(ZONE, "xn--fiqs8s")


def test_the_nameservers_of_a_zone_are_named(provider):
    """The provider says which nameservers answer for the zone."""
    assert ["ns1.lab-dns.test", "ns2.lab-dns.test"] == provider.nameservers(ZONE)


@pytest.mark.parametrize("call", ["nameservers", "find_txt", "add_txt"])
def test_a_zone_that_is_not_in_the_account_is_named(cloud, provider, call):
    """A zone that is missing, or somebody else's, is said to be so by name."""
    everything = {"Effect": "Allow", "Action": "alidns:*", "Resource": "*"}
    cloud.renewal.policies = [{"Version": "1", "Statement": [everything]}]
    arguments = () if call == "nameservers" else (RR, "value")

    for zone in ("nowhere.test", "lab-dns.test"):
        with pytest.raises(ZoneMissing, match=f"the zone {zone} is not in this"):
            getattr(provider, call)(zone, *arguments)


@pytest.mark.parametrize(
    ("action", "call"),
    [
        ("AddDomainRecord", lambda provider: provider.add_txt(ZONE, RR, "value")),
        ("DescribeDomainRecords", lambda provider: provider.find_txt(ZONE, RR, "value")),
        ("DescribeDomainInfo", lambda provider: provider.nameservers(ZONE)),
    ],
)
def test_a_right_that_the_policy_lacks_is_named(cloud, provider, action, call):
    """Whoever wrote the RAM policy too narrow reads which action on which resource it lacks."""
    cloud.renewal.policies = []

    with pytest.raises(DnsDenied) as denied:
        call(provider)

    expected = f"a RAM policy that allows alidns:{action} on acs:alidns:*:*:domain/{ZONE}"
    assert expected == denied.value.expected
    assert 1 == cloud.alidns.count(action), "a refusal isn't asked for twice"


def test_policy_without_the_right_to_list_zones(cloud, provider):
    """Listing zones needs a right on all of them; the error says that naming the zones does without it."""
    cloud.renewal.policies = []

    with pytest.raises(DnsDenied, match="may not do DescribeDomains") as denied:
        provider.zones()

    assert "[[zone]]" in denied.value.next


def test_an_inactive_access_key_is_refused_by_name(cloud, provider):
    """An AccessKey that was switched off in the console is said to be refused."""
    cloud.renewal.active = False

    with pytest.raises(DnsDenied, match="refused the AccessKey"):
        provider.zones()


def test_an_unknown_access_key_is_refused(endpoint, monkeypatch):
    """A mistyped AccessKey id is said to be refused, and isn't printed."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI-mistyped")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "anything")

    with pytest.raises(DnsDenied, match="refused the AccessKey") as denied:
        Alidns(DnsConfig(endpoint=endpoint)).zones()

    assert "LTAI-mistyped" not in denied.value.report()


def test_wrong_secret_shows_no_signed_request(cloud, endpoint, monkeypatch, caplog):
    """Alidns echoes what was signed; neither the report nor the log passes that on, nor the secret."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", cloud.renewal.access_key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "the-wrong-secret")
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "")

    with caplog.at_level("DEBUG"), pytest.raises(DnsDenied, match="refused the AccessKey") as denied:
        Alidns(DnsConfig(endpoint=endpoint)).add_txt(ZONE, RR, "value")

    told = denied.value.report() + caplog.text
    assert "SignatureDoesNotMatch" in told
    for secret in ("the-wrong-secret", cloud.renewal.access_key_id, "ACS3-HMAC-SHA256", "string to sign"):
        assert secret not in told


def test_a_temporary_key_is_used_with_its_token(cloud, endpoint, monkeypatch):
    """Keys from STS, as an instance's role gives them, work with their security token."""
    cloud.renewal.security_token = "lab-token"
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", cloud.renewal.access_key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", cloud.renewal.access_key_secret)
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "lab-token")

    assert Alidns(DnsConfig(endpoint=endpoint)).add_txt(ZONE, RR, "value").ours


def test_host_without_an_access_key(tmp_path):
    """Without any AccessKey the error says so at once: no traceback, no minute of retries."""
    script = (
        "from certcast.config.model import DnsConfig\n"
        "from certcast.dns01.alidns.alidns import Alidns\n"
        "from certcast.report.errors import DnsDenied\n"
        "try:\n"
        "    Alidns(DnsConfig(endpoint='http://127.0.0.1:9')).zones()\n"
        "except DnsDenied as denied:\n"
        "    print(denied.report())\n"
    )
    bare = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
    }

    # A process of its own: the official chain reads the environment when it is imported.
    run = subprocess.run(
        [sys.executable, "-c", script], env=bare, cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert run.stdout.startswith("error: no AccessKey for Alidns was found")
    assert "" == run.stderr
    assert not list(Path(tmp_path).iterdir())


def test_what_the_provider_refuses_comes_with_its_code(cloud, provider):
    """What Alidns refuses for reasons of its own comes back with its code and a place to look it up."""
    with pytest.raises(DnsFailed, match=r"refused AddDomainRecord in example\.test") as failed:
        provider.add_txt(ZONE, RR, "value", ttl=1)

    assert "QuotaExceeded.TTL" in failed.value.found
    assert "QuotaExceeded.TTL" in failed.value.next
    assert ACCOUNT not in failed.value.report()


def test_a_wrong_clock_is_called_one(cloud, provider, monkeypatch):
    """A host whose clock is an hour off reads that, instead of a signature error."""
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)
    monkeypatch.setattr(cloud.alidns, "_now", lambda: ahead)

    with pytest.raises(DnsFailed, match="this host's clock is wrong") as failed:
        provider.zones()

    assert "timedatectl" in failed.value.next
