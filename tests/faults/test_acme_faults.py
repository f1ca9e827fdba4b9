"""Every fault of a CA by its name, through `certcast renew`: what it costs, and what the operator is told.

One day is set up once: A is published, and the CA wants it replaced, so that each run has something to
order. A story turns one fault on. Whatever it was: exit 0 or a documented error with its mail, what is
published is A or the new certificate, and no TXT record is left. Then the fault is turned off, and the next
run has the new certificate published: how many orders both have cost is counted at the CA.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from certcast.acme.ca import Ca
from certcast.config.reading import load
from certcast.release.lifetime import utc_text
from certcast_lab.acme.acme_faults import AcmeFaults, subproblem
from certcast_lab.acme.renewal_info import Asked
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.serving.authority import Authority
from journey import Done, Journey

NAMES = ("example.test", "*.example.test")
HTML = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"


@dataclass
class Day:
    """The renewal host with A published, and its CA."""

    journey: Journey
    saved: Path
    objects: dict[str, bytes] = field(default_factory=dict)
    published: str | None = None

    @property
    def lab(self) -> Lab:
        return self.journey.lab

    @property
    def faults(self) -> AcmeFaults:
        return self.lab.acme_faults

    @property
    def state(self) -> Path:
        """What the renewal host's certcast keeps."""
        return self.journey.renewal.certcast_folder

    @property
    def ca_folder(self) -> Path:
        """What it keeps of the CA: account, counts, moments to wait for."""
        (folder,) = (self.state / "acme").iterdir()
        return folder

    def drop_a_name(self) -> None:
        """Let the configuration want other names, so that an order is due whatever the CA says of A."""
        self.journey.configure(json.dumps(NAMES), json.dumps(NAMES[1:]))

    # -- runs

    def renew(self) -> Done:
        """Run `certcast renew`; whatever comes of it, no TXT record is left, and nothing was unforeseen."""
        done = self.journey.renew()
        assert "Traceback" not in done.stderr, done.stderr
        assert "DEFECT" not in done.stderr, done.stderr
        assert [] == self.lab.cloud.challenge_records()
        for report in done.stderr.split("error: ")[1:]:
            for label in ("found    ", "kept     ", "next     ", "code     "):
                assert f"\n  {label}" in report, report
        return done

    def renews(self) -> None:
        """Run it, and have the new certificate published without a word."""
        done = self.renew()
        assert (0, "") == (done.returncode, done.stderr)
        assert self.published != self.journey.published() == self.journey.live().leaf.sha256
        assert not (self.journey.issued().place / ".pending").exists()

    def fails(self, code: str, *says: str) -> str:
        """Run it, and have this one error told, on stderr and by mail; A is what is live and published."""
        self.lab.mailbox.clear()
        done = self.renew()
        assert done.returncode, "it did not fail"
        assert f"code     {code} (exit {done.returncode})" in done.stderr, done.stderr
        assert 1 == done.stderr.count("code     "), done.stderr
        for text in says:
            assert text in done.stderr, done.stderr
        mail = self.lab.mailbox.wait_for(lambda received: f"Code {code} " in received.text)
        assert "stays" in mail.text
        assert self.published == self.journey.published() == self.journey.live().leaf.sha256
        return done.stderr

    @property
    def cost(self) -> tuple[int, int]:
        """How many orders the CA has accepted, and how many certificates it has made."""
        return self.lab.renewal_info.orders, self.lab.renewal_info.issued

    @property
    def counted(self) -> list[bool]:
        """For each order that the host has counted, whether it led to a certificate."""
        orders = json.loads((self.ca_folder / "limits.json").read_text())["orders"]
        return [order["issued"] for placed in orders.values() for order in placed]

    def asked(self, action: str) -> list[Asked]:
        """What the CA was asked, and has answered."""
        return [one for one in self.lab.renewal_info.asked if one.action == action]

    def answered(self, action: str) -> list[Asked]:
        """The same, without nonces that the CA refused by chance."""
        return [one for one in self.asked(action) if one.status < 400]

    # -- the day, as it was

    def save(self) -> None:
        bucket = self.lab.cloud.bucket
        self.objects = {key: stored.body for key in bucket.keys("") if (stored := bucket.get(key))}
        self.published = self.journey.published()
        (self.ca_folder / "limits.json").unlink()
        shutil.copytree(self.state, self.saved / "state")

    def put_back(self) -> None:
        shutil.rmtree(self.state)
        shutil.copytree(self.saved / "state", self.state)
        self.journey.configure()
        for key, body in self.objects.items():
            self.lab.cloud.bucket.put(key, Stored(body, 0))
        self.lab.renewal_info.reset()
        self.journey.want_replaced()
        self.lab.dns.servers[1].work_well()


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        journey = Journey(lab)
        assert 0 == journey.renew().returncode
        day = Day(journey, tmp_path_factory.mktemp("saved"))
        day.save()
        yield day


