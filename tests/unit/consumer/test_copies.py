"""The note of fixed paths that are under way, as an earlier version of certcast may have left it."""

from __future__ import annotations

from pathlib import Path

import pytest

from certcast.config.model import AbsolutePath, CopyConfig
from certcast.consumer.disk import fixed_path
from certcast.consumer.disk.copies import Copies
from certcast.consumer.disk.versions import Folder
from certcast.host.files import make_private_dir
from certcast.report.errors import LocalFault

# As certcast wrote it before the note was a document of documents.py.
NOTE = """\
{
  "targets": [
    {
      "path": "FOLDER/fullchain.pem",
      "kind": "file",
      "leads_to": "",
      "owner": 0,
      "group": 0,
      "mode": 416
    },
    {
      "path": "FOLDER/privkey.pem",
      "kind": "link",
      "leads_to": "../archive/privkey1.pem",
      "owner": -1,
      "group": -1,
      "mode": 0
    },
    {
      "path": "FOLDER/combined.pem",
      "kind": "nothing",
      "leads_to": "",
      "owner": -1,
      "group": -1,
      "mode": 0
    }
  ]
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path, "example.test")
    make_private_dir(made.versions)
    return made


def test_note_of_an_earlier_version_is_put_back(folder: Folder, tmp_path: Path) -> None:
    """A note that an earlier version left says what to put back: a file with its mode, a link, nothing."""
    file, link, nothing = (tmp_path / f"{name}.pem" for name in ("fullchain", "privkey", "combined"))
    for replaced in (file, link, nothing):
        replaced.write_text("new")
    fixed_path.beside_old(file).write_text("old")
    fixed_path.beside_old(link).symlink_to("../archive/privkey1.pem")
    note = folder.root / "copies-replacing.json"
    note.write_text(NOTE.replace("FOLDER", str(tmp_path)))

    Copies(folder, ()).settle()

    assert "old" == file.read_text()
    assert 0o640 == file.stat().st_mode & 0o777
    assert Path("../archive/privkey1.pem") == link.readlink()
    assert not nothing.exists()
    assert [] == [*tmp_path.glob(".*"), *folder.root.glob("copies-*")]


def test_note_is_written_as_it_was(folder: Folder, tmp_path: Path) -> None:
    """The note has the form that an earlier version reads, as after a downgrade."""
    version = folder.versions / "1-aaaaaaaaaaaaaaaa"
    version.mkdir()
    (version / "fullchain.pem").write_text("chain")
    (version / "privkey.pem").write_text("key")
    (tmp_path / "privkey.pem").symlink_to("../archive/privkey1.pem")
    entry = CopyConfig(privkey=AbsolutePath(tmp_path / "privkey.pem"))
    written = []

    def read_note(step: str) -> None:
        if step == "noted":
            written.append((folder.root / "copies-preparing.json").read_text())

    with Copies(folder, (entry,), after=read_note).replaced(version.name):
        pass

    link = NOTE.split("    {\n")[2].rstrip(",\n ")
    assert [f'{{\n  "targets": [\n    {{\n{link}\n  ]\n}}\n'.replace("FOLDER", str(tmp_path))] == written


@pytest.mark.parametrize("note", ["{}", '{"targets": [{"kind": "file"}]}', "half a no"])
def test_damaged_note_is_refused_with_what_it_stood_for(folder: Folder, note: str) -> None:
    """A note that cannot be read stops the run, and the report says where the old files are."""
    (folder.root / "copies-replacing.json").write_text(note)
    with pytest.raises(LocalFault, match="is damaged") as damaged:
        Copies(folder, ()).settle()
    assert "beside each target is its old file" in (damaged.value.next or "")
