"""A zone's own nameservers, and one question to one of them.

The authoritative servers are asked directly, with RD=0 (RFC 1035 section
4.1.1): a resolver in between may hold an old answer for as long as its TTL, and
the CA's resolver asks the same servers afresh.

Which servers: those that the configuration gives for the zone, else those that
the provider names, at every address that a resolver finds for them.

Not here: how a question is sent (exchange.py), what the answers mean
(propagation.py, delegation.py). dnspython is imported where it is used: the
cleanup hook needs none of it.
"""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from certcast.config.model import Address
from certcast.dns01.once import Once
from certcast.dns01.visibility.exchange import Unanswered, exchange
from certcast.dns01.visibility.resolvers import addresses, resolver
from certcast.report.errors import DnsFailed

if TYPE_CHECKING:
    import dns.message
    import dns.resolver

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
        self._known = Once(self._looked_up)
        # A resolver that is silent is asked for one host's addresses, not for all hosts' at a time.
        self._turn = threading.Lock()

    def of(self, zone: str) -> tuple[Nameserver, ...]:
        """Return the servers of the zone. Any number of threads may ask.

        Raises what the provider raises; an address that cannot be found leaves its server without any.
        """
        return self._known(zone)

    def _looked_up(self, zone: str) -> tuple[Nameserver, ...]:
        configured = self._configured.get(zone)  # type: ignore[call-overload]  # a Zone is a str
        servers = (
            [(str(address), address.host, address.port) for address in configured]
            if configured
            else [(host, host, _PORT) for host in self._accounts.provider_of(zone).nameservers(zone)]
        )
        with self._turn:
            return tuple(
                Nameserver(name, tuple(Address(found, port) for found in self._addresses(host)))
                for name, host, port in servers
            )

    def _addresses(self, host: str) -> list[str]:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [host]
        import dns.exception
        import dns.resolver

        if self._resolver is None:
            return []
        try:
            return addresses(self._resolver, host)
        except dns.resolver.LifetimeTimeout:
            # No resolver answers. The next host would cost the same seconds, and so on for each zone.
            self._resolver = None
            return []
        except dns.exception.DNSException:
            return []

    @cached_property
    def _resolver(self) -> dns.resolver.Resolver | None:
        try:
            return resolver(self._resolvers)
        except DnsFailed:
            return None


async def ask(address: Address, name: str, rdtype: str) -> dns.message.Message:
    """Return an authoritative answer to the question: NOERROR or NXDOMAIN, from this server alone.

    Raises Unanswered, and Unreachable where not even a refusal came.
    """
    import dns.rcode

    reply = await exchange(address, name, rdtype, recursive=False)
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Unanswered(dns.rcode.to_text(reply.rcode()))
    return reply


def is_authoritative(reply: dns.message.Message) -> bool:
    """Return whether the server answered from its own zone data (AA), not from a cache or a parent's."""
    import dns.flags

    return bool(reply.flags & dns.flags.AA)