@pytest.fixture
def day(one_day: Day) -> Day:
    one_day.put_back()
    return one_day


# -- nonces (RFC 8555, 6.5)


def test_three_bad_nonces_in_a_row_are_survived(day: Day) -> None:
    """A CA that calls three good nonces bad, at every kind of request, costs nothing but time."""
    actions = ("newOrder", "authz", "challenge", "order", "finalize", "certificate")
    for action in actions:
        day.faults.turn_on("refuse_nonces", action=action, times=3)
    day.renews()
    assert 3 * len(actions) == day.faults.consumed("refuse_nonces")
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_four_bad_nonces_in_a_row_are_an_error(day: Day) -> None:
    """The fourth is believed; nothing was ordered, so nothing is counted."""
    day.faults.turn_on("refuse_nonces", action="newOrder", times=4)
    day.fails("CA-REFUSED", "badNonce")
    assert ((0, 0), []) == (day.cost, day.counted)
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_bad_nonces_at_finalize_keep_the_order(day: Day) -> None:
    """The next run goes on with the order that was validated already."""
    day.faults.turn_on("refuse_nonces", action="finalize", times=4)
    day.fails("CA-REFUSED", "badNonce", "the order is kept")
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)
    assert 2 == len(day.answered("challenge"))


def test_an_accepted_order_without_a_nonce(day: Day) -> None:
    """An answer that lacks the next nonce is an answer: the order goes on."""
    actions = ("newOrder", "authz", "challenge", "order", "finalize")
    for action in actions:
        day.faults.turn_on("no_nonce", action=action, times=1)
    day.renews()
    assert len(actions) == day.faults.consumed("no_nonce")
    assert ((1, 1), [True]) == (day.cost, day.counted)


# -- a CA that takes its time


def test_a_ca_that_is_slow_to_issue_is_waited_for(day: Day) -> None:
    """While the order says "processing", certcast asks again, and each time a little later."""
    day.faults.turn_on("processing", times=6)
    day.renews()
    assert 6 == day.faults.consumed("processing")
    polls = [one.at for one in day.answered("order")][-7:]
    assert polls[-1] - polls[-2] > 2 * (polls[1] - polls[0])
    assert ((1, 1), [True], 1) == (day.cost, day.counted, day.lab.renewal_info.finalized)


def test_a_pause_in_seconds_is_obeyed(day: Day) -> None:
    """`Retry-After: 1` at finalize and at a poll: nothing is asked within that second."""
    day.faults.turn_on("processing", times=2, retry_after=1)
    day.renews()
    (finalize,) = day.answered("finalize")
    polls = [finalize.at, *(one.at for one in day.answered("order") if one.at > finalize.at)]
    assert 4 == len(polls)
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(polls))


def test_a_pause_as_a_date_is_obeyed(day: Day) -> None:
    """`Retry-After` as an HTTP date is read as UTC, wherever this host is."""
    day.faults.turn_on("processing")
    argv = [CERTCAST, "--config", str(day.journey.renewal.certcast_toml), "renew"]
    environment = {**os.environ, **day.lab.environment("renewal"), "TZ": "Asia/Shanghai"}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as child:
        try:
            wait_until(lambda: bool(day.asked("finalize")))
            (switch,) = day.faults._answering  # turned off and on, it would let a poll through
            told = time.monotonic()
            moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=7)
            not_before = told + (moment - datetime.now(timezone.utc)).total_seconds()
            switch.retry_after, switch.times = moment, 1
            _, stderr = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (0, "") == (child.returncode, stderr)
    assert 0 == child.returncode
    later = [one.at for one in day.answered("order") if one.at > told]
    assert 2 == len(later)
    assert later[0] < not_before <= later[1]


