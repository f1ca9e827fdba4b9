"""Where the nameservers cannot be reached: what was done instead, told to a person.

    resolvers show the values    go on, and say so
    nobody shows them            the provider's API lists the records (listed.py);
                                 a fixed wait (dns.fallback_wait); go on, and say so

The second is how every client does it that sleeps for a while and hopes: the API's
word is not DNS, and the CA may look too early. A validation that fails by that
costs one of five an hour (https://letsencrypt.org/docs/rate-limits/), which is why
it comes last, and only where no nameserver says otherwise. A resolver's "no" may be
one that it remembers, and stops nothing.

Not here: when it has come to that (reach.py, propagation.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from certcast.dns01.visibility.reach import Seen


def warnings(seen: Sequence[Seen], fallback_wait: float) -> list[str]:
    """Return what a person should know who reads nothing else: one text for each way that was used."""
    texts = []
    if second_hand := [one for one in seen if one.by == "resolvers"]:
        texts.append(
            _text(
                second_hand,
                "resolvers showed the TXT values instead, and cannot know whether every nameserver has them",
                _open_port(second_hand),
            )
        )
    if unseen := [one for one in seen if one.by == "nobody"]:
        texts.append(
            _text(
                unseen,
                f"waited {fallback_wait:g} s without looking, after the API had shown the TXT values",
                f"{_open_port(unseen)}; or set resolvers in [dns] to some that this host reaches "
                '("https://…/dns-query" is DNS by HTTPS), or propagation = "wait:60s", to ask nobody',
            )
        )
    return texts


def _text(seen: Sequence[Seen], instead: str, better: str) -> str:
    zones = ", ".join(sorted({one.expected.zone for one in seen}))
    said = _each_once(line for one in seen for line in one.said)
    return "\n".join(
        [
            f"the nameservers of {zones} cannot be reached from this host; {instead}",
            "  found    " + "\n           ".join(said),
            f"  next     {better}",
        ]
    )


def _open_port(seen: Sequence[Seen]) -> str:
    addresses = _each_once(
        str(address) for one in seen for server in one.expected.servers for address in server.addresses
    )
    return "let this host ask " + (", ".join(addresses) or "the nameservers") + " by UDP and TCP"


def _each_once(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
