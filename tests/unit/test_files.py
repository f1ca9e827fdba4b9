"""Files and locks: what is on the disk at any instant, and who may work on it."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from certcast import files
from certcast.errors import Busy, LocalFault, SecretExposed


def test_a_reader_sees_the_old_or_the_new_content_and_nobody_else_reads_either(tmp_path: Path) -> None:
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
        "from certcast import files\n"
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
        "import sys\nfrom pathlib import Path\nfrom certcast import files\n"
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


# -- files with secrets

SOMEBODY, US, ANYBODY = 65534, os.geteuid(), 0xFFFFFFFF
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "it's secret"
    files.write_new(path, b"secret")
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_file_is_read(secret: Path, mode: int) -> None:
    """What its owner alone may touch is read, whether it may be written or not."""
    secret.chmod(mode)
    files.require_private(secret, "the password")
    assert b"secret" == files.read_private(secret, "the password")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o601])
def test_a_file_that_others_may_read_or_write_is_refused_with_the_command_that_mends_it(
    secret: Path, mode: int
) -> None:
    """The report names the file, its mode and owner; the command in it, run as it stands, mends it."""
    secret.chmod(mode)
    for look in (files.require_private, files.read_private):
        with pytest.raises(SecretExposed, match="others may read the password") as caught:
            look(secret, "the password")
        assert f"mode {mode:04o}, owner root" == caught.value.found or os.geteuid() != 0
    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    assert b"secret" == files.read_private(secret, "the password")


@as_root
def test_a_file_of_somebody_else_is_refused_even_if_it_is_private(secret: Path) -> None:
    """Who owns the file may exchange what is in it, and knows it; the report says who that is."""
    os.chown(secret, SOMEBODY, -1)
    with pytest.raises(SecretExposed, match="belongs to somebody else") as caught:
        files.read_private(secret, "the password")
    assert "mode 0600, owner nobody" == caught.value.found
    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    assert b"secret" == files.read_private(secret, "the password")


def test_a_link_is_followed_and_its_target_judged(secret: Path, tmp_path: Path) -> None:
    """A secrets manager's link to a private file is fine; one to a file that others may read isn't."""
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert b"secret" == files.read_private(link, "the password")
    secret.chmod(0o644)
    with pytest.raises(SecretExposed):
        files.read_private(link, "the password")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A folder or a pipe at the path neither blocks a run nor passes for a secret."""
    path = tmp_path / "secret"
    path.mkdir(mode=0o700) if kind == "folder" else os.mkfifo(path, 0o600)
    with pytest.raises(SecretExposed, match="is not a file"):
        files.read_private(path, "the password")


def test_a_file_that_is_much_too_long_is_not_read(secret: Path) -> None:
    """A wrong path, to a log or an image, is an error that says so, and costs no memory."""
    with pytest.raises(LocalFault, match="cannot be the password"):
        files.read_private(secret, "the password", limit=5)
    assert b"secret" == files.read_private(secret, "the password", limit=6)


@as_root
def test_who_may_not_read_a_file_is_told_so(secret: Path) -> None:
    """A run as the wrong user says which file it is; a missing file is left to each caller's words."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom certcast import files\n"
        f"os.setuid({SOMEBODY})\n"
        "try:\n    files.read_private(Path(sys.argv[1]), 'the password')\n"
        "except files.LocalFault as error:\n    print(error.report())\n"
    )
    secret.parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, secret.name],
        cwd=secret.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "could not read the password" in done.stdout
    assert f"{secret.name}: Permission denied" in done.stdout
    with pytest.raises(FileNotFoundError):
        files.read_private(secret.parent / "missing", "the password")


# An access control list as xattr(7) has it: tag, permissions, id. These are what systemd writes.
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


@pytest.mark.parametrize(
    ("entries", "private"),
    [
        ([(USER, 4, US), (GROUP, 0, ANYBODY)], True),
        ([(USER, 4, SOMEBODY), (GROUP, 0, ANYBODY)], False),
        ([(USER, 4, US), (GROUP, 4, ANYBODY)], False),
        ([(USER, 4, US), (GROUP, 0, ANYBODY), (NAMED_GROUP, 4, SOMEBODY)], False),
    ],
    ids=["us", "another user", "the group", "a named group"],
)
def test_a_credential_of_systemd_counts_as_private(
    secret: Path, entries: list[tuple[int, int, int]], private: bool
) -> None:
    """
    LoadCredential= gives a service a file whose mode reads 0440, since an access control
    list lets the service's user in: that is private. A list that names others is not.
    """
    whole = [(OWNER, 4, ANYBODY), *entries, (MASK, 4, ANYBODY), (OTHER, 0, ANYBODY)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in whole)
    try:
        os.setxattr(secret, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    assert 0o440 == stat.S_IMODE(secret.stat().st_mode)
    for look in (files.require_private, files.read_private):
        if private:
            look(secret, "the password")
        else:
            with pytest.raises(SecretExposed):
                look(secret, "the password")


# -- folders that are ours


def test_a_lock_is_no_way_to_make_files_elsewhere(tmp_path: Path) -> None:
    """A link at the lock's path makes an error that names it; where it leads, nothing comes to be."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalFault, match="lock") as caught, files.lock(tmp_path / "lock"):
        pass
    assert "placed a link there" in (caught.value.next or "")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711])
def test_a_state_folder_that_only_we_write_to_is_fine(tmp_path: Path, mode: int) -> None:
    """Others may look into the state's folder, where their rights allow it; a new one is fine as well."""
    folder = tmp_path / "state"
    files.require_own_dir(folder)
    folder.mkdir()
    folder.chmod(mode)
    files.require_own_dir(folder)
    (tmp_path / "link").symlink_to(folder)  # state_dir itself may be elsewhere
    files.require_own_dir(tmp_path / "link")


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_state_folder_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """Who may write there could have root write elsewhere: the report says how to mend it."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(LocalFault, match="somebody else may change") as caught:
        files.require_own_dir(folder)
    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    files.require_own_dir(folder)


@as_root
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Root in a service user's folder would be led by that user; the report says as whom to run."""
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, SOMEBODY, -1)
    with pytest.raises(LocalFault) as caught:
        files.require_own_dir(folder)
    assert "run certcast as nobody" in (caught.value.next or "")


def test_a_link_inside_the_state_folder_is_refused(tmp_path: Path) -> None:
    """certcast makes none there, so somebody else did; it is named."""
    (tmp_path / "certs").symlink_to("/etc")
    with pytest.raises(LocalFault) as caught:
        files.require_own_dir(tmp_path)
    assert f"a link: {tmp_path}/certs" == caught.value.found
