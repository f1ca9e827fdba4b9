"""Where a validation's TXT record belongs.

The CA looks at `_acme-challenge.<domain>` and follows CNAMEs from there (RFC 8555 section 8.4 leaves that to
DNS as usual). The record belongs at the end of the chain, in the managed zone with the longest name there. So
an AccessKey can be confined to a zone with nothing but challenges.

    _acme-challenge.www.example.com                zone example.com, rr _acme-challenge.www
    _acme-challenge.example.com CNAME
        example-com.acme.example.net               zone acme.example.net, rr example-com

- In a managed zone the provider's listing counts: no cache, private zone or filter is in between, and a
  wildcard is a record of its own, which a TXT at the name outranks (RFC 4592 section 2.2.1).
- Outside, a resolver's CNAME counts, unless a random name beside it gets the same one from a wildcard.
- A sub-zone in other hands shows as NS records of the listing. Alidns also splits a name off into another
  account's zone without any record (https://help.aliyun.com/document_detail/128693.html): the zone's servers
  name the zone that they answer from. Their silence is no error here.

Not here: which zones are managed (accounts.py).
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dns.exception
import dns.name
import dns.resolver

from certcast.dns01.provider import zone_of
from certcast.dns01.threads import LookupCache
from certcast.dns01.visibility.exchange import Unanswered
from certcast.dns01.visibility.nameservers import Nameservers, ask
from certcast.dns01.visibility.resolvers import stub_resolver
from certcast.report.errors import DnsFailed, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import dns.message

    from certcast.config.model import Config, Resolver
    from certcast.dns01.accounts import Accounts
    from certcast.dns01.visibility.nameservers import Nameserver

# Resolvers give up after about as many; Let's Encrypt's too.
_LONGEST_CHAIN = 10
# Seconds for one question to the zone's servers. Where these can't be reached, that is lost once for a zone.
_PATIENCE = 1.5


@dataclass(frozen=True)
class RecordLocation:
    """A managed zone and the relative name at which the TXT record belongs."""

    zone: str
    rr: str


@dataclass(frozen=True)
class Alias:
    """What DNS has at a name: a CNAME's target, the name's sub-zone, or a wildcard's target (ignored)."""

    target: str | None = None
    subzone: str | None = None
    wildcard: str | None = None


def locate_record(
    name: str, zones: Sequence[str], find_alias: Callable[[str, str | None], Alias]
) -> RecordLocation:
    """Follow CNAMEs from `name` and return where its TXT record belongs.

    `find_alias` takes a name and its managed zone, or None for a name outside of all.
    Raises ZoneMissing, and what `find_alias` raises.
    """
    chain = [name]
    while True:
        found = zone_of(chain[-1], zones)
        alias = find_alias(chain[-1], found[0] if found else None)
        if alias.target is None:
            if found is None:
                raise _no_zone(chain, zones, alias.wildcard)
            if alias.subzone is not None:
                raise _in_subzone(chain, found[0], alias.subzone)
            return RecordLocation(*found)
        if alias.target in chain or len(chain) == _LONGEST_CHAIN:
            raise ZoneMissing(
                f"the CNAMEs from {name} do not end",
                found=" → ".join([*chain, alias.target]),
                next="mend the CNAME records, then run again",
            )
        chain.append(alias.target)


class AliasFinder:
    """What DNS has at names, for one run: a zone's listing is read once for all names with the same label.

    Any number of threads may ask.
    """

    def __init__(self, config: Config, accounts: Accounts) -> None:
        self.nameservers = Nameservers(config, accounts)
        self._dns = config.dns
        self._cuts: LookupCache[str, Sequence[str]] = LookupCache(
            lambda zone: accounts.provider_of(zone).subzones(zone)
        )
        self._cnames: LookupCache[tuple[str, str], Mapping[str, Sequence[str]]] = LookupCache(
            lambda at: accounts.provider_of(at[0]).cnames(*at)
        )
        self._silent: set[str] = set()

    def find(self, name: str, zone: str | None) -> Alias:
        """Return the alias of `name` in this managed zone, or (None) outside of all.

        Raises what the provider raises, DnsFailed and ZoneMissing.
        """
        if zone is None:
            if not self._dns.follow_cname:
                raise _not_followed(name)
            return _find_by_resolver(name, self._dns.resolvers)
        rr = zone_of(name, [zone])[1]  # type: ignore[index]  # it was found in this zone
        if cuts := [cut for cut in self._cuts(zone) if rr == cut or rr.endswith("." + cut)]:
            return Alias(subzone=f"{min(cuts, key=len)}.{zone}")
        if self._dns.follow_cname and (target := self._target(name, zone, rr)):
            return Alias(target)
        # Where a fixed wait is configured, this host may have no way to the nameservers.
        if self._dns.propagation is not None or zone in self._silent:
            return Alias()
        try:
            return Alias(subzone=asyncio.run(_answering_subzone(name, zone, self.nameservers.of(zone))))
        except Unanswered:
            self._silent.add(zone)
            return Alias()

    def _target(self, name: str, zone: str, rr: str) -> str | None:
        targets = self._cnames((zone, rr.partition(".")[0])).get(rr, ())
        if len(targets) > 1:
            raise DnsFailed(
                f"{name} is a CNAME to several names, by who asks",
                expected="one target on every line: the CA asks from several places in the world",
                found=", ".join(targets),
                next="give the CNAME one target, then run again",
            )
        return targets[0] if targets else None


