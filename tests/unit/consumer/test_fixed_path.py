"""Targets in a folder that belongs to somebody else, who may exchange what is in it at any moment."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from certcast.consumer.disk import fixed_path
from certcast.consumer.disk.fixed_path import Before, Wanted


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "shadow"
    file.write_text("not for the owner of the folder")
    file.chmod(0o600)
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "application"
    folder.mkdir()
    target = folder / "privkey.pem"
    target.write_text("old")
    return target


def test_link_that_takes_a_targets_place_is_not_read_through(secret: Path, target: Path) -> None:
    """A target that becomes a link while it is being saved has nothing of what it leads to copied."""
    wanted = Wanted(target, b"new", -1, -1, 0o600)
    before = fixed_path.inspect(wanted)
    target.unlink()
    target.symlink_to(secret)

    with pytest.raises(OSError, match="symbolic links"):
        fixed_path.prepare(wanted, before)

    assert [target] == list(target.parent.iterdir())


def test_link_in_the_place_of_the_old_file_opens_nothing_up(secret: Path, target: Path) -> None:
    """Putting a file back gives its mode to that file alone, not to what a link of its name leads to."""
    fixed_path.beside_old(target).symlink_to(secret)

    with pytest.raises(OSError, match="symbolic links"):
        fixed_path.put_back(Before(target, "file", mode=0o644))

    assert 0o600 == stat.S_IMODE(secret.stat().st_mode)
