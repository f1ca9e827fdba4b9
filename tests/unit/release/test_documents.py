"""JSON documents are read by their types, and by nothing less than these say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from certcast.release import documents
from certcast.release.documents import Sha256, Text
from certcast.report.errors import LocalFault


@dataclass(frozen=True)
class Inner:
    digest: Sha256


@dataclass(frozen=True)
class Document:
    name: Text
    at: datetime
    inner: Inner | None = None
    digests: tuple[Sha256, ...] = ()


WHOLE = {"name": "x", "at": "2026-11-23T12:00:00Z", "inner": {"digest": "a" * 64}, "digests": ["b" * 64]}
READ = Document("x", datetime(2026, 11, 23, 12, tzinfo=timezone.utc), Inner("a" * 64), ("b" * 64,))


def test_a_document_is_read_and_written_by_its_type(tmp_path: Path) -> None:
    """What one run writes, the next one reads; a file that is not there is None."""
    assert READ == documents.structure(WHOLE, Document)
    assert WHOLE == documents.unstructure(READ)
    assert documents.read(tmp_path / "file", Document) is None
    documents.write(tmp_path / "file", READ)
    assert READ == documents.read(tmp_path / "file", Document)


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"name": 5}, "name: is not a plain text"),
        ({"name": "a\n"}, "name: is not a plain text"),
        ({"at": "today"}, "at: "),
        ({"inner": {"digest": "A" * 64}}, "inner.digest: is not 64 hex digits"),
        ({"inner": {}}, "inner.digest: is missing"),
        ({"digests": ["a"]}, "digests[0]: is not 64 hex digits"),
        ({"more": 1}, "unknown: more"),
    ],
)
def test_a_value_must_be_what_its_type_says(change: dict[str, object], mistake: str) -> None:
    """Each mistake stands behind the path of its value; also what Annotated asks of a nested one."""
    with pytest.raises(ValueError) as caught:
        documents.structure({**WHOLE, **change}, Document)
    assert str(caught.value).startswith(mistake)


def test_a_field_with_a_default_may_be_missing() -> None:
    """An earlier version wrote fewer fields."""
    assert documents.structure({"name": "x", "at": "2026-11-23T12:00:00Z"}, Document).digests == ()


def test_a_damaged_document_is_told_by_its_path(tmp_path: Path) -> None:
    """State is not guessed: a person decides what to do with the file."""
    (tmp_path / "file").write_text('{"name": 1}')
    with pytest.raises(LocalFault, match="file"):
        documents.read(tmp_path / "file", Document)
