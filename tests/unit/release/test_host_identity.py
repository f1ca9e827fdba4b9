"""A host's own key: made once, read at each poll, and what is no key is named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from certcast.release import host_identity
from certcast.report.errors import IdentityUnusable, LocalFault, SecretExposed


def test_what_is_made_ssh_keygen_reads(tmp_path: Path) -> None:
    """A new identity is an ordinary OpenSSH key file, private from its first moment on."""
    made = host_identity.make(tmp_path / "etc/certcast/identity", "web1")
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", made.path], check=True, capture_output=True, text=True
    ).stdout
    assert derived.split()[:2] == made.public.line.split()[:2]
    assert "web1" == made.public.comment
    assert 0o600 == made.path.stat().st_mode & 0o777
    assert 0o700 == made.path.parent.stat().st_mode & 0o777
    assert made.public.blob == host_identity.load(made.path).public.blob


def test_two_identities_differ(tmp_path: Path) -> None:
    """No two hosts get the same key."""
    assert (
        host_identity.make(tmp_path / "one", "").public.blob
        != host_identity.make(tmp_path / "two", "").public.blob
    )


def test_an_identity_is_never_replaced(tmp_path: Path) -> None:
    """Whatever stands there already stays, a link to elsewhere too: what it opens would be lost."""
    before = host_identity.make(tmp_path / "identity", "").path.read_bytes()
    with pytest.raises(FileExistsError):
        host_identity.make(tmp_path / "identity", "")
    assert before == (tmp_path / "identity").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        host_identity.make(tmp_path / "link", "")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_a_report(tmp_path: Path) -> None:
    """Where a file stands in the way of /etc/certcast, the report says so; nothing half-made stays."""
    (tmp_path / "etc").write_text("")
    with pytest.raises(LocalFault):
        host_identity.make(tmp_path / "etc/identity", "")


def test_the_private_half_is_not_shown(tmp_path: Path) -> None:
    """What a traceback or a debugger's log would show of an identity holds nothing of the private half."""
    made = host_identity.make(tmp_path / "identity", "web1")
    assert "PRIVATE" not in repr(made)
    assert not re.search(r"b3BlbnNzaC1rZXktdjE", repr(made))


def test_a_missing_identity_names_the_command(tmp_path: Path) -> None:
    """A host without an identity is told how to get one."""
    with pytest.raises(IdentityUnusable, match="no identity yet") as caught:
        host_identity.load(tmp_path / "identity")
    assert "`certcast identity`" in (caught.value.next or "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o666])
def test_an_identity_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """An identity that others may read or change is not used: what it opens is no secret any more."""
    made = host_identity.make(tmp_path / "identity", "")
    made.path.chmod(mode)
    with pytest.raises(SecretExposed):
        host_identity.load(made.path)


def _keygen(path: Path, *options: str) -> bytes:
    subprocess.run(["ssh-keygen", "-q", *options, "-f", path], check=True)
    return path.read_bytes()


def test_what_is_no_ed25519_key_is_named(tmp_path: Path) -> None:
    """Another type, a passphrase, a public line, an empty or cut file: the report says which it is."""
    whole = host_identity.make(tmp_path / "whole", "").path.read_bytes()
    bodies = {
        "its type is 'ssh-rsa'": _keygen(tmp_path / "rsa", "-t", "rsa", "-b", "2048", "-N", ""),
        "its type is 'ecdsa": _keygen(tmp_path / "ecdsa", "-t", "ecdsa", "-N", ""),
        "it has a passphrase": _keygen(tmp_path / "locked", "-t", "ed25519", "-N", "correct horse"),
        "it is not an OpenSSH private key": b"ssh-ed25519 AAAA\n",
        "it is not an OpenSSH private": b"",
        "it is not": whole[:150],
        "cut short": whole.replace(whole.splitlines(keepends=True)[3], b""),
    }
    for words, body in bodies.items():
        (tmp_path / "identity").unlink(missing_ok=True)
        (tmp_path / "identity").write_bytes(body)
        (tmp_path / "identity").chmod(0o600)
        with pytest.raises(IdentityUnusable, match="cannot be used") as caught:
            host_identity.load(tmp_path / "identity")
        assert words in (caught.value.found or ""), words


def test_an_endless_identity_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A path that leads to something endless ends in a report."""
    (tmp_path / "identity").write_bytes(b"A" * (host_identity.LIMIT + 1))
    (tmp_path / "identity").chmod(0o600)
    with pytest.raises((IdentityUnusable, LocalFault, SecretExposed)):
        host_identity.load(tmp_path / "identity")
    with pytest.raises((IdentityUnusable, LocalFault, SecretExposed)):
        host_identity.load(Path("/dev/zero"))
