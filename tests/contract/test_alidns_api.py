"""What the Alidns emulator keeps and finds: records and domains, request by request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asking_alidns import Cloud, one_server


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    with one_server() as served:
        yield served


@pytest.fixture
def cloud(served: dict[str, Any]) -> Cloud:
    cloud = Cloud(served["address"])
    served["app"] = cloud.api.app
    return cloud


# -- records


def test_an_added_record_is_listed_with_all_its_fields(cloud):
    """What was added is found again as the real API spells it: string id, ENABLE, milliseconds."""
    record_id = cloud.add(value="token", TTL="3600")
    assert record_id.isdigit()
    assert 17 <= len(record_id) <= 19

    listed = cloud.ok("DescribeDomainRecords", DomainName="example.test")

    assert {"PageNumber": 1, "PageSize": 20, "TotalCount": 1}.items() <= listed.items()
    assert [
        {
            "RR": "_acme-challenge",
            "Type": "TXT",
            "Value": "token",
            "RecordId": record_id,
            "DomainName": "example.test",
            "TTL": 3600,
            "Line": "default",
            "Status": "ENABLE",
            "Locked": False,
            "Weight": 1,
            "CreateTimestamp": 1795435200000,
            "UpdateTimestamp": 1795435200000,
        }
    ] == listed["DomainRecords"]["Record"]


def test_two_values_stand_at_one_name_newest_first(cloud):
    """The challenges of an apex and its wildcard live side by side under one name."""
    cloud.add(value="apex")
    cloud.add(value="wildcard")
    assert ["wildcard", "apex"] == cloud.values()
    assert ["apex", "wildcard"] == cloud.values(Direction="ASC")


def test_the_same_record_twice_is_a_duplicate(cloud):
    """A second add of one value is refused, whatever its TTL and case; another line is another record."""
    cloud.add(value="same")
    again = {"DomainName": "example.test", "Type": "TXT", "Value": "same"}
    assert (400, "DomainRecordDuplicate") == cloud.refused("AddDomainRecord", RR="_acme-challenge", **again)
    assert (400, "DomainRecordDuplicate") == cloud.refused(
        "AddDomainRecord", RR="_ACME-challenge", TTL="900", **again
    )
    cloud.ok("AddDomainRecord", RR="_acme-challenge", Line="telecom", **again)


def test_a_record_is_deleted_by_its_id_once(cloud):
    """Deleting takes the id alone, and a second time the record isn't yours any more."""
    kept, gone = cloud.add(value="kept"), cloud.add(value="gone")
    assert gone == cloud.ok("DeleteDomainRecord", RecordId=gone, DomainName="ignored.test")["RecordId"]
    assert ["kept"] == cloud.values()
    assert (400, "DomainRecordNotBelongToUser") == cloud.refused("DeleteDomainRecord", RecordId=gone)
    assert (400, "DomainRecordNotBelongToUser") == cloud.refused(
        "DeleteDomainRecord", RecordId=kept, user=cloud.stranger
    )
    assert (400, "DomainRecordNotBelongToUser") == cloud.refused("DeleteDomainRecord", RecordId="1")


def test_an_update_keeps_the_id_and_must_change_something(cloud):
    """Updating replaces the contents under the same id; contents that stand already are a duplicate."""
    record_id = cloud.add(value="before")
    cloud.add(value="neighbour")
    contents = {"RecordId": record_id, "RR": "_acme-challenge", "Type": "TXT"}
    assert record_id == cloud.ok("UpdateDomainRecord", Value="after", **contents)["RecordId"]
    assert ["neighbour", "after"] == cloud.values()
    for value in ("after", "neighbour"):
        assert (400, "DomainRecordDuplicate") == cloud.refused("UpdateDomainRecord", Value=value, **contents)
    cloud.ok("UpdateDomainRecord", Value="after", TTL="900", **contents)


def test_a_locked_record_can_not_be_changed(cloud):
    """What the console has locked stays as it is."""
    locked = cloud.zones.add(cloud.zone, "www", "TXT", "v", locked=True)
    contents = {"RR": "www", "Type": "TXT", "Value": "w"}
    assert (400, "DomainRecordLocked") == cloud.refused("DeleteDomainRecord", RecordId=locked.id)
    assert (400, "DomainRecordLocked") == cloud.refused("UpdateDomainRecord", RecordId=locked.id, **contents)


