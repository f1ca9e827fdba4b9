"""Which certificates are ordered together: those that share no name."""

from __future__ import annotations

import random

from certcast.acme.issuance import rounds
from certcast.acme.order import OrderRequest
from certcast.config.model import CertificateConfig, CertificateName, DnsName


def request(name: str, *names: str) -> OrderRequest:
    return OrderRequest(
        CertificateConfig(CertificateName(name), tuple(DnsName(one) for one in names or (name,)))
    )


def named(requests: list[list[OrderRequest]]) -> list[list[str]]:
    return [[one.wanted.name for one in together] for together in requests]


def test_certificates_without_a_common_name_go_together() -> None:
    """Twenty certificates that are due at once take about the time of one."""
    assert [["a", "b", "c"]] == named(rounds([request(one) for one in "abc"]))
    assert [] == rounds([])


def test_certificates_that_share_a_name_go_in_turn() -> None:
    """The end of one order would take the other's record away."""
    found = rounds([request("a", "x", "y"), request("b", "y", "z"), request("c", "z"), request("d")])
    assert [["a", "d"], ["b"], ["c"]] == named(found)


def test_a_name_and_its_wildcard_are_two_names() -> None:
    """They share a record's place and not an authorization; they may go together."""
    assert [["a", "b"]] == named(rounds([request("a", "x.test"), request("b", "*.x.test")]))


def test_the_order_of_the_configuration_is_kept() -> None:
    """
    Whatever is drawn: each certificate is in one round, no two of a round share a name, and of two that share
    one, the first in the configuration is ordered first.
    """
    rnd = random.Random(8)
    for _ in range(200):
        requests = [
            request(f"c{number}", *rnd.sample("abcdefgh", rnd.randint(1, 4)))
            for number in range(rnd.randint(1, 12))
        ]
        found = rounds(requests)
        assert sorted(map(id, requests)) == sorted(id(one) for together in found for one in together)
        place = {id(one): at for at, together in enumerate(found) for one in together}
        for at, one in enumerate(requests):
            for later in requests[at + 1 :]:
                if set(one.wanted.names) & set(later.wanted.names):
                    assert place[id(one)] < place[id(later)]
