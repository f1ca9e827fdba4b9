"""What a CA's refusal means, in an operator's words."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from josepy.errors import DeserializationError

from certcast.acme.protocol.answers import NoAnswer, Problem, Subproblem
from certcast.acme.protocol.problems import explained, not_validated, refused
from certcast.report.errors import (
    AccountUnusable,
    CaAnswerInvalid,
    CaRefused,
    CaUnreachable,
    CertcastError,
    OrderCapReached,
    RateLimited,
    RenewalError,
)

UNTIL = datetime(2026, 11, 24, 1, 0, tzinfo=timezone.utc)

# RFC 8555, 6.7, and RFC 9773, 7.4; invalidProfile is of draft-ietf-acme-profiles.
TYPES = (
    *("accountDoesNotExist", "alreadyReplaced", "alreadyRevoked", "badCSR", "badNonce", "badPublicKey"),
    *("badRevocationReason", "badSignatureAlgorithm", "caa", "compound", "connection", "dns"),
    *("externalAccountRequired", "incorrectResponse", "invalidContact", "invalidProfile", "malformed"),
    *("orderNotReady", "rateLimited", "rejectedIdentifier", "serverInternal", "tls", "unauthorized"),
    *("unsupportedContact", "unsupportedIdentifier", "userActionRequired"),
)
# Those that certcast answers itself, or that no operator can do more about than read them.
READ_IT = {
    "alreadyRevoked",
    "badNonce",
    "compound",
    "malformed",
    "orderNotReady",
    "tls",
    "alreadyReplaced",
    "userActionRequired",
}


def of(type_: str, *, status: int = 400, **given: object) -> RenewalError:
    return refused("example.test", "placing the order", Problem(status, type_, "its own words", **given))  # type: ignore[arg-type]  # fields of Problem


@pytest.mark.parametrize("type_", TYPES)
def test_each_problem_has_words_and_a_next_step(type_: str) -> None:
    """Whatever the CA refuses: the certificate, the CA's words, what it means, and what to do."""
    error = of(type_)
    assert error.what.startswith("example.test: ")
    assert f"{type_}: its own words (HTTP 400, placing the order)" == error.found
    assert error.next
    assert "stays" in (error.kept or "")
    assert (type_ in READ_IT) == (error.next == "read what it says, then run again")


def test_a_problem_of_another_kind_is_shown_as_it_came() -> None:
    """A CA's own type is a refusal with its words."""
    error = of("about:blank")
    assert isinstance(error, CaRefused)
    assert "about:blank: its own words" in (error.found or "")


@pytest.mark.parametrize(
    ("type_", "status", "kind"),
    [
        ("caa", 403, CaRefused),
        ("badCSR", 400, CaRefused),
        ("serverInternal", 500, CaUnreachable),
        ("", 502, CaUnreachable),
        ("", 404, CaAnswerInvalid),
        ("accountDoesNotExist", 400, AccountUnusable),
        ("externalAccountRequired", 400, AccountUnusable),
        ("unauthorized", 403, AccountUnusable),
        ("rateLimited", 429, RateLimited),
        ("rateLimited", 400, RateLimited),
    ],
)
def test_what_is_to_be_done_decides_the_code(type_: str, status: int, kind: type[CertcastError]) -> None:
    """The account, the CA's limits, its being away, or the request: each has a code and a runbook heading."""
    assert type(of(type_, status=status)) is kind


@pytest.mark.parametrize(("type_", "status"), [("rateLimited", 429), ("", 429), ("", 503)])
def test_a_moment_to_wait_for_is_shown(type_: str, status: int) -> None:
    """The operator reads until when nothing is to be done at all."""
    error = of(type_, status=status, retry_after=UNTIL)
    assert isinstance(error, RateLimited)
    assert "the CA asks to wait until 2026-11-24T01:00:00Z" in error.what
    assert "nothing now" in (error.next or "")


def test_a_limit_without_a_moment_says_what_to_mend() -> None:
    """Where the CA names none, the next step is what made the orders fail."""
    error = of("rateLimited", status=429)
    assert "mend" in (error.next or "")
    assert "None" not in error.report()


