"""The CA's orders, authorizations and certificates: each field is looked at before it is used."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import josepy as jose
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st
from requests import Response

from certcast.acme.pending import new_key
from certcast.acme.protocol import resources
from certcast.acme.protocol.answers import Subproblem, explained
from certcast.acme.protocol.resources import (
    Authorization,
    alternate_urls,
    is_issued_under,
    read_failures,
    require_linked,
    require_ordered,
)
from certcast.release import certificate
from certcast.report.errors import CaAnswerInvalid
from certcast_lab.serving.authority import Authority
from drawing import LATIN_1, for_all

URL = "https://ca.test/authz/1"
KEY = jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
ORDER: dict[str, Any] = {
    "status": "valid",
    "authorizations": [URL, "https://ca.test/authz/2"],
    "finalize": "https://ca.test/finalize/1",
    "certificate": "https://ca.test/cert/1",
}
CHALLENGE: dict[str, Any] = {
    "type": "dns-01",
    "url": "https://ca.test/challenge/1",
    "status": "pending",
    "token": TOKEN,
}
AUTHORIZATION: dict[str, Any] = {
    "status": "pending",
    "identifier": {"type": "dns", "value": "example.test"},
    "challenges": [{"type": "http-01", "url": "https://ca.test/challenge/2", "token": TOKEN}, CHALLENGE],
}
ODD: list[Any] = [None, 3, True, "", "x", [], ["x"], [None], {}, {"a": 1}, "ftp://ca.test/1"]


def answer(document: dict[str, Any]) -> Response:
    response = Response()
    response.status_code = 200
    response._content = json.dumps(document).encode()
    return response


def read_order(document: dict[str, Any]) -> dict[str, Any]:
    return resources.read_order(answer(document))


def read_authorization(document: dict[str, Any], name: str = "example.test") -> Authorization:
    return resources.read_authorization(URL, answer(document), [name], KEY)


def test_a_whole_order_is_taken() -> None:
    """In each of the five states of RFC 8555, 7.1.6."""
    for status in ("pending", "ready", "processing", "valid", "invalid"):
        assert status == read_order({**ORDER, "status": status})["status"]


@pytest.mark.parametrize("field", ORDER)
@pytest.mark.parametrize("odd", ODD)
def test_an_order_with_an_odd_field_is_told(field: str, odd: Any) -> None:
    """No address is asked that is none, and no state is guessed: CA-ANSWER."""
    with pytest.raises(CaAnswerInvalid), explained("example.test", "placing the order"):
        read_order({**ORDER, field: odd})


def test_the_txt_value_is_the_one_of_the_rfc() -> None:
    """base64url of the SHA-256 of token and account key's thumbprint (RFC 8555, 8.1 and 8.4)."""
    found = read_authorization(AUTHORIZATION)
    thumbprint = base64.urlsafe_b64encode(KEY.thumbprint()).rstrip(b"=").decode()
    digest = hashlib.sha256(f"{TOKEN}.{thumbprint}".encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == found.validation
    assert (CHALLENGE["url"], "pending", ("http-01", "dns-01")) == (
        found.challenge_url,
        found.challenge_status,
        found.offered,
    )


def test_what_the_ca_knows_already_needs_no_challenge() -> None:
    """A valid authorization is used again, and no TXT record is added for it."""
    found = read_authorization({**AUTHORIZATION, "status": "valid"})
    assert ("valid", "") == (found.status, found.validation)


def test_a_name_that_was_not_ordered_is_never_validated() -> None:
    """A CA, or who speaks for it, gets no TXT record at a name of its choice."""
    with pytest.raises(ValueError, match="was not ordered"):
        read_authorization(AUTHORIZATION, "other.test")


@pytest.mark.parametrize("status", ["invalid", "deactivated", "expired", "revoked", None, [], {}])
def test_an_authorization_that_has_ended_is_told(status: Any) -> None:
    """Nothing is answered to what can become valid no more."""
    with pytest.raises(CaAnswerInvalid), explained("example.test", "placing the order"):
        read_authorization({**AUTHORIZATION, "status": status})


@pytest.mark.parametrize("field", ["type", "url"])
@pytest.mark.parametrize("odd", ODD)
def test_a_challenge_with_an_odd_field_is_none(field: str, odd: Any) -> None:
    """What is not DNS-01 at an address is not answered; the kinds that were offered are there to be shown."""
    document = {**AUTHORIZATION, "challenges": [{**CHALLENGE, field: odd}]}
    found = read_authorization(document)
    assert ("", "") == (found.challenge_url, found.validation)
    assert 1 == len(found.offered)


def test_what_failed_is_told_with_its_name() -> None:
    """Of an authorization's challenges, those with an error."""
    error = {"type": "urn:ietf:params:acme:error:dns", "detail": "SERVFAIL"}
    document = {**AUTHORIZATION, "challenges": [CHALLENGE, {**CHALLENGE, "error": error}, {"error": "x"}, 3]}
    assert [Subproblem("dns", "SERVFAIL", "example.test")] == read_failures(answer(document))


def test_no_object_stumbles(request: pytest.FixtureRequest) -> None:
    """Whatever a CA sends as one of its objects: it is used as RFC 8555 says, or it is CA-ANSWER."""
    values = st.recursive(
        st.none() | st.integers() | st.text(LATIN_1, max_size=12) | st.sampled_from([URL, "valid"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "url", "status", "token", "value", "error"]), inner)
        ),
        max_leaves=10,
    )
    fields = ["status", "authorizations", "finalize", "certificate", "identifier", "challenges"]
    changes = st.dictionaries(st.sampled_from(fields), values, min_size=1, max_size=3)

    def holds(changed: dict[str, Any]) -> None:
        for use in (
            lambda: read_order({**ORDER, **changed}),
            lambda: read_authorization({**AUTHORIZATION, **changed}),
            lambda: read_failures(answer({**AUTHORIZATION, **changed})),
        ):
            with suppress(CaAnswerInvalid), explained("example.test", "placing the order"):
                use()

    for_all(request, changes, holds)


