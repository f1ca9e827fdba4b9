"""The recovery kit's text, and the passphrase around it."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from answering import answering
from certcast.publisher.keys import passphrase, recovery_kit
from certcast.publisher.keys.recovery_kit import Kit
from certcast.release.host_identity import new_key
from certcast.release.ssh_keys import PublicKey

WORDS = "correct-horse-battery"
MADE = datetime(2026, 11, 24, 9, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def made() -> Kit:
    return recovery_kit.make("oss://bucket/certcast", new_key("certcast-publisher")[1])


@pytest.fixture(scope="module")
def armored(made: Kit) -> str:
    return recovery_kit.encrypt(made, MADE, WORDS)


def test_a_kit_opens_to_what_was_locked_into_it(made: Kit, armored: str) -> None:
    """What comes out of the safe is what went in: spare key, age identity, and whose they are."""
    assert made == recovery_kit.decrypt(armored, WORDS)


def test_a_kit_opens_with_plain_age(made: Kit, armored: str, tmp_path: Path) -> None:
    """Debian's `age -d` opens the kit at a terminal: certcast isn't needed for that."""
    file = tmp_path / "kit.age"
    file.write_text(armored)
    status, shown = answering(["age", "-d", "-o", str(tmp_path / "kit.txt"), str(file)], [WORDS])
    assert 0 == status, shown
    assert recovery_kit.write(made, MADE) == (tmp_path / "kit.txt").read_text()


def test_a_kit_that_age_encrypted_opens_here(made: Kit, tmp_path: Path) -> None:
    """Who locks the clear text again with `age -p -a`, for another passphrase, has a kit as good as ours."""
    (tmp_path / "kit.txt").write_text(recovery_kit.write(made, MADE))
    argv = ["age", "-p", "-a", "-o", str(tmp_path / "kit.age"), str(tmp_path / "kit.txt")]
    status, shown = answering(argv, [WORDS, WORDS])
    assert 0 == status, shown
    assert made == recovery_kit.decrypt((tmp_path / "kit.age").read_text(), WORDS)


def test_a_kit_says_what_it_is(made: Kit) -> None:
    """Who finds the opened kit in ten years learns what it is, for which store, from whom, and when."""
    text = recovery_kit.write(made, MADE)
    first = text.splitlines()[0]
    assert "# certcast recovery kit, made 2026-11-24T09:00:00Z" == first
    assert "# store: oss://bucket/certcast\n" in text
    assert made.working.bare in text
    assert "age -d -i recovery " in text
    assert "ssh-keygen -Y verify " in text


def test_a_kit_never_shows_its_secrets_by_accident(made: Kit) -> None:
    """A kit in a traceback or a log shows public halves only."""
    assert made.recovery_private not in repr(made)
    assert b"PRIVATE KEY" not in repr(made).encode()


def test_a_kit_takes_little_memory(armored: str) -> None:
    """A kit is made and opened with 128 MiB, where a library that measures itself takes up to a GiB."""
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 * 2**20, 512 * 2**20))\n"
        "from certcast.publisher.keys import passphrase\n"
        f"print(len(passphrase.decrypt(sys.stdin.read(), {WORDS!r})))\n"
        "passphrase.encrypt(b'x', 'y')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=armored, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr[-500:]


def test_a_kit_may_have_been_copied_by_a_terminal(made: Kit, armored: str) -> None:
    """Blanks around the lines, Windows line ends and empty lines don't matter."""
    copied = "\r\n\r\n" + "\r\n".join(f"  {line} " for line in armored.splitlines()) + "\r\n\r\n"
    assert made == recovery_kit.decrypt(copied, WORDS)


def test_a_kit_with_another_passphrase_stays_shut(armored: str) -> None:
    """A wrong passphrase is named as the likely cause."""
    with pytest.raises(ValueError, match="the passphrase is a wrong one"):
        recovery_kit.decrypt(armored, "correct-horse-batterie")


@pytest.mark.parametrize("lost", [1, 2, 10])
def test_a_kit_with_a_line_missing_is_not_whole(armored: str, lost: int) -> None:
    """A sheet with a line that was not copied is refused, whichever line it is."""
    lines = armored.splitlines()
    del lines[lost]
    with pytest.raises(ValueError, match=r"not whole|was changed"):
        recovery_kit.decrypt("\n".join(lines), WORDS)


def test_a_kit_without_its_frame_is_refused() -> None:
    """What isn't an armored age file is named as such, before a passphrase is tried on it."""
    for text in ("", "hello", "age-encryption.org/v1\n"):
        with pytest.raises(ValueError, match="does not begin with -----BEGIN AGE ENCRYPTED FILE-----"):
            passphrase.decrypt(text, WORDS)


def test_another_text_with_the_passphrase_is_no_kit(made: Kit) -> None:
    """A file that opens, and holds something else or half of it, is refused with what is missing."""
    text = recovery_kit.write(made, MADE)
    for broken, missing in (
        ("some other secret", "AGE-SECRET-KEY-"),
        (text.replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1Q"), "damaged"),
        (text.partition("# The spare signing key")[0], "OPENSSH PRIVATE KEY"),
        (text.replace("# store: ", "# "), "store:"),
        (text + text, "2 "),
    ):
        with pytest.raises(ValueError, match=missing):
            recovery_kit.parse(broken)


def test_each_kit_is_a_new_one(made: Kit) -> None:
    """No two kits share a secret, and no two encryptions a text."""
    other = recovery_kit.make(made.store, made.working)
    assert made.spare != other.spare
    assert made.recovery != other.recovery
    assert passphrase.encrypt(b"x", WORDS) != passphrase.encrypt(b"x", WORDS)


def test_a_made_passphrase_can_be_copied_by_hand() -> None:
    """A made passphrase has 24 letters in six groups, none that looks like another, never the same."""
    some = {passphrase.generate() for _ in range(50)}
    assert 50 == len(some)
    assert not set("01890") & set("".join(some))
    assert {(6, 4)} == {(len(one.split("-")), len(one.split("-")[0])) for one in some}


def test_a_text_that_is_too_long_is_refused() -> None:
    """The format's second chunk isn't written here, so a text that needs one is refused."""
    with pytest.raises(ValueError, match="one chunk"):
        passphrase.encrypt(bytes(64 * 1024 + 1), WORDS)


def test_the_spare_key_belongs_to_the_kit(made: Kit, tmp_path: Path) -> None:
    """The public half that hosts pin is the one that ssh-keygen reads from the private key in the kit."""
    file = tmp_path / "spare"
    file.write_bytes(made.spare_private)
    file.chmod(0o600)
    line = subprocess.check_output(["ssh-keygen", "-y", "-f", str(file)], text=True)
    assert made.spare.bare == PublicKey.parse(line).bare
