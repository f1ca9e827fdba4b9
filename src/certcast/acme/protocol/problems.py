"""What a CA's refusal means, in an operator's words.

    NoAnswer                              → CaUnreachable
    rateLimited, 429, 503 + Retry-After   → RateLimited, which is remembered (limits.py)
    accountDoesNotExist, unauthorized …   → AccountUnusable
    dns, unauthorized, caa … of a name    → ValidationFailed: which name, which record, what the CA saw
    4xx without a problem document        → CaAnswerInvalid
    anything else                         → CaRefused

The types are those of RFC 8555, 6.7, and RFC 9773, 7.4; an unknown one is shown as it came.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from certcast.acme.protocol.answers import NoAnswer, Problem, Subproblem
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
    from collections.abc import Iterator

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
        raise refused(name, doing, problem, kept=kept) from None
    # Whatever a mutated answer makes the library or us stumble over.
    except (
        JoseError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise CaAnswerInvalid(
            f"{name}: the CA's answer is not what RFC 8555 describes ({doing})",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            kept=kept,
            next="run `certcast renew` again; if it repeats, is renewal.directory an ACME directory?",
        ) from None


def refused(name: str, doing: str, problem: Problem, *, kept: str = _KEPT) -> RenewalError:
    """Return the operator's error for a problem document."""
    found = "\n".join([f"{problem} (HTTP {problem.status}, {doing})", *map(_line, problem.subproblems)])
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
    named = next((one.name for one in problem.subproblems if one.name), name)
    return kind(f"{name}: {meaning} ({doing})", found=found, kept=kept, next=advice.replace("NAME", named))


def not_validated(name: str, failed: list[Subproblem], *, kept: str) -> ValidationFailed:
    """Return the error for names whose validation failed; each with the record that the CA looked for."""
    meaning, advice = _ADVICE.get(
        failed[0].type, ("the CA did not validate", "read what it says, then run again")
    )
    return ValidationFailed(
        f"{name}: {meaning}, for {', '.join(dict.fromkeys(one.name for one in failed))}",
        expected="\n".join(
            f"a TXT record at _acme-challenge.{one.name} that every nameserver shows" for one in failed
        ),
        found="\n".join(map(_line, failed)),
        kept=kept,
        next=f"{advice.replace('NAME', failed[0].name)}, then run `certcast renew {name}`",
    )


def _line(one: Subproblem) -> str:
    return (f"{one.name}: " if one.name else "") + f"{one.type}: {one.detail}"