def _find_by_resolver(name: str, resolvers: Sequence[Resolver]) -> Alias:
    """Ask a resolver for the CNAME of `name`, and of a random name beside it. Raises DnsFailed."""
    target = _cname(name, resolvers)
    if target is None:
        return Alias()
    sibling = f"{secrets.token_hex(8)}.{name.partition('.')[2]}"
    return Alias(wildcard=target) if _cname(sibling, resolvers) == target else Alias(target)


def _cname(name: str, resolvers: Sequence[Resolver]) -> str | None:
    try:
        answer = stub_resolver(resolvers).resolve(name, "CNAME", search=False)
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return None
    except dns.exception.DNSException as error:
        raise DnsFailed(
            f"the resolver did not say whether {name} is a CNAME",
            found=str(error),
            next=f"`dig {name} CNAME`; resolvers in [dns] chooses other ones",
        ) from None
    target: str = answer[0].target.to_text(omit_final_dot=True)
    return target.lower()


async def _answering_subzone(name: str, zone: str, servers: Sequence[Nameserver]) -> str | None:
    """Return the sub-zone of `zone` that its servers answer from for `name`; None for the zone itself.

    The first answer counts. Raises Unanswered if none comes. The question is not for TXT, since a cache on
    the way could remember that there is none.
    """
    asking = [
        asyncio.create_task(ask(address, name, "CNAME")) for server in servers for address in server.addresses
    ]
    try:
        for first in asyncio.as_completed(asking, timeout=_PATIENCE):
            try:
                return _subzone(await first, zone)
            except Unanswered:
                continue
            except asyncio.TimeoutError:
                break
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    raise Unanswered(f"no nameserver of {zone} answers")


def _subzone(reply: dns.message.Message, zone: str) -> str | None:
    """Return the sub-zone of a referral's NS, or of a SOA from a server of both (RFC 2308 section 2)."""
    apex = dns.name.from_text(zone)
    for rrset in reply.authority:
        if rrset.name != apex and rrset.name.is_subdomain(apex):
            return rrset.name.to_text(omit_final_dot=True).lower()
    return None


def _no_zone(chain: Sequence[str], zones: Sequence[str], wildcard: str | None) -> ZoneMissing:
    return ZoneMissing(
        f"no managed zone holds {chain[-1]}",
        expected="a name in one of: " + (", ".join(sorted(zones)) or "(the account has no zone)"),
        found=" → ".join(chain)
        + (f"; the CNAME to {wildcard} is a wildcard's, any name gets it" if wildcard else ""),
        next=f"add the zone to the account and as [[zone]], or make {chain[0]} a CNAME into one of these; if "
        "it is one, and a private zone hides that from this host, set resolvers in [dns] to public ones",
    )


def _not_followed(name: str) -> ZoneMissing:
    return ZoneMissing(
        f"no managed zone holds {name}",
        expected="a managed zone, since [dns] has follow_cname = false",
        next="add the zone to the account and as [[zone]], or let CNAMEs be followed",
    )


def _in_subzone(chain: Sequence[str], zone: str, subzone: str) -> ZoneMissing:
    return ZoneMissing(
        f"{chain[-1]} lies in {subzone}, which {zone} delegates away",
        expected="a managed zone whose own servers answer for the name",
        found=" → ".join(chain),
        next=f"add {subzone} to the account and as [[zone]], or make {chain[0]} a CNAME into a managed zone",
    )
