"""What the OSS SDK raises, as the operator should read it.

    OperationError → RequestError             no connection       NotReached
                     ResponseError            no answer           NotReached
                     CredentialsFetchError    no keys             StoreDenied, StoreUnreachable, StoreClock
                     ServiceError             not 2xx             by status, Code and EC

- The SDK's own texts hold requests, so none is shown whole.
- A 403 or 404 without a Code of OSS ("BadErrorResponse" to the SDK) is a proxy's page: NotReached.
- A refusal whose Date is over 15 minutes from this host's time is the clock's fault first (host/clock.py).
- EndpointClosed: since 2025-03-20 new users get PublicEndpointForbidden (400, EC 0048-00000401) for objects
  in mainland buckets (https://www.alibabacloud.com/help/en/oss/user-guide/0048-00000401).

Codes are of the error list in the OSS developer reference; a real server gave the EC of a wrong region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alibabacloud_oss_v2 import exceptions
from requests.exceptions import ConnectTimeout, ProxyError, SSLError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from certcast.credentials import CredentialsMissing, RoleRefused, StsClock, StsUnavailable
from certcast.host import clock
from certcast.host.transport import reason
from certcast.report.errors import StoreClock, StoreDenied, StoreError, StoreNoBucket, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certcast.host.clock import WrongClock

WRONG_SIGNING_REGION = "0002-00000226"

NEXT_BY_CODE = {
    "AccessDenied": "let the RAM user or role of this host do {action} there, then run it again",
    "InvalidAccessKeyId": "give this host an AccessKey that exists and is active",
    "InvalidSecurityToken": "get a new STS token",
    "SecurityTokenExpired": "get a new STS token",
    "SignatureDoesNotMatch": "correct the AccessKey secret of this host",
    WRONG_SIGNING_REGION: "correct store.region to the bucket's: like cn-shanghai, without oss- or -internal",
}


NO_CONNECTION = (NewConnectionError, ConnectTimeoutError, ConnectTimeout, SSLError, ProxyError)


@dataclass(frozen=True)
class Operation:
    """What was tried: `action` is the RAM action, like `oss:GetObject`; `whose` says which keys signed."""

    url: str
    action: str
    key: str
    region: str
    whose: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.key}"


class NotReached(StoreUnreachable):
    """No answer of OSS at this endpoint; `connected` if there was a connection, which broke."""

    def __init__(self, what: str, *, connected: bool, **lines: Any) -> None:
        super().__init__(what, **lines)
        self.connected = connected


class EndpointClosed(StoreDenied):
    """OSS refuses this endpoint to the account, and would not refuse others."""


def store_error(operation: Operation, error: Exception) -> StoreError:
    """Return what `error`, which the SDK raised for `operation`, means."""
    cause: object = error
    while isinstance(cause, exceptions.BaseError) and "error" in cause.kwargs:
        cause = cause.kwargs["error"]
    if isinstance(cause, (CredentialsMissing, exceptions.CredentialsEmptyError)):
        return _no_key(operation, cause)
    if isinstance(cause, exceptions.ServiceError):
        return _refusal(operation, cause)
    why = reason(cause) if isinstance(cause, Exception) else str(cause)
    return NotReached(
        f"{operation.url} cannot be reached",
        connected=not isinstance(cause, NO_CONNECTION),
        found=f"{operation}: {why}",
        next=clock.tls_hint(why) or "look at store.endpoints, store.region and the network of this host",
    )


def none_of(url: str, failures: Mapping[str, StoreError]) -> StoreError:
    """Return the error of a store whose endpoints have all failed, each in its own way."""
    every = list(failures.values())
    if len(every) == 1:
        return every[0]
    found = "\n".join(f"{endpoint}: {failure.found}" for endpoint, failure in failures.items())
    closed = [failure for failure in every if isinstance(failure, EndpointClosed)]
    if len(closed) == len(every):
        return EndpointClosed(closed[0].what, expected=closed[0].expected, found=found, next=closed[0].next)
    return StoreUnreachable(
        f"{url}: none of its {len(every)} endpoints can be used",
        expected=closed[0].expected if closed else None,
        found=found,
        next=clock.tls_hint(found) or "look at store.endpoints and the network of this host",
    )


def _no_key(operation: Operation, missing: Exception) -> StoreError:
    if isinstance(missing, StsUnavailable):
        return StoreUnreachable(
            f"{operation.url}: there are no keys to sign with for the moment",
            found=str(missing),
            next="look at store.sts_endpoint and the network of this host; the next timer tries again",
        )
    if isinstance(missing, StsClock):
        return _wrong_clock(operation, str(missing), missing.wrong)
    if isinstance(missing, RoleRefused):
        return StoreDenied(
            f"{operation.url}: the RAM role of [store] cannot be assumed",
            expected="sts:AssumeRole in the caller's RAM policy, and the caller in the role's trust policy",
            found=f"{missing}\nwith {missing.source}",
            next="mend these two policies or store.role_arn, then run it again",
        )
    source, remedy = getattr(missing, "source", ""), getattr(missing, "remedy", "")
    return StoreDenied(
        f"{operation.url}: there is no AccessKey to sign with",
        found=f"none in {source}: {missing}" if source else str(missing) or None,
        next=f"{remedy or 'give this host an AccessKey'}, then run it again",
    )


def _refusal(operation: Operation, answer: exceptions.ServiceError) -> StoreError:
    code = answer.code if answer.code != "BadErrorResponse" else None
    found = f"{operation}: {answer.status_code} " + (
        f"{code}, {answer.message} (request {answer.request_id})" if code else "without a code of OSS"
    )
    if code is None:
        return NotReached(
            f"{operation.url} gives no usable answer",
            connected=False,
            found=found,
            next="look at proxies between this host and store.endpoints, then run it again",
        )
    is_denial = answer.status_code in {400, 401, 403}
    wrong = clock.wrong_clock((answer.headers or {}).get("Date"), clock.now())
    if code == "RequestTimeTooSkewed" or (wrong and is_denial):
        return _wrong_clock(operation, found, wrong)
    if code == "NoSuchBucket":
        return StoreNoBucket(
            f"{operation.url}: there is no such bucket",
            found=found,
            next="correct store.url or store.region in the configuration file, or create the bucket",
        )
    if code == "PublicEndpointForbidden":
        return EndpointClosed(
            f"{operation.url}: the public endpoint is closed to this account",
            expected=f"inside Alibaba Cloud https://oss-{operation.region}-internal.aliyuncs.com, "
            "elsewhere a custom domain (CNAME) of the bucket",
            found=found,
            next="name one of these in store.endpoints; "
            "a custom domain is bound to the bucket in the OSS console and needs a certificate there",
        )
    # InvalidDigest is a 400 too, and says that the body was damaged on its way: worth another attempt.
    if is_denial and code != "InvalidDigest":
        return _denied(operation, answer, found)
    return StoreUnreachable(
        f"{operation.url} gives no usable answer",
        found=found,
        next="run it again later; the next timer does so too",
    )


def _denied(operation: Operation, answer: exceptions.ServiceError, found: str) -> StoreDenied:
    advice = NEXT_BY_CODE.get(answer.ec) or NEXT_BY_CODE.get(answer.code)
    if home := answer.error_fileds.get("Endpoint"):
        advice = f"the bucket is at {home}: correct store.region and store.endpoints"
    return StoreDenied(
        f"{operation.url}: the store refused the request",
        found=found + (f"\nwith {operation.whose}" if operation.whose else ""),
        next=(advice or "look the code up in the error list of OSS").format(action=operation.action),
    )


def _wrong_clock(operation: Operation, found: str, wrong: WrongClock | None) -> StoreClock:
    return StoreClock(
        f"{operation.url}: the clock of this host is wrong",
        expected=wrong.expected if wrong else "within 15 minutes of the store's",
        found=f"{wrong.found}; {found}" if wrong else found,
        next=clock.NEXT,
    )
