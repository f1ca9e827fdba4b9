"""`certcast publisher`, as an administrator types it once in years."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from answering import answering
from certcast.config.reading import load
from certcast.publisher.keys import recovery_kit
from certcast.release.ssh_keys import PublicKey, public_half
from certcast_lab.lab import CERTCAST

Done = subprocess.CompletedProcess[str]
WORDS = "correct-horse-battery"


@dataclass
class Place:
    """A renewal host's folder with a configuration; no key was made yet."""

    folder: Path

    def __post_init__(self) -> None:
        self.key = self.folder / "etc/publisher"
        self.words = self.folder / "words"
        self.words.write_text(f"{WORDS}\n")
        self.words.chmod(0o600)
        self.configuration = self.folder / "certcast.toml"
        self.configure()

    def configure(self, more: str = "") -> None:
        """Write certcast.toml, with a line more in [store]."""
        self.configuration.write_text(f"""\
state_dir = "{self.folder}/state"
[store]
url = "file://{self.folder}/store"
{more}
[[certificate]]
name = "example.test"
names = ["example.test"]
[renewal]
signing_key = "{self.key}"
""")

    def argv(self, *arguments: str | Path) -> list[str]:
        return [CERTCAST, "--config", str(self.configuration), "publisher", *map(str, arguments)]

    def run(self, *arguments: str | Path, **options: object) -> Done:
        """Run `certcast publisher …` without a terminal."""
        return subprocess.run(
            self.argv(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )

    def at_terminal(self, answers: Sequence[str], *arguments: str | Path) -> tuple[int, str]:
        """Run it where somebody answers."""
        return answering(self.argv(*arguments), answers)

    def with_words(self, *arguments: str | Path) -> Done:
        """Run it with the passphrase in a file."""
        return self.run(*arguments, "--passphrase-file", self.words)

    def init(self) -> Path:
        """Make everything; return the kit's file."""
        file = self.folder / "kit.age"
        done = self.with_words("init", "--kit", file)
        assert 0 == done.returncode, done.stderr
        return file

    def made(self) -> list[str]:
        """Return which key files there are."""
        return sorted(path.name for path in self.key.parent.glob("*")) if self.key.parent.exists() else []

    def public(self, suffix: str = "") -> PublicKey:
        """Return a public half that lies beside the signing key."""
        return PublicKey.parse(self.key.with_name(f"publisher{suffix}.pub").read_text())

    def private_keys(self) -> list[str]:
        """Return the files of this host that hold a private key or an age identity."""
        return [
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and re.search(rb"PRIVATE KEY|AGE-SECRET", path.read_bytes())
        ]


FOUR = ["publisher", "publisher-recovery.pub", "publisher-spare.pub", "publisher.pub"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- init


def test_init_makes_key_and_kit_in_one_go(place: Place) -> None:
    """One command makes the signing key, the public halves beside it, and the kit; all are private files."""
    file = place.init()
    assert FOUR == place.made()
    assert {0o600} == {path.stat().st_mode & 0o777 for path in (file, *place.key.parent.iterdir())}
    opened = recovery_kit.decrypt(file.read_text(), WORDS)
    assert place.public() == PublicKey(public_half(place.key.read_bytes()).blob, "certcast-publisher")
    assert (place.public().blob, place.public("-spare").blob) == (opened.working.blob, opened.spare.blob)
    assert opened.recovery == place.key.with_name("publisher-recovery.pub").read_text().strip()


def test_the_spare_key_is_in_the_kit_only(place: Place) -> None:
    """A stolen disk of the renewal host holds neither the spare key nor what opens releases."""
    place.init()
    assert ["etc/publisher"] == place.private_keys()


def test_a_kit_on_stdout_can_be_printed(place: Place) -> None:
    """`certcast publisher init | lpr`: stdout is the kit and nothing else; what to do next is on stderr."""
    done = place.with_words("init")
    assert 0 == done.returncode, done.stderr
    assert done.stdout.startswith("-----BEGIN AGE ENCRYPTED FILE-----\n")
    assert done.stdout.endswith("-----END AGE ENCRYPTED FILE-----\n")
    assert place.public("-spare").blob == recovery_kit.decrypt(done.stdout, WORDS).spare.blob
    assert "publishers = [" in done.stderr


def test_the_line_for_hosts_can_be_pasted(place: Place) -> None:
    """What `init` and `show` print for [store] is what a host's configuration takes: both keys."""
    hint = place.with_words("init").stderr
    for printed in (hint, place.run("show").stdout):
        (line,) = re.findall(r"(?ms)^publishers = \[.*?^\]", printed)
        place.configure(line)
        pinned = load(place.configuration).store.publishers
        assert [place.public().blob, place.public("-spare").blob] == [key.blob for key in pinned]


def test_the_passphrase_is_asked_for_twice(place: Place) -> None:
    """At a terminal: too short a passphrase, and two that differ, are asked for again; it is never shown."""
    file = place.folder / "kit.age"
    answers = ["short", WORDS, "another-passphrase", WORDS, WORDS]
    status, shown = place.at_terminal(answers, "init", "--kit", file)
    assert 0 == status, shown
    assert "at least 16" in shown
    assert "The two differ." in shown
    assert WORDS not in shown
    assert place.public("-spare").blob == recovery_kit.decrypt(file.read_text(), WORDS).spare.blob


def test_a_passphrase_is_made_for_who_gives_none(place: Place) -> None:
    """An empty answer makes a passphrase, shows it once, and the kit opens with it."""
    file = place.folder / "kit.age"
    status, shown = place.at_terminal([""], "init", "--kit", file)
    assert 0 == status, shown
    words = re.findall(r"passphrase is  (\S+)", shown)[0]
    assert place.public("-spare").blob == recovery_kit.decrypt(file.read_text(), words).spare.blob


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_an_interrupted_question_leaves_nothing(place: Place, key: str) -> None:
    """Ctrl-C or Ctrl-D at the first or the second question: no key, no kit, status 130."""
    for answers in ([key], [WORDS, key]):
        status, shown = place.at_terminal(answers, "init", "--kit", place.folder / "kit.age")
        assert 130 == status, shown
        assert [] == place.made()
        assert not (place.folder / "kit.age").exists()


def test_a_second_init_is_refused(place: Place) -> None:
    """A publisher that hosts trust isn't replaced by a slip: the same key stays, and is shown."""
    place.init()
    before = place.key.read_bytes()
    done = place.with_words("init")
    assert 19 == done.returncode
    assert str(place.key) in done.stderr
    assert place.public().fingerprint in done.stderr
    assert "certcast publisher show" in done.stderr
    assert ("", before) == (done.stdout, place.key.read_bytes())


def test_init_where_a_key_was_lost_is_refused(place: Place) -> None:
    """Public halves without a signing key mean that it was lost: `init` names the way back to it."""
    place.init()
    place.key.unlink()
    done = place.with_words("init")
    assert 19 == done.returncode
    assert "certcast publisher rotate --kit" in done.stderr


def test_a_kit_that_cannot_be_handed_out_makes_no_key(place: Place) -> None:
    """A full disk behind stdout, or a file that exists: nothing is made, and the file stays what it was."""
    with Path("/dev/full").open("w") as full:
        argv = [*place.argv("init"), "--passphrase-file", str(place.words)]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert 19 == done.returncode, done.stderr
    assert "No space left" in done.stderr
    assert [] == place.made()

    kept = place.folder / "kit.age"
    kept.write_text("an older kit")
    done = place.with_words("init", "--kit", kept)
    assert 19 == done.returncode
    assert [] == place.made()
    assert "an older kit" == kept.read_text()


def test_a_closed_stdout_makes_no_key(place: Place) -> None:
    """`>&-` would throw the kit away: nothing is made."""
    command = 'exec "$@" >&-'
    argv = [*place.argv("init"), "--passphrase-file", str(place.words)]
    done = subprocess.run(["sh", "-c", command, "sh", *argv], stderr=subprocess.PIPE, text=True, check=False)
    assert 19 == done.returncode, done.stderr
    assert [] == place.made()


def test_a_key_that_cannot_be_written_takes_its_kit_along(place: Place) -> None:
    """Where the key files cannot be written, no kit stays behind that looks as if it were good."""
    # Long enough that only the file beside, which is renamed, has too long a name (NAME_MAX, 255).
    text = place.configuration.read_text().replace("etc/publisher", f"etc/{240 * 'k'}")
    place.configuration.write_text(text)
    done = place.with_words("init", "--kit", place.folder / "kit.age")
    assert (4, True) == (done.returncode, "File name too long" in done.stderr), done.stderr
    assert [] == place.made()
    assert not (place.folder / "kit.age").exists()


def test_without_a_terminal_the_option_is_named(place: Place) -> None:
    """From a script, `init` says how to give the passphrase, and never takes it from stdin or argv."""
    done = place.run("init")
    assert 19 == done.returncode, done.stderr
    assert "--passphrase-file FILE" in done.stderr
    assert [] == place.made()


def test_a_passphrase_file_must_be_good(place: Place) -> None:
    """A passphrase that others may read, that is too short, or that isn't there is refused by name."""
    place.words.chmod(0o640)
    assert 6 == place.with_words("init").returncode
    place.words.chmod(0o600)
    place.words.write_text("short\n")
    refused = place.with_words("init")
    assert (19, True) == (refused.returncode, "at least 16" in refused.stderr)
    place.words.unlink()
    assert 19 == place.with_words("init").returncode
    assert [] == place.made()


def test_two_at_once(place: Place) -> None:
    """While one administrator is being asked, another one is told that somebody is at it."""
    child, controller = pty.fork()
    if child == 0:
        argv = place.argv("init")
        os.execv(argv[0], argv)
    try:
        shown = b""
        while b"Passphrase" not in shown:
            shown += os.read(controller, 4096)
        assert 5 == place.with_words("init").returncode
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(controller)
    assert [] == place.made()


# -- show


def test_show_before_init(place: Place) -> None:
    """Without a key, `show` names the two ways to get one: made anew, or from the kit."""
    done = place.run("show")
    assert 17 == done.returncode
    assert "certcast publisher init" in done.stderr
    assert "burned-down" in done.stderr


def test_show_says_where_everything_is(place: Place) -> None:
    """`show` has both fingerprints as ssh-keygen shows them, and what releases are sealed to."""
    place.init()
    shown = place.run("show")
    assert 0 == shown.returncode, shown.stderr
    for suffix in ("", "-spare"):
        file = str(place.key.with_name(f"publisher{suffix}.pub"))
        fingerprint = subprocess.check_output(["ssh-keygen", "-lf", file], text=True).split()[1]
        assert fingerprint in shown.stdout
    assert place.key.with_name("publisher-recovery.pub").read_text().strip() in shown.stdout
    assert ("", False) == (shown.stderr, "at_least" in shown.stdout)  # nothing was published yet


def test_show_notices_a_foreign_public_half(place: Place) -> None:
    """A publisher.pub that isn't the signing key's would be pinned in vain: `show` says how to mend it."""
    place.init()
    place.key.with_name("publisher.pub").write_text(place.public("-spare").line)
    shown = place.run("show")
    assert f"ssh-keygen -y -f {place.key} > {place.key}.pub" in shown.stderr


def test_show_refuses_a_key_that_others_may_read(place: Place) -> None:
    """A signing key with mode 0644 is named, with the command that mends it."""
    place.init()
    place.key.chmod(0o644)
    done = place.run("show")
    assert 6 == done.returncode
    assert "chmod 600" in done.stderr


# -- kit


def test_a_new_kit_has_a_new_spare_key(place: Place) -> None:
    """A lost kit is replaced by another one; the working key stays, and hosts are to be told."""
    old = place.init()
    before = place.public(), place.public("-spare")
    done = place.with_words("kit", "--replace", "--kit", place.folder / "new.age")
    assert 0 == done.returncode, done.stderr
    opened = recovery_kit.decrypt((place.folder / "new.age").read_text(), WORDS)
    assert before[0] == place.public()
    assert before[1] != place.public("-spare")
    assert place.public("-spare").blob == opened.spare.blob
    assert place.public("-spare").bare in done.stderr
    assert ["etc/publisher"] == place.private_keys()

    refused = place.with_words("rotate", "--kit", old)
    assert 19 == refused.returncode
    assert "not the one in force" in refused.stderr


def test_a_kit_is_not_replaced_by_a_slip(place: Place) -> None:
    """Replacing the kit in force is confirmed: by a person, or by --replace in a script."""
    place.init()
    before = place.public("-spare")
    done = place.with_words("kit")
    assert (19, "") == (done.returncode, done.stdout)
    assert "--replace" in done.stderr
    status, shown = place.at_terminal(["n"], "kit")
    assert 19 == status
    assert "the one in force stays" in shown
    assert before == place.public("-spare")

    status, shown = place.at_terminal(["y", WORDS, WORDS], "kit", "--kit", place.folder / "new.age")
    assert 0 == status, shown
    assert before != place.public("-spare")


def test_a_publisher_without_a_kit_gets_one(place: Place) -> None:
    """A signing key that `ssh-keygen` made is as good as ours; `kit` makes what it lacks, unasked."""
    place.key.parent.mkdir()
    subprocess.check_call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place.key)])
    assert "recovery kit  none" in place.run("show").stdout
    done = place.with_words("kit")
    assert 0 == done.returncode, done.stderr
    assert FOUR == place.made()
    assert place.public("-spare").blob == recovery_kit.decrypt(done.stdout, WORDS).spare.blob


