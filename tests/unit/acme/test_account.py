"""The account at a CA, as this host has written it down."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from certcast.acme.account import Account, drop_record, recorded_uri, save
from certcast.acme.ca import Ca
from certcast.config.model import RenewalConfig
from certcast.report.errors import LocalFault

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
URL, URI = "https://ca.test/directory", "https://ca.test/account/1"
# account.json as version 0.1 writes it, with every field set.
WRITTEN = """{
  "directory": "https://ca.test/directory",
  "uri": "https://ca.test/account/1",
  "recorded_at": "2026-11-23T12:00:00Z"
}
"""


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(URL, tmp_path, RenewalConfig(), clock=lambda: NOW, note=print)


def test_the_record_is_the_one_of_version_0_1(ca: Ca) -> None:
    """An account is the same one after an update; and the bytes are the same."""
    save(ca, Account(URI, None))  # type: ignore[arg-type]  # the key has a file of its own
    assert WRITTEN == (ca.folder / "account.json").read_text()
    assert URI == recorded_uri(ca.folder)


def test_a_record_that_was_dropped_is_none(ca: Ca) -> None:
    """The account is then looked for by its key; to drop it twice is no failure."""
    save(ca, Account(URI, None))  # type: ignore[arg-type]
    for _ in range(2):
        drop_record(ca.folder)
        assert recorded_uri(ca.folder) is None


@pytest.mark.parametrize("damage", ["", "[]", "{}", WRITTEN.replace(f'"{URI}"', "3")])
def test_a_damaged_record_is_not_guessed(ca: Ca, damage: str) -> None:
    """The message names the file: without it, the account is found again by its key."""
    save(ca, Account(URI, None))  # type: ignore[arg-type]
    path = ca.folder / "account.json"
    path.write_text(damage)
    with pytest.raises(LocalFault, match="is damaged") as caught:
        recorded_uri(ca.folder)
    assert f"move {path} away" in (caught.value.next or "")
