"""The nine Alidns actions that certificate clients use: 2015-01-09's record and domain calls.

An action takes a `Call` (decoded parameters, the caller's account, the zones)
and returns the fields of its reply, or raises `Refusal`. `ACTIONS` lists what each
needs, and for which domain the caller needs a permission.

Not here: envelope, signatures and permissions (alidns_api.py); which records may
stand beside which (alidns_rules.py).

Source: https://help.aliyun.com/zh/dns/api-alidns-2015-01-09-overview, its page
per action, and bodies seen on the wire, which win (`Status` is `ENABLE`, a
RecordId is a string, DeleteSubDomainRecords counts in a string).

An internationalised zone is called by DomainName as it is written, 中文.test, in
requests (github.com/acmesh-official/acme.sh/issues/1822) and replies, which have
its PunyCode beside it (pages of AddDomain and DescribeDomains). Assumptions: that
its punycode is no DomainName (no source shows that it is), that permissions are
about the punycode, and that RR and Value come back as they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certcast_lab.aliyun.alidns_errors import Refusal
from certcast_lab.aliyun.alidns_rules import (
    MIN_TTL,
    contents,
    is_name,
    number,
    punycode,
    refuse_conflict,
    same,
    written,
)
from certcast_lab.dns.zones import Record, Zone, Zones, canonical

MAX_RECORDS_PAGE, MAX_DOMAINS_PAGE = 500, 100
Fields = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """
    One request to an action; parameters that were sent empty are not among `parameters`.

    `stale_by`: reads show the zones as they were so many seconds ago.
    """

    account: str
    parameters: Mapping[str, str]
    zones: Zones
    stale_by: float = 0.0

    def text(self, name: str, default: str = "") -> str:
        return self.parameters.get(name, default)

    def zone(self, name: str) -> Zone:
        """The caller's zone of this name."""
        if not is_name(name):
            raise Refusal("InvalidDomainName.Format")
        zone = self.zones.get(punycode(name))
        if zone is None or "xn--" in name:
            raise Refusal("InvalidDomainName.NoExist")
        if zone.owner != self.account:
            raise Refusal("IncorrectDomainUser")
        return zone

    def record(self) -> Record:
        """The caller's record with this RecordId; unknown, deleted and other people's look alike."""
        record = self.zones.by_id(self.text("RecordId"))
        zone = self.zones.get(record.zone) if record else None
        if record is None or zone is None or zone.owner != self.account:
            raise Refusal("DomainRecordNotBelongToUser")
        return record

    def records(self, zone: Zone) -> list[Record]:
        """The zone's records, newest first, as this read sees them."""
        at = self.zones.monotonic() - self.stale_by if self.stale_by else None
        return self.zones.records(zone, at)


# -- changes


def add_domain_record(call: Call) -> Fields:
    zone = call.zone(call.text("DomainName"))
    wanted = contents(call.parameters)
    if any(same(record, wanted) for record in call.zones.records(zone)):
        raise Refusal("DomainRecordDuplicate")
    refuse_conflict(call.zones.records(zone), wanted)
    record = call.zones.add(zone, **wanted)
    return {"RecordId": record.id}


def update_domain_record(call: Call) -> Fields:
    record = call.record()
    zone = call.zone(record.zone)
    if record.locked:
        raise Refusal("DomainRecordLocked")
    wanted = contents(call.parameters)
    others = [other for other in call.zones.records(zone) if other.id != record.id]
    # An update that changes nothing is refused like a second record of the same contents.
    unchanged = same(record, wanted) and (record.ttl, record.priority) == (wanted["ttl"], wanted["priority"])
    if unchanged or any(same(other, wanted) for other in others):
        raise Refusal("DomainRecordDuplicate")
    refuse_conflict(others, wanted)
    call.zones.update(record, **wanted)
    return {"RecordId": record.id}


def delete_domain_record(call: Call) -> Fields:
    record = call.record()
    if record.locked:
        raise Refusal("DomainRecordLocked")
    call.zones.delete(record)
    return {"RecordId": record.id}