# -- rotate


def rotated(place: Place, file: Path, number: int = 2) -> Path:
    """Rotate with the kit in `file`; return the new one's."""
    new = place.folder / f"kit{number}.age"
    done = place.with_words("rotate", "--kit", file, "--new-kit", new)
    assert 0 == done.returncode, done.stderr
    return new


def test_rotate_puts_the_spare_key_into_service(place: Place) -> None:
    """The spare key signs from now on, a new one is in a new kit, and the old working key is gone."""
    file = place.init()
    old, spare = place.key.read_bytes(), place.public("-spare")
    new = rotated(place, file)
    assert spare.blob == place.public().blob == public_half(place.key.read_bytes()).blob
    assert place.public("-spare").blob == recovery_kit.decrypt(new.read_text(), WORDS).spare.blob
    assert not [path for path in place.folder.rglob("*") if path.is_file() and path.read_bytes() == old]
    assert sorted([*FOUR, "publisher-former.pub"]) == place.made()


def test_rotate_goes_on_for_ever(place: Place) -> None:
    """The kit of a rotation is the key to the next one; a kit that was used is refused."""
    first = place.init()
    second = rotated(place, first)
    rotated(place, second, 3)
    assert 19 == place.with_words("rotate", "--kit", first).returncode
    assert 19 == place.with_words("rotate", "--kit", second).returncode