def test_a_pause_beyond_our_patience_ends_the_run(day: Day) -> None:
    """An hour is for the next run: it fetches the certificate that the CA has made meanwhile."""
    day.faults.turn_on("processing", retry_after=3600)
    day.fails("CA-UNREACHABLE", "the CA is still at work", "the order is kept")
    day.faults.turn_off()
    day.renews()
    assert ((1, 1), [True], 1) == (day.cost, day.counted, day.lab.renewal_info.finalized)


# -- limits


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("action", ["newOrder", "finalize"])
def test_a_rate_limit_is_remembered(day: Day, form: str, action: str) -> None:
    """429 with a moment: until then no run asks the CA for anything of this order; then one does."""
    moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    day.faults.turn_on(
        "problem", action=action, status=429, type="rateLimited", detail="too many certificates (5)",
        retry_after=3600 if form == "seconds" else moment,
    )  # fmt: skip
    day.fails("RATE-LIMITED", "too many certificates (5)", "asks to wait until ")
    requests = len(day.lab.renewal_info.passed)
    told = day.fails("RATE-LIMITED", "no order is tried", "nothing now")
    assert 1 == day.faults.consumed("problem")
    assert [] == [one for one in day.lab.renewal_info.passed[requests:] if one.method == "POST"]
    if form == "date":
        assert utc_text(moment) in told

    day.faults.turn_off()
    limits = day.ca_folder / "limits.json"
    document = json.loads(limits.read_text())
    past = utc_text(datetime.now(timezone.utc) - timedelta(seconds=1))
    limits.write_text(json.dumps({**document, "not_before": dict.fromkeys(document["not_before"], past)}))
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_a_rate_limit_without_a_moment(day: Day) -> None:
    """The CA says no more than that: the refused order is not counted, and the next run may ask."""
    day.faults.turn_on("problem", action="newOrder", times=1, status=429, type="rateLimited")
    day.fails("RATE-LIMITED", "mend what made the orders fail")
    assert [] == day.counted
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_a_busy_ca_is_waited_for_like_a_limit(day: Day) -> None:
    """503 and rateLimited, as Let's Encrypt says that it is busy: its own word that nothing was ordered."""
    day.faults.turn_on(
        "problem", action="newOrder", times=1, status=503, type="rateLimited", retry_after=3600
    )
    day.fails("RATE-LIMITED")
    assert [] == day.counted
    day.fails("RATE-LIMITED", "no order is tried")
    assert 1 == len(day.asked("newOrder"))


# -- a CA that is out of order


@pytest.mark.parametrize("action", ["directory", "newNonce", "authz", "order", "certificate"])
def test_a_passing_503_at_a_reading_is_survived(day: Day, action: str) -> None:
    """What changes nothing at the CA is asked again."""
    day.faults.turn_on("problem", action=action, times=2, status=503)
    day.renews()
    assert 2 == day.faults.consumed("problem")
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_a_503_at_new_order(day: Day) -> None:
    """It may come of a proxy behind which the order was placed: it is counted, and not repeated at once."""
    day.faults.turn_on("problem", action="newOrder", times=1, status=503)
    day.fails("CA-UNREACHABLE", "HTTP 503")
    assert 1 == len(day.asked("newOrder"))
    assert [False] == day.counted
    day.renews()
    assert ((1, 1), [False, True]) == (day.cost, day.counted)