def delete_subdomain_records(call: Call) -> Fields:
    """Without `Type`, records of every type at the name go; locked ones stay."""
    zone = call.zone(call.text("DomainName"))
    rr, rtype = call.text("RR"), call.text("Type")
    doomed = [
        record
        for record in call.zones.records(zone)
        if record.rr.lower() == rr.lower() and rtype in ("", record.type) and not record.locked
    ]
    for record in doomed:
        call.zones.delete(record)
    return {"RR": rr, "TotalCount": str(len(doomed))}


# -- records, read


def describe_domain_records(call: Call) -> Fields:
    zone = call.zone(call.text("DomainName"))
    found = [record for record in call.records(zone) if _is_searched(record, call)]
    if call.text("Direction", "DESC").upper() == "ASC":
        found.reverse()
    page, envelope = _paged(found, call, most=MAX_RECORDS_PAGE)
    return {**envelope, "DomainRecords": {"Record": [_record_fields(record) for record in page]}}


def describe_subdomain_records(call: Call) -> Fields:
    zone = _zone_of_subdomain(call)
    name = canonical(call.text("SubDomain"))
    found = [
        record
        for record in call.records(zone)
        if record.name == name
        and call.text("Type", record.type).upper() == record.type
        and call.text("Line", record.line) == record.line
    ]
    page, envelope = _paged(found, call, most=MAX_RECORDS_PAGE)
    records = [_record_fields(record) for record in page]
    for fields in records:  # this action's records come without their times
        del fields["CreateTimestamp"], fields["UpdateTimestamp"]
    return {**envelope, "DomainRecords": {"Record": records}}


def _zone_of_subdomain(call: Call) -> Zone:
    if domain := call.text("DomainName"):
        return call.zone(domain)
    labels = canonical(call.text("SubDomain")).split(".")
    suffixes = (".".join(labels[depth:]) for depth in range(len(labels)))
    mine = (zone for suffix in suffixes if (zone := call.zones.get(suffix)) and zone.owner == call.account)
    zone = next(mine, None)
    if zone is None:
        raise Refusal("InvalidDomainName.NoExist")
    return zone


def _is_searched(record: Record, call: Call) -> bool:
    """
    DescribeDomainRecords' search. LIKE and EXACT look at KeyWord alone and ignore all other filters; a
    KeyWord without a mode means LIKE. RR and value are matched by substring unless the mode is COMBINATION,
    so that `a` finds `b.a`: clients have been bitten.
    """
    keyword, mode = call.text("KeyWord").lower(), call.text("SearchMode").upper()
    rr, value = record.rr.lower(), record.value.lower()
    if mode == "EXACT":
        return not keyword or keyword in (rr, value)
    if mode == "LIKE" or (keyword and not mode):
        return keyword in rr or keyword in value
    rr_keyword, value_keyword = call.text("RRKeyWord").lower(), call.text("ValueKeyWord").lower()
    if mode == "COMBINATION":
        named = rr_keyword in ("", rr) and value_keyword in ("", value)
    else:
        named = rr_keyword in rr and value_keyword in value
    return (
        named
        and call.text("TypeKeyWord", record.type).upper() == record.type
        and call.text("Type", record.type).upper() == record.type
        and call.text("Line", record.line) == record.line
        and call.text("Status", _status(record)).upper() == _status(record)
    )


def _status(record: Record) -> str:
    return "ENABLE" if record.enabled else "DISABLE"


def _record_fields(record: Record) -> Fields:
    fields: Fields = {
        "RR": record.rr,
        "Status": _status(record),
        "Value": record.value,
        "Weight": 1,
        "RecordId": record.id,
        "Type": record.type,
        "DomainName": written(record.zone),
        "Locked": record.locked,
        "Line": record.line,
        "TTL": record.ttl,
        "CreateTimestamp": _milliseconds(record.created),
        "UpdateTimestamp": _milliseconds(record.updated),
    }
    if record.priority is not None:
        fields["Priority"] = record.priority
    return fields


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _paged(items: list[Any], call: Call, *, most: int) -> tuple[list[Any], Fields]:
    """The page that was asked for, and the reply's fields about paging."""
    page = number(call.parameters, "PageNumber", 1, most=2**31)
    size = number(call.parameters, "PageSize", 20, most=most)
    start = (page - 1) * size
    envelope = {"PageNumber": page, "PageSize": size, "TotalCount": len(items)}
    return items[start : start + size], envelope


