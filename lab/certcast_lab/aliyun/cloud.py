"""The customer's account at the cloud, as `certcast` finds it on its first day.

    zone      example.test, at two nameservers of the provider
    bucket    certs, in cn-hangzhou
    users     renewal    adds and removes records of its zones, publishes in the bucket
              consumer   reads what is published, puts the reports of its hosts

Each user may do exactly what `certcast policy` prints for the lab's configurations. The
policies are written here by hand, and a test holds the two equal. The lab's [[zone]]s
name their nameservers, so renewal needs no right to list zones or to ask for nameservers;
a test without [[zone]] grants these (`let_find`). All hosts share the consumer's key,
which has each host's policy.

A `Cloud` is all the state of the emulated services. `Lab.reset()` puts a fresh one
behind the same addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from certcast_lab.aliyun.alidns_api import AlidnsApi
from certcast_lab.aliyun.ram import Ram, User
from certcast_lab.aliyun.sts_api import StsApi
from certcast_lab.dns.zones import Zone, Zones
from certcast_lab.oss.oss_api import OssApi
from certcast_lab.oss.oss_bucket import Bucket

ACCOUNT = "1234567890123456"
PROVIDER = "9999999999999999"  # the account that owns the nameservers' own zone
NAMESERVERS = ("ns1.lab-dns.test", "ns2.lab-dns.test")
REGION = "cn-hangzhou"
BUCKET = "certs"
PREFIX = "certcast"


class Cloud:
    """RAM users, zones and bucket of one account, and the two APIs over them."""

    def __init__(self) -> None:
        self.ram = Ram()
        self.zones = Zones()
        self.alidns = AlidnsApi(self.ram, self.zones)
        self.oss = OssApi(self.ram)
        self.sts = StsApi(self.ram)
        self.bucket = self.oss.add_bucket(Bucket(BUCKET, account=ACCOUNT, region=REGION))
        # Neither a person nor a secret scanner takes these for real keys, which begin with LTAI.
        self.renewal = self.ram.add(User(ACCOUNT, "renewal", "lab-renewal", "lab-renewal-secret"))
        self.consumer = self.ram.add(User(ACCOUNT, "consumer", "lab-consumer", "lab-consumer-secret"))
        self._of_hosts: dict[str, dict[str, Any]] = {}
        self._finds_zones = self._finds_nameservers = False
        provider = self.zones.create("lab-dns.test", PROVIDER, NAMESERVERS)
        for nameserver in NAMESERVERS:
            self.zones.add(provider, nameserver.partition(".")[0], "A", "127.0.0.1")
        self.zone = self.add_zone("example.test")

    def add_zone(self, name: str) -> Zone:
        """Create a zone in the account, and let the renewal user edit it."""
        zone = self.zones.create(name, ACCOUNT, NAMESERVERS)
        self._attach()
        return zone

    def let_find(self, *, zones: bool = False, nameservers: bool = False) -> None:
        """Let the renewal user list zones, or ask for a zone's nameservers: its configuration has none."""
        self._finds_zones, self._finds_nameservers = zones, nameservers
        self._attach()

    def let_serve(self, host: str, certificates: Iterable[str]) -> None:
        """Let the consumer user read these certificates, and put the report of `host`."""
        self._of_hosts[host] = consumer_policy(host, certificates)
        self.consumer.policies = list(self._of_hosts.values())

    def _attach(self) -> None:
        managed = [zone.name for zone in self.zones.all() if zone.owner == ACCOUNT]
        self.renewal.policies = [
            dns_policy(managed, finds_zones=self._finds_zones, finds_nameservers=self._finds_nameservers),
            publisher_policy(),
        ]

    def challenge_records(self) -> list[str]:
        """Return every TXT record of the account as "name value": what a renewal may leave behind."""
        return [
            f"{record.name} {record.value}"
            for zone in self.zones.all()
            for record in self.zones.records(zone)
            if record.type == "TXT"
        ]


def dns_policy(zones: list[str], *, finds_zones: bool, finds_nameservers: bool) -> dict[str, Any]:
    """What a renewal does to records, in these zones."""
    resources = [f"acs:alidns:*:*:domain/{zone}" for zone in zones]
    statements = [
        _allow(
            ["alidns:AddDomainRecord", "alidns:DeleteDomainRecord", "alidns:DescribeDomainRecords"], resources
        )
    ]
    if finds_nameservers:
        statements.append(_allow(["alidns:DescribeDomainInfo"], resources))
    if finds_zones:
        statements.append(_allow(["alidns:DescribeDomains"], ["acs:alidns:*:*:domain/*"]))
    return {"Version": "1", "Statement": statements}


def publisher_policy() -> dict[str, Any]:
    """What the renewal host does in the bucket."""
    actions = ["oss:GetObject", "oss:PutObject", "oss:DeleteObject", "oss:DeleteObjectVersion"]
    listing = _allow(["oss:ListObjects", "oss:ListObjectVersions"], [f"acs:oss:*:*:{BUCKET}"])
    listing["Condition"] = {"StringLike": {"oss:Prefix": [f"{PREFIX}/*"]}}
    return {"Version": "1", "Statement": [_allow(actions, [f"acs:oss:*:*:{BUCKET}/{PREFIX}/*"]), listing]}


def consumer_policy(host: str, certificates: Iterable[str]) -> dict[str, Any]:
    """What one host that serves does in the bucket."""
    below = f"acs:oss:*:*:{BUCKET}/{PREFIX}"
    published = _allow(["oss:GetObject"], [f"{below}/certs/{name}/*" for name in certificates])
    report = _allow(["oss:PutObject"], [f"{below}/hosts/{host}.json"])
    return {"Version": "1", "Statement": [published, report]}


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}
