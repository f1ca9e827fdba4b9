"""What the OSS SDK raises, as the operator should read it.

The SDK wraps: OperationError → RequestError (no connection), ResponseError (no
answer), CredentialsFetchError, or ServiceError (an answer that is not 2xx, with
status, Code and EC). None of their own texts is shown whole: they hold requests.

Who answered matters. A proxy's or a load balancer's 403 and 404 pages carry no
Code of OSS ("BadErrorResponse" to the SDK) and say nothing about keys and rights,
so they count as unreachable.

Codes and messages: error list of the OSS developer reference; the EC of a wrong
signing region is from a real server's answer.
"""

from __future__ import annotations

from alibabacloud_oss_v2 import exceptions

from certcast.credentials import CredentialsMissing
from certcast.errors import StoreClock, StoreDenied, StoreError, StoreNoBucket, StoreUnreachable

WRONG_SIGNING_REGION = "0002-00000226"

NEXT_BY_CODE = {
    "AccessDenied": "let the RAM user of this host do {action} there, then run it again",
    "InvalidAccessKeyId": "give this host an AccessKey that exists and is active",
    "InvalidSecurityToken": "get a new STS token",
    "SecurityTokenExpired": "get a new STS token",
    "SignatureDoesNotMatch": "correct the AccessKey secret of this host",
    WRONG_SIGNING_REGION: "correct store.region: cn-hangzhou, without oss- before or -internal behind it",
}


def store_error(url: str, action: str, key: str, error: Exception) -> StoreError:
    """Return what `error` means. `action` is the RAM action that was tried, like `oss:GetObject`."""
    cause: object = error
    while isinstance(cause, exceptions.BaseError) and "error" in cause.kwargs:
        cause = cause.kwargs["error"]
    if isinstance(cause, (CredentialsMissing, exceptions.CredentialsEmptyError)):
        return StoreDenied(
            f"{url}: there is no AccessKey to sign with",
            found=str(cause) or None,
            next="set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or store.profile, "
            "or give the host a RAM role",
        )
    if isinstance(cause, exceptions.ServiceError):
        return _refusal(url, action, key, cause)
    return StoreUnreachable(
        f"{url} cannot be reached",
        found=f"{action} {key}: {cause}",
        next="look at store.endpoints, store.region and the network of this host",
    )


def _refusal(url: str, action: str, key: str, answer: exceptions.ServiceError) -> StoreError:
    code = answer.code if answer.code != "BadErrorResponse" else None
    found = f"{action} {key}: {answer.status_code} " + (
        f"{code}, {answer.message} (request {answer.request_id})" if code else "without a code of OSS"
    )
    if code == "RequestTimeTooSkewed":
        return StoreClock(
            f"{url}: the clock of this host is wrong",
            expected=f"within 15 minutes of {answer.error_fileds.get('ServerTime', 'that of the store')}",
            found=found,
            next="`timedatectl status`; set the clock, then run it again",
        )
    if code == "NoSuchBucket":
        return StoreNoBucket(
            f"{url}: there is no such bucket",
            found=found,
            next="correct store.url or store.region in the configuration file, or create the bucket",
        )
    # InvalidDigest is a 400 too, and says that the body was damaged on its way: worth another attempt.
    if code and code != "InvalidDigest" and answer.status_code in {400, 401, 403}:
        advice = NEXT_BY_CODE.get(answer.ec) or NEXT_BY_CODE.get(code)
        return StoreDenied(
            f"{url}: the store refused the request",
            found=found,
            next=(advice or "look the code up in the error list of OSS").format(action=action),
        )
    return StoreUnreachable(
        f"{url} gives no usable answer", found=found, next="run it again later; the next timer does so too"
    )
