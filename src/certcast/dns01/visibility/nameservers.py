"""A zone's own nameservers, and one question to one of them.

The authoritative servers are asked directly, with RD=0 (RFC 1035 section 4.1.1): a resolver in between may
hold an old answer for as long as its TTL, and the CA's resolver asks the same servers afresh.

The servers are those that the configuration gives for the zone, else those that the provider names, at every
address that a resolver finds for them.

Not here: how a question is sent (exchange.py), what the answers mean (reach.py, delegation.py).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dns.exception
import dns.inet
import dns.resolver

from certcast.config.model import Address
from certcast.dns01.threads import LookupCache
from certcast.dns01.visibility.exchange import exchange, require_answer
from certcast.dns01.visibility.resolvers import find_addresses, stub_resolver
from certcast.report.errors import DnsFailed

if TYPE_CHECKING:
    import dns.message

    from certcast.config.model import Config
    from certcast.dns01.accounts import Accounts

_PORT = 53


@dataclass(frozen=True)
class Nameserver:
    """One authoritative server of a zone; `addresses` is empty if it has none."""

    name: str
    addresses: tuple[Address, ...]


class Nameservers:
    """The nameservers of zones, each zone looked up once."""

    def __init__(self, config: Config, accounts: Accounts) -> None:
        self._resolvers = config.dns.resolvers
        self._configured = {zone.name: zone.nameservers for zone in config.zones if zone.nameservers}
        self._accounts = accounts
        self._known = LookupCache(self._look_up)
        # A resolver that is silent is asked for one host's addresses, not for all hosts' at a time.
        self._lock = threading.Lock()

    def of(self, zone: str) -> tuple[Nameserver, ...]:
        """Return the servers of the zone. Any number of threads may ask.

        Raises what the provider raises; an address that cannot be found leaves its server without any.
        """
        return self._known(zone)

    def _look_up(self, zone: str) -> tuple[Nameserver, ...]:
        configured = self._configured.get(zone)
        servers = (
            [(str(address), address.host, address.port) for address in configured]
            if configured
            else [(host, host, _PORT) for host in self._accounts.provider_of(zone).nameservers(zone)]
        )
        with self._lock:
            return tuple(
                Nameserver(name, tuple(Address(found, port) for found in self._addresses(host)))
                for name, host, port in servers
            )

    def _addresses(self, host: str) -> list[str]:
        if dns.inet.is_address(host):
            return [host]
        if self._resolver is None:
            return []
        try:
            return find_addresses(self._resolver, host)
        except dns.resolver.LifetimeTimeout:
            # No resolver answers. The next host would cost the same seconds, and so on for each zone.
            self._resolver = None
            return []
        except dns.exception.DNSException:
            return []

    @cached_property
    def _resolver(self) -> dns.resolver.Resolver | None:
        try:
            return stub_resolver(self._resolvers)
        except DnsFailed:
            return None


async def ask(address: Address, name: str, rdtype: str) -> dns.message.Message:
    """Return this server's own answer to the question: NOERROR or NXDOMAIN.

    Raises Unanswered, and Unreachable where not even a refusal came.
    """
    return require_answer(await exchange(address, name, rdtype, recursive=False))
