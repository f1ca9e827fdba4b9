"""What comes back from a CA: its Retry-After, its problem documents in any form, and what they mean."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from josepy.errors import DeserializationError
from requests import Response
from stamina import set_testing

from certcast.acme.protocol.answers import (
    NoAnswer,
    Problem,
    Subproblem,
    ask_patiently,
    explain,
    explain_failures,
    explained,
    json_object,
    require_success,
    retry_after,
)
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
from drawing import LATIN_1, for_all

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
URN = "urn:ietf:params:acme:error:"


def answer(body: bytes | Any = b"", *, status: int = 400, **headers: str) -> Response:
    response = Response()
    response.status_code = status
    response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def waits(text: str) -> datetime | None:
    return retry_after(answer(Retry_After=text), NOW)


def problem(body: bytes | Any, **given_: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        require_success(answer(body, **given_), NOW)
    return caught.value


# -- Retry-After (RFC 9110, 10.2.3)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("1", 1), (" 3600 ", 3600), ("000000090", 90)])
def test_seconds_are_counted_from_now(text: str, seconds: int) -> None:
    """A CA that says "in an hour" is asked in an hour."""
    assert NOW + timedelta(seconds=seconds) == waits(text)


@pytest.mark.parametrize(
    "text",
    [
        format_datetime(NOW + HOUR, usegmt=True),
        "Mon, 23 Nov 2026 21:00:00 +0800",
        "Mon, 23 Nov 2026 13:00:00 -0000",
        "Monday, 23-Nov-26 13:00:00 GMT",
        "Mon Nov 23 13:00:00 2026",
    ],
)
def test_a_date_is_that_moment_in_utc(text: str) -> None:
    """Each form of an HTTP date is read as the CA means it: without a zone it is UTC, never local time."""
    assert NOW + HOUR == waits(text)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1.5", "1e9", "٣", "1234567890", "12 13", "Mon, 99 Nov 2026 99:00:00 GMT"]
)
def test_rubbish_is_no_moment(text: str) -> None:
    """What is neither seconds nor a date is as if the CA had said nothing; ten digits are 30 years."""
    assert waits(text) is None


@pytest.mark.parametrize("text", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_ca_silences_a_host_longer_than_its_limits(text: str) -> None:
    """Let's Encrypt's longest limit is one of a week: a later moment is taken for eight days."""
    assert NOW + timedelta(days=8) == waits(text)


def test_an_answer_without_the_header_asks_for_nothing() -> None:
    """No Retry-After, no waiting."""
    assert retry_after(answer(), NOW) is None


_DATE = r"[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{1,5} [0-9:.]{3,10} ([A-Z]{3}|[+-][0-9]{4,20})"


def test_no_header_stumbles(request: pytest.FixtureRequest) -> None:
    """Whatever is in it: a moment of the next eight days or of the past, or None."""

    def holds(text: str) -> None:
        found = waits(text)
        assert found is None or found <= NOW + timedelta(days=8)

    for_all(request, st.text(LATIN_1, max_size=40) | st.from_regex(_DATE, fullmatch=True), holds)


def test_the_last_hour_of_the_calendar_is_no_traceback() -> None:
    """A date that is none in UTC any more is as if the CA had said nothing."""
    assert waits("Fri, 31 Dec 9999 23:59:59 -0100") is None


# -- problem documents (RFC 8555, 6.7)


def test_a_problem_is_kept_with_its_words() -> None:
    """Type, detail, status and the moment to wait for are what the CA said."""
    found = problem(
        {"type": f"{URN}rateLimited", "detail": "too many certificates"}, status=429, Retry_After="3600"
    )
    assert (429, "rateLimited", "too many certificates") == (found.status, found.type, found.detail)
    assert NOW + HOUR == found.retry_after
    assert "rateLimited: too many certificates" == str(found)


def test_each_name_keeps_its_own_problem() -> None:
    """Of an order with several names the operator learns which one it was."""
    found = problem(
        {
            "type": f"{URN}malformed",
            "detail": "some of the identifiers",
            "subproblems": [
                {
                    "type": f"{URN}caa",
                    "detail": "forbidden",
                    "identifier": {"type": "dns", "value": "a.test"},
                },
                {"type": f"{URN}dns", "detail": "SERVFAIL"},
            ],
        }
    )
    assert (Subproblem("caa", "forbidden", "a.test"), Subproblem("dns", "SERVFAIL")) == found.subproblems


def test_a_type_of_another_kind_is_shown_as_it_came() -> None:
    """about:blank, or a CA's own: nothing of it is lost."""
    assert "about:blank: go away" == str(problem({"type": "about:blank", "detail": "go away"}))


