"""certcast as an ordinary user, with the real sudo and the very lines of docs/non-root.md.

Everything that would be the machine's (sudoers, nginx.conf in /etc) is mounted over in a mount
namespace that ends with the command; nginx itself runs outside of it, as root.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certcast_lab.lab import CERTCAST
from certcast_lab.mailbox import Mailbox
from certcast_lab.serving.authority import Authority
from certcast_lab.web.host_kinds import namespaces_available
from consuming import Consumer, consumer, is_full_root

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs/non-root.md").read_text()
# Debian has this user; nginx's workers are others.
USER = "daemon"
UID = 1
Done = subprocess.CompletedProcess[str]


def blocks(language: str) -> str:
    """Return what stands in the page's code blocks of a language."""
    return "".join(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


SUDOERS = blocks("sudoers").replace("certcast", USER)


@dataclass
class Ordinary:
    """A host, and how its ordinary user runs certcast there."""

    web: Consumer
    sudoers: str = SUDOERS

    def pull(self, *command: str) -> Done:
        """Run certcast as the user, with these sudoers; or another command."""
        folder = self.web.host.root.parent
        for path in (folder / "store").rglob("*"):  # what a bucket's right to read is elsewhere
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "sudoers").write_text(f"Defaults secure_path=/usr/sbin:/usr/bin:/sbin:/bin\n{self.sudoers}")
        (folder / "sudoers").chmod(0o440)
        script = [
            *_reachable(folder),
            f"mount --bind {folder}/sudoers /etc/sudoers",
            "mount -t tmpfs none /etc/sudoers.d",
            f"mount --bind {self.web.host.nginx_conf} /etc/nginx/nginx.conf",
            f'exec setpriv --reuid={UID} --regid={UID} --clear-groups "$@"',
        ]
        return subprocess.run(
            ["unshare", "-m", "sh", "-ec", "\n".join(script), "", *(command or self.web.command())],
            cwd="/",
            env={**os.environ, "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
        )


def _reachable(folder: Path) -> list[str]:
    """Return the commands that open the way to what the run needs, where its parents are closed to others."""
    needed = {Path(sys.base_prefix), Path(sys.prefix).resolve(), Path(sys.prefix), PROJECT, folder}
    closed = {
        next((above for above in reversed(path.parents) if not above.stat().st_mode & 1), None)
        for path in needed
    }
    lines = ["mount -t tmpfs -o mode=755 none /mnt"]
    for number, path in enumerate(sorted(needed)):
        lines += [f"mkdir /mnt/{number}", f"mount --bind {shlex.quote(str(path))} /mnt/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(path))}" for path in closed if path]
    for number, path in enumerate(sorted(needed)):
        if set(path.parents) & closed:
            quoted = shlex.quote(str(path))
            lines += [f"mkdir -p {quoted}", f"mount --bind /mnt/{number} {quoted}"]
    return lines


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[Ordinary]:
    """A host whose certcast belongs to an ordinary user, configured as the page says."""
    if not (is_full_root() and namespaces_available()):
        pytest.skip("becoming another user, with sudoers of one's own, needs root of a machine")
    if not shutil.which("sudo"):
        pytest.skip("sudo is not installed (scripts/setup --test does that)")
    assert pwd.getpwnam(USER).pw_uid == UID
    tmp_path.chmod(0o755)
    with consumer(tmp_path) as web:
        web.host.certcast_folder.mkdir()
        os.chown(web.host.certcast_folder, UID, UID)
        os.chown(tmp_path / "identity", UID, UID)
        old = web.host.certcast_toml.read_text()
        head, _, commands = old.partition("[[consumer.nginx]]\n")
        listeners = re.search("listeners = .*\n", commands)
        assert listeners
        nginx = blocks("toml").replace("/run/nginx.pid", str(web.host.pid_file))
        web.host.certcast_toml.write_text(head + nginx + listeners[0])
        yield Ordinary(web)


def test_ordinary_user_installs_with_the_lines_of_the_page(ordinary: Ordinary) -> None:
    """
    With these sudoers and this configuration an ordinary user takes a release into service and sees
    it served by root's nginx; every file of certcast's is the user's alone.
    """
    web = ordinary.web
    web.publish("A")
    staged = ordinary.pull()
    assert 39 == staged.returncode, staged.stderr
    web.host.include(web.folder.snippet)
    done = ordinary.pull()
    assert 0 == done.returncode, done.stderr
    assert "installed" in done.stdout
    assert web.leaf("A") == web.served()
    for path in (web.config.state_dir, *web.config.state_dir.rglob("*")):
        assert UID == path.lstat().st_uid, path
    assert web.host.test()


def test_only_the_exact_test_is_allowed(ordinary: Ordinary) -> None:
    """Where sudo allows `-t` and not `-T`, the configured listeners do, and the handshakes prove it."""
    ordinary.sudoers = ordinary.sudoers.replace("/usr/sbin/nginx -T,", "")
    assert ordinary.sudoers != SUDOERS
    web = ordinary.web
    web.publish("A")
    web.host.name_files(*web.issue(days_ago=30).write(web.host.root / "etc/nginx/ssl"))
    first = ordinary.pull()
    assert 38 == first.returncode, first.stderr
    web.host.include(web.folder.snippet)
    done = ordinary.pull()
    assert 0 == done.returncode, done.stderr
    assert web.leaf("A") == web.served()


@pytest.mark.parametrize(
    ("lacking", "status", "kept"),
    [("/usr/sbin/nginx -t, /usr/sbin/nginx -T", 36, "-s reload"), ("/usr/sbin/nginx -s reload", 37, "-t")],
)
def test_missing_right_is_told_as_the_line_to_add(
    ordinary: Ordinary, lacking: str, status: int, kept: str
) -> None:
    """Without a right the run ends with the very line that has to be added; with it, it goes through."""
    web = ordinary.web
    web.host.include(web.folder.snippet)
    web.publish("A")
    ordinary.sudoers = SUDOERS.replace(f"{lacking}, ", "").replace(f", {lacking}", "")
    assert kept in ordinary.sudoers
    refused = ordinary.pull()
    assert status == refused.returncode, refused.stderr
    line = f"{USER} ALL=(root) NOPASSWD: {lacking}"
    assert line in refused.stderr
    assert "visudo -f /etc/sudoers.d/certcast" in refused.stderr

    ordinary.sudoers += line + "\n"
    done = ordinary.pull()
    assert 0 == done.returncode, done.stderr
    assert web.leaf("A") == web.served()


def test_the_mail_password_is_given_to_the_user(ordinary: Ordinary) -> None:
    """With root's password no mail goes out, which is said; with the line of the page it does."""
    folder, authority = ordinary.web.host.root.parent, Authority("SMTP")
    password = folder / "smtp-password"
    password.write_text("correct horse")
    password.chmod(0o600)
    (folder / "smtp-ca.pem").write_bytes(authority.pem)
    mailbox = Mailbox(authority)
    try:
        mailbox.require_login("certcast", "correct horse")
        with ordinary.web.host.certcast_toml.open("a") as toml:
            toml.write(
                f"""
[mail]
host = "localhost"
port = {mailbox.ports["tls"]}
username = "certcast"
password_file = "{password}"
ca_file = "{folder}/smtp-ca.pem"
sender = "certcast@example.test"
failures_to = ["it@example.test"]
"""
            )
        command = (CERTCAST, "--config", str(ordinary.web.host.certcast_toml), "pull")
        refused = ordinary.pull(*command)
        assert 25 == refused.returncode, refused.stderr
        assert "MAIL-NOT-SENT" in refused.stderr
        assert str(password) in refused.stderr

        (line,) = re.findall(r"(?m)^# (chown \S+ \S+smtp-password)$", blocks("console"))
        chown, _, _ = line.split()
        subprocess.run([chown, USER, password], check=True)
        assert 25 == ordinary.pull(*command).returncode
        assert 1 == len(mailbox.messages)
    finally:
        mailbox.stop()


def test_user_who_may_nothing_at_all_is_told_the_same(ordinary: Ordinary) -> None:
    """Without any line in sudoers the report names the line, too, instead of waiting for a password."""
    ordinary.sudoers = ""
    ordinary.web.publish("A")
    refused = ordinary.pull()
    assert 36 == refused.returncode, refused.stderr
    assert f"{USER} ALL=(root) NOPASSWD: /usr/sbin/nginx -t, /usr/sbin/nginx -T" in refused.stderr


def test_copies_in_the_users_own_folder(ordinary: Ordinary) -> None:
    """copy_to writes into a folder of the user's, and a site that names these files is proved."""
    web = ordinary.web
    fullchain, _ = web.name_fixed_paths()
    for path in (fullchain.parent, *fullchain.parent.iterdir()):
        os.chown(path, UID, UID)
    web.publish("A")
    done = ordinary.pull()
    assert 0 == done.returncode, done.stderr
    assert web.leaf("A") == web.served()
    assert {UID} == {path.stat().st_uid for path in fullchain.parent.iterdir()}


def test_copies_that_only_root_may_write(ordinary: Ordinary) -> None:
    """
    A target for another user, one in a folder of root's, and one whose old file cannot be read or be
    given back are refused with the next step; nothing is written.
    """
    web = ordinary.web
    fullchain, privkey = web.name_fixed_paths()
    folder = fullchain.parent
    web.publish("A")
    toml = web.host.certcast_toml.read_text()
    before = {path: path.read_bytes() for path in folder.iterdir()}

    roots_folder = ordinary.pull()
    assert 4 == roots_folder.returncode, roots_folder.stderr
    assert "give this user the directory" in roots_folder.stderr

    os.chown(folder, UID, UID)
    cannot_read = ordinary.pull()
    assert 4 == cannot_read.returncode, cannot_read.stderr
    assert f"{privkey}: Permission denied" in cannot_read.stderr

    privkey.chmod(0o644)
    cannot_give_back = ordinary.pull()
    assert 4 == cannot_give_back.returncode, cannot_give_back.stderr
    assert "Operation not permitted" in cannot_give_back.stderr

    for path in before:
        os.chown(path, UID, UID)
    web.host.certcast_toml.write_text(f'{toml}owner = "root"\n')
    other_user = ordinary.pull()
    assert 4 == other_user.returncode, other_user.stderr
    assert "only root may give a file to another user" in other_user.stderr
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
