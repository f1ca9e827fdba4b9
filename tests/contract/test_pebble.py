"""pebble behind the renewal-information proxy, spoken to by certbot's `acme` library.

The challenge values are put into the zone data directly: these tests are about
the CA's side of the lab, not about certcast or the DNS API.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import acme.challenges
import acme.client
import acme.crypto_util
import acme.errors
import acme.messages
import dns.message
import dns.query
import josepy
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from certcast_lab.acme.nonces import POSTS_PER_BAD_NONCE, Nonces
from certcast_lab.acme.pebble import PROFILES, Pebble
from certcast_lab.acme.renewal_info import Passed, RenewalInfo, Window, certificate_id
from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zone, Zones
from certcast_lab.lab import Lab
from certcast_lab.serving.authority import Authority

NAMES = ["example.test", "*.example.test"]
LIFE = timedelta(days=64)


class Ca:
    """The CA's side of the lab and an ACME account at it; `settings` are those of `Pebble`."""

    def __init__(
        self,
        folder: Path,
        stack: contextlib.ExitStack,
        external_account: tuple[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.zones = Zones()
        self.zone: Zone = self.zones.create("example.test", owner="1", nameservers=("ns1.test", "ns2.test"))
        self.dns = NameService(self.zones, ("ns1.test", "ns2.test"))
        stack.callback(self.dns.stop)
        authority = Authority("lab")
        self.pebble = Pebble(folder, authority, resolver=self.dns.resolver.address, life=LIFE, **settings)
        stack.callback(self.pebble.stop)
        self.front = RenewalInfo(self.pebble, authority)
        stack.callback(self.front.stop)
        trust = folder / "authority.pem"
        trust.write_bytes(authority.pem)
        key = josepy.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        network = acme.client.ClientNetwork(key, alg=josepy.ES256, verify_ssl=str(trust))
        stack.callback(network.session.close)
        directory = acme.client.ClientV2.get_directory(self.front.directory_url, network)
        self.client = acme.client.ClientV2(directory, net=network)
        binding = external_account and acme.messages.ExternalAccountBinding.from_data(
            key.public_key(), *external_account, directory
        )
        self.client.new_account(
            acme.messages.NewRegistration.from_data(
                terms_of_service_agreed=True, external_account_binding=binding
            )
        )

    def issue(self, *, wait: bool = False, profile: str | None = None) -> bytes:
        """Order, publish, `wait` until the resolver shows it, validate, finalize: fullchain in PEM."""
        return self.issued(wait=wait, profile=profile).fullchain_pem.encode()

    def issued(self, *, wait: bool = False, profile: str | None = None) -> acme.messages.OrderResource:
        """As `issue`, with the alternate chains."""
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        order = self.client.new_order(acme.crypto_util.make_csr(pem, NAMES), profile)
        challenges = [
            next(c for c in authorization.body.challenges if isinstance(c.chall, acme.challenges.DNS01))
            for authorization in order.authorizations
            if authorization.body.status == acme.messages.STATUS_PENDING  # a reused one is valid already
        ]
        key = self.client.net.key
        values = [
            self.zones.add(self.zone, "_acme-challenge", "TXT", challenge.chall.validation(key))
            for challenge in challenges
        ]
        try:
            while wait and not self._published({value.value for value in values}):
                time.sleep(0.02)
            for challenge in challenges:
                self.client.answer_challenge(challenge, challenge.chall.response(key))
            # Authorizations settle within milliseconds here; the library would look once a second.
            while any(
                self.client.poll(authorization)[0].body.status == acme.messages.STATUS_PENDING
                for authorization in order.authorizations
            ):
                time.sleep(0.02)
            deadline = datetime.now() + timedelta(seconds=30)  # noqa: DTZ005  # the library's clock
            self.client.poll_authorizations(order, deadline)
            return self.client.finalize_order(order, deadline, fetch_alternative_chains=True)
        finally:
            for value in values:
                self.zones.delete(value)

    def _published(self, values: set[str]) -> bool:
        query = dns.message.make_query("_acme-challenge.example.test", "TXT")
        host, port = self.dns.resolver.address
        reply = dns.query.udp(query, host, port=port, timeout=30)
        return values == {text.to_text().strip('"') for rrset in reply.answer for text in rrset}


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ca]:
    with contextlib.ExitStack() as stack:
        yield Ca(tmp_path_factory.mktemp("ca"), stack)


@pytest.fixture(scope="module")
def fullchain(ca: Ca) -> bytes:
    return ca.issue()


def test_apex_and_wildcard_are_issued_by_real_dns_validation(ca: Ca, fullchain: bytes):
    """Who publishes both TXT values gets a certificate for both names that chains to pebble's root."""
    leaf, *chain = x509.load_pem_x509_certificates(fullchain)
    root = x509.load_pem_x509_certificate(ca.pebble.root_pem())

    verifier = PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName("www.example.test"))
    verifier.verify(leaf, chain)
    assert chain == [x509.load_pem_x509_certificate(ca.pebble.intermediate_pem())]
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert abs(life - LIFE) <= timedelta(seconds=1)


