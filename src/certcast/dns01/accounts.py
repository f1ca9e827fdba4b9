"""The provider and account of each zone: the account of [dns], or the one that its [[zone]] names.

    [dns]                                          profile, role_arn, endpoint: for every zone, unless
    [[zone]] name = "example.com"
    [[zone]] name = "example.org"  profile = ...   another account
    [[zone]] name = "example.net"  endpoint = ...  another place where the API is served

An account is its source of keys and its endpoint. (The API's documentation has one endpoint for all sites.
That a site with another endpoint doesn't know this one's keys is an assumption.) An account is opened, and
its keys are looked for, when the first of its zones is worked on. It never hears of another account's zones.

Not here: the keys of an account (certcast/credentials.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from certcast.dns01.threads import LookupCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certcast.config.model import Config, DnsConfig
    from certcast.dns01.provider import DnsProvider


class Accounts:
    """The accounts of one configuration; each is opened once, at its first use, for all threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open = LookupCache(_open_provider)
        self._listed: LookupCache[DnsConfig, Sequence[str]] = LookupCache(
            lambda account: self._open(account).zones()
        )

    @property
    def zones(self) -> Sequence[str]:
        """The names of all zones that are managed: the configured ones, or all of [dns]'s account."""
        return [zone.name for zone in self._config.zones] or self._listed(self._config.dns)

    def provider_of(self, zone: str) -> DnsProvider:
        """Return the account that holds the zone; that of [dns] for one that isn't configured."""
        return self._open(account_of(self._config, zone))


def _open_provider(account: DnsConfig) -> DnsProvider:
    """Return the provider of an account. A second kind of provider would be chosen here."""
    from certcast.dns01.alidns.alidns import Alidns

    return Alidns(account)


def account_of(config: Config, name: str) -> DnsConfig:
    """Return the account of a zone, as a [dns] would be written for it alone."""
    dns = config.dns
    for zone in config.zones:
        if zone.name == name:
            source = zone.source or dns.source
            return replace(
                dns,
                endpoint=zone.endpoint or dns.endpoint,
                profile=source.profile,
                role_arn=source.role_arn,
                sts_endpoint=source.sts_endpoint,
            )
    return dns