def test_each_name_of_a_refused_order_is_shown() -> None:
    """Which of twenty names the CA does not issue for is in the report, line by line."""
    error = of(
        "malformed",
        subproblems=(
            Subproblem("rejectedIdentifier", "on a block list", "bank.test"),
            Subproblem("caa", "forbidden"),
        ),
    )
    lines = (error.found or "").splitlines()
    assert ["bank.test: rejectedIdentifier: on a block list", "caa: forbidden"] == lines[1:]


# -- a failed validation


@pytest.mark.parametrize(
    ("type_", "meaning"),
    [
        ("dns", "look-up failed"),
        ("caa", "CAA"),
        ("unauthorized", "did not find"),
        ("incorrectResponse", "expected value"),
        ("connection", "nameservers"),
        ("unheardOf", "did not validate"),
    ],
)
def test_a_failed_validation_names_the_record(type_: str, meaning: str) -> None:
    """Which name, which record the CA looked for, what it saw, and what to do."""
    failed = [Subproblem(type_, "NXDOMAIN looking up TXT", "a.example.test")]
    error = not_validated("example.test", failed, kept="the order is given up")
    assert "VALIDATION" == error.code
    report = error.report()
    assert meaning in error.what
    assert "a.example.test" in error.what
    assert "a TXT record at _acme-challenge.a.example.test" in report
    assert f"a.example.test: {type_}: NXDOMAIN looking up TXT" in report
    assert "then run `certcast renew example.test`" in report
    assert "the order is given up" in report


def test_each_name_that_failed_is_in_the_report_once() -> None:
    """Apex and wildcard share a name: it is named once, and what the CA saw for each is shown."""
    failed = [
        Subproblem("dns", "SERVFAIL", "example.test"),
        Subproblem("dns", "SERVFAIL again", "example.test"),
        Subproblem("caa", "forbidden", "b.test"),
    ]
    error = not_validated("example.test", failed, kept="")
    assert error.what.endswith("for example.test, b.test")
    assert 3 == len((error.found or "").splitlines())


def test_a_caa_record_is_shown_by_a_command_to_copy() -> None:
    """`dig` asks for the name that failed, not for a word that stands for it."""
    forbidden = Subproblem("caa", "forbidden", "b.test")
    for error in (
        not_validated("example.test", [forbidden], kept=""),
        of("caa", subproblems=(Subproblem("caa", "some names"), forbidden)),
    ):
        assert "`dig b.test CAA`" in (error.next or "")
    assert "`dig example.test CAA`" in (of("caa").next or "")


# -- what else ends a step


def test_no_answer_is_a_ca_that_cannot_be_reached() -> None:
    """The message says what was being done, and that the next run goes on."""
    with pytest.raises(CaUnreachable) as caught, explained("example.test", "placing the order"):
        raise NoAnswer("https://ca.test/order", "connection refused")
    assert "https://ca.test/order: connection refused (placing the order)" == caught.value.found
    assert "renewal.directory" in (caught.value.next or "")


def test_a_ca_that_is_not_trusted_hints_at_the_clock() -> None:
    """The usual reason is this host's own clock: the next step says so."""
    with pytest.raises(CaUnreachable) as caught, explained("example.test", "placing the order"):
        raise NoAnswer("https://ca.test", "certificate verify failed: certificate is not yet valid")
    assert "timedatectl" in (caught.value.next or "")


@pytest.mark.parametrize(
    "stumble",
    [
        ValueError("no list of authorizations"),
        KeyError("status"),
        TypeError("x"),
        AttributeError("x"),
        OverflowError("x"),
        RecursionError("x"),
        DeserializationError("x"),
    ],
)
def test_an_answer_that_is_not_acme_is_no_traceback(stumble: Exception) -> None:
    """Whatever the library stumbles over is an error with a code, and what is kept is said."""
    with (
        pytest.raises(CaAnswerInvalid) as caught,
        explained("example.test", "issuing", kept="the order is kept"),
    ):
        raise stumble
    assert type(stumble).__name__ in (caught.value.found or "")
    assert "the order is kept" == caught.value.kept


def test_our_own_errors_pass_through() -> None:
    """A cap or a full disk is not the CA's fault, and is not called that."""
    ours = OrderCapReached("example.test: 2 orders in the last 24 hours")
    with pytest.raises(OrderCapReached) as caught, explained("example.test", "placing the order"):
        raise ours
    assert ours is caught.value
