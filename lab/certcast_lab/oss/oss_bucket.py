"""A bucket's objects, with their past, so that a stale read can be given.

An object is whole: the bytes, the headers they were stored with, and the two
digests that OSS answers with. A bucket remembers every state of every key and
when it began, and can answer for an earlier moment.

ETag of a PutObject: the MD5 in upper-case hex, in quotes. CRC-64: ECMA-182, the
variant that xz uses, in decimal ("PutObject", OSS API reference).

Versions, as "Versioning" in the OSS user guide has them. A bucket is without
versioning, then Enabled or Suspended, and never without again:

                    put                         delete                        delete one version
    without         replaces                    nothing is left               (only `null` exists)
    Enabled         one more version            one more version, a marker    it is gone; the newest
    Suspended       replaces version `null`     a marker replaces `null`      of the others counts

A marker has no body, and hides what is below it. What was put without versioning is
`null` later. Assumption: deleting what isn't there makes a marker too, as on S3.

Not here: rights (oss_access.py) and HTTP (oss_api.py, oss_versions.py).
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

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


Versioning = Literal["Enabled", "Suspended"]
NULL = "null"


@dataclass(frozen=True)
class Version:
    """One version of an object: `stored` is None for a delete marker, `id` is `null` without versioning."""

    id: str
    stored: Stored | None
    modified: int


@dataclass(eq=False)
class Bucket:
    """
    A bucket in a region, owned by an account (its uid). Thread-safe.

    Newer buckets accept V4 signatures only (`accepts_v1`, off since 2025-09-01). `domain` is a custom
    domain bound to it (CNAME): there the bucket's name is in neither host nor path. Not `public`: the
    account began after 2025-03-20 and may not use the region's public endpoint for objects.
    `versioning` is None until it is set for the first time. `policy` is a bucket policy (oss_access.py).
    """

    name: str
    _: KW_ONLY
    account: str
    region: str = "cn-hangzhou"
    accepts_v1: bool = False
    domain: str | None = None
    public: bool = True
    versioning: Versioning | None = None
    policy: Mapping[str, Any] | None = None
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, list[tuple[float, Stored | None]]] = {}
        self._versions: dict[str, list[Version]] = {}
        self._serial = 0

    def put(self, key: str, stored: Stored) -> Version:
        """Store the object; the version that it became."""
        return self._add(key, stored, stored.modified)

    def delete(self, key: str) -> Version | None:
        """Delete the object; the marker, where there is versioning."""
        if self.versioning is not None:
            return self._add(key, None, int(time.time()))
        if self.get(key) is not None:
            self.delete_version(key, NULL)
        return None

    def delete_version(self, key: str, version_id: str) -> Version | None:
        """Delete one version for good; what it was, None if there is no such one."""
        with self._lock:
            versions = self._versions.get(key, [])
            gone = next((version for version in versions if version.id == version_id), None)
            if gone is not None:
                versions.remove(gone)
                self._note(key)
        return gone

    def get(self, key: str, *, age: float = 0) -> Stored | None:
        """The object as it stood `age` seconds ago; None if it did not exist."""
        then = self.monotonic() - age
        with self._lock:
            states = [stored for since, stored in self._states.get(key, ()) if since <= then]
        return states[-1] if states else None

    def keys(self, prefix: str = "", *, age: float = 0) -> list[str]:
        """All keys that begin with `prefix`, in the order of their UTF-8, as OSS lists them."""
        with self._lock:
            names = [name for name in self._states if name.startswith(prefix)]
        return sorted((name for name in names if self.get(name, age=age)), key=lambda name: name.encode())

    def versions(self, prefix: str = "") -> list[tuple[str, Version]]:
        """All that is kept below `prefix`, markers too: by key, and of one key the newest first."""
        with self._lock:
            names = sorted((name for name in self._versions if name.startswith(prefix)), key=str.encode)
            return [(name, version) for name in names for version in reversed(self._versions[name])]

    def _add(self, key: str, stored: Stored | None, modified: int) -> Version:
        with self._lock:
            versions = self._versions.setdefault(key, [])
            if self.versioning == "Enabled":
                version = Version(self._new_id(), stored, modified)
            else:
                version = Version(NULL, stored, modified)
                versions[:] = [other for other in versions if other.id != NULL]
            versions.append(version)
            self._note(key)
        return version

    def _new_id(self) -> str:
        """64 characters that look like the real ones, in no order, as the real ones are in none."""
        self._serial += 1
        digest = hashlib.sha256(f"{self.name} {self._serial}".encode()).hexdigest()[:45]
        return "CAEQ" + base64.b64encode(digest.encode()).decode()

    def _note(self, key: str) -> None:
        """Remember what the key shows from now on."""
        versions = self._versions[key]
        self._states.setdefault(key, []).append((self.monotonic(), versions[-1].stored if versions else None))
