"""The pointer to the current release: what a publisher writes and a consumer believes.

    {prefix}/certs/{name}/manifest                          this, written last
    {prefix}/certs/{name}/releases/{leaf}/fullchain.pem     what it points to, immutable
                                          keys/{host}.….age   (sealing.py)

JSON text with the publisher's signature below it (signing.py), which is verified before this module reads
the text. Reading is strict all the same: at most 64 KiB, each field once, and no field that is not known.
No field is a path: a reader makes every path of its own configuration and the leaf's SHA-256.

- `sequence` grows when the leaf, `revoked`, `held_off` or `step_back` change, and only then.
- Manifests of one sequence differ in `published_at` and `expires` at most.
- "Newer" means a later `not_before` of the leaf; `not_after` is never compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Annotated, Any

from certcast.release import documents
from certcast.release.certificate import Leaf
from certcast.release.documents import Check, Md5, Sha256, Text, whole_number
from certcast.report.errors import ManifestInvalid

FORMAT = 1
LIMIT = 64 * 1024
EXPIRES_AFTER = timedelta(days=7)
LAST_SEQUENCE = documents.LARGEST_NUMBER

FULLCHAIN = "fullchain.pem"
PRIVKEY = "privkey.pem"
# What the manifest gives a digest of, and what a host has of a release: nginx reads these two
# and no other of certbot's four (docs/adr/0002).
FILES = (FULLCHAIN,)
PAIR = (FULLCHAIN, PRIVKEY)
# A chain of ten 4 KiB certificates; an RSA-4096 key is 3.3 KiB.
FILE_LIMIT = 64 * 1024


def _this_format(value: Any) -> int:
    if value != FORMAT or type(value) is not int:  # True and 1.0 equal 1
        raise ValueError(f"{value!r} is not the format that this reader knows")
    return FORMAT


def _file_size(value: Any) -> int:
    size = whole_number(value)
    if size > FILE_LIMIT:
        raise ValueError(f"the file would have {size:,} bytes; at most {FILE_LIMIT:,} are read")
    return size


@dataclass(frozen=True)
class Digest:
    """Size in octets, MD5 and SHA-256 in lower-case hex of one file.

    SHA-256 decides; MD5 serves the comparison that the users asked for. The private key needs no digest:
    its public half, `leaf.public_key_sha256`, binds it.
    """

    size: Annotated[int, Check(_file_size)]
    md5: Md5
    sha256: Sha256

    @classmethod
    def of(cls, body: bytes) -> Digest:
        """Return the digest of `body`."""
        return cls(
            size=len(body),
            md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
            sha256=hashlib.sha256(body).hexdigest(),
        )

    def __str__(self) -> str:
        return f"sha256 {self.sha256[:8]}…, {self.size:,} bytes"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The current release of one certificate in one store; the fields in the order of the published text."""

    format: Annotated[int, Check(_this_format)] = FORMAT
    store: Text
    certificate: Text
    sequence: Annotated[int, Check(whole_number)]
    published_at: datetime
    expires: datetime
    publisher: Text
    leaf: Leaf
    files: dict[str, Digest]
    step_back: bool = False
    held_off: tuple[Sha256, ...] = ()
    revoked: tuple[Sha256, ...] = ()

    def same_release(self, other: Manifest) -> bool:
        """Return whether only the times of signing differ."""
        return replace(self, published_at=other.published_at, expires=other.expires) == other


def manifest_key(certificate: str) -> str:
    """Return the object key of a certificate's manifest, relative to the prefix."""
    return f"certs/{certificate}/manifest"


def releases_prefix(certificate: str) -> str:
    """Return what the object keys of all releases of a certificate begin with."""
    return f"certs/{certificate}/releases/"


def release_key(certificate: str, leaf_sha256: str, file: str) -> str:
    """Return the object key of one file of a release, relative to the prefix."""
    return f"{releases_prefix(certificate)}{leaf_sha256}/{file}"


def write(manifest: Manifest) -> bytes:
    """Return the manifest as the bytes that are published."""
    return (json.dumps(documents.unstructure(manifest), indent=2, ensure_ascii=False) + "\n").encode()


def read(body: bytes, *, store: str, certificate: str) -> Manifest:
    """Parse and check published bytes for a reader of `store` and `certificate`.

    Raises ManifestInvalid: not a manifest, or one for another place.
    """
    try:
        manifest = _parse(body)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"{certificate}: the published manifest cannot be used",
            expected=f"a certcast manifest of format {FORMAT}",
            found=str(error),
            next=f"on the renewal host run `certcast renew {certificate}`, which writes it anew",
        ) from None
    for word, wanted, found in (
        ("store", store, manifest.store),
        ("certificate", certificate, manifest.certificate),
    ):
        if wanted != found:
            raise ManifestInvalid(
                f"{certificate}: the manifest was written for another {word}",
                expected=wanted,
                found=found,
                next=f"compare store.url here and on the renewal host; somebody may have copied the {word}",
            )
    return manifest


def _parse(body: bytes) -> Manifest:
    if len(body) > LIMIT:
        raise ValueError(f"{len(body):,} bytes; at most {LIMIT:,} are read")
    document = json.loads(body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    manifest = documents.structure(document, Manifest)
    # A default is for the publisher's code; in the published text every field has to stand.
    if missing := [field.name for field in fields(Manifest) if field.name not in document]:
        raise ValueError(f"missing: {', '.join(missing)}")
    if set(manifest.files) != set(FILES):
        raise ValueError(f"files are {', '.join(manifest.files) or 'none'}, not {', '.join(FILES)}")
    return manifest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")
