"""Where a validation's TXT record belongs.

The CA looks at `_acme-challenge.<domain>` and follows CNAMEs from there (RFC
8555 section 8.4 leaves that to DNS as usual). So do we, before anything is
written: the record belongs at the end of the chain, in the managed zone with
the longest name that holds it. That lets an AccessKey be confined to a zone
that has nothing but challenges.

    _acme-challenge.www.example.com        zone example.com, rr _acme-challenge.www
    _acme-challenge.example.com  CNAME → example-com.acme.example.net
                                           zone acme.example.net, rr example-com

A name inside a managed zone is asked of that zone's own servers; they also say
when it lies in a sub-zone that isn't managed here, where a record in the parent
would never be seen. A name outside is asked of a resolver.

Not here: which zones are managed (the configuration, or the provider).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.dns01.nameservers import Unanswered, ask, is_authoritative, resolver
from certcast.dns01.provider import zone_of
from certcast.errors import DnsFailed, NotPropagated, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dns.message

    from certcast.config import Address, Resolver
    from certcast.dns01.nameservers import Nameserver

# Resolvers give up after about as many; Let's Encrypt's too.
_LONGEST_CHAIN = 10
_PAUSE = 0.5


@dataclass(frozen=True)
class Place:
    """A managed zone and the relative name at which the TXT record belongs."""

    zone: str
    rr: str


@dataclass(frozen=True)
class Alias:
    """What the servers say of a name: its CNAME's target, and the sub-zone that it lies in, if any."""

    target: str | None = None
    subzone: str | None = None


def place(name: str, zones: Sequence[str], alias_of: Callable[[str, str | None], Alias]) -> Place:
    """Follow CNAMEs from `name` and return where its TXT record belongs.

    `alias_of(name, zone)` looks a name up at the servers of the managed zone that holds it, or
    (zone None) at a resolver. Raises ZoneMissing, and what `alias_of` raises.
    """
    chain = [name]
    while True:
        found = zone_of(chain[-1], zones)
        alias = alias_of(chain[-1], found[0] if found else None)
        if alias.target is None:
            if found is None:
                raise _no_zone(chain, zones)
            if alias.subzone is not None:
                raise _in_subzone(chain, found[0], alias.subzone)
            return Place(*found)
        if alias.target in chain or len(chain) == _LONGEST_CHAIN:
            raise ZoneMissing(
                f"the CNAMEs from {name} do not end",
                found=" → ".join([*chain, alias.target]),
                next="mend the CNAME records, then run again",
            )
        chain.append(alias.target)


def alias_in_zone(name: str, zone: str, servers: Sequence[Nameserver], deadline: float) -> Alias:
    """Ask the servers of `zone` what `name` is; the first answer counts, CNAMEs don't change by the minute.

    Raises NotPropagated if none has answered after `deadline` seconds.
    """
    return asyncio.run(_first_alias(name, zone, servers, deadline))


def alias_by_resolver(name: str, resolvers: Sequence[Resolver]) -> Alias:
    """Ask a resolver for the CNAME of `name`. Raises DnsFailed."""
    import dns.exception
    import dns.resolver

    try:
        answer = resolver(resolvers).resolve(name, "CNAME", search=False)
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return Alias()
    except dns.exception.DNSException as error:
        raise DnsFailed(
            f"the resolver did not say whether {name} is a CNAME",
            found=str(error),
            next=f"`dig {name} CNAME`; resolvers in [dns] chooses other ones",
        ) from None
    return Alias(_text(answer[0].target))


async def _first_alias(name: str, zone: str, servers: Sequence[Nameserver], deadline: float) -> Alias:
    last: dict[str, str] = {server.name: "its address was not found" for server in servers}

    async def poll(server: Nameserver, address: Address) -> Alias:
        while True:
            try:
                return _alias(await ask(address, name, "CNAME"), name, zone)
            except Unanswered as problem:
                last[server.name] = str(problem)
            await asyncio.sleep(_PAUSE)

    polls = [asyncio.create_task(poll(server, address)) for server in servers for address in server.addresses]
    try:
        if polls:
            done, _ = await asyncio.wait(polls, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
            for first in done:
                return first.result()
    finally:
        for task in polls:
            task.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
    raise NotPropagated(
        f"no nameserver of {zone} said within {deadline:g} s whether {name} is a CNAME",
        found="\n".join(f"{server}: {problem}" for server, problem in last.items()),
        next=f"`dig +norecurse @{servers[0].name if servers else zone} {name} CNAME`, then run again",
    )


def _alias(reply: dns.message.Message, name: str, zone: str) -> Alias:
    import dns.name
    import dns.rdatatype

    owner, apex = dns.name.from_text(name), dns.name.from_text(zone)
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.CNAME and rrset.name == owner:
            return Alias(_text(rrset[0].target))
    # A referral names the sub-zone by its NS, a server of both zones by its SOA (RFC 2308 section 2).
    for rrset in reply.authority:
        if rrset.name != apex and rrset.name.is_subdomain(apex):
            return Alias(subzone=_text(rrset.name))
    if not is_authoritative(reply):
        raise Unanswered("an answer that is not authoritative (no AA flag)")
    return Alias()


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _no_zone(chain: Sequence[str], zones: Sequence[str]) -> ZoneMissing:
    return ZoneMissing(
        f"no managed zone holds {chain[-1]}",
        expected="a name in one of: " + (", ".join(sorted(zones)) or "(the account has no zone)"),
        found=" → ".join(chain),
        next=f"add the zone to the account and as [[zone]], or make {chain[0]} a CNAME into one of these",
    )


def _in_subzone(chain: Sequence[str], zone: str, subzone: str) -> ZoneMissing:
    return ZoneMissing(
        f"{chain[-1]} lies in {subzone}, which {zone} delegates away",
        expected="a managed zone whose own servers answer for the name",
        found=" → ".join(chain),
        next=f"add {subzone} to the account and as [[zone]], or make {chain[0]} a CNAME into a managed zone",
    )
