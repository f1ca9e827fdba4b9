"""The customer's account at the cloud, as `certcast` finds it on its first day.

    zone      example.test, at two nameservers of the provider
    bucket    certs, in cn-hangzhou
    users     renewal    adds and removes records of its zones, reads and writes the bucket
              consumer   reads what is published

Each user's policy is the least that its host needs; RAM cannot limit a key to
TXT records or to one name of a zone (certcast's README says what can be done
about that). DescribeDomains is for `domain/*` or not at all: it is how the
renewal host finds the zone of a name.

A `Cloud` is all the state that the emulated services have. The lab puts a
fresh one behind the same two addresses when a test begins.
"""

from __future__ import annotations

from typing import Any

from certcast_lab.alidns_api import AlidnsApi
from certcast_lab.oss_api import OssApi
from certcast_lab.oss_bucket import Bucket
from certcast_lab.ram import Ram, User
from certcast_lab.sts_api import StsApi
from certcast_lab.zones import Zone, Zones

ACCOUNT = "1234567890123456"
PROVIDER = "9999999999999999"  # the account that owns the nameservers' own zone
NAMESERVERS = ("ns1.lab-dns.test", "ns2.lab-dns.test")
REGION = "cn-hangzhou"
BUCKET = "certs"
PREFIX = "certcast"

_RECORD_ACTIONS = (
    "alidns:AddDomainRecord",
    "alidns:DeleteDomainRecord",
    "alidns:DescribeDomainRecords",
    "alidns:DescribeDomainInfo",
)


class Cloud:
    """RAM users, zones and bucket of one account, and the two APIs over them."""

    def __init__(self) -> None:
        self.ram = Ram()
        self.zones = Zones()
        self.alidns = AlidnsApi(self.ram, self.zones)
        self.oss = OssApi(self.ram)
        self.sts = StsApi(self.ram)
        self.bucket = self.oss.add_bucket(Bucket(BUCKET, account=ACCOUNT, region=REGION))
        # Keys that nobody takes for real ones (those begin with LTAI), nor a secret scanner.
        self.renewal = self.ram.add(User(ACCOUNT, "renewal", "lab-renewal", "lab-renewal-secret"))
        self.consumer = self.ram.add(
            User(ACCOUNT, "consumer", "lab-consumer", "lab-consumer-secret", policies=[_consumer_policy()])
        )
        provider = self.zones.create("lab-dns.test", PROVIDER, NAMESERVERS)
        for nameserver in NAMESERVERS:
            self.zones.add(provider, nameserver.partition(".")[0], "A", "127.0.0.1")
        self.zone = self.add_zone("example.test")

    def add_zone(self, name: str) -> Zone:
        """Create a zone in the account, and let the renewal user edit it."""
        zone = self.zones.create(name, ACCOUNT, NAMESERVERS)
        managed = [zone.name for zone in self.zones.all() if zone.owner == ACCOUNT]
        self.renewal.policies = [_renewal_policy(managed)]
        return zone

    def challenge_records(self) -> list[str]:
        """Return every TXT record of the account as "name value": what a renewal may leave behind."""
        return [
            f"{record.name} {record.value}"
            for zone in self.zones.all()
            for record in self.zones.records(zone)
            if record.type == "TXT"
        ]


def _renewal_policy(zones: list[str]) -> dict[str, Any]:
    records = {
        "Effect": "Allow",
        "Action": list(_RECORD_ACTIONS),
        "Resource": [f"acs:alidns:*:{ACCOUNT}:domain/{zone}" for zone in zones],
    }
    find = {
        "Effect": "Allow",
        "Action": "alidns:DescribeDomains",
        "Resource": f"acs:alidns:*:{ACCOUNT}:domain/*",
    }
    objects = {
        "Effect": "Allow",
        "Action": ["oss:GetObject", "oss:PutObject", "oss:DeleteObject"],
        "Resource": f"acs:oss:*:{ACCOUNT}:{BUCKET}/{PREFIX}/*",
    }
    listing = {
        "Effect": "Allow",
        "Action": "oss:ListObjects",
        "Resource": f"acs:oss:*:{ACCOUNT}:{BUCKET}",
        "Condition": {"StringLike": {"oss:Prefix": [f"{PREFIX}/*"]}},
    }
    return {"Version": "1", "Statement": [records, find, objects, listing]}


def _consumer_policy() -> dict[str, Any]:
    published = {
        "Effect": "Allow",
        "Action": "oss:GetObject",
        "Resource": f"acs:oss:*:{ACCOUNT}:{BUCKET}/{PREFIX}/certs/*",
    }
    return {"Version": "1", "Statement": [published]}
