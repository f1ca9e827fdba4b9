"""What RAM must allow for a configuration, and nothing else.

    dns         list, add and remove records, in the zones where challenges stand
    publisher   get, put, delete and list below the store's prefix, older versions too
    consumer    get what is published of its certificates, put its own report

Each action is one that certcast calls. Some depend on the configuration:

    no [[zone]]                  DescribeDomains, on domain/*: it finds the zone of a name
    a zone without nameservers,  DescribeDomainInfo: which servers to ask
      and no fixed wait

Every source of keys (a profile, a role, an endpoint) has a policy of its own, for zones
of several accounts. Where a role is assumed, the role gets the rights, and its caller
sts:AssumeRole on it.

Sources: RAM authorization of Alibaba Cloud DNS, https://www.alibabacloud.com/help/en/dns/ram-authorization
(resources acs:alidns:*:$accountid:domain/$domainName); RAM policy of OSS,
https://www.alibabacloud.com/help/en/oss/user-guide/ram-policy-overview/. In their examples `*`
stands for the account. DescribeDomains with less than domain/* is refused
(github.com/tengattack/certbot-dns-aliyun/issues/16). Assumptions: that oss:Prefix is a
condition of ListObjectVersions, as it is of ListObjects, and that RAM calls an
internationalised zone by its punycode.

Not here: the words around it (policy.py), and which zone a CNAME leads to (isolation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certcast.config.model import KeySource
from certcast.dns01.accounts import account_of
from certcast.dns01.provider import zone_of
from certcast.report.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from certcast.config.model import Config

_RECORDS = ("AddDomainRecord", "DeleteDomainRecord", "DescribeDomainRecords")
_OBJECTS = ("GetObject", "PutObject", "DeleteObject", "DeleteObjectVersion")
_LISTINGS = ("ListObjects", "ListObjectVersions")


@dataclass(frozen=True)
class Policy:
    """The statements for one `holder`, in words: the RAM user or role that they are attached to."""

    holder: str
    statements: tuple[dict[str, Any], ...]

    @property
    def document(self) -> dict[str, Any]:
        """The policy as the console and CreatePolicy take it."""
        return {"Version": "1", "Statement": list(self.statements)}


def dns(config: Config) -> list[Policy]:
    """Return the policies for the zones of the configuration, one for each source of keys."""
    rights = _Rights()
    zones = dns_zones(config)
    described = {zone.name for zone in config.zones if zone.nameservers}
    by_account: dict[tuple[KeySource, str], list[str]] = {}
    for zone in zones:
        account = account_of(config, zone)
        by_account.setdefault((account.source, account.endpoint), []).append(zone)
    for (source, endpoint), held in by_account.items():
        elsewhere = endpoint if endpoint != config.dns.endpoint else None
        rights.allow(source, elsewhere, _alidns(_RECORDS, held))
        asked = [zone for zone in held if zone not in described]
        if asked and config.dns.propagation is None:
            rights.allow(source, elsewhere, _alidns(("DescribeDomainInfo",), asked))
    if not config.zones:
        rights.allow(config.dns.source, None, _alidns(("DescribeDomains",), ["*"]))
    return rights.policies()


def dns_zones(config: Config) -> list[str]:
    """Return the zones whose records the host must be able to change.

    Without [[zone]], which zone holds a name shows only when the account is asked: then these are the
    names and all that they may lie in. Where no CNAME is followed, a [[zone]] without a name is left out.
    """
    names = challenged_names(config)
    if not config.zones:
        return _each_once(zone for name in names for zone in _may_lie_in(name))
    zones: list[str] = [zone.name for zone in config.zones]
    if config.dns.follow_cname:
        return zones
    held = {found[0] for name in names if (found := zone_of(name, zones))}
    return [zone for zone in zones if zone in held]


def challenged_names(config: Config) -> list[str]:
    """Return the names whose `_acme-challenge` the CA looks at: those of all certificates, without `*.`."""
    return _each_once(name.removeprefix("*.") for one in config.certificates for name in one.names)


def publisher(config: Config) -> list[Policy]:
    """Return the policies for the host that publishes. Raises ConfigInvalid if the store isn't oss://."""
    bucket, prefix = _oss(config)
    rights = _Rights()
    rights.allow(config.store.source, None, _oss_statement(_OBJECTS, [f"{bucket}/{prefix}*"]))
    listing = _oss_statement(_LISTINGS, [bucket])
    if prefix:
        listing["Condition"] = {"StringLike": {"oss:Prefix": [f"{prefix}*"]}}
    rights.allow(config.store.source, None, listing)
    return rights.policies()


def consumer(config: Config) -> list[Policy]:
    """Return the policies for a host that serves; none where it reads without credentials.

    Raises ConfigInvalid if the store isn't oss://.
    """
    if config.store.read_from is not None:
        return []
    bucket, prefix = _oss(config)
    published = [f"{bucket}/{prefix}certs/{one.name}/*" for one in config.certificates]
    report = f"{bucket}/{prefix}hosts/{config.enrolled_as}.json"
    rights = _Rights()
    rights.allow(config.store.source, None, _oss_statement(("GetObject",), published))
    rights.allow(config.store.source, None, _oss_statement(("PutObject",), [report]))
    return rights.policies()


class _Rights:
    """Statements, gathered for whoever holds them."""

    def __init__(self) -> None:
        self._held: dict[str, list[dict[str, Any]]] = {}

    def allow(self, source: KeySource, endpoint: str | None, statement: dict[str, Any]) -> None:
        """Add a statement for the keys of `source`; `endpoint` where it is another site's account."""
        at = f", at {endpoint}" if endpoint else ""
        if source.role_arn is None:
            self._add(_own_keys(source) + at, statement)
            return
        self._add(f"the RAM role {source.role_arn}", statement)
        self._add(_own_keys(source) + at, _allow(("sts:AssumeRole",), [source.role_arn]))

    def _add(self, holder: str, statement: dict[str, Any]) -> None:
        statements = self._held.setdefault(holder, [])
        if statement not in statements:
            statements.append(statement)

    def policies(self) -> list[Policy]:
        return [Policy(holder, tuple(statements)) for holder, statements in self._held.items()]


def _own_keys(source: KeySource) -> str:
    if source.profile is not None:
        return f"the RAM user or role of profile {source.profile} in ~/.aliyun/config.json"
    return "the RAM user or role whose keys this host has"


def _alidns(actions: Sequence[str], zones: Sequence[str]) -> dict[str, Any]:
    resources = [f"acs:alidns:*:*:domain/{zone}" for zone in zones]
    return _allow([f"alidns:{action}" for action in actions], resources)


def _oss_statement(actions: Sequence[str], below: Sequence[str]) -> dict[str, Any]:
    return _allow([f"oss:{action}" for action in actions], [f"acs:oss:*:*:{what}" for what in below])


def _allow(actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def _oss(config: Config) -> tuple[str, str]:
    """Return bucket and prefix, the latter with its slash or empty."""
    url = config.store.url
    if not url.startswith("oss://"):
        raise ConfigInvalid(
            f"RAM has no policy for the store {url}",
            expected="a store at Alibaba Cloud: oss://bucket/prefix",
            kept="nothing was changed",
            next="allow the same in the store's own way: docs/least-privilege.md lists what each host does",
        )
    bucket, _, prefix = url.removeprefix("oss://").partition("/")
    return bucket, f"{prefix}/" if prefix else ""


def _may_lie_in(name: str) -> list[str]:
    """The name and its parents, down to two labels: no account has a top-level domain for a zone."""
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(max(1, len(labels) - 1))]


def _each_once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