def test_a_503_that_stays_at_finalize(day: Day) -> None:
    """The order is kept, and the run that finds the CA well again finishes it."""
    day.faults.turn_on("problem", action="finalize", status=503)
    day.fails("CA-UNREACHABLE", "the order is kept")
    day.faults.turn_off()
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_a_ca_that_answers_nothing(day: Day) -> None:
    """Every connection ends without an answer: nothing was ordered."""
    day.drop_a_name()
    day.faults.turn_on("lost_reply")
    day.fails("CA-UNREACHABLE", "cannot be reached")
    assert 0 == len(day.asked("newOrder"))
    day.faults.turn_off()
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


# -- answers that are lost on their way


def test_a_lost_reply_to_new_order_costs_one_order(day: Day) -> None:
    """
    The CA has an order whose URL nobody knows: the next run places one more, and no third. The lost one
    issued nothing, and is counted.
    """
    day.faults.turn_on("lost_reply", action="newOrder", times=1)
    day.fails("CA-UNREACHABLE")
    assert ((1, 0), [False]) == (day.cost, day.counted)
    day.renews()
    assert ((2, 1), [False, True]) == (day.cost, day.counted)


@pytest.mark.parametrize("kind", ["lost_reply", "truncated"])
@pytest.mark.parametrize("action", ["challenge", "finalize"])
def test_a_lost_reply_to_a_step_is_seen_by_polling(day: Day, action: str, kind: Any) -> None:
    """What the CA did without being heard is done: nothing is asked twice, no second certificate is made."""
    day.faults.turn_on(kind, action=action, times=2)
    day.renews()
    assert ((1, 1), [True], 1) == (day.cost, day.counted, day.lab.renewal_info.finalized)
    assert 2 == len(day.answered("challenge"))


def test_a_lost_reply_to_new_account_makes_no_second(day: Day) -> None:
    """The account is found again by its key, which was on disk before the CA saw it."""
    shutil.rmtree(day.state / "acme")
    day.faults.turn_on("lost_reply", action="newAccount", times=1)
    day.fails("CA-UNREACHABLE")
    done = day.renew()
    assert 0 == done.returncode, done.stderr
    assert [201, 200] == [one.status for one in day.answered("newAccount")]
    assert (1, 1) == day.cost


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        *(("lost_reply", action) for action in ("directory", "authz", "order", "certificate")),
        *(("truncated", action) for action in ("order", "certificate")),
        *(("drip", "certificate"), ("delay", "order")),
    ],
)
def test_a_torn_or_slow_answer_to_a_reading(day: Day, action: str, kind: Any) -> None:
    """It is asked again, or waited for."""
    day.faults.turn_on(kind, action=action, times=1, seconds={"drip": 0.0005, "delay": 0.3}.get(kind, 0.0))
    day.renews()
    assert 1 == day.faults.consumed(kind)
    assert ((1, 1), [True]) == (day.cost, day.counted)


LIST, OBJECT = ["a", "list"], {"status": 7}


