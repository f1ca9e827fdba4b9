"""The pointer to the current release: what a publisher writes and a consumer believes.

    {prefix}/certs/{name}/manifest                          this, written last
    {prefix}/certs/{name}/releases/{leaf}/fullchain.pem     what it points to, immutable
                                          keys/{host}.….age   (sealing.py)

JSON text, readable to a person, with the publisher's signature below it (signing.py); it is
verified before anything here looks at it. The private key has no digest of its own: its
public half, `leaf.public_key_sha256`, binds it. Reading is strict, since these bytes come from a
bucket: at most 64 KiB, no duplicate fields, no NaN, no field that is not known, no
path (a reader computes every path from its own configuration and the leaf's
SHA-256, which is 64 hex digits or the manifest is refused).

Rules that readers and writers share:
- `sequence` grows when the leaf, `revoked`, `held_off` or `step_back` change, and only then.
- equal sequence: everything but `published_at` and `expires` is identical.
- "newer" means a later `not_before` of the leaf; `not_after` is never compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from certcast.release.certificate import Leaf
from certcast.release.lifetime import from_utc_text, utc_text
from certcast.report.errors import ManifestInvalid

FORMAT = 1
LIMIT = 64 * 1024
EXPIRES_AFTER = timedelta(days=7)
# The largest whole number that every JSON reader keeps (RFC 8259, 6).
LAST_SEQUENCE = 2**53

FULLCHAIN = "fullchain.pem"
PRIVKEY = "privkey.pem"
# What the manifest gives a digest of, and what a host has of a release: nginx reads these two
# and no other of certbot's four (docs/adr/0002).
FILES = (FULLCHAIN,)
PAIR = (FULLCHAIN, PRIVKEY)
# A chain of ten 4 KiB certificates; an RSA-4096 key is 3.3 KiB.
FILE_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Digest:
    """Size in octets, MD5 and SHA-256 in lower-case hex of one file.

    SHA-256 decides; MD5 serves the comparison that the users asked for.
    """

    size: int
    md5: str
    sha256: str

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


@dataclass(frozen=True)
class Manifest:
    """The current release of one certificate in one store."""

    store: str
    certificate: str
    sequence: int
    published_at: datetime
    expires: datetime
    publisher: str
    leaf: Leaf
    files: dict[str, Digest]
    step_back: bool = False
    held_off: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()

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
    leaf = manifest.leaf
    document = {
        "format": FORMAT,
        "store": manifest.store,
        "certificate": manifest.certificate,
        "sequence": manifest.sequence,
        "published_at": utc_text(manifest.published_at),
        "expires": utc_text(manifest.expires),
        "publisher": manifest.publisher,
        "leaf": {
            "sha256": leaf.sha256,
            "serial": leaf.serial,
            "issuer": leaf.issuer,
            "not_before": utc_text(leaf.not_before),
            "not_after": utc_text(leaf.not_after),
            "names": list(leaf.names),
            "public_key_sha256": leaf.public_key_sha256,
        },
        "files": {
            name: {"size": digest.size, "md5": digest.md5, "sha256": digest.sha256}
            for name, digest in sorted(manifest.files.items())
        },
        "step_back": manifest.step_back,
        "held_off": list(manifest.held_off),
        "revoked": list(manifest.revoked),
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


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
    top = _object(document, "the manifest")
    if top.get("format") != FORMAT or type(top["format"]) is not int:  # True and 1.0 equal 1
        raise ValueError(f"format is {top.get('format')!r}")
    _only(top, "the manifest", _TOP_FIELDS)
    leaf = _object(top["leaf"], "leaf")
    _only(leaf, "leaf", _LEAF_FIELDS)
    files = _object(top["files"], "files")
    _only(files, "files", FILES)
    return Manifest(
        store=_text(top, "store"),
        certificate=_text(top, "certificate"),
        sequence=_count(top, "sequence"),
        published_at=_time(top, "published_at"),
        expires=_time(top, "expires"),
        publisher=_text(top, "publisher"),
        leaf=Leaf(
            sha256=_hex(leaf, "sha256", 64),
            serial=_text(leaf, "serial"),
            issuer=_text(leaf, "issuer"),
            not_before=_time(leaf, "not_before"),
            not_after=_time(leaf, "not_after"),
            names=tuple(_texts(leaf, "names")),
            public_key_sha256=_hex(leaf, "public_key_sha256", 64),
        ),
        files={name: _digest(files[name], name) for name in FILES},
        step_back=_flag(top, "step_back"),
        held_off=tuple(_leaves(top, "held_off")),
        revoked=tuple(_leaves(top, "revoked")),
    )


_TOP_FIELDS = (
    "format", "store", "certificate", "sequence", "published_at", "expires", "publisher",
    "leaf", "files", "step_back", "held_off", "revoked",
)  # fmt: skip
_LEAF_FIELDS = ("sha256", "serial", "issuer", "not_before", "not_after", "names", "public_key_sha256")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _only(document: dict[str, Any], what: str, known: tuple[str, ...]) -> None:
    missing = [name for name in known if name not in document]
    unknown = [name for name in document if name not in known]
    if missing or unknown:
        raise ValueError(f"{what}: missing {missing}, unknown {unknown}")


def _text(document: dict[str, Any], name: str) -> str:
    value = document[name]
    # Control characters would reach terminals and mails.
    if not isinstance(value, str) or not value or len(value) > 1024 or not value.isprintable():
        raise ValueError(f"{name} is not a plain text")
    return value


def _texts(document: dict[str, Any], name: str) -> list[str]:
    values = document[name]
    if not isinstance(values, list):
        raise ValueError(f"{name} is not a list")
    return [_text({name: value}, name) for value in values]


def _count(document: dict[str, Any], name: str) -> int:
    value = document[name]
    if type(value) is not int or not 0 < value <= LAST_SEQUENCE:
        raise ValueError(f"{name} is not a positive whole number")
    return value


def _flag(document: dict[str, Any], name: str) -> bool:
    value = document[name]
    if type(value) is not bool:
        raise ValueError(f"{name} is not true or false")
    return value


def _time(document: dict[str, Any], name: str) -> datetime:
    try:
        return from_utc_text(_text(document, name))
    except ValueError:
        raise ValueError(f"{name} is not a time like 2026-11-23T18:05:00Z") from None


def _hex(document: dict[str, Any], name: str, digits: int) -> str:
    value = _text(document, name)
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
        raise ValueError(f"{name} is not {digits} hex digits")
    return value


def _leaves(document: dict[str, Any], name: str) -> list[str]:
    return [_hex({name: value}, name, 64) for value in _texts(document, name)]


def _digest(value: Any, name: str) -> Digest:
    fields = _object(value, name)
    _only(fields, name, ("size", "md5", "sha256"))
    size = _count(fields, "size")
    if size > FILE_LIMIT:
        raise ValueError(f"{name} would have {size:,} bytes; at most {FILE_LIMIT:,} are read")
    return Digest(size=size, md5=_hex(fields, "md5", 32), sha256=_hex(fields, "sha256", 64))