# -- the certificate with its chain

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
    assert is_issued_under(chain, "Root X1")
    assert is_issued_under(chain + ROOT.pem, "Root X1")
    for other in ("Middle R3", "Issuer E5", "root x1", "Root", ""):
        assert not is_issued_under(chain, other)


def test_what_is_no_chain_ends_nowhere() -> None:
    """Another file in the place of a chain is an error and no answer."""
    with pytest.raises(ValueError, match=r"."):
        is_issued_under(b"<html>", "Root X1")


def test_alternates_are_those_that_the_ca_names() -> None:
    """Of the links of an answer, the ones of rel="alternate" (RFC 8555, 7.4.2), in their order."""
    answer = with_links(
        '<https://ca.test/directory>;rel="index"',
        '<https://ca.test/cert/1/1>;rel="alternate"',
        '<https://ca.test/cert/1/2>; rel="alternate"; title="x"',
    )
    assert ["https://ca.test/cert/1/1", "https://ca.test/cert/1/2"] == alternate_urls(answer)


@pytest.mark.parametrize(
    "link", ["", "x", "<>;rel=alternate", "</cert/2>;rel=alternate", '<>;rel="up"', ";;,,"]
)
def test_an_odd_link_is_no_alternate(link: str) -> None:
    """What is no address that can be asked is left out."""
    assert [] == alternate_urls(with_links(link))
    assert [] == alternate_urls(Response())


def test_no_ca_keeps_a_run_busy_with_chains() -> None:
    """Of a thousand alternates eight are looked at."""
    answer = with_links(*(f'<https://ca.test/{number}>;rel="alternate"' for number in range(1000)))
    assert 8 == len(alternate_urls(answer))
