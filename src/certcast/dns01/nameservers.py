"""A zone's own nameservers, and one question to one of them.

The authoritative servers are asked directly, with RD=0 (RFC 1035 section
4.1.1): a resolver in between may hold an old answer for as long as its TTL, and
the CA's resolver asks the same servers afresh. UDP first; TCP when the answer
was truncated, and when none came, since some networks only let one of them out.

Which servers: those that the configuration gives for the zone, else those that
the provider names, at every address that they have.

A resolver (`[dns] resolvers`, else the system's) is needed for two things only:
the addresses of nameservers, and names outside the managed zones.

Not here: what the answers mean (propagation.py, delegation.py). dnspython is
imported where it is used: the cleanup hook needs none of it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.config import Address
from certcast.errors import DnsFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dns.message
    import dns.resolver

    from certcast.config import Config, Resolver
    from certcast.dns01.accounts import Accounts

_PORT = 53
# Seconds. A lost datagram costs the first, a dead server both.
_UDP_TIMEOUT = 1.5
_TCP_TIMEOUT = 2.5


@dataclass(frozen=True)
class Nameserver:
    """One authoritative server of a zone; `addresses` is empty if it has none."""

    name: str
    addresses: tuple[Address, ...]


class Unanswered(Exception):
    """A server gave no answer that counts; the text says in a few words what came instead."""


class Nameservers:
    """The nameservers of zones, each zone looked up once."""

    def __init__(self, config: Config, accounts: Accounts) -> None:
        self._resolvers = config.dns.resolvers
        self._configured = {zone.name: zone.nameservers for zone in config.zones if zone.nameservers}
        self._accounts = accounts
        self._known: dict[str, tuple[Nameserver, ...]] = {}

    def of(self, zone: str) -> tuple[Nameserver, ...]:
        """Return the servers of the zone.

        Raises what the provider raises; an address that cannot be found leaves its server without any.
        """
        if zone not in self._known:
            configured = self._configured.get(zone)  # type: ignore[call-overload]  # a Zone is a str
            servers = (
                [(str(address), address.host, address.port) for address in configured]
                if configured
                else [(host, host, _PORT) for host in self._accounts.provider_of(zone).nameservers(zone)]
            )
            self._known[zone] = tuple(
                Nameserver(name, tuple(Address(found, port) for found in self._addresses(host)))
                for name, host, port in servers
            )
        return self._known[zone]

    def _addresses(self, host: str) -> list[str]:
        import dns.exception

        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [host]
        try:
            return list(resolver(self._resolvers).resolve_name(host).addresses())
        except dns.exception.DNSException:
            return []


def resolver(configured: Sequence[Resolver]) -> dns.resolver.Resolver:
    """Return a recursive resolver: the configured ones, or the system's where there are none."""
    import dns.nameserver
    import dns.resolver

    try:
        found = dns.resolver.Resolver(configure=not configured)
    except dns.resolver.NoResolverConfiguration:
        raise DnsFailed(
            "this host has no DNS resolver",
            expected="nameserver lines in /etc/resolv.conf, or [dns] resolvers in the configuration",
            next='add resolvers = ["192.0.2.53:53"] (yours) to [dns]',
        ) from None
    if configured:
        found.nameservers = [
            dns.nameserver.Do53Nameserver(one.at.host, one.at.port)
            for one in configured
            if isinstance(one.at, Address)
        ]
    return found


async def ask(address: Address, name: str, rdtype: str) -> dns.message.Message:
    """Return an authoritative answer to the question: NOERROR or NXDOMAIN, from this server alone.

    Raises Unanswered.
    """
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode

    query = dns.message.make_query(name, rdtype)
    query.flags &= ~dns.flags.RD
    try:
        reply = await _exchange(query, address)
    except dns.exception.Timeout:
        raise Unanswered("no answer, neither by UDP nor by TCP") from None
    except OSError as error:
        raise Unanswered(error.strerror or str(error)) from None
    except (dns.exception.DNSException, EOFError) as error:
        raise Unanswered(f"an unusable answer ({type(error).__name__})") from None
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Unanswered(dns.rcode.to_text(reply.rcode()))
    return reply


async def _exchange(query: dns.message.Message, address: Address) -> dns.message.Message:
    import dns.asyncquery
    import dns.exception
    import dns.message

    try:
        return await dns.asyncquery.udp(
            query,
            address.host,
            port=address.port,
            timeout=_UDP_TIMEOUT,
            # Datagrams that don't fit the question may be anybody's; go on waiting for ours.
            ignore_unexpected=True,
            ignore_errors=True,
            raise_on_truncation=True,
        )
    except (dns.message.Truncated, dns.exception.Timeout, OSError):
        return await dns.asyncquery.tcp(query, address.host, port=address.port, timeout=_TCP_TIMEOUT)


def is_authoritative(reply: dns.message.Message) -> bool:
    """Return whether the server answered from its own zone data (AA), not from a cache or a parent's."""
    import dns.flags

    return bool(reply.flags & dns.flags.AA)