@pytest.mark.parametrize(
    ("action", "body"),
    [
        *((action, HTML) for action in ("newOrder", "authz", "order", "finalize", "certificate")),
        *((action, LIST) for action in ("newOrder", "order", "certificate")),
        *((action, OBJECT) for action in ("newOrder", "authz", "finalize")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_garbage_costs_no_second_certificate(day: Day, action: str, body: object) -> None:
    """
    A 200 with something else in it is CA-ANSWER. The next run goes on with the order, or places one more if
    its URL was lost.
    """
    day.faults.turn_on("garbage", action=action, times=1, body=body)
    day.fails("CA-ANSWER", "is not what RFC 8555 describes")
    day.renews()
    orders = 2 if action == "newOrder" else 1
    assert (orders, 1) == day.cost
    assert [True] == day.counted[-1:]
    assert orders == len(day.counted)


def test_garbage_for_an_answered_challenge(day: Day) -> None:
    """What the CA says there is not needed: the order shows what became of it."""
    day.faults.turn_on("garbage", action="challenge", times=2)
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_an_accepted_order_without_its_url(day: Day) -> None:
    """Without a Location the order is lost; it is counted, and one more is placed by the next run."""
    day.faults.turn_on("no_location", action="newOrder", times=1)
    day.fails("CA-ANSWER", "Location")
    assert [False] == day.counted
    day.renews()
    assert ((2, 1), [False, True]) == (day.cost, day.counted)


# -- the directory (RFC 8555, 7.1.1)


def test_the_directory_has_moved_away(day: Day) -> None:
    """404, with a problem document or without: the report points at renewal.directory, nothing is counted."""
    day.drop_a_name()
    day.faults.turn_on("not_found", action="directory")
    day.fails("CA-REFUSED", "No such object")
    day.faults.turn_off()
    day.journey.configure(day.lab.directory_url, f"{day.lab.directory_url}/v1")
    day.fails("CA-ANSWER", "HTTP 404", "is renewal.directory an ACME directory?")
    assert (0, 0) == day.cost
    assert [] == list(day.state.glob("acme/*/limits.json"))
    day.journey.configure()
    day.renews()


def test_the_resources_have_moved(day: Day) -> None:
    """A directory that names an address where nobody listens: unreachable, by its URL."""
    day.faults.turn_on(
        "rewrite", action="directory", change=lambda body: {**body, "newOrder": "https://127.0.0.1:1/order"}
    )
    day.fails("CA-UNREACHABLE", "https://127.0.0.1:1/order")
    day.faults.turn_off()
    day.renews()
    assert (1, 1) == day.cost


def test_a_directory_without_new_order(day: Day) -> None:
    """What is missing is named; nothing was ordered."""

    def without(body: dict[str, Any]) -> dict[str, Any]:
        del body["newOrder"]
        return body

    day.drop_a_name()
    day.faults.turn_on("rewrite", action="directory", change=without)
    day.fails("CA-ANSWER", "has no newOrder: it is not an ACME directory")
    assert 0 == len(day.asked("newOrder"))


@pytest.mark.parametrize("body", [HTML, LIST], ids=["a page", "a list"])
def test_a_directory_that_is_something_else(day: Day, body: object) -> None:
    """200 and no directory: the report points at renewal.directory, and nothing was ordered."""
    day.drop_a_name()
    day.faults.turn_on("garbage", action="directory", body=body)
    day.fails("CA-ANSWER", "is renewal.directory an ACME directory?")
    day.faults.turn_off()
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


@pytest.mark.parametrize("kind", ["problem", "garbage"])
def test_renewal_information_that_fails_changes_nothing(day: Day, kind: Any) -> None:
    """What the CA doesn't say leaves our own schedule: nothing is due, nothing is told."""
    day.faults.turn_on(kind, action="renewalInfo")
    done = day.renew()
    assert (0, "") == (done.returncode, done.stderr)
    assert day.faults.consumed(kind)
    assert (0, 0) == day.cost


# -- an order that is under way


def with_a_kept_order(day: Day) -> None:
    """Let a run end before finalize."""
    day.faults.turn_on("problem", action="finalize", times=1, status=500)
    day.fails("CA-UNREACHABLE", "the order is kept")


def test_an_order_that_the_ca_has_forgotten(day: Day) -> None:
    """404 where the order was: another one is placed, in the same run."""
    with_a_kept_order(day)
    day.faults.turn_on("not_found", action="order", times=1)
    day.renews()
    assert ((2, 1), [False, True]) == (day.cost, day.counted)


def test_an_order_that_became_invalid(day: Day) -> None:
    """So it is with one that the CA has ended meanwhile."""
    with_a_kept_order(day)
    day.faults.turn_on("rewrite", action="order", times=1, change=lambda body: {**body, "status": "invalid"})
    day.renews()
    assert ((2, 1), [False, True]) == (day.cost, day.counted)


def test_a_kept_order_is_gone_on_with(day: Day) -> None:
    """Without a fault the order and what was validated count: no second order, no second validation."""
    with_a_kept_order(day)
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)
    assert 2 == len(day.answered("challenge"))


def test_an_order_that_ends_while_it_is_issued(day: Day) -> None:
    """The CA's own words for it are told; the order is given up, and the next run places another."""
    error = {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "lint says no"}

    def ended(body: dict[str, Any]) -> dict[str, Any]:
        made = body["status"] in {"processing", "valid"}
        return {**body, "status": "invalid", "error": error} if made else body

    day.faults.turn_on("rewrite", action="order", change=ended)
    day.fails("CA-REFUSED", "lint says no", "the order is given up")
    day.faults.turn_off()
    day.renews()
    assert (2, [False, True]) == (day.cost[0], day.counted)


def test_a_key_that_the_ca_does_not_take(day: Day) -> None:
    """badCSR at finalize ends the order with its key: the next run comes with another."""
    day.faults.turn_on("problem", action="finalize", times=1, status=400, type="badCSR")
    day.fails("CA-REFUSED", "choose another `key_type`")
    day.renews()
    assert ((2, 1), [False, True]) == (day.cost, day.counted)


# -- the account (RFC 8555, 7.3)


def test_a_deactivated_account(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    """ACCOUNT says so, with what to do; nothing is ordered, and no other account is made in silence."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(day.lab.ca_file))
    shutil.rmtree(day.state / "acme")
    day.faults.turn_on("problem", action="newOrder", times=1, status=400, type="rejectedIdentifier")
    assert 47 == day.renew().returncode  # it has made an account of its own
    config = load(day.journey.renewal.certcast_toml)
    assert config.renewal
    ca = Ca(
        day.lab.directory_url,
        day.state,
        config.renewal,
        clock=lambda: datetime.now(timezone.utc),
        note=lambda _: None,
    )
    from acme import messages

    ca.network().post(ca.account.uri, messages.UpdateRegistration(status="deactivated"))
    before = len(day.asked("newAccount"))
    day.fails("ACCOUNT", "docs/runbook.md#account")
    assert ((0, 0), []) == (day.cost, day.counted)
    assert before == len(day.asked("newAccount"))


def test_a_ca_that_has_forgotten_the_account(day: Day) -> None:
    """It is looked for by its key, made anew if need be, said, and the order is placed in the same run."""
    day.faults.turn_on("problem", action="newOrder", times=1, status=400, type="accountDoesNotExist")
    done = day.renew()
    assert 0 == done.returncode, done.stderr
    assert "does not know account" in done.stdout + done.stderr
    assert ((1, 1), [True]) == (day.cost, day.counted)
    assert day.published != day.journey.published()


# -- `replaces` (RFC 9773, 5)


@pytest.mark.parametrize(
    ("status", "type_"), [(409, "alreadyReplaced"), (403, "unauthorized"), (400, "malformed")]
)
def test_a_refused_replaces_is_left_out(day: Day, status: int, type_: str) -> None:
    """The same order goes once more without it; a second refusal is the order's own."""
    day.faults.turn_on("problem", action="newOrder", times=1, status=status, type=type_)
    day.renews()
    assert [status, 201] == [one.status for one in day.asked("newOrder")][:: len(day.asked("newOrder")) - 1]
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_a_replaces_is_left_out_once(day: Day) -> None:
    """A CA that refuses both is believed: nothing is ordered or counted."""
    day.faults.turn_on("problem", action="newOrder", status=409, type="alreadyReplaced")
    day.fails("CA-REFUSED", "alreadyReplaced")
    assert [409, 409] == [one.status for one in day.asked("newOrder")]
    assert [] == day.counted


# -- what the CA wants to see, and what it sends


def test_a_ca_that_offers_only_http_01(day: Day) -> None:
    """certcast validates by DNS alone, and says which challenges there were; no TXT was added."""

    def http_alone(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "challenges": [one for one in body["challenges"] if one["type"] == "http-01"]}

    # A wildcard's authorization has no other than dns-01.
    day.faults.turn_on("rewrite", action="authz", change=http_alone)
    day.fails("CA-REFUSED", "no DNS-01 challenge for example.test")
    assert 0 == day.lab.cloud.alidns.count("AddDomainRecord") - added_before(day)
    day.faults.turn_off()
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def test_an_authorization_for_another_name(day: Day) -> None:
    """A name that was not ordered gets no record, in whatever zone it is."""

    def for_another(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "identifier": {"type": "dns", "value": "another.example.test"}}

    day.faults.turn_on("rewrite", action="authz", change=for_another)
    day.fails("CA-ANSWER", "'another.example.test', which was not ordered")
    assert 0 == day.lab.cloud.alidns.count("AddDomainRecord") - added_before(day)


def added_before(day: Day) -> int:
    """How many records all runs before this one have added: two each, and all are removed."""
    return day.lab.cloud.alidns.count("DeleteDomainRecord")


ELSEWHERE = Authority("elsewhere")
BELOW = Authority("below", parent=ELSEWHERE)


def of_another_key(_: bytes, __: bytes) -> bytes:
    return BELOW.issue(*NAMES).fullchain_pem


def with_other_names(_: bytes, key: bytes) -> bytes:
    return BELOW.issue("example.test", "www.example.test", key=key).fullchain_pem


def without_its_chain(genuine: bytes, _: bytes) -> bytes:
    return genuine.split(b"-----END CERTIFICATE-----\n", 1)[0] + b"-----END CERTIFICATE-----\n"


def with_another_chain(genuine: bytes, _: bytes) -> bytes:
    return without_its_chain(genuine, b"") + BELOW.pem


def expired(_: bytes, key: bytes) -> bytes:
    now = datetime.now(timezone.utc)
    before, after = now - timedelta(days=90), now - timedelta(seconds=1)
    return BELOW.issue(*NAMES, not_before=before, not_after=after, key=key).fullchain_pem


def cut_short(genuine: bytes, _: bytes) -> bytes:
    return genuine[:500]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_another_key, "another key than the one that was ordered"),
        (with_other_names, "holds example.test, www.example.test, which was not ordered"),
        (without_its_chain, "came without its chain"),
        (with_another_chain, "the chain is broken"),
        (expired, "has expired already"),
        (cut_short, "ValueError"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_certificate_that_was_not_ordered(
    day: Day, change: Callable[[bytes, bytes], bytes], says: str
) -> None:
    """It is not stored; the next run fetches the right one from the same order."""
    pending = day.journey.issued().place / ".pending/privkey.pem"
    day.faults.turn_on(
        "rewrite", action="certificate", times=1, change=lambda body: change(body, pending.read_bytes())
    )
    day.fails("CA-ANSWER", says, "the order is kept")
    day.renews()
    assert ((1, 1), [True], 1) == (day.cost, day.counted, day.lab.renewal_info.finalized)


# -- validation and policy


def test_a_validation_that_fails_names_the_record(day: Day) -> None:
    """The name, the record that the CA looked for, and what it saw; the order is given up."""
    day.lab.dns.servers[1].lag = 3600
    day.journey.configure("[dns]\n", '[dns]\npropagation = "wait:1ms"\n')
    day.fails(
        "VALIDATION",
        "for example.test",
        "a TXT record at _acme-challenge.example.test that every nameserver shows",
        "the order is given up",
    )
    assert ((1, 0), [False]) == (day.cost, day.counted)
    day.lab.dns.servers[1].work_well()
    day.journey.configure()
    day.renews()
    assert ((2, 1), [False, True]) == (day.cost, day.counted)


@pytest.mark.parametrize("action", ["newOrder", "finalize"])
def test_a_caa_record_that_forbids_this_ca(day: Day, action: str) -> None:
    """Each name with the CA's words for it, and the look-up that shows the record."""
    day.faults.turn_on(
        "problem", action=action, status=403, type="caa", detail="2 names are forbidden",
        subproblems=[
            subproblem("example.test", "caa", "CAA record for example.test prevents issuance"),
            subproblem("www.example.test", "caa", "and for www, too"),
        ],
    )  # fmt: skip
    day.fails(
        "CA-REFUSED",
        "a CAA record forbids this CA to issue",
        "example.test: caa: CAA record for example.test prevents issuance",
        "www.example.test: caa: and for www, too",
        "`dig example.test CAA`",
    )
    day.faults.turn_off()
    day.renews()
    assert ((1, 1), [True]) == (day.cost, day.counted)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as it holds."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it never came so far"
        time.sleep(0.02)
