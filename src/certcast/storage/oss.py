"""A bucket of Alibaba Cloud OSS, through the official SDK (signature V4).

Each operation: a deadline over everything → attempts with growing pauses →
the SDK's one signed request → its error, told apart by status and code, as
a StoreError.

Bodies are checked both ways, since V4 on OSS does not sign them. Upwards the
server compares Content-MD5 before it stores anything, because CRC-64, which
the SDK compares afterwards, would find a damaged body only when every reader
can fetch it already. Downwards the CRC-64 header is compared here; the SDK
does that only in its multi-part downloader.

Retries are stamina's and the SDK's own are off. The SDK's don't cover reading
an object's body, repeat a RequestTimeTooSkewed that its clock can't mend, and
sleep past any deadline. Both sign each attempt anew.

Facts about statuses and codes: OSS developer reference, "Error responses", and
what real servers were seen to answer.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import alibabacloud_oss_v2 as oss
import stamina
from requests.exceptions import RequestException

from certcast.credentials import CredentialsMissing, provider
from certcast.errors import (
    ConfigInvalid,
    StoreClock,
    StoreDenied,
    StoreError,
    StoreNoBucket,
    StoreTooLarge,
    StoreUnreachable,
)
from certcast.storage.store import DEADLINE_SECONDS, Object, Unchanged, checked_key, checked_prefix
from certcast.storage.transport import BoundedAdapter, Cutter

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.config import StoreConfig
    from certcast.credentials import Keys

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
# For one address. The deadline can't cut a connection that isn't there yet.
CONNECT_SECONDS = 5.0
# Shorter than the deadline, so that a silent connection leaves time for another.
SILENCE_SECONDS = 10.0
CHUNK = 16 * 1024

# Naming rules of buckets, OSS developer reference.
BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


class OssStore:
    """`oss://bucket/prefix`. See store.py for what it promises."""

    def __init__(
        self,
        url: str,
        *,
        region: str,
        keys: Callable[[], Keys],
        endpoint: str | None = None,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self.url = url
        self._bucket, _, prefix = url.removeprefix("oss://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._deadline = deadline
        self._cutter = Cutter()
        self._client = oss.Client(
            oss.Config(
                region=region,
                endpoint=endpoint,
                use_cname=endpoint is not None and _is_custom_domain(endpoint),
                credentials_provider=oss.credentials.CredentialsProviderFunc(lambda: _for_sdk(keys())),
                retry_max_attempts=1,
                http_client=oss.transport.RequestsHttpClient(
                    adapter=BoundedAdapter(self._cutter),
                    connect_timeout=CONNECT_SECONDS,
                    readwrite_timeout=SILENCE_SECONDS,
                ),
            )
        )

    @classmethod
    def from_config(cls, config: StoreConfig) -> OssStore:
        """Return the store of `[store]`. ConfigInvalid for a bucket name or region that OSS can't have."""
        bucket = config.url.removeprefix("oss://").partition("/")[0]
        if not BUCKET.fullmatch(bucket):
            raise ConfigInvalid(
                f"store.url: {bucket} is not the name of a bucket",
                expected="3 to 63 of a-z, 0-9 and -, no - at either end",
                found=bucket,
                kept="nothing was changed",
                next="correct store.url in the configuration file",
            )
        if not config.region:
            raise ConfigInvalid(
                "store.region is missing",
                expected='the bucket\'s region, like "cn-hangzhou": signature V4 names it',
                kept="nothing was changed",
                next="add region to [store] in the configuration file",
            )
        return cls(config.url, region=config.region, endpoint=config.endpoint, keys=provider(config.profile))

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        """See `Store.get`."""
        request = oss.GetObjectRequest(
            bucket=self._bucket, key=self._prefix + checked_key(key), if_none_match=unless
        )

        def attempt() -> Object | Unchanged | None:
            try:
                result = self._client.get_object(request)
            except oss.exceptions.OperationError as error:
                answer = error.unwrap()
                status, code = getattr(answer, "status_code", None), getattr(answer, "code", None)
                # The SDK takes 304 for an error, and its empty body for a broken one.
                if status == 304 and unless is not None:
                    return Unchanged.UNCHANGED
                if code == "NoSuchKey":
                    return None
                raise
            with result.body as body:
                return Object(_read(body, key, limit, result.hash_crc64), result.etag)

        return self._within_deadline("oss:GetObject", key, attempt)

    def put(self, key: str, body: bytes) -> str:
        """See `Store.put`."""
        request = oss.PutObjectRequest(
            bucket=self._bucket,
            key=self._prefix + checked_key(key),
            body=body,
            content_md5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        )
        return self._within_deadline("oss:PutObject", key, lambda: self._client.put_object(request).etag)

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`. One deadline is around all pages."""
        paginator = self._client.list_objects_v2_paginator()
        start = len(self._prefix)

        def attempt() -> list[str]:
            request = oss.ListObjectsV2Request(
                bucket=self._bucket, prefix=self._prefix + checked_prefix(prefix), max_keys=1000
            )
            return sorted(
                found.key[start:] for page in paginator.iter_page(request) for found in page.contents or ()
            )

        return self._within_deadline("oss:ListObjects", prefix, attempt)

    def delete(self, key: str) -> None:
        """See `Store.delete`. OSS answers 204 for a missing key too."""
        request = oss.DeleteObjectRequest(bucket=self._bucket, key=self._prefix + checked_key(key))
        self._within_deadline("oss:DeleteObject", key, lambda: self._client.delete_object(request))

    def _within_deadline(self, action: str, key: str, attempt: Callable[[], T]) -> T:
        """Run `attempt` until it ends in a result or in an error that no repetition mends."""
        end = time.monotonic() + self._deadline

        def worth_another(error: Exception) -> bool:
            # stamina sleeps without asking for the time; so the longest pause must still fit.
            return isinstance(error, StoreUnreachable) and time.monotonic() + LONGEST_PAUSE_SECONDS < end

        with self._cutter.within(self._deadline):
            # As a context and not as a decorator, whose log entries hold the arguments: bodies are keys.
            for once in stamina.retry_context(
                on=worth_another,
                attempts=ATTEMPTS,
                timeout=None,
                wait_initial=FIRST_PAUSE_SECONDS,
                wait_jitter=FIRST_PAUSE_SECONDS,
                wait_max=LONGEST_PAUSE_SECONDS,
            ):
                with once:
                    return self._translated(action, key, attempt)
        raise AssertionError("stamina ends in a result or an error")

    def _translated(self, action: str, key: str, attempt: Callable[[], T]) -> T:
        """Run `attempt` once; what the SDK raises becomes a StoreError."""
        try:
            return attempt()
        except StoreError:
            raise
        except (oss.exceptions.BaseError, RequestException, OSError, ValueError) as error:
            if self._cutter.has_cut:
                raise StoreUnreachable(
                    f"{self.url}: no complete answer within {self._deadline:g} s",
                    found=f"{action} {key}: the answer came too slowly",
                    next="look at the network between this host and the endpoint, then run it again",
                ) from None
            raise _store_error(self.url, action, key, error) from None


def _read(body: oss.StreamBody, key: str, limit: int, crc64: str | None) -> bytes:
    """Return the whole body. StoreTooLarge beyond `limit`; StoreUnreachable if it is not what was stored."""
    from alibabacloud_oss_v2.crc import Crc64

    octets = bytearray()
    checksum = Crc64(0)
    for chunk in body.iter_bytes(block_size=min(CHUNK, limit + 1)):
        octets += chunk
        checksum.update(chunk)
        if len(octets) > limit:
            raise StoreTooLarge(
                f"{key} is larger than such an object can be",
                expected=f"at most {limit:,} octets",
                found="more than that; the rest was not read",
                next=f"look at who wrote {key}, then publish again",
            )
    if crc64 is not None and int(crc64) != checksum.sum64():
        raise StoreUnreachable(
            f"{key} was damaged on its way",
            expected=f"CRC-64 {crc64}",
            found=f"CRC-64 {checksum.sum64()}",
            next="run it again; if it repeats, look at proxies between this host and the endpoint",
        )
    return bytes(octets)


def _is_custom_domain(endpoint: str) -> bool:
    """Whether the endpoint is a bucket's own domain (CNAME), which the bucket isn't put in front of.

    Since 2025-03-20 new users need one for data on mainland buckets over public
    endpoints. IP addresses, for which the SDK chooses the path style, are none.
    """
    host = urlsplit(endpoint).hostname or ""
    return not host.endswith(".aliyuncs.com") and not _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _for_sdk(keys: Keys) -> oss.credentials.Credentials:
    return oss.credentials.Credentials(keys.access_key_id, keys.access_key_secret, keys.security_token)


_NEXT_FOR_KEYS = "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, store.profile, or the host's RAM role"
_NEXT_BY_CODE = {
    "AccessDenied": "let the RAM user of this host do {action} there, then run it again",
    "InvalidAccessKeyId": "give this host an AccessKey that exists and is active",
    "InvalidSecurityToken": "get a new STS token",
    "SecurityTokenExpired": "get a new STS token",
    "SignatureDoesNotMatch": "correct the AccessKey secret of this host",
}


def _store_error(url: str, action: str, key: str, error: Exception) -> StoreError | ConfigInvalid:
    """Say what an SDK error means for the operator. Its own text is never shown: it holds whole requests."""
    cause: object = error
    while isinstance(cause, oss.exceptions.BaseError) and "error" in cause.kwargs:
        cause = cause.kwargs["error"]
    if isinstance(cause, (CredentialsMissing, oss.exceptions.CredentialsEmptyError)):
        return StoreDenied(
            f"{url}: there is no AccessKey to sign with", found=str(cause) or None, next=_NEXT_FOR_KEYS
        )
    if not isinstance(cause, oss.exceptions.ServiceError):
        return StoreUnreachable(
            f"{url} cannot be reached",
            found=f"{action} {key}: {cause}",
            next="look at store.endpoint, store.region and the network of this host",
        )
    code = cause.code if cause.code and cause.code != "BadErrorResponse" else "not an answer of OSS"
    found = f"{action} {key}: {cause.status_code} {code}"
    found += f", {cause.message}" if cause.error_fileds else ""
    found += f" (request {cause.request_id})" if cause.request_id else ""
    if code == "RequestTimeTooSkewed":
        return StoreClock(
            f"{url}: the clock of this host is wrong",
            expected=f"within 15 minutes of {(cause.error_fileds or {}).get('ServerTime', 'the store')}",
            found=found,
            next="`timedatectl status`; set the clock, then run it again",
        )
    if code == "NoSuchBucket":
        return StoreNoBucket(
            f"{url}: there is no such bucket",
            found=found,
            next="correct store.url or store.region in the configuration file, or create the bucket",
        )
    # A proxy's own 403 and 404 pages have no code of OSS, and say nothing about keys.
    if cause.error_fileds and cause.status_code in {400, 401, 403}:
        return StoreDenied(
            f"{url}: the store refused the request",
            found=found,
            next=_NEXT_BY_CODE.get(code, "look the code up in the error list of OSS").format(action=action),
        )
    return StoreUnreachable(
        f"{url} gives no usable answer",
        found=found,
        next="run it again later; the next timer does so too",
    )