def test_validation_without_waiting_for_the_slowest(ca: Ca):
    """
    With one nameserver lagging, a client that doesn't wait is refused by the CA, and one that waits for
    it is not: the waiting in certcast is worth something.
    """
    ca.dns.servers[1].lag = 0.5
    try:
        with pytest.raises(acme.errors.ValidationError):
            ca.issue()
        assert ca.issue(wait=True)
    finally:
        ca.dns.servers[1].lag = 0


def test_every_order_at_the_ca_is_counted(ca: Ca, fullchain: bytes):
    """A test can tell how many orders reached the CA, which is what its rate limits count."""
    before = ca.front.orders
    ca.issue()
    assert before + 1 == ca.front.orders


def test_some_good_nonces_are_refused_and_clients_cope(ca: Ca, fullchain: bytes):
    """Every 20th request or so is refused for its nonce, never two in a row; a stock client issues."""
    before = len(ca.front.passed)
    while (
        len(posts := [p for p in ca.front.passed[before:] if p.method == "POST"]) <= 2 * POSTS_PER_BAD_NONCE
    ):
        ca.issue()
    refused = [number for number, passed in enumerate(posts) if passed.status == 400]
    assert len(refused) >= 2
    assert all(posts[number + 1].status < 300 for number in refused if number + 1 < len(posts))


def test_no_authorization_is_reused_by_chance():
    """
    An order that pebble gives an authorization of an earlier one is held back, so that a run's number of
    challenges never depends on luck; where reuse is asked for, it is handed on.
    """
    strict, lenient = Nonces(reuse_authorizations=False), Nonces(reuse_authorizations=True)
    first, second, mixed = ["authz/1", "authz/2"], ["authz/3", "authz/4"], ["authz/5", "authz/2"]

    assert [False, False, True] == [strict.refuses_order(order) for order in (first, second, mixed)]
    assert [False, False, False] == [lenient.refuses_order(order) for order in (first, second, mixed)]


def test_no_order_is_held_back_twice_in_a_row():
    """A client that tries again once, like certbot's, gets its order even if that one was reused, too."""
    nonces = Nonces(reuse_authorizations=False)
    first, reused = ["authz/1"], ["authz/1", "authz/2"]
    answers = [nonces.refuses_order(order) for order in (first, reused, reused, reused)]
    assert [False, True, False, True] == answers


def test_reused_authorization_costs_one_more_try(ca: Ca, fullchain: bytes):
    """A stock client whose order was held back asks again and gets its certificate by one order."""
    answers: list[list[str]] = []

    class OnceReused(Nonces):
        """Takes the first order for one with a reused authorization."""

        def refuses_order(self, authorizations: Sequence[str]) -> bool:
            answers.append(list(authorizations))
            return len(answers) == 1

    ca.front._nonces, kept = OnceReused(reuse_authorizations=False), ca.front._nonces
    before = ca.front.orders
    try:
        assert ca.issue()
    finally:
        ca.front._nonces = kept
    assert 2 == len(answers)
    assert before + 1 == ca.front.orders