# -- domains, read


def describe_domains(call: Call) -> Fields:
    keyword = call.text("KeyWord").lower()
    exact = call.text("SearchMode").upper() == "EXACT"
    found = [
        zone
        for zone in call.zones.all()
        if zone.owner == call.account and (keyword in ("", zone.name) if exact else keyword in zone.name)
    ]
    page, envelope = _paged(found, call, most=MAX_DOMAINS_PAGE)
    return {**envelope, "Domains": {"Domain": [_domain_fields(zone, call) for zone in page]}}


def _domain_fields(zone: Zone, call: Call) -> Fields:
    return {
        **_edition(zone),
        "RecordCount": len(call.zones.records(zone)),
        "CreateTime": zone.created.strftime("%Y-%m-%dT%H:%MZ"),
        "CreateTimestamp": _milliseconds(zone.created),
        "Starmark": False,
        "Tags": {"Tag": []},
    }


def describe_domain_info(call: Call) -> Fields:
    zone = call.zone(call.text("DomainName"))
    fields = {
        **_edition(zone),
        "RecordLines": {"RecordLine": []},
        "AvailableTtls": {"AvailableTtl": []},
    }
    if call.text("NeedDetailAttributes").lower() == "true":
        fields |= {"MinTtl": MIN_TTL, "SlaveDns": False, "InBlackHole": False, "InClean": False}
    return fields


def describe_domain_ns(call: Call) -> Fields:
    zone = call.zone(call.text("DomainName"))
    return {
        "AllAliDns": True,
        "IncludeAliDns": True,
        "DnsServers": {"DnsServer": list(zone.nameservers)},
        "ExpectDnsServers": {"ExpectDnsServer": list(zone.nameservers)},
    }


def _edition(zone: Zone) -> Fields:
    return {
        "DomainId": zone.id,
        "DomainName": written(zone.name),
        "PunyCode": zone.name,
        "AliDomain": True,
        "DnsServers": {"DnsServer": list(zone.nameservers)},
        "VersionCode": "mianfei",
        "VersionName": "Alibaba Cloud DNS",
    }


# -- the table


@dataclass(frozen=True)
class Action:
    """`domain` names the domain that the caller needs permission for; `*` is every one."""

    mandatory: tuple[str, ...]
    domain: Callable[[Call], str]
    run: Callable[[Call], Fields]


def _named(call: Call) -> str:
    return punycode(call.text("DomainName"))


def _of_record(call: Call) -> str:
    return call.record().zone


_CONTENTS = ("RR", "Type", "Value")

ACTIONS: dict[str, Action] = {
    "AddDomainRecord": Action(("DomainName", *_CONTENTS), _named, add_domain_record),
    "UpdateDomainRecord": Action(("RecordId", *_CONTENTS), _of_record, update_domain_record),
    "DeleteDomainRecord": Action(("RecordId",), _of_record, delete_domain_record),
    "DeleteSubDomainRecords": Action(("DomainName", "RR"), _named, delete_subdomain_records),
    "DescribeDomainRecords": Action(("DomainName",), _named, describe_domain_records),
    "DescribeSubDomainRecords": Action(
        ("SubDomain",), lambda call: _zone_of_subdomain(call).name, describe_subdomain_records
    ),
    "DescribeDomains": Action((), lambda call: "*", describe_domains),
    "DescribeDomainInfo": Action(("DomainName",), _named, describe_domain_info),
    "DescribeDomainNs": Action(("DomainName",), _named, describe_domain_ns),
}
