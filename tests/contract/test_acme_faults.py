"""The faults of the lab's CA, as a client that we did not write sees them: certbot's `acme` library.

The CA believes everything: these tests are about what arrives, not about validation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import acme.challenges
import acme.client
import acme.crypto_util
import acme.errors
import acme.messages
import josepy
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certcast_lab.acme.acme_faults import AcmeFaults, subproblem
from certcast_lab.acme.nonces import POSTS_PER_BAD_NONCE, Nonces
from certcast_lab.acme.pebble import Pebble
from certcast_lab.acme.renewal_info import RenewalInfo
from certcast_lab.lab import Lab
from certcast_lab.serving.authority import Authority

NAMES = ["example.test", "*.example.test"]


class Ca:
    """A CA that believes everything, with an account at it; `responses` is what the client received."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        authority = Authority("lab")
        pebble = Pebble(folder, authority, resolver=("127.0.0.1", 1), believes_everything=True)
        stack.callback(pebble.stop)
        # Whatever authorizations pebble gives out by chance: an order that is held back counts as two.
        self.front = RenewalInfo(pebble, authority, Nonces(reuse_authorizations=True))
        stack.callback(self.front.stop)
        trust = folder / "authority.pem"
        trust.write_bytes(authority.pem)
        self.key = josepy.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
        self.network = acme.client.ClientNetwork(
            self.key, alg=josepy.ES256, verify_ssl=str(trust), timeout=30
        )
        stack.callback(self.network.session.close)
        self.responses: list[requests.Response] = []
        self.network.session.hooks["response"].append(self._received)
        self.client = acme.client.ClientV2(self.directory(), net=self.network)
        self.client.new_account(acme.messages.NewRegistration.from_data(terms_of_service_agreed=True))

    def _received(self, response: requests.Response, **_: object) -> None:
        self.responses.append(response)

    def directory(self) -> acme.messages.Directory:
        return acme.client.ClientV2.get_directory(self.front.directory_url, self.network)

    def order(self) -> acme.messages.OrderResource:
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self.client.new_order(acme.crypto_util.make_csr(pem, NAMES))

    def ready(self) -> acme.messages.OrderResource:
        """Place an order and have it validated."""
        order = self.order()
        for authorization in order.authorizations:
            if authorization.body.status == acme.messages.STATUS_VALID:
                continue
            challenge = next(
                offered
                for offered in authorization.body.challenges
                if isinstance(offered.chall, acme.challenges.DNS01)
            )
            self.client.answer_challenge(challenge, challenge.chall.response(self.key))
        while self.status(order) == "pending":
            time.sleep(0.02)
        return order

    def issued(self) -> acme.messages.OrderResource:
        """Have a certificate made, and don't download it."""
        order = self.ready()
        self.client.begin_finalization(order)
        while self.status(order) != "valid":
            time.sleep(0.02)
        return order

    def status(self, order: acme.messages.OrderResource) -> str:
        """Poll the order once."""
        status: str = self.poll(order)["status"]
        return status

    def poll(self, order: acme.messages.OrderResource) -> Any:
        return self.client._post_as_get(order.uri).json()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ca]:
    with contextlib.ExitStack() as stack:
        yield Ca(tmp_path_factory.mktemp("ca"), stack)


@pytest.fixture
def ca(running: Ca) -> Ca:
    """The CA without faults, its counters at zero, and a client that has no nonces left."""
    running.front.reset()
    running.front._nonces.refused_otherwise()
    running.network._nonces.clear()
    running.responses.clear()
    return running


@pytest.fixture
def faults(ca: Ca) -> AcmeFaults:
    return ca.front.faults


def test_a_problem_is_answered_without_the_ca(ca: Ca, faults: AcmeFaults):
    """A named action is refused with the document that a test chose, once; the CA hears nothing of it."""
    faults.turn_on(
        "problem", action="newOrder", times=1, status=403, type="rejectedIdentifier", detail="not these",
        subproblems=[subproblem("example.test", "caa", "CAA forbids it")],
    )  # fmt: skip

    with pytest.raises(acme.messages.Error) as refused:
        ca.order()

    assert ("rejectedIdentifier", "not these") == (refused.value.code, refused.value.detail)
    (part,) = refused.value.subproblems or ()
    assert ("caa", "example.test") == (part.code, part.identifier.value if part.identifier else None)
    assert 403 == ca.responses[-1].status_code
    assert 0 == ca.front.orders
    assert ca.order().uri
    assert (1, 1) == (ca.front.orders, faults.consumed("problem"))


def test_retry_after_comes_in_seconds_or_as_a_date(ca: Ca, faults: AcmeFaults):
    """A rate limit says when to come back in either form of HTTP, or not at all."""
    moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    seen = []
    for retry_after in (3600, moment, None):
        faults.turn_on(
            "problem", action="newOrder", times=1, status=429, type="rateLimited", retry_after=retry_after
        )
        with pytest.raises(acme.messages.Error, match="rateLimited"):
            ca.order()
        seen.append(ca.responses[-1].headers.get("Retry-After"))

    assert ["3600", None] == [seen[0], seen[2]]
    assert moment == parsedate_to_datetime(str(seen[1]))
    assert str(seen[1]).endswith(" GMT")


