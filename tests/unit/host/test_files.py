"""Files and locks: what is on the disk at any instant, and who may work on it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from certcast.host import files
from certcast.report.errors import Busy, LocalFault


def test_a_reader_sees_the_old_or_the_new_content(tmp_path: Path) -> None:
    """Replacing a file is one rename; it is private whatever the umask, and nothing stays beside it."""
    path = tmp_path / "state.json"
    before = os.umask(0)
    try:
        files.write_atomically(path, b"old")
        with path.open("rb") as reader:
            files.write_atomically(path, b"new")
            assert b"old" == reader.read()
    finally:
        os.umask(before)
    assert b"new" == path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """When there is no room, what stood there stays whole, and the error says to make room."""
    path = tmp_path / "state.json"
    files.write_atomically(path, b"old")
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from certcast.host import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with files.reported('save it', kept='the old one'):\n"
        "    files.write_atomically(Path(sys.argv[1]), b'x' * 5000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert "LocalFault" in done.stderr
    assert b"old" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_leftovers_of_a_crash_are_no_obstacle(tmp_path: Path) -> None:
    """A half-written file beside the real one is replaced by the next run."""
    path = tmp_path / "state.json"
    (tmp_path / ".state.json.new").write_bytes(b"half")
    files.write_atomically(path, b"new")
    assert b"new" == path.read_bytes()


def test_a_link_that_somebody_placed_is_not_followed(tmp_path: Path) -> None:
    """A symlink at the name of a new file is refused, so nobody's other file is overwritten."""
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (tmp_path / "key.pem").symlink_to(target)
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "key.pem", b"key")
    assert b"precious" == target.read_bytes()


def test_a_lock_excludes_another_process_and_ends_with_it(tmp_path: Path) -> None:
    """A second run is told who to look for; when the first is killed, the lock is free at once."""
    path = tmp_path / "deep" / "lock"
    script = (
        "import sys\nfrom pathlib import Path\nfrom certcast.host import files\n"
        "with files.lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert b"held\n" == holder.stdout.readline()
        with pytest.raises(Busy, match="another run holds") as caught, files.lock(path):
            pass
        assert f"fuser -v {path}" in (caught.value.next or "")
    finally:
        holder.kill()
        holder.communicate()
    with files.lock(path):
        pass


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"null"])
def test_damaged_state_is_not_guessed(tmp_path: Path, content: bytes) -> None:
    """A state file that is not what certcast wrote stops the run and says which file to move away."""
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(LocalFault) as caught:
        files.read_json(path)
    assert f"move {path} away" in (caught.value.next or "")


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "df -h"), (errno.EACCES, "root"), (errno.EROFS, "writable")]
)
def test_each_common_fault_of_a_disk_has_its_advice(number: int, advice: str) -> None:
    """Full, forbidden and read-only are told apart."""
    with pytest.raises(LocalFault) as caught, files.reported("save it", kept="all"):
        raise OSError(number, os.strerror(number), "/somewhere")
    assert advice in (caught.value.next or "")
    assert "/somewhere" in (caught.value.found or "")


def test_a_lock_is_no_way_to_make_files_elsewhere(tmp_path: Path) -> None:
    """A link at the lock's path makes an error that names it; where it leads, nothing comes to be."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalFault, match="lock") as caught, files.lock(tmp_path / "lock"):
        pass
    assert "placed a link there" in (caught.value.next or "")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_is_free_though_a_child_has_a_copy_of_it(tmp_path: Path) -> None:
    """Between a fork and its exec a child has all descriptors: it holds no lock up for that."""
    waiting, goes = os.pipe()
    with files.lock(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            os.close(goes)
            os.read(waiting, 1)
            os._exit(0)
    try:
        with files.lock(tmp_path / "lock"):
            pass
    finally:
        os.close(goes)
        os.close(waiting)
        os.waitpid(child, 0)
