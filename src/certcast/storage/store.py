"""What a bucket promises, whoever runs it: the contract of a `Store`.

    get     one object, only if it changed, never more than a given size
    put     whole or not at all
    list    every key below a prefix
    delete  gone, or never there
    purge   gone, and older versions of it too

A consumer only ever gets, so its side of the contract is `Reader`: a host without
credentials has nothing else (web.py).

An implementation MUST keep these:

- Keys are relative to the store's prefix, parted by "/", and made of the
  characters in `KEY`. Anything else is a defect of the caller: ValueError,
  before anything is sent. `list` leaves out what others have put there under
  such a name (a console's folders, say): nobody could ask for it.
- A missing key is None from `get`, nothing from `list`, no error from `delete`.
  A missing *bucket* (or folder) is StoreNoBucket: who reads "no such key" for a
  mistyped bucket or an unmounted disk believes that nothing was published yet.
  None is said only when the store itself said so; a proxy's 404 page is
  StoreUnreachable. (By plain HTTP nobody can tell the two apart: web.py.)
- `purge` leaves nothing that anybody could still read: in a bucket with versioning,
  no older version and no delete marker. A store that cannot see to that says so (False).
- `put` overwrites. Readers see the old body or the new one, never a mixture and
  never a part; after an error either may be there, so putting again is right.
- An etag belongs to the bytes: as long as `get` with `unless` answers UNCHANGED,
  the body is the one that came with that etag. It is opaque, and of no use with
  another store. It is empty where the store has none that holds this; then `get`
  with it answers as without.
- `get` hands over at most `limit` octets, and stops reading once there are more.
- One deadline is around each call, retries included: `DEADLINE_SECONDS` after its
  start it has returned or raised StoreUnreachable, even if the peer sends one
  octet at a time for ever. (What the system needs to find an address and to
  connect is bounded apart: by its resolver's limits, and 5 s an address. So is
  asking for temporary keys, where the store's source needs that. A file system that
  doesn't answer is the kernel's to wait for.)
- What a retry may mend is retried here (no answer, 429, 5xx, a body that came
  damaged), each attempt signed anew; what only a person can mend is raised at
  once. Errors are StoreError and what is kept is the caller's to add.

Not promised: conditional writes (OSS has none, so two publishers must exclude
each other elsewhere), reads that see other hosts' writes at once when a cache
stands in between (a reader checks the sequence inside the object), a `list`
that is one moment's picture, and use by two threads at a time.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from certcast.report.errors import StoreTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

DEADLINE_SECONDS = 30.0

# Narrower than any bucket or file system asks for; every key of the layout fits.
KEY = re.compile(r"(?!\.)[A-Za-z0-9._-]+(/(?!\.)[A-Za-z0-9._-]+)*")


@dataclass(frozen=True)
class Object:
    """An object as `get` found it. `etag` is only ever given back as `unless`."""

    body: bytes = field(repr=False)  # may be a private key
    etag: str


class Unchanged(enum.Enum):
    """The answer to `get` when the object still has the etag in `unless`."""

    UNCHANGED = "unchanged"


class Reader(Protocol):
    """What a host that serves needs of a bucket. Each method may raise StoreError."""

    url: str
    """The identity that manifests carry, like `oss://bucket/prefix`: no trailing slash, no secret."""

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        """Return the object, UNCHANGED if its etag is `unless`, or None if there is no such key.

        Raises StoreTooLarge for a body of more than `limit` octets.
        """


class Store(Reader, Protocol):
    """A bucket, or a part of one, that may be changed."""

    def put(self, key: str, body: bytes) -> str:
        """Write the object and return its etag."""

    def list(self, prefix: str) -> list[str]:
        """Return all keys in the sense of `KEY` that begin with `prefix` ("" for every key), sorted."""

    def delete(self, key: str) -> None:
        """Remove the object; a missing one is fine."""

    def purge(self, key: str) -> bool:
        """Remove the object with its older versions; False if older versions may be left."""


def checked_key(key: str) -> str:
    """Return `key`; ValueError if it isn't one that every implementation takes literally."""
    if not KEY.fullmatch(key):
        raise ValueError(f"not a key of a store: {key!r}")
    return key


def listed(names: Iterable[str]) -> list[str]:
    """Return those of the names in a bucket that are keys of a store, sorted."""
    return sorted(name for name in names if KEY.fullmatch(name))


def checked_prefix(prefix: str) -> str:
    """Return `prefix`: empty, a key, or a key and a slash; ValueError for anything else."""
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix


def too_large(key: str, limit: int) -> StoreTooLarge:
    """The error for an object beyond its reader's limit."""
    return StoreTooLarge(
        f"{key} is larger than such an object can be",
        expected=f"at most {limit:,} octets",
        found="more than that; the rest was not read",
        next=f"look at who wrote {key}, then publish again",
    )