def test_the_next_nonces_of_an_action_are_refused(ca: Ca, faults: AcmeFaults):
    """A client that tries again is served after one refusal, and has a nonce for each try; two end it."""
    faults.turn_on("refuse_nonces", action="newOrder", times=1)
    assert ca.order().uri

    faults.turn_on("refuse_nonces", action="newOrder", times=2)
    with pytest.raises(acme.messages.Error, match="badNonce"):
        ca.order()

    refused = [response for response in ca.responses if response.status_code == 400]
    assert 3 == len(refused) == len({response.headers["Replay-Nonce"] for response in refused})
    assert 1 == ca.front.orders


def test_no_fault_is_used_up_by_chance(ca: Ca, faults: AcmeFaults):
    """The refusal of each 20th nonce neither meets a fault nor follows one: a client's two tries suffice."""
    order = ca.order()
    faults.turn_on("refuse_nonces", action="order", times=1)
    ca.front._nonces._posts = POSTS_PER_BAD_NONCE - 1
    assert ca.poll(order)["status"]

    faults.turn_on("lost_reply", action="order", times=1)
    ca.front._nonces._posts = POSTS_PER_BAD_NONCE - 1
    with pytest.raises(requests.ConnectionError):
        ca.poll(order)
    assert [400, 200, 400, 200] == [a.status for a in ca.front.asked if a.action == "order"]


def test_an_order_is_not_found(ca: Ca, faults: AcmeFaults):
    """An order that the CA has forgotten is answered with 404 and a problem document."""
    order = ca.order()
    faults.turn_on("not_found", action="order", times=1)

    with pytest.raises(acme.messages.Error, match="No such object"):
        ca.poll(order)

    assert 404 == ca.responses[-1].status_code
    assert 200 == ca.client._post_as_get(order.uri).status_code


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_an_issued_order_says_processing_for_some_polls(ca: Ca, faults: AcmeFaults, form: str):
    """Finalize and the polls after it say "processing", though the certificate is made."""
    moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=2)
    retry_after = {"seconds": 2, "date": moment, "none": None}[form]
    faults.turn_on("processing", times=3, retry_after=retry_after)
    order = ca.ready()
    assert 0 == faults.consumed("processing")

    finalized = ca.client.begin_finalization(order)
    while not ca.front.issued:
        time.sleep(0.02)
    polls = [ca.poll(order) for _ in range(3)]

    assert {"processing"} == {finalized.body.status.name, *(poll["status"] for poll in polls)}
    assert not any("certificate" in poll for poll in polls)
    said = ca.responses[-1].headers.get("Retry-After")
    if isinstance(retry_after, datetime):
        assert moment == parsedate_to_datetime(str(said))
    else:
        assert said == (None if retry_after is None else "2")
    assert "valid" == ca.status(order)
    assert (1, 1) == (ca.front.finalized, ca.front.issued)


def test_an_accepted_order_comes_without_a_nonce(ca: Ca, faults: AcmeFaults):
    """The CA has the order, and the stock client ends for want of a nonce."""
    faults.turn_on("no_nonce", action="newOrder", times=1)
    with pytest.raises(acme.errors.MissingNonce):
        ca.order()
    assert 1 == ca.front.orders


def test_an_accepted_order_comes_without_its_url(ca: Ca, faults: AcmeFaults):
    """The CA has the order, and its answer doesn't say where."""
    faults.turn_on("no_location", action="newOrder", times=1)
    assert ca.order().uri is None
    assert 1 == ca.front.orders


@pytest.mark.parametrize("body", [b"<html>not a CA</html>", ["a", "list"], {"status": 7}])
def test_garbage_comes_in_place_of_the_answer(ca: Ca, faults: AcmeFaults, body: object):
    """A 200 with a web page, or with JSON of another form, arrives after the CA has accepted the order."""
    faults.turn_on("garbage", action="newOrder", times=1, body=body)

    with pytest.raises(acme.errors.MissingNonce):
        ca.order()

    seen = ca.responses[-1]
    assert 200 == seen.status_code
    assert body == (seen.content if isinstance(body, bytes) else seen.json())
    assert 1 == ca.front.orders


def test_the_body_of_an_answer_is_rewritten(ca: Ca, faults: AcmeFaults):
    """A test changes JSON as JSON and a certificate as its bytes; headers come through."""
    order = ca.ready()
    faults.turn_on("rewrite", action="order", change=lambda body: {**body, "status": "invalid"})
    assert "invalid" == ca.status(order)
    assert "Replay-Nonce" in ca.responses[-1].headers
    faults.turn_off("rewrite")

    ca.client.begin_finalization(order)
    while (body := ca.poll(order))["status"] != "valid":
        time.sleep(0.02)
    faults.turn_on("rewrite", action="certificate", times=1, change=lambda pem: pem[:40])
    assert 40 == len(ca.client._post_as_get(body["certificate"]).content)
    assert x509.load_pem_x509_certificates(ca.client._post_as_get(body["certificate"]).content)


