"""Answers of a CA, and their meaning to an operator.

    Response   2xx, whole
    Problem    the CA's problem document (RFC 8555, 6.7)
                   rateLimited, 429, 503 + Retry-After    → RateLimited, and limits.py keeps the moment
                   accountDoesNotExist, unauthorized …    → AccountUnusable
                   dns, unauthorized, caa … of a name     → ValidationFailed: name, record, what the CA saw
                   5xx                                    → CaUnreachable
                   4xx without a problem document         → CaAnswerInvalid
                   anything else, unknown types included  → CaRefused
    NoAnswer   no complete answer: the CA may have done what it was asked → CaUnreachable

Not here: the `acme` library (network.py). Renewal information is read without the cost of its import.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from certcast.host import clock
from certcast.release.lifetime import utc_text
from certcast.report.errors import (
    AccountUnusable,
    CaAnswerInvalid,
    CaRefused,
    CaUnreachable,
    RateLimited,
    RenewalError,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import Response

    from certcast.host.transport import Cutter

T = TypeVar("T")

_URN = "urn:ietf:params:acme:error:"
# Let's Encrypt's limits are for 7 days at most, and so are its waits.
_LONGEST_WAIT = timedelta(days=8)
# By the type of a problem: what it means, and the next step.
_ADVICE = {
    "caa": (
        "a CAA record forbids this CA to issue",
        "`dig NAME CAA`: it must allow this CA; `certcast check` shows the account's URL for accounturi",
    ),
    "dns": (
        "the CA's DNS look-up failed",
        "see whether the zone's nameservers answer from outside, and whether its DNSSEC is whole",
    ),
    "incorrectResponse": (
        "the TXT record that the CA saw does not have the expected value",
        'other regions of the DNS provider may be later: raise "settle" in [dns]',
    ),
    "unauthorized": (
        "the CA did not find the expected TXT value",
        'other regions of the DNS provider may be later: raise "settle" in [dns]',
    ),
    "connection": ("the CA could not reach the nameservers", "see whether they answer from outside"),
    "rejectedIdentifier": ("the CA does not issue for this name", "see the CA's policy, or another name"),
    "unsupportedIdentifier": ("the CA does not issue for this kind of name", "take it out of `names`"),
    "invalidProfile": ("the CA has no such profile", "choose another `profile`, or none"),
    "badCSR": ("the CA does not take this key", "choose another `key_type`"),
    "badPublicKey": ("the CA does not take this key", "choose another `key_type`"),
    "badRevocationReason": ("the CA does not take this reason", "give another --reason"),
    "serverInternal": ("the CA has a failure of its own", "run again later; the timer does"),
    "": (
        "an answer that is not ACME's",
        "is renewal.directory an ACME directory? A proxy on the way may have answered, too",
    ),
    "userActionRequired": ("the CA waits for an action of yours", "read what it says, then run again"),
}
_ACCOUNT = {
    "accountDoesNotExist": "the CA does not know this account",
    "externalAccountRequired": "the CA wants an external account",
    "invalidContact": "the CA does not take renewal.email",
    "unsupportedContact": "the CA does not take renewal.email",
    "badSignatureAlgorithm": "the CA does not take the account's kind of key",
}
_KEPT = "what is published and served stays"


class NoAnswer(Exception):
    """No complete answer came from `url`; the request may have been carried out."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url}: {why}")
        self.url = url


@dataclass(frozen=True)
class Subproblem:
    """One name's share in a problem (RFC 8555, 6.7.1); `name` is empty where the CA names none."""

    type: str
    detail: str
    name: str = ""

    def __str__(self) -> str:
        return (f"{self.name}: " if self.name else "") + f"{self.type}: {self.detail}"


class Problem(Exception):
    """The CA's refusal: `type` without its URN, `retry_after` as an aware datetime."""

    def __init__(
        self,
        status: int,
        type_: str,
        detail: str,
        *,
        subproblems: tuple[Subproblem, ...] = (),
        retry_after: datetime | None = None,
    ) -> None:
        super().__init__(": ".join(filter(None, (type_, detail))) or "a problem document without words")
        self.status = status
        self.type = type_
        self.detail = detail
        self.subproblems = subproblems
        self.retry_after = retry_after


# -- from the wire


@contextmanager
def whole_answer(cutter: Cutter, url: str, seconds: float) -> Iterator[None]:
    """Raise NoAnswer if the block, which asks `url`, has no whole answer after so many seconds."""
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    from certcast.host.transport import reason

    try:
        with cutter.within(seconds):
            yield
    except (RequestException, HTTPError, OSError, ValueError) as error:
        if not cutter.has_cut:
            raise NoAnswer(url, reason(error)) from None
    # A connection that was cut looks broken, and may look like a complete answer.
    if cutter.has_cut:
        raise NoAnswer(url, f"no complete answer within {seconds:g} s")


def require_success(response: Response, now: datetime) -> Response:
    """Return a 2xx as it is. Raises Problem for anything else."""
    if 200 <= response.status_code < 300:
        return response
    raise _problem(response, now)


