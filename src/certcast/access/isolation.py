"""A DNS key that can touch nothing but challenges: each `_acme-challenge` as a CNAME into a zone of its own.

    _acme-challenge.example.com       CNAME  _acme-challenge.example.com.acme.example.net
    _acme-challenge.www.example.com   CNAME  _acme-challenge.www.example.com.acme.example.net

The target is the name itself below the throw-away zone: nobody has to remember a table,
no two names meet, and since all begin with the same label, one listing of that zone
serves a whole order (dns01/visibility/delegation.py). The records are made once, by hand, in zones
that certcast then needs no key for; these must not be [[zone]]s any more, since a
managed zone is asked through its API, and RAM would refuse that.

What it does not do: who holds the key can still prove these names to a CA, as long as the
CNAMEs stand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certcast.access.ram_policies import challenged_names
from certcast.config.model import ZoneConfig
from certcast.dns01.provider import zone_of

if TYPE_CHECKING:
    from certcast.config.model import Config
    from certcast.config.types import Zone

_LONGEST_NAME = 253  # octets as text, RFC 1035 section 2.3.4


@dataclass(frozen=True)
class Isolation:
    """CNAME `records` (name, target) to be made, and the configuration as it is to be then."""

    records: tuple[tuple[str, str], ...]
    config: Config


def isolate(config: Config, zone: Zone) -> Isolation:
    """Return what confines the challenges of the configuration to `zone`.

    Raises ValueError, with what the zone must be, if it is not one that has challenges alone.
    """
    names = challenged_names(config)
    for name in names:
        if zone_of(name, [zone]):
            raise ValueError(f"must be a zone that has nothing but challenges, and {name} lies in {zone}")
    records = tuple((f"_acme-challenge.{name}", f"_acme-challenge.{name}.{zone}") for name in names)
    if longest := max((target for _, target in records), key=len)[_LONGEST_NAME:]:
        raise ValueError(
            f"must be {len(longest)} characters shorter, or the names in it are too long for DNS"
        )
    kept = tuple(one for one in config.zones if one.name == zone) or (ZoneConfig(zone),)
    return Isolation(records, replace(config, zones=kept, dns=replace(config.dns, follow_cname=True)))
