"""OpenSSH's key files, held against the ssh-keygen that writes them."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from certcast.release.ssh_keys import PublicKey, public_half


def keygen(*arguments: str | Path) -> str:
    return subprocess.run(
        ["ssh-keygen", *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def new(folder: Path, *options: str, kind: str = "ed25519", passphrase: str = "", comment: str = "") -> Path:
    path = folder / "key"
    keygen("-q", "-t", kind, *options, "-N", passphrase, "-C", comment, "-f", path)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new(tmp_path, comment="root@web1 in rack 7")


def test_the_public_line_is_ssh_keygen_s(key: Path) -> None:
    """A line is read and written as ssh-keygen has written it, comment with spaces included."""
    line = key.with_suffix(".pub").read_text()
    public = PublicKey.parse(line)
    assert line == public.line + "\n"
    assert "root@web1 in rack 7" == public.comment
    assert " ".join(line.split()[:2]) == public.bare


def test_the_fingerprint_is_ssh_keygen_s(key: Path) -> None:
    """What a person compares by eye is what `ssh-keygen -l` shows."""
    public = PublicKey.parse(key.with_suffix(".pub").read_text())
    assert keygen("-l", "-f", key).split()[1] == public.fingerprint


def test_the_public_half_of_a_private_file_is_ssh_keygen_s(key: Path) -> None:
    """The private file names the very key that `ssh-keygen -y` derives from it."""
    derived = PublicKey.parse(keygen("-y", "-f", key))
    assert derived.blob == public_half(key.read_bytes()).blob


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("around", [b"", b"\n", b"  \n\n"])
def test_white_space_around_a_private_key_is_no_matter(key: Path, line_end: bytes, around: bytes) -> None:
    """A key that went through an editor of Windows, or got a blank line, is still that key."""
    text = around + key.read_bytes().replace(b"\n", line_end) + around
    assert PublicKey.parse(key.with_suffix(".pub").read_text()).blob == public_half(text).blob


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "  "])
def test_line_ends_of_a_public_line_are_no_matter(key: Path, ending: str) -> None:
    """A line that was pasted with its line end, whatever system's, is still that key."""
    line = key.with_suffix(".pub").read_text().strip()
    assert PublicKey.parse(line) == PublicKey.parse(line + ending)


def test_a_passphrase_is_refused(tmp_path: Path) -> None:
    """Nobody is there to type a passphrase when a timer runs, and the report says so."""
    with pytest.raises(ValueError, match="it has a passphrase"):
        public_half(new(tmp_path, passphrase="correct horse").read_bytes())


@pytest.mark.parametrize(
    ("kind", "options"),
    [("rsa", ("-b", "2048")), ("ecdsa", ("-b", "256")), ("rsa", ("-b", "2048", "-m", "PEM"))],
)
def test_other_types_of_key_are_refused(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    """RSA and ECDSA keys are told apart from Ed25519 by name; PEM is no OpenSSH key."""
    path = new(tmp_path, *options, kind=kind)
    with pytest.raises(ValueError, match=r"only ssh-ed25519|not an OpenSSH private key"):
        public_half(path.read_bytes())
    with pytest.raises(ValueError, match="only ssh-ed25519"):
        PublicKey.parse(path.with_suffix(".pub").read_text())


def test_a_private_key_that_is_cut_short_is_refused(key: Path) -> None:
    """Of a file that lost its end, or a piece within the armor, no key is ever guessed."""
    whole = key.read_bytes()
    for end in range(len(whole) - 1):
        with pytest.raises(ValueError):
            public_half(whole[:end])
    octets = base64.b64decode(b"".join(whole.splitlines()[1:-1]))
    for end in range(len(octets) - 1):
        with pytest.raises(ValueError):
            public_half(_armored(octets[:end]))


def _armored(octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    return b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + text + b"\n-----END OPENSSH PRIVATE KEY-----\n"


def test_a_public_line_that_is_cut_short_is_refused(key: Path) -> None:
    """Half a pasted line is refused, however it was cut."""
    bare = PublicKey.parse(key.with_suffix(".pub").read_text()).bare
    for end in range(len(bare)):
        with pytest.raises(ValueError):
            PublicKey.parse(bare[:end])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "a type and a key"),
        ("ssh-ed25519", "a type and a key"),
        ("web1 ssh-ed25519 AAAA", "its type is 'web1'"),
        ("ssh-ed25519 not/base64!", "not base64"),
        ("ssh-ed25519 AAAA", "cut short"),
        ("sk-ssh-ed25519@openssh.com AAAA", "only ssh-ed25519"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "only ssh-ed25519"),
        # The first word is anybody's; the key itself says what it is.
        (
            "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x07ssh-rsa\0\0\0\x03abc").decode(),
            "its type is 'ssh-rsa'",
        ),
        ("ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x03abc").decode(), "32 octets"),
        (
            "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 33).decode(),
            "32 octets",
        ),
        ("ssh-ed25519 " + base64.b64encode(b"\xff\xff\xff\xff").decode(), "cut short"),
    ],
)
def test_what_is_no_public_line_is_refused_in_words(line: str, words: str) -> None:
    """Each mistake in a pasted line is named."""
    with pytest.raises(ValueError, match=words):
        PublicKey.parse(line)


def test_a_comment_cannot_write_on_a_terminal(key: Path) -> None:
    """A comment with control characters is refused: it would be shown."""
    line = key.with_suffix(".pub").read_text().strip()
    with pytest.raises(ValueError, match="control characters"):
        PublicKey.parse(f"{line} \x1b[2J")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 100,
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n====\n-----END OPENSSH PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_private_key_is_refused_in_words(text: bytes) -> None:
    """Other files, empty ones, armor around nothing: refused, never a traceback."""
    with pytest.raises(ValueError, match=r"."):
        public_half(text)


def test_two_keys_in_one_file_are_refused(key: Path) -> None:
    """The format allows several keys in a file; ours never has more than one, so the count is checked."""
    octets = bytearray(base64.b64decode(b"".join(key.read_bytes().splitlines()[1:-1])))
    count = octets.index(b"\0\0\0\1")
    octets[count + 3] = 2
    with pytest.raises(ValueError, match="exactly one key"):
        public_half(_armored(bytes(octets)))
    octets[count + 3] = 1
    with pytest.raises(ValueError, match="behind the key"):
        public_half(_armored(bytes(octets) + b"more"))


def test_reading_keys_needs_no_cryptography() -> None:
    """Each poll looks at its identity; that must not cost the import of a crypto library."""
    script = (
        "import sys, certcast.release.ssh_keys\n"
        "sys.exit('cryptography' in sys.modules or 'pyrage' in sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", script], check=False).returncode
