"""Recursive resolvers: those of `[dns] resolvers`, by DNS or by DoH, else the system's.

They find the addresses of nameservers, and what lies outside the managed zones;
and where the nameservers themselves can't be reached, they tell of the TXT values
at second hand (propagation.py).

A resolver remembers what it was told, "there is no such name" too: for the zone's
SOA minimum, 600 s at Alidns (RFC 2308 section 5). So nobody here asks one about a
challenge's name before the values are added.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from certcast.config.model import Address, Resolver
from certcast.dns01.visibility.exchange import Unanswered, Unreachable, exchange, make_query
from certcast.report.errors import DnsFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dns.message
    import dns.resolver

    from certcast.dns01.visibility.doh import DohServer

# Seconds for one question; the first has TCP and TLS before it.
_DOH_TIMEOUT = 5.0


def chosen(configured: Sequence[Resolver]) -> tuple[Resolver, ...]:
    """Return the configured resolvers, or the system's; none, if the system has none."""
    if configured:
        return tuple(configured)
    import dns.resolver

    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return ()
    return tuple(Resolver(Address(str(host), system.port)) for host in system.nameservers)


def resolver(configured: Sequence[Resolver]) -> dns.resolver.Resolver:
    """Return a stub resolver that asks the configured ones in turn, or the system's. Raises DnsFailed."""
    import dns.nameserver
    import dns.resolver

    resolvers = chosen(configured)
    if not resolvers:
        raise DnsFailed(
            "this host has no DNS resolver",
            expected="nameserver lines in /etc/resolv.conf, or [dns] resolvers in the configuration",
            next='add resolvers = ["192.0.2.53:53"] (yours) to [dns]',
        )
    stub = dns.resolver.Resolver(configure=False)
    stub.nameservers = [
        dns.nameserver.Do53Nameserver(one.at.host, one.at.port)
        if isinstance(one.at, Address)
        else _doh(one.at)
        for one in resolvers
    ]
    if not all(isinstance(one.at, Address) for one in resolvers):
        stub.timeout = _DOH_TIMEOUT
        stub.lifetime = 2 * _DOH_TIMEOUT
    return stub


def addresses(stub: dns.resolver.Resolver, host: str) -> list[str]:
    """Return the addresses of a host, IPv4 before IPv6.

    Raises dns.resolver.LifetimeTimeout if no resolver has answered, and dnspython's other errors.
    """
    import dns.exception

    def records(rdtype: str) -> list[str]:
        answer = stub.resolve(host, rdtype, raise_on_no_answer=False)
        return [record.address for record in answer.rrset or ()]

    found = records("A")
    try:
        found += records("AAAA")
    except dns.exception.DNSException:
        # One that fails at IPv6, as some do, has still told of IPv4.
        if not found:
            raise
    return found


class Recursive:
    """One resolver, to be asked again and again."""

    def __init__(self, one: Resolver) -> None:
        self.resolver = one
        self._doh = None if isinstance(one.at, Address) else _doh(one.at)

    async def ask(self, name: str, rdtype: str) -> dns.message.Message:
        """Return what the resolver says: NOERROR or NXDOMAIN. Raises Unanswered, Unreachable."""
        import dns.rcode

        reply = await self._reply(name, rdtype)
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Unanswered(dns.rcode.to_text(reply.rcode()))
        return reply

    async def _reply(self, name: str, rdtype: str) -> dns.message.Message:
        if isinstance(self.resolver.at, Address):
            return await exchange(self.resolver.at, name, rdtype, recursive=True)
        import dns.exception

        assert self._doh is not None  # what isn't an address is a URL
        query = make_query(name, rdtype, recursive=True)
        try:
            return await asyncio.to_thread(self._doh.query, query, _DOH_TIMEOUT)
        except dns.exception.Timeout:
            raise Unreachable(f"no complete answer within {_DOH_TIMEOUT:g} s") from None
        except OSError as error:
            raise Unreachable(str(error)) from None
        except dns.exception.DNSException as error:
            raise Unanswered(f"an unusable answer ({type(error).__name__})") from None


def _doh(url: str) -> DohServer:
    from certcast.dns01.visibility.doh import DohServer

    return DohServer(url)
