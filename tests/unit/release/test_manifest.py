"""The manifest: readable, and strict with bytes that come from a bucket."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from certcast.release import manifest
from certcast.release.certificate import Leaf
from certcast.release.manifest import Digest, Manifest
from certcast.report.errors import ManifestInvalid

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
STORE, NAME = "oss://bucket/prefix", "example.com"
ONE = Manifest(
    store=STORE,
    certificate=NAME,
    sequence=7,
    published_at=NOW,
    expires=NOW + timedelta(days=7),
    publisher="renewal-1",
    leaf=Leaf(
        sha256="a" * 64,
        serial="0A1B",
        issuer="CN=Lab",
        not_before=NOW,
        not_after=NOW + timedelta(days=90),
        names=("*.example.com", "example.com"),
        public_key_sha256="b" * 64,
    ),
    files={name: Digest.of(name.encode()) for name in manifest.FILES},
    revoked=("c" * 64,),
)


def read(body: bytes) -> Manifest:
    return manifest.read(body, store=STORE, certificate=NAME)


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(manifest.write(ONE)), **fields}).encode()


WRITTEN = """{
  "format": 1,
  "store": "oss://bucket/prefix",
  "certificate": "example.com",
  "sequence": 7,
  "published_at": "2026-11-23T12:00:00Z",
  "expires": "2026-11-30T12:00:00Z",
  "publisher": "renewal-1",
  "leaf": {
    "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "serial": "0A1B",
    "issuer": "CN=中文",
    "not_before": "2026-11-23T12:00:00Z",
    "not_after": "2027-02-21T12:00:00Z",
    "names": [
      "*.example.com",
      "example.com"
    ],
    "public_key_sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  },
  "files": {
    "fullchain.pem": {
      "size": 13,
      "md5": "ad539133531f4d48453b9ba10d2b882d",
      "sha256": "89b1fcd209022fcbd51f28ed58da6590976e7bd82e0588d1b6474a89e931a6b6"
    }
  },
  "step_back": false,
  "held_off": [],
  "revoked": [
    "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
  ]
}
"""


def test_published_bytes_stay_as_they_are() -> None:
    """What certcast 0.1 has published is read, and written again octet for octet: a signature is over it."""
    assert replace(ONE, leaf=replace(ONE.leaf, issuer="CN=中文")) == read(WRITTEN.encode())
    assert WRITTEN.encode() == manifest.write(read(WRITTEN.encode()))


@pytest.mark.parametrize("field", json.loads(WRITTEN))
def test_each_field_has_to_stand(field: str) -> None:
    """A field with a default in the code is still no field that a manifest may lack."""
    document = json.loads(WRITTEN)
    del document[field]
    with pytest.raises(ManifestInvalid):
        read(json.dumps(document).encode())


def test_what_is_written_is_read_back() -> None:
    """Nothing is lost between publisher and consumer."""
    assert ONE == read(manifest.write(ONE))


def test_a_person_can_read_it() -> None:
    """One field a line, times in UTC, names as text."""
    text = manifest.write(ONE).decode()
    assert '  "published_at": "2026-11-23T12:00:00Z",\n' in text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{" * 70_000,
        b"[" * 50_000,
        manifest.write(ONE).replace(b'"sequence": 7', b'"sequence": 7, "sequence": 8'),
        manifest.write(ONE).replace(b'"sequence": 7', b'"sequence": NaN'),
        manifest.write(ONE) + b" " * manifest.LIMIT,
        changed(format=2),
        changed(format=True),
        changed(format=1.0),
        changed(sequence=0),
        changed(sequence=True),
        changed(sequence=2**53 + 1),
        changed(sequence="7"),
        changed(step_back=1),
        changed(expires="2026-11-23"),
        changed(publisher="a\x1b[31m"),
        changed(held_off=["../../etc"]),
        changed(revoked="c" * 64),
        changed(surprise=1),
        changed(publisher=""),
        changed(publisher="a" * 1025),
        changed(leaf=1),
        changed(files=[]),
        changed(leaf={}),
        changed(files={}),
        changed(files={"privkey.pem": {"size": 1, "md5": "a" * 32, "sha256": "a" * 64}}),
        changed(files={"fullchain.pem": {"size": 1, "md5": "a" * 32, "sha256": "a" * 63}}),
        changed(files={**json.loads(manifest.write(ONE))["files"], "../x": {}}),
    ],
    ids=range(31),
)
def test_anything_else_is_refused(body: bytes) -> None:
    """Garbage, duplicate fields, NaN, unknown fields, paths and odd types all end in ManifestInvalid."""
    with pytest.raises(ManifestInvalid):
        read(body)


def test_a_changed_byte_gives_a_manifest_or_a_refusal() -> None:
    """Whatever single byte is damaged in the bucket, the reader says so or reads a well-formed manifest."""
    body = manifest.write(ONE)
    for index in range(len(body)):
        for value in (body[index] ^ 1, body[index] ^ 0x80, ord('"'), 0):
            damaged = body[:index] + bytes([value]) + body[index + 1 :]
            with contextlib.suppress(ManifestInvalid):
                assert isinstance(read(damaged), Manifest)


def test_a_huge_file_is_refused_before_it_is_fetched() -> None:
    """A manifest cannot make a consumer download a gigabyte."""
    files = {name: {"size": 10**9, "md5": "a" * 32, "sha256": "a" * 64} for name in manifest.FILES}
    with pytest.raises(ManifestInvalid) as caught:
        read(changed(files=files))
    assert "1,000,000,000 bytes" in (caught.value.found or "")


@pytest.mark.parametrize(("word", "field"), [("store", "store"), ("certificate", "certificate")])
def test_a_manifest_of_another_place_is_refused(word: str, field: str) -> None:
    """A manifest copied from another bucket or certificate says so when it is refused."""
    with pytest.raises(ManifestInvalid, match=f"for another {word}"):
        read(changed(**{field: "elsewhere"}))


def test_signing_again_is_the_same_release() -> None:
    """Only the times may differ under one sequence number."""
    later = replace(ONE, published_at=NOW + timedelta(days=3), expires=NOW + timedelta(days=10))
    assert ONE.same_release(later)
    assert not ONE.same_release(replace(later, revoked=()))
