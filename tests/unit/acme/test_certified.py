"""What is certified: keys, the ordered certificate, its chain and the alternates."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from requests import Response

from certcast.acme.certified import alternates, ends_at, new_key, require_linked, require_ordered
from certcast.release import certificate
from certcast_lab.serving.authority import Authority

ROOT = Authority("Root X1")
MIDDLE = Authority("Middle R3", parent=ROOT)
ISSUER = Authority("Issuer E5", parent=MIDDLE)
OTHER = Authority("Issuer E5", parent=ROOT)  # the same name, another key
PAIR = ISSUER.issue("example.test")
LEAF = PAIR.fullchain_pem.removesuffix(ISSUER.pem + MIDDLE.pem)
MORE = ISSUER.issue("example.test", "www.example.test")
NOW = datetime.now(timezone.utc)


def linked(*pems: bytes) -> None:
    require_linked(certificate.read_chain(b"".join(pems)))


def with_links(*links: str) -> Response:
    response = Response()
    response.headers["Link"] = ", ".join(links)
    return response


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "rsa3072"])
def test_a_key_is_of_the_kind_that_is_configured(kind: str) -> None:
    """Curve and size are those of `key_type`; each key is another one."""
    key = certificate.read_key(new_key(kind))
    if isinstance(key, rsa.RSAPrivateKey):
        assert f"rsa{key.key_size}" == kind
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert f"p{key.curve.key_size}" == kind
    assert new_key("p256") != new_key("p256")


def ordered(**other: Any) -> None:
    right = {"fullchain": PAIR.fullchain_pem, "privkey": PAIR.key_pem, "names": ("example.test",), "now": NOW}
    require_ordered(**{**right, **other})


def test_the_ordered_certificate_is_taken() -> None:
    """Our key, our names, in time, with its chain."""
    ordered()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"privkey": new_key("p256")}, "another key"),
        ({"names": ("example.test", "www.example.test")}, "which was not ordered"),
        ({"names": ("www.example.test",)}, "which was not ordered"),
        ({"fullchain": MORE.fullchain_pem, "privkey": MORE.key_pem}, "which was not ordered"),
        ({"now": NOW + timedelta(days=91)}, "expired already"),
        ({"fullchain": LEAF}, "without its chain"),
        ({"fullchain": LEAF + MIDDLE.pem}, "chain is broken"),
        ({"fullchain": b""}, r"."),
        ({"fullchain": b"<html>"}, r"."),
    ],
)
def test_another_certificate_is_never_stored(other: dict[str, Any], why: str) -> None:
    """Whatever a CA sends in its place: it is told by what is wrong with it."""
    with pytest.raises(ValueError, match=why):
        ordered(**other)


def test_a_chain_in_order_is_taken() -> None:
    """With the root or without it, since a CA may send either."""
    for chain in (
        (LEAF, ISSUER.pem),
        (LEAF, ISSUER.pem, MIDDLE.pem),
        (LEAF, ISSUER.pem, MIDDLE.pem, ROOT.pem),
    ):
        linked(*chain)


@pytest.mark.parametrize(
    "chain",
    [
        (MIDDLE.pem,),
        (MIDDLE.pem, ISSUER.pem),
        (ISSUER.pem, ROOT.pem),
        (OTHER.pem,),
        (ISSUER.pem, ISSUER.pem),
    ],
    ids=["a link left out", "wrong order", "a link left out above", "a namesake", "one twice"],
)
def test_a_broken_chain_is_refused(chain: tuple[bytes, ...]) -> None:
    """Clients could not follow it to a root, so it is never stored; the message says where it breaks."""
    with pytest.raises(ValueError, match=r"chain is broken: .* was not issued by the next"):
        linked(LEAF, *chain)


def test_a_certificate_alone_is_refused() -> None:
    """Browsers may fetch what is missing, other clients don't."""
    with pytest.raises(ValueError, match="without its chain"):
        linked(LEAF)


def test_a_chain_ends_where_its_topmost_was_issued() -> None:
    """`preferred_chain` names the root, also where the CA does not send it."""
    chain = LEAF + ISSUER.pem + MIDDLE.pem
    assert ends_at(chain, "Root X1")
    assert ends_at(chain + ROOT.pem, "Root X1")
    for other in ("Middle R3", "Issuer E5", "root x1", "Root", ""):
        assert not ends_at(chain, other)


def test_what_is_no_chain_ends_nowhere() -> None:
    """Another file in the place of a chain is an error and no answer."""
    with pytest.raises(ValueError, match=r"."):
        ends_at(b"<html>", "Root X1")


def test_alternates_are_those_that_the_ca_names() -> None:
    """Of the links of an answer, the ones of rel="alternate" (RFC 8555, 7.4.2), in their order."""
    answer = with_links(
        '<https://ca.test/directory>;rel="index"',
        '<https://ca.test/cert/1/1>;rel="alternate"',
        '<https://ca.test/cert/1/2>; rel="alternate"; title="x"',
    )
    assert ["https://ca.test/cert/1/1", "https://ca.test/cert/1/2"] == alternates(answer)


@pytest.mark.parametrize(
    "link", ["", "x", "<>;rel=alternate", "</cert/2>;rel=alternate", '<>;rel="up"', ";;,,"]
)
def test_an_odd_link_is_no_alternate(link: str) -> None:
    """What is no address that can be asked is left out."""
    assert [] == alternates(with_links(link))
    assert [] == alternates(Response())


def test_no_ca_keeps_a_run_busy_with_chains() -> None:
    """Of a thousand alternates eight are looked at."""
    answer = with_links(*(f'<https://ca.test/{number}>;rel="alternate"' for number in range(1000)))
    assert 8 == len(alternates(answer))
