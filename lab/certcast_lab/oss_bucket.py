"""A bucket's objects, with their past, so that a stale read can be given.

An object is whole: the bytes, the headers they were stored with, and the two
digests that OSS answers with. A bucket remembers every state of every key with
the moment it began, and answers as it stood then.

ETag of a PutObject: the MD5 in upper-case hex, in quotes. CRC-64: ECMA-182, the
variant that xz uses, in decimal ("PutObject", OSS API reference).

Not here: who may, and HTTP (oss_api.py).
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import crcmod

crc64: Callable[[bytes], int] = crcmod.mkCrcFun(
    0x142F0E1EBA9EA3693, initCrc=0, rev=True, xorOut=0xFFFFFFFFFFFFFFFF
)


@dataclass(frozen=True)
class Stored:
    """One state of an object. `modified` is in seconds of the epoch, whole ones as in HTTP."""

    body: bytes
    modified: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest().upper()}"'

    @property
    def content_md5(self) -> str:
        return content_md5(self.body)

    @property
    def crc64(self) -> str:
        return str(crc64(self.body))


def content_md5(body: bytes) -> str:
    """The value of a Content-MD5 header (RFC 1864): base64 of the digest."""
    return base64.b64encode(hashlib.md5(body).digest()).decode()


class Bucket:
    """
    A bucket in a region, owned by an account (its uid). Thread-safe.

    Newer buckets accept V4 signatures only (`accepts_v1`, off since 2025-09-01). `domain` is a custom
    domain bound to it (CNAME): there the bucket's name is in neither host nor path. Not `public`: the
    account began after 2025-03-20 and may not use the region's public endpoint for objects.
    """

    def __init__(
        self,
        name: str,
        *,
        account: str,
        region: str = "cn-hangzhou",
        accepts_v1: bool = False,
        domain: str | None = None,
        public: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.account = account
        self.region = region
        self.accepts_v1 = accepts_v1
        self.domain = domain
        self.public = public
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._states: dict[str, list[tuple[float, Stored | None]]] = {}

    def put(self, key: str, stored: Stored) -> None:
        self._append(key, stored)

    def delete(self, key: str) -> None:
        if self.get(key) is not None:
            self._append(key, None)

    def get(self, key: str, *, age: float = 0) -> Stored | None:
        """The object as it stood `age` seconds ago; None if it did not exist."""
        then = self._monotonic() - age
        with self._lock:
            states = [stored for since, stored in self._states.get(key, ()) if since <= then]
        return states[-1] if states else None

    def keys(self, prefix: str = "", *, age: float = 0) -> list[str]:
        """All keys that begin with `prefix`, in the order of their UTF-8, as OSS lists them."""
        with self._lock:
            names = [name for name in self._states if name.startswith(prefix)]
        return sorted((name for name in names if self.get(name, age=age)), key=lambda name: name.encode())

    def _append(self, key: str, stored: Stored | None) -> None:
        with self._lock:
            self._states.setdefault(key, []).append((self._monotonic(), stored))