def test_the_directory_moves(ca: Ca, faults: AcmeFaults):
    """A directory that names other URLs, or none, is what the client reads."""
    faults.turn_on(
        "rewrite", action="directory", times=1, change=lambda body: {**body, "newOrder": "https://moved.test"}
    )
    assert "https://moved.test" == ca.directory()["newOrder"]
    faults.turn_on("problem", action="directory", times=1, status=503, retry_after=120)
    with pytest.raises(acme.messages.Error, match="serverInternal"):
        ca.directory()
    assert "120" == ca.responses[-1].headers["Retry-After"]


def test_a_lost_reply_leaves_its_effect(ca: Ca, faults: AcmeFaults):
    """The connection closes after the CA has done it: the order is placed, the certificate made."""
    order = ca.ready()
    for action, request in (
        ("newOrder", ca.order),
        ("finalize", lambda: ca.client.begin_finalization(order)),
    ):
        faults.turn_on("lost_reply", action=action, times=1)
        with pytest.raises(requests.ConnectionError):
            request()

    assert (2, 1) == (ca.front.orders, ca.front.finalized)
    while ca.status(order) != "valid":
        time.sleep(0.02)
    assert (1, 1, 2) == (ca.front.finalized, ca.front.issued, faults.consumed("lost_reply"))


def test_an_answer_is_torn_changed_or_slow_on_its_way(ca: Ca, faults: AcmeFaults):
    """Half a body, a flipped bit, and a reply that comes late or byte by byte: of the named action only."""
    url = ca.poll(ca.issued())["certificate"]
    whole = ca.client._post_as_get(url).content

    faults.turn_on("truncated", action="certificate", times=1)
    with pytest.raises(requests.exceptions.RequestException):
        ca.client._post_as_get(url)

    faults.turn_on("flipped", action="certificate", times=1)
    flipped = ca.client._post_as_get(url).content
    assert 1 == sum(one != other for one, other in zip(whole, flipped, strict=True))

    for kind, seconds in (("delay", 0.3), ("drip", 0.0001)):
        faults.turn_on(kind, action="certificate", times=1, seconds=seconds)  # type: ignore[arg-type]
        before = time.monotonic()
        assert whole == ca.client._post_as_get(url).content
        assert time.monotonic() - before >= min(seconds, 0.3)
        assert 1 == faults.consumed(kind)  # type: ignore[arg-type]


def test_every_action_is_known_by_its_name(ca: Ca):
    """A test names what the client asked by RFC 8555's words, whatever URLs the CA has chosen."""
    order = ca.issued()
    pem = ca.client._post_as_get(ca.poll(order)["certificate"]).text
    ca.client.renewal_time(pem.encode())
    ca.client.revoke(x509.load_pem_x509_certificate(pem.encode()), 0)
    account = ca.network.account
    assert account is not None
    ca.client.update_registration(account)
    directory = ca.directory()
    with pytest.raises(acme.messages.Error):
        ca.client._post(directory["keyChange"], acme.messages.Registration())

    actions = {asked.action for asked in ca.front.asked}
    assert actions == {
        "directory", "newNonce", "newAccount", "account", "newOrder", "order", "authz", "challenge",
        "finalize", "certificate", "revokeCert", "keyChange", "renewalInfo",
    }  # fmt: skip


def test_renewal_information_fails_as_any_action(ca: Ca, faults: AcmeFaults):
    """What the proxy itself answers has the same faults."""
    pem = Authority("elsewhere").issue("example.test").fullchain_pem
    faults.turn_on("problem", action="renewalInfo", times=1, status=503)
    with pytest.raises(acme.errors.ARIError):
        ca.client.renewal_time(pem)
    assert 503 == ca.responses[-1].status_code


def test_a_reset_turns_all_off(lab: Lab):
    """After `lab.reset()` no fault is on, nothing has been consumed, and the counters are at zero."""

    def directory() -> requests.Response:
        return requests.get(lab.directory_url, verify=str(lab.ca_file), timeout=30)

    lab.acme_faults.turn_on("problem", action="directory")
    assert 500 == directory().status_code
    lab.acme_faults.turn_on("lost_reply")
    with pytest.raises(requests.ConnectionError):
        directory()
    assert 2 == lab.acme_faults.consumed("problem")

    lab.reset()

    assert directory().json()["newOrder"]
    assert (0, 0) == (lab.acme_faults.consumed("problem"), lab.acme_faults.consumed("lost_reply"))
    assert (0, 0, 0) == (lab.renewal_info.orders, lab.renewal_info.finalized, lab.renewal_info.issued)


def test_there_is_no_fault_without_a_name():
    """A misspelt fault is refused with the names that there are."""
    with pytest.raises(ValueError, match=r"no such fault: 'proces'; there are .*delay.*processing"):
        AcmeFaults().turn_on("proces")  # type: ignore[arg-type]