def test_delete_all_records_but_the_locked(cloud):
    """DeleteSubDomainRecords without a type takes every type, counts in a string, spares locked records."""
    cloud.add(rr="www", value="txt")
    cloud.add(rr="www", Type="A", value="192.0.2.1")
    cloud.zones.add(cloud.zone, "www", "TXT", "locked", locked=True)
    cloud.add(rr="a.www", value="deeper")
    only_a = cloud.ok("DeleteSubDomainRecords", DomainName="example.test", RR="www", Type="A")
    assert ("1", "www") == (only_a["TotalCount"], only_a["RR"])
    assert "1" == cloud.ok("DeleteSubDomainRecords", DomainName="example.test", RR="www")["TotalCount"]
    assert ["deeper", "locked"] == cloud.values()


@pytest.mark.parametrize(
    ("rr", "stands", "comes", "conflict"),
    [
        ("www", ("CNAME", "a.test"), ("TXT", "v"), True),
        ("www", ("TXT", "v"), ("CNAME", "a.test"), True),
        ("www", ("CNAME", "a.test"), ("CNAME", "b.test"), True),
        ("www", ("A", "192.0.2.1"), ("A", "192.0.2.2"), False),
        ("www", ("A", "192.0.2.1"), ("TXT", "v"), False),
        ("@", ("CNAME", "a.test"), ("TXT", "v"), False),
        ("@", ("TXT", "v"), ("CNAME", "a.test"), False),
        ("@", ("A", "192.0.2.1"), ("CNAME", "a.test"), True),
        ("@", ("CNAME", "a.test"), ("A", "192.0.2.1"), True),
    ],
)
def test_a_cname_stands_alone_except_at_the_apex(cloud, rr, stands, comes, conflict):
    """A challenge can't be put where a CNAME delegates it away, as at the real service."""
    cloud.add(rr=rr, Type=stands[0], value=stands[1])
    wanted = {"DomainName": "example.test", "RR": rr, "Type": comes[0], "Value": comes[1]}
    if conflict:
        assert (400, "DomainRecordConflict") == cloud.refused("AddDomainRecord", **wanted)
    else:
        cloud.ok("AddDomainRecord", **wanted)


@pytest.mark.parametrize(
    ("ttl", "code"),
    [
        ("599", "QuotaExceeded.TTL"),
        ("1", "QuotaExceeded.TTL"),
        ("86401", "QuotaExceeded.TTL"),
        ("0", "InvalidTTL"),
        ("-600", "InvalidTTL"),
        ("ten", "InvalidTTL"),
        ("600", None),
        ("86400", None),
        ("", None),
    ],
)
def test_the_ttl_has_the_free_editions_floor(cloud, ttl, code):
    """Lives of less than 10 minutes are refused, so no client here relies on what only paid zones offer."""
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "v", "TTL": ttl}
    if code:
        assert (400, code) == cloud.refused("AddDomainRecord", **wanted)
    else:
        cloud.ok("AddDomainRecord", **wanted)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"RR": "a..b"}, "SubDomainInvalid.Value"),
        ({"RR": "-a"}, "SubDomainInvalid.Value"),
        ({"RR": "a.*"}, "SubDomainInvalid.Value"),
        ({"Type": "A", "Value": "fe80::1"}, "SubDomainInvalid.Value"),
        ({"Type": "CNAME", "Value": "not a name"}, "SubDomainInvalid.Value"),
        ({"Type": "SPF"}, "InvalidType"),
        ({"Type": "MX", "Value": "mail.test"}, "MissingPriority"),
        ({"Type": "MX", "Value": "mail.test", "Priority": "51"}, "InvalidPriority"),
        ({"Value": ""}, "MissingValue"),
        ({"DomainName": "nowhere.test"}, "InvalidDomainName.NoExist"),
        ({"DomainName": "sub.example.test"}, "InvalidDomainName.NoExist"),
        ({"DomainName": "foreign.test"}, "IncorrectDomainUser"),
        ({"DomainName": "not_a/name"}, "InvalidDomainName.Format"),
    ],
)
def test_what_can_not_be_a_record_is_refused(cloud, changed, code):
    """Each mistake has the real service's code, and nothing is stored."""
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "v", **changed}
    assert (400, code) == cloud.refused("AddDomainRecord", **wanted)
    assert [] == cloud.values()