def test_rotate_asks_for_the_passphrase_once(place: Place) -> None:
    """At a terminal the passphrase opens the old kit and locks the new one."""
    file = place.init()
    new = place.folder / "kit2.age"
    status, shown = place.at_terminal([WORDS], "rotate", "--kit", file, "--new-kit", new)
    assert 0 == status, shown
    assert place.public("-spare").blob == recovery_kit.decrypt(new.read_text(), WORDS).spare.blob


def test_rotate_with_a_wrong_passphrase_changes_nothing(place: Place) -> None:
    """A wrong passphrase, a damaged kit and one of another publisher are each told apart; the key stays."""
    file = place.init()
    before = place.key.read_bytes()
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    foreign = Place(elsewhere).init()
    damaged = place.folder / "damaged.age"
    damaged.write_text(file.read_text().replace("\n", "", 3))
    for kit_file, said in (
        (foreign, "not the one in force"),
        (damaged, "does not open"),
        (place.words, "begin"),
    ):
        done = place.with_words("rotate", "--kit", kit_file)
        assert (19, True) == (done.returncode, said in done.stderr), done.stderr
    place.words.write_text("another-passphrase")
    done = place.with_words("rotate", "--kit", file)
    assert (19, True) == (done.returncode, "the passphrase is a wrong one" in done.stderr)
    assert before == place.key.read_bytes()
    assert "" == done.stdout


