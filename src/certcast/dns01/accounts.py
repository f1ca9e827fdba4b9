"""Which account holds a zone: the one of [dns], or the one that its [[zone]] names.

Not here: the keys of an account (certcast/credentials.py).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certcast.config import Config
    from certcast.dns01.provider import DnsProvider


class Accounts:
    """The accounts of one configuration; each is opened once, at its first use."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def zones(self) -> Sequence[str]:
        """The names of all zones that are managed: the configured ones, or all of the account."""
        return [zone.name for zone in self._config.zones] or self._main.zones()

    def provider_of(self, zone: str) -> DnsProvider:
        """Return the account that holds the zone."""
        return self._main

    @cached_property
    def _main(self) -> DnsProvider:
        from certcast.dns01.alidns import Alidns

        return Alidns(self._config.dns)
