"""A bucket of Alibaba Cloud OSS, through the official SDK (signature V4).

    deadline over everything → attempts with growing pauses (attempts.py) → the endpoints in turn
    → the SDK's one signed request → its error as a StoreError (oss_errors.py)

| an endpoint                                                      | then                              |
|------------------------------------------------------------------|-----------------------------------|
| cannot be reached: no address, connection or TLS; a foreign page | the next one, at once             |
| breaks a connection                                              | itself once more, then the next   |
| is closed to the account, which others are not                   | the next one                      |
| refuses otherwise                                                | the end: OSS itself has answered  |

The endpoint that served is asked first by the same process for six hours (docs/adr/0010, 0023).

The SDK's own retries are off: they do not cover reading a body, they repeat a RequestTimeTooSkewed that no
repetition mends, and they sleep past any deadline.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import alibabacloud_oss_v2 as oss
from requests.exceptions import RequestException

from certcast.credentials import describe_keys, provider
from certcast.host.transport import BoundedAdapter, Cutter
from certcast.report.errors import ConfigInvalid, StoreError, StoreUnreachable, within
from certcast.storage.attempts import CONNECT_SECONDS, SILENCE_SECONDS, repeated
from certcast.storage.oss_errors import EndpointClosed, NotReached, Operation, none_of, store_error
from certcast.storage.store import (
    DEADLINE_SECONDS,
    Object,
    Unchanged,
    checked_key,
    checked_prefix,
    listed,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from certcast.config.model import StoreConfig
    from certcast.credentials import Keys

T = TypeVar("T")

# Where another endpoint can be asked instead, less than elsewhere: one lost SYN is sent again after
# 1 s (RFC 6298 section 2), inside a cloud none is.
HURRIED_CONNECT_SECONDS = 2.0

# Then a process that runs for months asks the better endpoints again.
REMEMBERED_SECONDS = 6 * 3600.0

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
        whose: str = "",
        endpoints: Sequence[str] = (),
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """Open `url` with `keys`; `whose` says in words whose. Without `endpoints`: the region's own."""
        self.url = url
        self._region = region
        self._keys = keys
        self._whose = whose
        self._endpoints: tuple[str | None, ...] = tuple(endpoints) or (None,)
        self._served: str | None = None
        self._served_until = 0.0  # on the monotonic clock
        self._clients: dict[str | None, oss.Client] = {}
        self._bucket, _, prefix = url.removeprefix("oss://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._deadline = deadline
        self._cutter = Cutter()

    @classmethod
    def from_config(cls, config: StoreConfig) -> OssStore:
        """Return the store of `[store]`. ConfigInvalid for a bucket name or region that OSS can't have."""
        bucket = config.url.removeprefix("oss://").partition("/")[0]
        if not BUCKET.fullmatch(bucket):
            raise ConfigInvalid(
                f"store.url: {bucket} is not the name of a bucket",
                expected="3 to 63 of a-z, 0-9 and -, no - at either end",
                found=bucket,
                next="correct store.url in the configuration file",
            )
        if not config.region:
            raise ConfigInvalid(
                "store.region is missing",
                expected='the bucket\'s region, like "cn-hangzhou": signature V4 names it',
                next="add region to [store] in the configuration file",
            )
        return cls(
            config.url,
            region=config.region,
            endpoints=config.endpoints,
            keys=provider(config),
            whose=describe_keys(config),
        )

    def _client(self, endpoint: str | None) -> oss.Client:
        """Return the SDK's client for an endpoint; the region's own for None."""
        if endpoint not in self._clients:
            hurried = endpoint != self._endpoints[-1]
            self._clients[endpoint] = oss.Client(
                oss.Config(
                    region=self._region,
                    endpoint=endpoint,
                    use_cname=endpoint is not None and is_custom_domain(endpoint),
                    credentials_provider=oss.credentials.CredentialsProviderFunc(
                        lambda: _for_sdk(self._keys())
                    ),
                    retry_max_attempts=1,
                    http_client=oss.transport.RequestsHttpClient(
                        adapter=BoundedAdapter(self._cutter),
                        connect_timeout=HURRIED_CONNECT_SECONDS if hurried else CONNECT_SECONDS,
                        readwrite_timeout=SILENCE_SECONDS,
                    ),
                )
            )
        return self._clients[endpoint]

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        """See `Store.get`."""
        request = oss.GetObjectRequest(
            bucket=self._bucket, key=self._prefix + checked_key(key), if_none_match=unless or None
        )

        def attempt(client: oss.Client) -> Object | Unchanged | None:
            try:
                result = client.get_object(request)
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
                etag = _present(self.url, result.etag)
                return Object(_whole_body(body, key, limit, result), etag)

        return self._within_deadline("oss:GetObject", key, attempt)

    def put(self, key: str, body: bytes) -> str:
        """See `Store.put`.

        V4 on OSS does not sign bodies, so the server compares Content-MD5 before it stores anything. The
        SDK's CRC-64 would find a damaged body only when every reader can fetch it already.
        """
        request = oss.PutObjectRequest(
            bucket=self._bucket,
            key=self._prefix + checked_key(key),
            body=body,
            content_md5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        )

        def attempt(client: oss.Client) -> str:
            return _present(self.url, client.put_object(request).etag)

        return self._within_deadline("oss:PutObject", key, attempt)

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`. One deadline is around all pages."""
        request = oss.ListObjectsV2Request(bucket=self._bucket, prefix=self._prefix + checked_prefix(prefix))

        def attempt(client: oss.Client) -> list[str]:
            keys = []
            for page in client.list_objects_v2_paginator(limit=1000).iter_page(request):
                _present(self.url, page.name)
                keys += [found.key[len(self._prefix) :] for found in page.contents or ()]
            return listed(keys)

        return self._within_deadline("oss:ListObjects", prefix, attempt)

    def delete(self, key: str) -> None:
        """See `Store.delete`. OSS answers 204 for a missing key too."""
        request = oss.DeleteObjectRequest(bucket=self._bucket, key=self._prefix + checked_key(key))
        self._within_deadline("oss:DeleteObject", key, partial(_delete, request))

    def purge(self, key: str) -> bool:
        """See `Store.purge`. One deadline is around all of it.

        Whether the bucket has versioning is not asked: ListObjectVersions answers in
        any bucket. In one that has it, the plain delete puts a marker on top, which
        hides the older versions until all are gone; so markers go last. StoreDenied
        for a missing right says what is left.
        """
        full = self._prefix + checked_key(key)
        end = time.monotonic() + self._deadline
        request = oss.DeleteObjectRequest(self._bucket, full)
        self._within_deadline("oss:DeleteObject", key, partial(_delete, request), end)
        listing = partial(_version_ids, self.url, self._bucket, full)
        with within(
            kept=f"{key} is deleted; in a bucket with versioning, older versions of it may still be read"
        ):
            for version_id in self._within_deadline("oss:ListObjectVersions", key, listing, end):
                request = oss.DeleteObjectRequest(self._bucket, full, version_id)
                self._within_deadline("oss:DeleteObjectVersion", key, partial(_delete, request), end)
        return True

    def _within_deadline(
        self, action: str, key: str, attempt: Callable[[oss.Client], T], end: float | None = None
    ) -> T:
        """Run `attempt` until it ends in a result or in an error that no repetition mends.

        `end` is the deadline of several together, on the monotonic clock.
        """
        end = end or time.monotonic() + self._deadline
        return repeated(
            lambda number: self._in_turn(action, key, attempt, again=number > 1), self._cutter, end=end
        )

    def _in_turn(self, action: str, key: str, attempt: Callable[[oss.Client], T], *, again: bool) -> T:
        """Run `attempt` at one endpoint after the other, until OSS answers at one that is open to us."""
        failures: dict[str, StoreError] = {}
        preferred = self._served if time.monotonic() < self._served_until else None
        for endpoint in sorted(self._endpoints, key=lambda one: one != preferred):
            try:
                result = self._translated(action, key, endpoint, attempt)
            except NotReached as silence:
                if silence.connected and not again:
                    raise
                failures[endpoint or ""] = silence
            except EndpointClosed as refusal:
                failures[endpoint or ""] = refusal
            else:
                if endpoint != preferred:
                    self._served, self._served_until = endpoint, time.monotonic() + REMEMBERED_SECONDS
                return result
        raise none_of(self.url, failures)

    def _translated(
        self, action: str, key: str, endpoint: str | None, attempt: Callable[[oss.Client], T]
    ) -> T:
        """Run `attempt` once at one endpoint. The SDK's errors become StoreErrors."""
        try:
            return attempt(self._client(endpoint))
        except StoreError:
            raise
        except (oss.exceptions.BaseError, RequestException, OSError, ValueError) as error:
            if self._cutter.has_cut:
                raise StoreUnreachable(
                    f"{self.url}: no complete answer within {self._deadline:g} s",
                    found=f"{action} {key}: the answer came too slowly",
                    next="look at the network between this host and the endpoint, then run it again",
                ) from None
            raise store_error(
                Operation(self.url, action, key, region=self._region, whose=self._whose), error
            ) from None


def _delete(request: oss.DeleteObjectRequest, client: oss.Client) -> None:
    client.delete_object(request)


def _for_sdk(keys: Keys) -> oss.credentials.Credentials:
    return oss.credentials.Credentials(keys.access_key_id, keys.access_key_secret, keys.security_token)


def _present(url: str, field: str | None) -> str:
    """Return a field that every whole answer has; StoreUnreachable without it.

    http.client takes a connection that breaks within the header for the header's end. The rest looks like a
    success with an empty body: an object of no octets, a listing of no keys.
    """
    if not field:
        raise NotReached(
            f"{url} gives no usable answer",
            connected=True,
            found="an answer without the fields that OSS gives, or only the beginning of one",
            next="run it again; if it repeats, look at proxies between this host and the endpoint",
        )
    return field


def _whole_body(body: oss.StreamBody, key: str, limit: int, header: oss.GetObjectResult) -> bytes:
    """Return the whole body. StoreTooLarge beyond `limit`; StoreUnreachable if it is not what was stored.

    The SDK compares the CRC-64 only in its multi-part downloader.
    """
    from alibabacloud_oss_v2.crc import Crc64

    octets = bytearray()
    checksum = Crc64(0)
    for chunk in body.iter_bytes(block_size=limit + 1):
        octets += chunk
        checksum.update(chunk)
        if len(octets) > limit:
            raise too_large(key, limit)
    # Objects from before 2015 have no CRC-64, and a CDN may leave the length out; one of them must prove it.
    if header.hash_crc64:
        expected, found = f"CRC-64 {header.hash_crc64}", f"CRC-64 {checksum.sum64()}"
    else:
        expected, found = f"{header.content_length} octets", f"{len(octets)} octets"
    if expected != found:
        raise StoreUnreachable(
            f"{key} was damaged on its way",
            expected=expected,
            found=found,
            next="run it again; if it repeats, look at proxies between this host and the endpoint",
        )
    return bytes(octets)


def _version_ids(url: str, bucket: str, key: str, client: oss.Client) -> list[str]:
    """Return every version of exactly this key that can be deleted: from old to new, then the markers.

    A bucket without versioning lists its objects too, with an empty id ("GetBucketVersions
    (ListObjectVersions)", OSS API reference); these are not among them.
    """
    versions: list[str] = []
    markers: list[str] = []
    request = oss.ListObjectVersionsRequest(bucket, prefix=key)
    for page in client.list_object_versions_paginator(limit=1000).iter_page(request):
        _present(url, page.name)
        versions += [found.version_id for found in page.version or () if found.key == key]
        markers += [found.version_id for found in page.delete_marker or () if found.key == key]
    return [version_id for version_id in versions[::-1] + markers if version_id]


def is_custom_domain(endpoint: str) -> bool:
    """Whether the endpoint is a bucket's own domain (CNAME), which the bucket isn't put in front of.

    Since 2025-03-20 new users need one for data on mainland buckets over public endpoints. An IP address is
    none: for it the SDK chooses the path style.
    """
    host = urlsplit(endpoint).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return not host.endswith(".aliyuncs.com")
    return False