@pytest.mark.parametrize(
    "body", [b"", b"<html>502 Bad Gateway</html>", b"\xff\xfe\x00", b"[]", b"3", b"null", b"[" * 100_000]
)
def test_a_refusal_without_a_document_is_a_problem_too(body: bytes) -> None:
    """A proxy's page before the CA is told by its status."""
    found = problem(body, status=502)
    assert (502, "") == (found.status, found.type)
    assert "HTTP 502 without a problem document" == str(found)


@pytest.mark.parametrize("field", ["type", "detail", "subproblems"])
@pytest.mark.parametrize("odd", [None, 3, True, [], {}, [None], ["x"], [[]], {"a": 1}])
def test_a_field_of_another_kind_is_as_if_it_were_absent(field: str, odd: Any) -> None:
    """One odd field costs the others nothing."""
    found = problem({"type": f"{URN}caa", "detail": "no", "subproblems": [], field: odd})
    assert isinstance(found.type, str)
    assert isinstance(found.detail, str)
    assert () == tuple(one for one in found.subproblems if not isinstance(one, Subproblem))
    assert str(found) or not found.type


def test_a_long_document_fills_no_mail() -> None:
    """A hundred names and a thousand signs of each are shown at the most."""
    one = {"type": "x" * 5000, "detail": "y" * 5000, "identifier": {"value": "z" * 5000}}
    found = problem({**one, "subproblems": [one] * 500})
    assert 100 == len(found.subproblems)
    assert 1000 == len(found.detail) == len(found.subproblems[0].name)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(LATIN_1, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "detail", "subproblems", "identifier", "value", "status", ""]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def test_any_answer_is_a_problem_with_words(request: pytest.FixtureRequest) -> None:
    """Whatever a CA says against a request: texts, or the absence of them, and never a traceback."""

    def holds(body: bytes) -> None:
        found = problem(body)
        assert str(found)
        texts = [
            found.type,
            found.detail,
            *(text for one in found.subproblems for text in vars(one).values()),
        ]
        assert all(isinstance(text, str) for text in texts)

    for_all(request, _ANY.map(lambda found: json.dumps(found).encode()) | st.binary(max_size=60), holds)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_good_answer_is_returned_as_it_is(status: int) -> None:
    """2xx is no problem, whatever it says."""
    good = answer(b"anything", status=status)
    assert good is require_success(good, NOW)


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"nul", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_object_is_a_value_error(body: bytes) -> None:
    """The one kind of exception that a caller has to expect of an answer of another form."""
    with pytest.raises(ValueError, match=r"."):
        json_object(answer(body, status=200))


# -- patience


def asked_until(*results: Exception | str) -> tuple[str | Exception, int]:
    """What `patiently` ends with where a CA answers like this, in turn; and how often it has asked."""
    asked = 0

    def ask() -> str:
        nonlocal asked
        asked += 1
        result = results[min(asked, len(results)) - 1]
        if isinstance(result, Exception):
            raise result
        return result

    set_testing(True, attempts=100, cap=True)
    try:
        return ask_patiently(ask), asked
    except (Problem, NoAnswer) as failure:
        return failure, asked
    finally:
        set_testing(False)


LOST = NoAnswer("https://ca.test", "connection reset")
DOWN = Problem(503, "", "maintenance")


def test_a_passing_failure_is_asked_again() -> None:
    """A connection that was cut and a 5xx are asked again, up to four times in all."""
    assert ("here", 3) == asked_until(LOST, DOWN, "here")
    assert (DOWN, 4) == asked_until(DOWN)


@pytest.mark.parametrize(
    "refusal",
    [
        Problem(403, "unauthorized", "no"),
        Problem(429, "rateLimited", "later"),
        Problem(503, "", "later", retry_after=NOW + HOUR),
    ],
)
def test_a_word_of_the_ca_is_not_asked_again(refusal: Problem) -> None:
    """What the CA has refused, or put off to a moment that it names, is not tried once more in a second."""
    assert (refusal, 1) == asked_until(refusal)


# -- to an operator

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
    return explain("example.test", "placing the order", Problem(status, type_, "its own words", **given))  # type: ignore[arg-type]  # fields of Problem


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
    error = explain_failures("example.test", failed, kept="the order is given up")
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
    error = explain_failures("example.test", failed, kept="")
    assert error.what.endswith("for example.test, b.test")
    assert 3 == len((error.found or "").splitlines())


def test_a_caa_record_is_shown_by_a_command_to_copy() -> None:
    """`dig` asks for the name that failed, not for a word that stands for it."""
    forbidden = Subproblem("caa", "forbidden", "b.test")
    for error in (
        explain_failures("example.test", [forbidden], kept=""),
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