@pytest.mark.parametrize("rr", ["@", "*", "*.sub", "_acme-challenge.a.b", "xn--fiq"])
def test_names_of_every_kind_can_be_stored(cloud, rr):
    """Apex, wildcards, underscores and deep names are names."""
    cloud.add(rr=rr)
    assert ["v"] == cloud.values()


# -- finding


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({}, "dcba"),
        ({"RRKeyWord": "_acme-challenge"}, "dba"),
        ({"RRKeyWord": "_ACME-CHALLENGE.B"}, "d"),
        ({"RRKeyWord": "_acme-challenge", "TypeKeyWord": "TXT", "ValueKeyWord": ""}, "ba"),
        ({"ValueKeyWord": "A"}, "a"),
        ({"TypeKeyWord": "A"}, "c"),
        ({"Type": "CNAME"}, "d"),
        ({"Status": "Disable"}, "c"),
        ({"Status": "Enable"}, "dba"),
        ({"Line": "telecom"}, ""),
        ({"KeyWord": "www"}, "c"),
        ({"KeyWord": "www", "RRKeyWord": "nothing"}, "c"),
        ({"SearchMode": "LIKE", "KeyWord": "challenge", "Type": "TXT"}, "dba"),
        ({"SearchMode": "EXACT", "KeyWord": "_acme-challenge"}, "ba"),
        ({"SearchMode": "EXACT", "KeyWord": "_acme-challenge", "RRKeyWord": "nothing"}, "ba"),
        ({"SearchMode": "ADVANCED", "RRKeyWord": "acme", "Type": "CNAME"}, "d"),
        ({"SearchMode": "COMBINATION", "RRKeyWord": "_acme-challenge", "ValueKeyWord": "b"}, "b"),
        ({"SearchMode": "COMBINATION", "RRKeyWord": "acme"}, ""),
    ],
)
def test_a_search_finds_what_the_real_one_finds(cloud, search, found):
    """Substring and exact matching, and which filters a mode ignores, are the service's, traps included."""
    cloud.add(value="a")
    cloud.add(value="b")
    parked = cloud.add(rr="www", Type="A", value="192.0.2.3")
    cloud.add(rr="_acme-challenge.b", Type="CNAME", value="d.test")
    cloud.zones.update(cloud.zones.by_id(parked), enabled=False)
    names = {"a": "a", "b": "b", "192.0.2.3": "c", "d.test": "d"}
    assert found == "".join(names[value] for value in cloud.values(**search))


def test_pages_hold_what_was_asked_for_and_at_most_500(cloud):
    """A client that reads on by page gets every record once; a page size beyond the limit is an error."""
    for number in range(45):
        cloud.zones.add(cloud.zone, f"a{number}", "TXT", str(number))
    assert 20 == len(cloud.values())
    pages = [cloud.values(PageNumber=str(page), PageSize="20") for page in (1, 2, 3, 4)]
    assert [20, 20, 5, 0] == [len(page) for page in pages]
    assert [str(number) for number in reversed(range(45))] == [value for page in pages for value in page]
    assert 45 == len(cloud.values(PageSize="500"))
    for parameter, value in (("PageSize", "501"), ("PageSize", "x"), ("PageNumber", "0")):
        status, fields = cloud.acs3("DescribeDomainRecords", DomainName="example.test", **{parameter: value})
        assert (400, f"Invalid{parameter}") == (status, fields["Code"])