def ask_patiently(ask: Callable[[], T]) -> T:
    """Return what `ask` returns; ask again after NoAnswer or a 5xx. For what changes nothing at the CA."""
    import logging

    import stamina

    # Their warnings would reach cron's mail from a run that went well.
    for noisy in ("stamina", "urllib3.connection"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    for attempt in stamina.retry_context(
        on=_is_passing, attempts=4, timeout=60.0, wait_initial=0.2, wait_max=5.0, wait_jitter=0.2
    ):
        with attempt:
            return ask()
    raise AssertionError("unreachable: the last attempt returns or raises")


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object in an answer; ValueError if it is none."""
    try:
        document = response.json()
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if not isinstance(document, dict):
        raise ValueError(f"{str(document)[:80]!r} is not a JSON object")
    return document


def retry_after(response: Response, now: datetime) -> datetime | None:
    """Return the moment in an answer's Retry-After, seconds or HTTP date; None without a sensible one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return now + min(timedelta(seconds=int(text)), _LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(text)
        # "-0000", which no server should send, makes it naive.
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return min(moment, now + _LONGEST_WAIT)


def _problem(response: Response, now: datetime) -> Problem:
    """Return an answer's problem document; for an answer of another form, a few words."""
    moment = retry_after(response, now)
    try:
        document = json_object(response)
    except ValueError:
        words = f"HTTP {response.status_code} without a problem document"
        return Problem(response.status_code, "", words, retry_after=moment)
    listed = document.get("subproblems")
    return Problem(
        response.status_code,
        problem_type(document),
        text_of(document.get("detail")),
        subproblems=tuple(
            subproblem(part, identifier(part.get("identifier")))
            for part in (listed if isinstance(listed, list) else [])[:100]
            if isinstance(part, dict)
        ),
        retry_after=moment,
    )


def subproblem(document: dict[str, Any], name: str) -> Subproblem:
    """Return the problem of one name."""
    return Subproblem(problem_type(document), text_of(document.get("detail")), name)


def identifier(value: Any) -> str:
    """Return the DNS name in an identifier object (RFC 8555, 9.7.7); empty for anything else."""
    return text_of(value.get("value")) if isinstance(value, dict) else ""


def problem_type(document: dict[str, Any]) -> str:
    """Return a problem's type without its URN."""
    return text_of(document.get("type")).removeprefix(_URN)


def text_of(value: Any) -> str:
    """Return a text of an answer, not too long for a mail; empty for anything else."""
    return value[:1000] if isinstance(value, str) else ""


def _is_passing(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, Problem):
        return error.status >= 500 and error.retry_after is None
    return isinstance(error, NoAnswer)


# -- to an operator


@contextmanager
def explained(name: str, doing: str, *, kept: str = _KEPT) -> Iterator[None]:
    """Turn what a CA answers, or does not answer, into an operator's error about the certificate `name`.

    `doing` completes "the CA … while", like "placing the order".
    """
    from josepy.errors import Error as JoseError

    try:
        yield
    except NoAnswer as silence:
        raise CaUnreachable(
            f"{name}: the CA cannot be reached",
            found=f"{silence} ({doing})",
            kept=kept,
            next=clock.tls_hint(str(silence))
            or "look at renewal.directory and the network of this host, then run `certcast renew`; "
            "the timer does",
        ) from None
    except Problem as problem:
        raise explain(name, doing, problem, kept=kept) from None
    # What a mutated answer makes the library or certcast stumble over.
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as odd:
        raise CaAnswerInvalid(
            f"{name}: the CA's answer is not what RFC 8555 describes ({doing})",
            found=f"{type(odd).__name__}: {str(odd)[:300]}",
            kept=kept,
            next="run `certcast renew` again; if it repeats, is renewal.directory an ACME directory?",
        ) from None


def explain(name: str, doing: str, problem: Problem, *, kept: str = _KEPT) -> RenewalError:
    """Return the operator's error for a problem document."""
    found = "\n".join([f"{problem} (HTTP {problem.status}, {doing})", *map(str, problem.subproblems)])
    if problem.type == "rateLimited" or (problem.retry_after and problem.status in {429, 503}):
        until = problem.retry_after
        return RateLimited(
            f"{name}: the CA asks to wait" + (f" until {utc_text(until)}" if until else ""),
            found=found,
            kept=kept,
            next="nothing now: `certcast renew` asks again after that; the timer does"
            if until
            else "mend what made the orders fail, then run again in an hour",
        )
    if problem.type in _ACCOUNT or (problem.type == "unauthorized" and not problem.subproblems):
        return AccountUnusable(
            f"{name}: {_ACCOUNT.get(problem.type, 'the CA refuses the account')}",
            found=found,
            kept=kept,
            next="`certcast check` shows the account and its files; docs/runbook.md#account says how to "
            "get another one",
        )
    meaning, advice = _ADVICE.get(problem.type, ("the CA refused", "read what it says, then run again"))
    if problem.status >= 500:
        kind: type[RenewalError] = CaUnreachable
    else:
        kind = CaRefused if problem.type else CaAnswerInvalid
    named = next((part.name for part in problem.subproblems if part.name), name)
    return kind(f"{name}: {meaning} ({doing})", found=found, kept=kept, next=advice.replace("NAME", named))


def explain_failures(name: str, failures: list[Subproblem], *, kept: str) -> ValidationFailed:
    """Return the error for names whose validation failed; each with the record that the CA looked for."""
    meaning, advice = _ADVICE.get(
        failures[0].type, ("the CA did not validate", "read what it says, then run again")
    )
    return ValidationFailed(
        f"{name}: {meaning}, for {', '.join(dict.fromkeys(failure.name for failure in failures))}",
        expected="\n".join(
            f"a TXT record at _acme-challenge.{failure.name} that every nameserver shows"
            for failure in failures
        ),
        found="\n".join(map(str, failures)),
        kept=kept,
        next=f"{advice.replace('NAME', failures[0].name)}, then run `certcast renew {name}`",
    )
