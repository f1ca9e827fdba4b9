"""Buckets that are not Alibaba Cloud's, through obstore: S3 and what speaks like it, memory.

    s3://bucket/prefix     keys from the AWS_* environment, which obstore reads; one endpoint
    memory://name          one per name and process

obstore retries by itself: it knows which failures are worth it, and goes on where a body broke off. It bounds
the retries and each attempt apart, so each gets half of the deadline. Its time-out of an attempt cuts a body
that drips, unlike a socket's. The signature of a `put` covers the body's SHA-256.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from certcast.report.errors import (
    ConfigInvalid,
    StoreClock,
    StoreDenied,
    StoreError,
    StoreNoBucket,
    StoreUnreachable,
)
from certcast.storage.store import (
    DEADLINE_SECONDS,
    Object,
    Unchanged,
    checked_key,
    checked_prefix,
    listed,
    too_large,
)

try:
    import obstore
    from obstore import exceptions
    from obstore.store import MemoryStore, S3Store
except ImportError:
    raise ConfigInvalid(
        "store.url: s3:// needs the package obstore",
        next="`pip install 'certcast[buckets]'` in certcast's environment",
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import GetResult
    from obstore.store import ClientConfig, S3Config

    from certcast.config.model import StoreConfig

ATTEMPTS = 5
CONNECT_SECONDS = 5
# What obstore quotes of an S3 error document; its exceptions carry it as text only.
CODE = re.compile(r"<Code>(\w+)</Code>")
STATUS = re.compile(r"non-2xx status code: (\d{3})")
TEXT = re.compile(r"<Message>([^<]+)</Message>")

_memories: dict[str, MemoryStore] = {}


class ObjectsStore:
    """`s3://` or `memory://`. See store.py for what it promises."""

    def __init__(self, url: str, inner: MemoryStore | S3Store) -> None:
        self.url = url
        self._inner = inner

    @classmethod
    def from_config(cls, config: StoreConfig, *, deadline: float = DEADLINE_SECONDS) -> ObjectsStore:
        """Return the store of `[store]`. ConfigInvalid for more than one endpoint."""
        scheme, _, rest = config.url.partition("://")
        if scheme == "memory":
            return cls(config.url, _memories.setdefault(rest, MemoryStore()))
        return cls(config.url, _s3(config, rest, timedelta(seconds=deadline / 2)))

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        """See `Store.get`."""
        checked_key(key)
        with _translated(self.url, f"get {key}"):
            try:
                result = obstore.get(self._inner, key, options={"if_none_match": unless} if unless else {})
                body = _read(result, key, limit)
            except exceptions.NotModifiedError:
                return Unchanged.UNCHANGED
            except FileNotFoundError as error:
                self._check_missing(error)
                return None
            return Object(body, result.meta["e_tag"] or "")

    def put(self, key: str, body: bytes) -> str:
        """See `Store.put`."""
        checked_key(key)
        with _translated(self.url, f"put {key}"):
            return obstore.put(self._inner, key, body)["e_tag"] or ""

    def list(self, prefix: str) -> list[str]:
        """See `Store.list`."""
        checked_prefix(prefix)
        # obstore's prefixes are whole folders; ours may end within a name.
        folder = prefix.rpartition("/")[0]
        with _translated(self.url, f"list {prefix}"):
            pages = obstore.list(self._inner, prefix=folder or None)
            return listed(
                found["path"] for page in pages for found in page if found["path"].startswith(prefix)
            )

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        checked_key(key)
        with _translated(self.url, f"delete {key}"):
            try:
                obstore.delete(self._inner, key)
            except FileNotFoundError as error:
                self._check_missing(error)

    def purge(self, key: str) -> bool:
        """See `Store.purge`. obstore shows no older versions, so of S3 nothing is promised."""
        self.delete(key)
        return not isinstance(self._inner, S3Store)

    def _check_missing(self, error: FileNotFoundError) -> None:
        """Return if the store itself said that there is no such key; else raise what it is."""
        if isinstance(self._inner, S3Store) and _code(error) != "NoSuchKey":
            raise error


def _read(result: GetResult, key: str, limit: int) -> bytes:
    """Return the whole body; StoreTooLarge, and no more reading, beyond `limit`."""
    octets = bytearray()
    # Chunks come as they arrive; the default gathers 10 MiB before it shows any.
    for chunk in result.stream(min_chunk_size=1):
        octets += chunk
        if len(octets) > limit:
            raise too_large(key, limit)
    return bytes(octets)


def _s3(config: StoreConfig, rest: str, half: timedelta) -> S3Store:
    bucket, _, prefix = rest.partition("/")
    client: ClientConfig = {"timeout": half, "connect_timeout": timedelta(seconds=CONNECT_SECONDS)}
    place: S3Config = {}
    if len(config.endpoints) > 1:
        raise ConfigInvalid(
            "store.endpoints: an s3:// store has one endpoint",
            expected="one address; several are for oss://, whose buckets have internal, own and public ones",
            found=", ".join(config.endpoints),
            next="leave one of them in store.endpoints",
        )
    endpoint = next(iter(config.endpoints), None)
    if endpoint:
        place["endpoint"] = endpoint
        # Plain text only where the configuration says http://.
        client["allow_http"] = endpoint.startswith("http://")
    if config.region:
        place["region"] = config.region
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=place,
        client_options=client,
        retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": half},
    )


@contextmanager
def _translated(url: str, what: str) -> Iterator[None]:
    """Turn obstore's errors into StoreErrors."""
    try:
        yield
    except StoreError:
        raise
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise _store_error(url, what, error) from None


def _code(error: Exception) -> str | None:
    match = CODE.search(str(error))
    return match[1] if match else None


def _store_error(url: str, what: str, error: Exception) -> StoreError:
    """Return what the error means for the operator, with the first line of obstore's page of text."""
    code = _code(error)
    status, text = STATUS.search(str(error)), TEXT.search(str(error))
    found = f"{what}: {str(error).splitlines()[0]}"
    if status:
        found = f"{what}: {status[1]} {code or 'not an answer of S3'}" + (f", {text[1]}" if text else "")
    if code == "RequestTimeTooSkewed":
        return StoreClock(
            f"{url}: the clock of this host is wrong",
            found=found,
            next="`timedatectl status`; set the clock, then run it again",
        )
    if code == "NoSuchBucket":
        return StoreNoBucket(
            f"{url}: there is no such bucket",
            found=found,
            next="correct store.url in the configuration file, or create the bucket",
        )
    refused = isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError))
    if refused and code:  # a proxy's own 403 page has none
        return StoreDenied(
            f"{url}: the store refused the request",
            found=found,
            next="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and what they may do there",
        )
    return StoreUnreachable(
        f"{url} gives no usable answer",
        found=found,
        next="look at store.endpoints and the network of this host, then run it again",
    )
