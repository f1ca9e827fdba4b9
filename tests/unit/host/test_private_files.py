"""Files with secrets, and folders that are ours: who else may read or change them."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from certcast.host import files, private_files
from certcast.report.errors import LocalFault, SecretExposed

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
    private_files.require_private(secret, "the password")
    assert b"secret" == private_files.read_private(secret, "the password")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o601])
def test_a_file_that_others_may_read_or_write_is_refused(secret: Path, mode: int) -> None:
    """The report names the file, its mode and owner; the command in it, run as it stands, mends it."""
    secret.chmod(mode)
    for look in (private_files.require_private, private_files.read_private):
        with pytest.raises(SecretExposed, match="others may read the password") as caught:
            look(secret, "the password")
        assert f"others may read the password in {secret}\n" in caught.value.report()
        assert f"mode {mode:04o}, owner root" == caught.value.found or os.geteuid() != 0
    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    assert b"secret" == private_files.read_private(secret, "the password")


@as_root
def test_a_private_file_of_somebody_else_is_refused(secret: Path) -> None:
    """Who owns the file may exchange what is in it, and knows it; the report says who that is."""
    os.chown(secret, SOMEBODY, -1)
    with pytest.raises(SecretExposed, match="belongs to somebody else") as caught:
        private_files.read_private(secret, "the password")
    assert "mode 0600, owner nobody" == caught.value.found
    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    assert b"secret" == private_files.read_private(secret, "the password")


def test_a_link_is_followed_and_its_target_judged(secret: Path, tmp_path: Path) -> None:
    """A secrets manager's link to a private file is fine; one to a file that others may read isn't."""
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert b"secret" == private_files.read_private(link, "the password")
    secret.chmod(0o644)
    with pytest.raises(SecretExposed):
        private_files.read_private(link, "the password")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A folder or a pipe at the path neither blocks a run nor passes for a secret."""
    path = tmp_path / "secret"
    path.mkdir(mode=0o700) if kind == "folder" else os.mkfifo(path, 0o600)
    with pytest.raises(SecretExposed, match="is not a file"):
        private_files.read_private(path, "the password")


def test_a_file_that_is_much_too_long_is_not_read(secret: Path) -> None:
    """A wrong path, to a log or an image, is an error that says so, and costs no memory."""
    with pytest.raises(LocalFault, match="cannot be the password"):
        private_files.read_private(secret, "the password", limit=5)
    assert b"secret" == private_files.read_private(secret, "the password", limit=6)


@as_root
def test_who_may_not_read_a_file_is_told_so(secret: Path) -> None:
    """A run as the wrong user says which file it is; a missing file is left to each caller's words."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom certcast.host import files, private_files\n"
        f"os.setuid({SOMEBODY})\n"
        "try:\n    private_files.read_private(Path(sys.argv[1]), 'the password')\n"
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
        private_files.read_private(secret.parent / "missing", "the password")


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
    for look in (private_files.require_private, private_files.read_private):
        if private:
            look(secret, "the password")
        else:
            with pytest.raises(SecretExposed):
                look(secret, "the password")


# -- folders that are ours


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user before root's state is told what to do, and shown no source lines."""

    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_symlink", denied)  # root may look everywhere
    with pytest.raises(LocalFault, match="look at") as caught:
        private_files.require_no_link(tmp_path / "certs")
    assert "run as root" in (caught.value.next or "")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711])
def test_a_state_folder_that_only_we_write_to_is_fine(tmp_path: Path, mode: int) -> None:
    """Others may look into the state's folder, where their rights allow it; a new one is fine as well."""
    folder = tmp_path / "state"
    private_files.require_own_dir(folder)
    folder.mkdir()
    folder.chmod(mode)
    private_files.require_own_dir(folder)
    (tmp_path / "link").symlink_to(folder)  # state_dir itself may be elsewhere
    private_files.require_own_dir(tmp_path / "link")


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_state_folder_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """Who may write there could have root write elsewhere: the report says how to mend it."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(LocalFault, match="somebody else may change") as caught:
        private_files.require_own_dir(folder)
    subprocess.run(["sh", "-c", str(caught.value.next).split("`")[1]], check=True)
    private_files.require_own_dir(folder)


@as_root
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Root in a service user's folder would be led by that user; the report says as whom to run."""
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, SOMEBODY, -1)
    with pytest.raises(LocalFault) as caught:
        private_files.require_own_dir(folder)
    assert "run certcast as nobody" in (caught.value.next or "")


def test_a_link_inside_the_state_folder_is_refused(tmp_path: Path) -> None:
    """certcast makes none there, so somebody else did; it is named."""
    (tmp_path / "certs").symlink_to("/etc")
    with pytest.raises(LocalFault) as caught:
        private_files.require_own_dir(tmp_path)
    assert f"a link: {tmp_path}/certs" == caught.value.found