def test_records_of_one_name_are_found_by_the_name(cloud):
    """DescribeSubDomainRecords takes a full name, the bare domain for the apex, and matches it exactly."""
    cloud.add(rr="_acme-challenge", value="challenge")
    cloud.add(rr="x._acme-challenge", value="deeper")
    cloud.add(rr="@", value="apex")
    cloud.add(rr="@", Type="A", value="192.0.2.1")

    def values(name: str, **more: str) -> list[str]:
        listed = cloud.ok("DescribeSubDomainRecords", SubDomain=name, **more)
        assert all("CreateTimestamp" not in record for record in listed["DomainRecords"]["Record"])
        return [record["Value"] for record in listed["DomainRecords"]["Record"]]

    assert ["challenge"] == values("_acme-challenge.example.test")
    assert ["challenge"] == values("_ACME-challenge.Example.test", DomainName="example.test")
    assert ["192.0.2.1", "apex"] == values("example.test")
    assert ["apex"] == values("example.test", Type="TXT")
    assert [] == values("nothing.example.test")
    assert (400, "InvalidDomainName.NoExist") == cloud.refused(
        "DescribeSubDomainRecords", SubDomain="a.foreign.test"
    )


def test_a_zone_below_another_is_a_zone_of_its_own(cloud):
    """Names below a delegated sub-zone are looked for there, not in the parent."""
    below = cloud.zones.create("sub.example.test", "100", ("ns1.lab.test",))
    cloud.zones.add(below, "_acme-challenge", "TXT", "below")
    listed = cloud.ok("DescribeSubDomainRecords", SubDomain="_acme-challenge.sub.example.test")
    assert ["below"] == [record["Value"] for record in listed["DomainRecords"]["Record"]]


def test_domains_are_ones_own_newest_first(cloud):
    """An account lists its zones and nobody else's, by part of the name or by the whole name."""
    cloud.zones.create("my-example.test", "100", ("ns1.lab.test",))
    cloud.add()

    def names(**search: str) -> list[str]:
        return [domain["DomainName"] for domain in cloud.ok("DescribeDomains", **search)["Domains"]["Domain"]]

    assert ["my-example.test", "example.test"] == names()
    assert ["my-example.test", "example.test"] == names(KeyWord="example.test")
    assert ["example.test"] == names(KeyWord="example.test", SearchMode="EXACT")
    assert ["example.test"] == names(PageNumber="2", PageSize="1")
    assert [] == names(KeyWord="foreign")
    listed = cloud.ok("DescribeDomains", KeyWord="example.test", SearchMode="EXACT")["Domains"]["Domain"][0]
    assert (1, True, ["ns1.lab.test", "ns2.lab.test"]) == (
        listed["RecordCount"],
        listed["AliDomain"],
        listed["DnsServers"]["DnsServer"],
    )


def test_a_domain_tells_its_nameservers_and_its_edition(cloud):
    """A client finds out whom to ask about a zone, and how short a TTL may be."""
    info = cloud.ok("DescribeDomainInfo", DomainName="example.test", NeedDetailAttributes="true")
    assert ("mianfei", 600) == (info["VersionCode"], info["MinTtl"])
    assert ["ns1.lab.test", "ns2.lab.test"] == info["DnsServers"]["DnsServer"]
    nameservers = cloud.ok("DescribeDomainNs", DomainName="example.test")
    assert nameservers["ExpectDnsServers"]["ExpectDnsServer"] == nameservers["DnsServers"]["DnsServer"]
    assert (400, "IncorrectDomainUser") == cloud.refused("DescribeDomainNs", DomainName="foreign.test")


def test_an_internationalised_domain_is_called_as_it_is_written(cloud):
    """中文.test is the DomainName of requests and replies, its punycode stands beside it in lists."""
    zone = cloud.zones.create("xn--fiq228c.test", "100", ("ns1.lab.test",))
    cloud.ok("AddDomainRecord", DomainName="中文.test", RR="a", Type="TXT", Value="v")
    (record,) = cloud.ok("DescribeDomainRecords", DomainName="中文.test")["DomainRecords"]["Record"]
    listed = cloud.ok("DescribeDomains")["Domains"]["Domain"][0]
    assert ["v"] == [standing.value for standing in cloud.zones.records(zone)]
    assert "中文.test" == record["DomainName"]
    assert ("中文.test", "xn--fiq228c.test") == (listed["DomainName"], listed["PunyCode"])
    assert (400, "InvalidDomainName.NoExist") == cloud.refused(
        "DescribeDomainRecords", DomainName="xn--fiq228c.test"
    )