def test_renewal_is_suggested_at_two_thirds_of_the_life(ca: Ca, fullchain: bytes):
    """Without being told otherwise, the CA suggests what Let's Encrypt does, and to ask again in 6 hours."""
    leaf = x509.load_pem_x509_certificate(fullchain)
    renew_at, ask_again = ca.client.renewal_time(fullchain)

    assert renew_at is not None
    two_thirds = leaf.not_valid_before_utc + LIFE * 2 / 3
    assert abs(renew_at - two_thirds) <= LIFE / 100 + timedelta(seconds=2)
    # The library says it in naive local time.
    assert abs(ask_again.astimezone() - datetime.now(timezone.utc) - timedelta(hours=6)) < timedelta(
        minutes=1
    )


def test_a_window_can_be_set_for_one_certificate(ca: Ca, fullchain: bytes):
    """A window set for one certificate (an incident, in the past) is suggested for that one only."""
    other = ca.issue()
    past = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=3)
    ca.front.suggest(fullchain, Window(past, past + timedelta(hours=1), "https://lab.test/incident"))

    renew_at, _ = ca.client.renewal_time(fullchain)
    renew_other_at, _ = ca.client.renewal_time(other)

    assert renew_at is not None
    assert past <= renew_at <= past + timedelta(hours=1)
    assert renew_other_at is not None
    assert renew_other_at > datetime.now(timezone.utc)


def test_a_revoked_certificate_is_to_be_renewed_at_once(ca: Ca):
    """After a revocation the suggested window lies in the past, as Let's Encrypt does it."""
    fullchain = ca.issue()
    ca.client.revoke(x509.load_pem_x509_certificate(fullchain), 0)
    renew_at, _ = ca.client.renewal_time(fullchain)
    assert renew_at is not None
    assert renew_at < datetime.now(timezone.utc)


def test_unknown_certificates_have_no_renewal_information(ca: Ca):
    """Asking about a certificate of another CA, or about nonsense, is answered with an ACME problem."""
    foreign = Authority("elsewhere").issue("example.test").fullchain_pem
    with pytest.raises(acme.errors.ARIError):
        ca.client.renewal_time(foreign)
    assert Passed("GET", "/renewal-info/x", 404) not in ca.front.passed  # never reached the CA


EXTERNAL = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")


@pytest.fixture(params=["pebble of Debian", "current pebble"])
def program(request: pytest.FixtureRequest) -> str:
    """A pebble to run: a test that asks for it runs twice."""
    if request.param == "pebble of Debian":
        return "pebble"
    return str(request.getfixturevalue("current_pebble"))


class _Replacing(acme.messages.NewOrder):
    """The library's newOrder with RFC 9773's field, which it lacks."""

    replaces: str = josepy.field("replaces", omitempty=True)


def test_a_profile_decides_how_long_a_certificate_lives(tmp_path: Path, current_pebble: Path):
    """Each of Let's Encrypt's profiles gives its own lifetime; a profile that isn't offered is refused."""
    with contextlib.ExitStack() as stack:
        ca = Ca(tmp_path, stack, program=current_pebble, profiles=PROFILES)

        assert PROFILES.keys() == ca.client.directory.meta.profiles.keys()
        for profile, life in PROFILES.items():
            leaf = x509.load_pem_x509_certificate(ca.issue(profile=profile))
            lived = leaf.not_valid_after_utc - leaf.not_valid_before_utc
            assert abs(lived - life) <= timedelta(seconds=1)
        with pytest.raises(acme.messages.Error, match="invalidProfile"):
            ca.issue(profile="eternal")


