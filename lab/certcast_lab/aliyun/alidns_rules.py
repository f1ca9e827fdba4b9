"""What Alidns takes for a record, and which records it lets stand side by side.

The same RR, type, value and line twice is a duplicate; values of one name may
stand side by side (two TXT for an apex and its wildcard), but a CNAME stands
alone, save for TXT and MX at `@`; a TTL lies between 600 (the free edition's
floor) and 86400.

Pure: parameters and records go in, contents or a `Refusal` come out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import idna

from certcast_lab.aliyun.alidns_errors import Refusal, invalid, missing
from certcast_lab.dns.zones import Record, canonical

MIN_TTL, MAX_TTL, DEFAULT_TTL = 600, 86_400, 600
TYPES = ("A", "NS", "MX", "TXT", "CNAME", "SRV", "AAAA", "CAA", "REDIRECT_URL", "FORWARD_URL")

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)


def is_name(text: str) -> bool:
    """Whether this is a domain name: labels of letters, digits, hyphens inside, and underscores."""
    return all(_LABEL.fullmatch(label) for label in punycode(text).split("."))


def punycode(name: str) -> str:
    """A domain name as the zone data have it, from the way it is written: 中文.test is xn--fiq228c.test."""
    labels = canonical(name).split(".")
    try:
        return ".".join(label if label.isascii() else idna.encode(label).decode() for label in labels)
    except idna.IDNAError:
        raise Refusal("InvalidDomainName.Format") from None


def written(name: str) -> str:
    """A domain name as people write it, which is what Alidns calls DomainName."""
    return ".".join(idna.decode(label) if label.startswith("xn--") else label for label in name.split("."))


def number(parameters: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    """A parameter that is a number from 1 to `most`."""
    text = parameters.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise invalid(name)
    return int(text)


def contents(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The record that these parameters describe, as `Zones.add` takes it."""
    rtype = parameters["Type"].upper()
    if rtype not in TYPES:
        raise invalid("Type")
    wanted: dict[str, Any] = {
        "rr": parameters["RR"],
        "type": rtype,
        "value": parameters["Value"],
        "ttl": _ttl(parameters.get("TTL", str(DEFAULT_TTL))),
        "line": parameters.get("Line", "default"),
        "priority": None,
    }
    if rtype == "MX":
        if "Priority" not in parameters:
            raise missing("Priority")
        wanted["priority"] = number(parameters, "Priority", 1, most=50)
    if wanted["rr"] not in ("@", "*") and not is_name(wanted["rr"].removeprefix("*.")):
        raise Refusal("SubDomainInvalid.Value")
    if not _fits(rtype, wanted["value"]):
        raise Refusal("SubDomainInvalid.Value")
    return wanted


def _ttl(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise invalid("TTL")
    if not MIN_TTL <= int(text) <= MAX_TTL:
        raise Refusal("QuotaExceeded.TTL")
    return int(text)


def _fits(rtype: str, value: str) -> bool:
    """Whether the value has the type's form, as far as the lab cares: addresses and host names."""
    if rtype in ("A", "AAAA"):
        try:
            return ipaddress.ip_address(value).version == (4 if rtype == "A" else 6)
        except ValueError:
            return False
    if rtype in ("CNAME", "NS", "MX"):
        return is_name(value)
    return True


def same(record: Record, wanted: Mapping[str, Any]) -> bool:
    """Whether the record is what is wanted, but for its TTL."""
    return (record.rr.lower(), record.type, record.value, record.line) == (
        wanted["rr"].lower(),
        wanted["type"],
        wanted["value"],
        wanted["line"],
    )


def refuse_conflict(records: list[Record], wanted: Mapping[str, Any]) -> None:
    """Source: https://www.alibabacloud.com/help/en/dns/dns-record-conflict-rules (the CNAME column)."""
    beside = {
        record.type
        for record in records
        if (record.rr.lower(), record.line) == (wanted["rr"].lower(), wanted["line"])
    }
    tolerated = {"TXT", "MX"} if wanted["rr"] == "@" else set()
    if (wanted["type"] == "CNAME" and beside - tolerated) or (
        wanted["type"] not in tolerated | {"CNAME"} and "CNAME" in beside
    ):
        raise Refusal("DomainRecordConflict")
