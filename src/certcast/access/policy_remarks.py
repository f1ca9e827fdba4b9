"""What RAM cannot express, in words for the person who attaches a policy.

Pure: configuration in, paragraphs out. Paid instances: "Manage permissions" of Alibaba Cloud DNS,
https://www.alibabacloud.com/help/en/dns/permission-management.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.access.ram_policies import challenged_names, dns_zones
from certcast.dns01.provider import zone_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certcast.config.model import Config

# What CreatePolicy takes: https://www.alibabacloud.com/help/en/resource-management/api-createpolicy
_LONGEST_POLICY = 6144


def about_dns(config: Config) -> list[str]:
    """Say what the key of [dns] and [[zone]] can do beyond a renewal."""
    zones = dns_zones(config)
    remarks = [
        "RAM binds these actions to a whole zone: it knows neither record types nor names there, and has "
        f"no condition for them. Who has this key can change every record of {listed(zones)}. `certcast "
        "policy dns --isolate ZONE` shows how to confine it to a zone that has nothing but challenges."
    ]
    if not config.zones:
        remarks.append(
            "The configuration names no [[zone]], so the account is asked for its zones: DescribeDomains "
            "shows the names of all of them, and cannot be narrowed. And the zones above are all that the "
            "names may lie in. Name yours as [[zone]], also those that CNAMEs of _acme-challenge lead into, "
            "and run this again: then nobody lists zones, and these alone are left."
        )
    elif outside := [name for name in challenged_names(config) if zone_of(name, zones) is None]:
        remarks.append(
            f"No [[zone]] holds {listed(outside)}: there, _acme-challenge must be a CNAME into one of them."
        )
    return remarks + _about_zones(zones)


def about_isolation(zone: str) -> list[str]:
    """Say what the key to a throw-away zone can still do."""
    return [
        "Whoever has this key can still prove the names above to a CA, and change nothing outside of "
        f"{zone}. If it leaks, remove the key; if that takes time, the CNAMEs.",
        *_about_zones([zone]),
    ]


def _about_zones(zones: Sequence[str]) -> list[str]:
    remarks = [
        "A zone that is bound to a paid instance of Alibaba Cloud DNS may need the resource "
        "acs:alidns:*:*:instance/ID besides (its console shows the ID)."
    ]
    if any("xn--" in zone for zone in zones):
        remarks.append(
            "How RAM writes internationalised zones is not documented: if Forbidden.RAM is the answer, write "
            "them in the policy as they are spoken."
        )
    return remarks


def about_publisher(config: Config) -> list[str]:
    """Say what the key of [store] can do on the renewal host."""
    return [
        "RAM cannot tell a good object from a bad one: who has this key can overwrite and delete everything "
        f"below {config.store.url}. No host installs what the publisher has not signed, but none gets "
        "anything newer either. Give the key to this host alone.",
        "ListObjectVersions and DeleteObjectVersion take a removed host's sealed keys out of a bucket with "
        "versioning. If ListObjectVersions is refused although this policy is attached, give it a statement "
        "without the condition: that oss:Prefix holds for it is not documented.",
    ]


def about_consumer(config: Config) -> list[str]:
    """Say what the key of [store] can do on a host that serves, and how hosts can share one."""
    name = config.enrolled_as
    remarks = [
        "RAM has no word for the host that calls: a role that several hosts share, like an ECS instance's, "
        f"cannot be limited to each one's own report. Write hosts/*.json in place of hosts/{name}.json there."
    ]
    if config.host is None and config.consumer is not None and config.consumer.group is None:
        remarks.append(
            f"{name} is this machine's host name. For another host, run this there, or set host at the top "
            f"of {config.path}."
        )
    if config.store.encryption == "none":
        remarks.append(
            'Private keys lie open in this store (encryption = "none"): who has this key has them.'
        )
    return remarks


def about_length(characters: int) -> list[str]:
    """Say that a policy is longer than RAM takes; nothing for one that isn't."""
    if characters <= _LONGEST_POLICY:
        return []
    return [
        f"This policy has {characters:,} characters, and RAM takes {_LONGEST_POLICY:,}: divide its resources "
        "among several, or write a pattern that covers them, like domain/*.example.com."
    ]


def listed(names: Sequence[str]) -> str:
    """Name a few in full, and of many the first ones."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
