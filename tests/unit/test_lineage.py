"""certbot's files, as they stand after good and bad days."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from certcast.errors import LineageUnusable
from certcast.renewal import lineage
from certcast_lab.ca import Authority, Pair

if TYPE_CHECKING:
    from pathlib import Path

NAME = "example.test"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority("Lab")


def archive(config_dir: Path, version: int, pair: Pair) -> None:
    """Write version `version` into the archive as certbot does."""
    folder = config_dir / "archive" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"fullchain{version}.pem").write_bytes(pair.fullchain_pem)
    (folder / f"privkey{version}.pem").write_bytes(pair.key_pem)


def link(config_dir: Path, file: str, version: int) -> None:
    """Let live/NAME/FILE.pem lead to that version."""
    live = config_dir / "live" / NAME
    live.mkdir(parents=True, exist_ok=True)
    (live / f"{file}.pem").unlink(missing_ok=True)
    (live / f"{file}.pem").symlink_to(f"../../archive/{NAME}/{file}{version}.pem")


def test_links_caught_between_two_versions_still_give_a_matching_pair(tmp_path: Path, ca: Authority) -> None:
    """While certbot moves its links one by one, certificate and key are read from one version."""
    old, new = ca.issue(NAME), ca.issue(NAME)
    archive(tmp_path, 1, old)
    archive(tmp_path, 2, new)
    link(tmp_path, "fullchain", 2)
    link(tmp_path, "privkey", 1)
    found = lineage.read(tmp_path, NAME)
    assert (2, new.fullchain_pem, new.key_pem) == (found.version, found.fullchain, found.privkey)


def test_a_key_that_does_not_belong_to_its_certificate_is_never_published(
    tmp_path: Path, ca: Authority
) -> None:
    """A mixed-up archive is refused with the command that mends it."""
    archive(tmp_path, 1, Pair(ca.issue(NAME).fullchain_pem, ca.issue(NAME).key_pem))
    link(tmp_path, "fullchain", 1)
    with pytest.raises(LineageUnusable, match="does not belong") as caught:
        lineage.read(tmp_path, NAME)
    assert "--force-renewal" in (caught.value.next or "")


@pytest.mark.parametrize("broken", ["nothing", "dangling", "not a link", "empty", "no key"])
def test_a_damaged_lineage_is_named_not_a_traceback(tmp_path: Path, ca: Authority, broken: str) -> None:
    """Whatever is wrong with certbot's files, the message names the file or the version."""
    if broken != "nothing":
        archive(tmp_path, 1, ca.issue(NAME))
        link(tmp_path, "fullchain", 1)
    if broken == "dangling":
        link(tmp_path, "fullchain", 9)
    if broken == "not a link":
        live = tmp_path / "live" / NAME / "fullchain.pem"
        live.unlink()
        live.write_bytes(ca.issue(NAME).fullchain_pem)
    if broken == "empty":
        (tmp_path / "archive" / NAME / "fullchain1.pem").write_bytes(b"")
    if broken == "no key":
        (tmp_path / "archive" / NAME / "privkey1.pem").unlink()
    with pytest.raises(LineageUnusable, match=NAME):
        lineage.read(tmp_path, NAME)


def test_a_lineage_never_prints_its_key(tmp_path: Path, ca: Authority) -> None:
    """A debug print or a traceback with the object in it shows no private key."""
    archive(tmp_path, 1, ca.issue(NAME))
    link(tmp_path, "fullchain", 1)
    assert "BEGIN" not in repr(lineage.read(tmp_path, NAME))


@pytest.mark.parametrize("life", [timedelta(days=90), timedelta(days=45), timedelta(hours=160)])
def test_fresh_means_before_the_window_whatever_the_life(
    tmp_path: Path, ca: Authority, life: timedelta
) -> None:
    """A new 45-day certificate is fresh; one that is due again is not, though it is valid."""
    archive(tmp_path, 1, ca.issue(NAME, not_before=NOW, not_after=NOW + life))
    link(tmp_path, "fullchain", 1)
    found = lineage.read(tmp_path, NAME)
    lineage.require_fresh(found, NOW)
    with pytest.raises(LineageUnusable, match="not a fresh one"):
        lineage.require_fresh(found, NOW + life * 0.7)
    with pytest.raises(LineageUnusable, match="not a fresh one"):
        lineage.require_fresh(found, NOW - timedelta(seconds=1))
