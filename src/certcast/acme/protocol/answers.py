"""What comes back from a CA: an answer, its refusal, or nothing.

    Response           2xx, whole
    Problem            the CA's problem document (RFC 8555, 6.7), with its status and Retry-After
    NoAnswer           no complete answer: the CA may have done what it was asked

`patiently` asks again after NoAnswer and a 5xx; only for requests that change nothing at the CA.
Apart from the library (network.py), so that renewal information costs no import of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

T = TypeVar("T")

_URN = "urn:ietf:params:acme:error:"
# Let's Encrypt's longest wait is one for its limits of 7 days.
_LONGEST = timedelta(days=8)


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

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.status >= 500 and self.retry_after is None


def checked(response: Response, now: datetime) -> Response:
    """Return a 2xx as it is. Raises Problem for anything else."""
    if 200 <= response.status_code < 300:
        return response
    raise _problem(response, now)


def patiently(ask: Callable[[], T]) -> T:
    """Return what `ask` returns, and ask again after a passing failure."""
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
        found = response.json()
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError(f"{str(found)[:80]!r} is not a JSON object")
    return found


def retry_after(response: Response, now: datetime) -> datetime | None:
    """Return the moment in an answer's Retry-After, seconds or HTTP date; None without a sensible one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return now + min(timedelta(seconds=int(text)), _LONGEST)
    try:
        moment = parsedate_to_datetime(text)
        # "-0000", which no server should send, makes it naive.
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return min(moment, now + _LONGEST)


def _problem(response: Response, now: datetime) -> Problem:
    """Return what an answer says against the request; an answer of another form is kept in a few words."""
    asked = retry_after(response, now)
    try:
        document = json_object(response)
    except ValueError:
        words = f"HTTP {response.status_code} without a problem document"
        return Problem(response.status_code, "", words, retry_after=asked)
    listed = document.get("subproblems")
    return Problem(
        response.status_code,
        problem_type(document),
        text_of(document.get("detail")),
        subproblems=tuple(
            Subproblem(problem_type(one), text_of(one.get("detail")), identifier(one.get("identifier")))
            for one in (listed if isinstance(listed, list) else [])[:100]
            if isinstance(one, dict)
        ),
        retry_after=asked,
    )


def identifier(found: Any) -> str:
    """Return the DNS name in an identifier object (RFC 8555, 9.7.7); empty for anything else."""
    return text_of(found.get("value")) if isinstance(found, dict) else ""


def problem_type(document: dict[str, Any]) -> str:
    return text_of(document.get("type")).removeprefix(_URN)


def text_of(value: Any) -> str:
    return value[:1000] if isinstance(value, str) else ""


def _is_passing(error: Exception) -> bool:
    return isinstance(error, NoAnswer) or (isinstance(error, Problem) and error.is_passing)