def test_a_certificate_is_replaced_once(
    tmp_path: Path, current_pebble: Path, monkeypatch: pytest.MonkeyPatch
):
    """An order may say which certificate it replaces; once that is issued, another one is a conflict."""
    with contextlib.ExitStack() as stack:
        ca = Ca(tmp_path, stack, program=current_pebble)
        old = certificate_id(ca.issue())
        monkeypatch.setattr(acme.messages, "NewOrder", functools.partial(_Replacing, replaces=old))
        issued = ca.issued()
        assert old == ca.client._post_as_get(issued.uri).json()["replaces"]

        with pytest.raises(acme.errors.ConflictError):
            ca.issue()
        assert ("newOrder", 409) == (ca.front.asked[-1].action, ca.front.asked[-1].status)
        assert 2 == ca.front.orders


def test_an_account_needs_its_external_one(tmp_path: Path, program: str):
    """With external accounts, the right key opens one, and neither none nor a wrong one does."""
    with contextlib.ExitStack() as stack:
        accounts = dict([EXTERNAL])
        assert Ca(tmp_path / "right", stack, EXTERNAL, program=program, external_accounts=accounts)
        with pytest.raises(acme.messages.Error, match="externalAccountRequired"):
            Ca(tmp_path / "none", stack, program=program, external_accounts=accounts)
        wrong = (EXTERNAL[0], EXTERNAL[1].replace("z", "y"))
        with pytest.raises(acme.messages.Error, match=r"unauthorized|malformed"):
            Ca(tmp_path / "wrong", stack, wrong, program=program, external_accounts=accounts)


def test_a_certificate_has_alternate_chains(tmp_path: Path, program: str):
    """A certificate may be had with other chains as well, each to a root of its own."""
    with contextlib.ExitStack() as stack:
        ca = Ca(tmp_path, stack, program=program, alternate_chains=2)
        issued = ca.issued()
        chains = [issued.fullchain_pem, *issued.alternative_fullchains_pem]

        tops = [x509.load_pem_x509_certificates(pem.encode())[-1].issuer for pem in chains]
        roots = [x509.load_pem_x509_certificate(ca.pebble.root_pem(number)).subject for number in range(3)]
        assert sorted(root.rfc4514_string() for root in roots) == sorted(top.rfc4514_string() for top in tops)
        assert 3 == len({root.rfc4514_string() for root in roots})
        actions = [asked.action for asked in ca.front.asked]
        assert 3 == actions.count("certificate")


def test_pebble_can_refuse_nonces_by_chance(tmp_path: Path, program: str):
    """A CA that refuses most good nonces, as pebble can, is had for the asking."""
    with contextlib.ExitStack() as stack, pytest.raises(acme.messages.Error, match="badNonce"):
        # A stock client tries twice: hardly one in a hundred thousand gets through these five POSTs.
        Ca(tmp_path, stack, program=program, reject_nonces=99).issue()


def test_the_certificates_that_the_ca_made_are_counted(tmp_path: Path, program: str):
    """A certificate of the life that was asked for counts when it is made, downloaded or not."""
    with contextlib.ExitStack() as stack:
        ca = Ca(tmp_path, stack, program=program)
        assert (0, 0) == (ca.front.finalized, ca.front.issued)
        leaf = x509.load_pem_x509_certificate(ca.issue())
        assert abs(leaf.not_valid_after_utc - leaf.not_valid_before_utc - LIFE) <= timedelta(seconds=1)
        ca.front.faults.turn_on("not_found", action="certificate")
        with pytest.raises(acme.messages.Error):
            ca.issue()
        assert (2, 2, 2) == (ca.front.orders, ca.front.finalized, ca.front.issued)


def test_a_whole_lab_has_the_newer_pebble(tmp_path: Path, current_pebble: Path):
    """A lab can be had with the CA that knows profiles."""
    with Lab(tmp_path, pebble=current_pebble, profiles=PROFILES) as lab:
        network = acme.client.ClientNetwork(verify_ssl=str(lab.ca_file))
        with contextlib.closing(network.session):
            directory = acme.client.ClientV2.get_directory(lab.directory_url, network)
        assert PROFILES.keys() == directory.meta.profiles.keys()
        assert directory["renewalInfo"].startswith(lab.directory_url.removesuffix("/dir"))