def test_rotation_interrupted(place: Place) -> None:
    """Killed right after the first file was exchanged: the same kit finishes it, and no key was lost."""
    file = place.init()
    opened = recovery_kit.decrypt(file.read_text(), WORDS)
    place.key.write_bytes(opened.spare_private)
    new = rotated(place, file)
    assert place.public().blob == opened.spare.blob
    assert place.public("-spare").blob == recovery_kit.decrypt(new.read_text(), WORDS).spare.blob


def test_rotate_on_a_new_machine(place: Place) -> None:
    """Kit, passphrase and a configuration are enough: the key is back, and what is to do is listed."""
    file = place.init()
    lost = place.public()
    spare = place.public("-spare")
    for path in place.key.parent.iterdir():
        path.unlink()
    done = place.with_words("rotate", "--kit", file, "--new-kit", place.folder / "kit2.age")
    assert 0 == done.returncode, done.stderr
    assert FOUR == place.made()
    assert spare.blob == place.public().blob
    assert lost.bare in done.stderr  # to be pinned here, so that what is published is believed
    assert "certcast host add" in done.stderr


def test_rotate_with_the_kit_of_another_publisher(place: Place) -> None:
    """A kit whose spare key isn't among `store.publishers` is another publisher's: hosts would refuse it."""
    file = place.init()
    for path in place.key.parent.iterdir():
        path.unlink()
    other = place.folder / "other"
    other.mkdir()
    stranger = Place(other)
    stranger.init()
    place.configure(f'publishers = ["{stranger.public().bare}"]')
    done = place.with_words("rotate", "--kit", file)
    assert 19 == done.returncode
    assert [] == place.made()


def test_on_a_host_that_only_serves(place: Place) -> None:
    """On a host without [renewal] the commands say where they belong."""
    place.configuration.write_text(place.configuration.read_text().partition("[renewal]")[0])
    for command in ("init", "show", "kit"):
        done = place.run(command)
        assert 3 == done.returncode, done.stderr
        assert f"certcast publisher {command}" in done.stderr
