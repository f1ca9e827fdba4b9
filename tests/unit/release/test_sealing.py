"""Sealed keys: held against Debian's age in both ways, and against what others may put in their place."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import time
from pathlib import Path

import pyrage
import pytest

from certcast.release import host_identity, sealing
from certcast.release.host_identity import Identity
from certcast.release.sealing import LIMIT, Recipient
from certcast.report.errors import SealedInvalid

PRIVKEY = b"-----BEGIN PRIVATE KEY-----\n" + b"MIGH" * 400 + b"\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def web1(folder: Path) -> Identity:
    return host_identity.make(folder / "web1", "web1")


@pytest.fixture(scope="module")
def web2(folder: Path) -> Identity:
    return host_identity.make(folder / "web2", "web2")


def to(host: Identity) -> Recipient:
    return Recipient.of_host(host.path.name, host.public)


def age(*arguments: str | Path, stdin: bytes = PRIVKEY) -> bytes:
    return subprocess.run(["age", *map(str, arguments)], input=stdin, capture_output=True, check=True).stdout


def opened(sealed: bytes, host: Identity) -> bytes:
    return sealing.unseal(sealed, host, what="example.com: web1.age", again="`certcast host add`")


def refused(sealed: bytes, host: Identity) -> str:
    """Return in which words it is refused."""
    with pytest.raises(SealedInvalid) as caught:
        opened(sealed, host)
    return caught.value.found or ""


# -- with age, both ways


def test_what_is_sealed_here_age_opens(web1: Identity) -> None:
    """An administrator on a host opens its sealed key with Debian's age and the identity file alone."""
    assert PRIVKEY == age("-d", "-i", web1.path, stdin=sealing.seal(PRIVKEY, to(web1)))


def test_what_age_seals_opens_here(web1: Identity) -> None:
    """A key that was sealed by hand with `age -r "ssh-ed25519 …"` opens on its host."""
    assert PRIVKEY == opened(age("-r", web1.public.bare), web1)
    assert PRIVKEY == opened(age("-R", _line_in_a_file(web1)), web1)


def _line_in_a_file(host: Identity) -> Path:
    file = host.path.with_suffix(".pub")
    file.write_text(host.public.line + "\n")
    return file


def test_what_is_sealed_to_the_kit_age_opens(folder: Path) -> None:
    """What is sealed to the recovery kit opens with an identity that age-keygen made."""
    subprocess.run(["age-keygen", "-o", folder / "kit"], capture_output=True, check=True)
    recipient = subprocess.run(
        ["age-keygen", "-y", folder / "kit"], capture_output=True, check=True, text=True
    )
    kit = Recipient.of_kit(recipient.stdout.strip())
    assert PRIVKEY == age("-d", "-i", folder / "kit", stdin=sealing.seal(PRIVKEY, kit))


def test_a_key_of_ssh_keygen_is_a_recipient_and_opens(folder: Path) -> None:
    """A host's own SSH key, as ssh-keygen made it, serves as the identity."""
    path = folder / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    host = host_identity.load(path)
    assert PRIVKEY == opened(sealing.seal(PRIVKEY, to(host)), host)


# -- names and sizes


def test_the_object_is_named_after_host_and_key(web1: Identity) -> None:
    """The name holds the first 16 hex digits of the SHA-256 of the key: a new identity finds nothing."""
    digest = hashlib.sha256(web1.public.blob).hexdigest()[:16]
    key = to(web1).object_key("example.com", "ab" * 32)
    assert f"certs/example.com/releases/{'ab' * 32}/keys/web1.{digest}.age" == key
    age1 = str(pyrage.x25519.Identity.generate().to_public())
    kit = Recipient.of_kit(age1).object_key("example.com", "ab" * 32)
    assert kit.endswith(f"/keys/recovery.{hashlib.sha256(age1.encode()).hexdigest()[:16]}.age")


def test_the_largest_key_fits(web1: Identity) -> None:
    """An RSA-4096 key (3.3 KB) fits below the limit; what readers would refuse is not written."""
    rsa_4096 = b"k" * 3350
    assert rsa_4096 == opened(sealing.seal(rsa_4096, to(web1)), web1)
    with pytest.raises(ValueError, match="readers stop at 4,096"):
        sealing.seal(b"k" * LIMIT, to(web1))


@pytest.mark.parametrize("host", ["web1", "recovery"])
def test_what_is_no_recipient_is_refused(host: str) -> None:
    """A recipient that age does not know ends in words, for the one who enrols it."""
    for age_recipient in ("", "ssh-ed25519 AAAA", "ssh-dss AAAA", "age1xyz", "\0"):
        with pytest.raises(ValueError, match=r"\S"):
            sealing.seal(PRIVKEY, Recipient(host, age_recipient, "0" * 16))


# -- what others may put there


def test_what_is_sealed_to_another_host_does_not_open(web1: Identity, web2: Identity) -> None:
    """Another host's sealed key is no use here, and the report names the identity that it should be for."""
    with pytest.raises(SealedInvalid, match="does not open with this host's identity") as caught:
        opened(sealing.seal(PRIVKEY, to(web2)), web1)
    assert caught.value.expected == f"an age file for {web1.public.fingerprint}"
    assert caught.value.next == "`certcast host add`"


def test_a_file_with_a_passphrase_is_refused_at_once(web1: Identity) -> None:
    """An age file for a passphrase asks nobody and computes no scrypt, which may take years (2^40 rounds)."""
    stanza = b"-> scrypt " + b"A" * 22 + b" 40\n" + b"A" * 43 + b"\n"
    with_passphrase = b"age-encryption.org/v1\n" + stanza + b"--- " + b"A" * 43 + b"\n" + bytes(64)
    begin = time.monotonic()
    assert "No matching keys found" == refused(with_passphrase, web1)
    assert time.monotonic() - begin < 0.5


def test_armor_is_refused(web1: Identity) -> None:
    """age's text form, which age reads with blanks around it, is not taken: one object, one form."""
    assert "not a binary age file" == refused(age("-a", "-r", web1.public.bare), web1)


def test_an_empty_key_is_refused(web1: Identity) -> None:
    """A good age file with nothing in it is no private key."""
    assert "nothing is in it" == refused(age("-r", web1.public.bare, stdin=b""), web1)


DAMAGED = {
    "empty": lambda s: b"",
    "the first line alone": lambda s: s.split(b"\n")[0] + b"\n",
    "the header alone": lambda s: s[: s.index(b"\n---") + 48],
    "the last octet missing": lambda s: s[:-1],
    "the second half missing": lambda s: s[: len(s) // 2],
    "an octet more": lambda s: s + b"\0",
    "a line feed more": lambda s: s + b"\n",
    "twice": lambda s: s + s,
    "a line feed before": lambda s: b"\n" + s,
    "CRLF in the header": lambda s: s.replace(b"\n", b"\r\n", 4),
    "a stanza twice": lambda s: s.replace(b"\n---", s[s.index(b"\n->") : s.index(b"\n---")] + b"\n---", 1),
    "age v2": lambda s: s.replace(b"/v1\n", b"/v2\n"),
    "HTML": lambda s: b"<html><body>Blocked</body></html>",
    "gzip": lambda s: b"\x1f\x8b\x08" + s,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_refused_in_words(web1: Identity, damage: str) -> None:
    """Whatever was cut, doubled or replaced, there is a report and no part of a key."""
    assert refused(DAMAGED[damage](sealing.seal(PRIVKEY, to(web1))), web1)


def test_no_flipped_bit_opens(web1: Identity) -> None:
    """A sealed key in which any one octet is another does not open."""
    sealed = sealing.seal(b"k" * 64, to(web1))
    for at in range(len(sealed)):
        assert refused(sealed[:at] + bytes([sealed[at] ^ 1 << at % 8]) + sealed[at + 1 :], web1)


def test_600_stanzas_cost_nothing(web1: Identity, web2: Identity) -> None:
    """
    age reads a header of 600 stanzas for seconds (measured here: 7 to 10): beyond 4 KiB none is read at
    all, and the most that fits (some 660 empty stanzas) costs a fraction of a second (measured: 0.1 to 0.3).
    """
    crowd = [word for _ in range(600) for word in ("-r", web2.public.bare)]
    huge = age(*crowd, "-r", web1.public.bare)
    begin = time.monotonic()
    assert f"{len(huge):,} octets; at most 4,096 are read" == refused(huge, web1)
    assert time.monotonic() - begin < 0.1
    intro, mac = b"age-encryption.org/v1\n", b"--- " + b"A" * 43 + b"\n"
    stanzas = b"-> x\n\n" * ((LIMIT - len(intro + mac) - 32) // 6)
    begin = time.monotonic()
    assert refused(intro + stanzas + mac + bytes(32), web1)
    assert time.monotonic() - begin < 3


def test_halves_of_two_keys_open_nothing(web1: Identity, web2: Identity, tmp_path: Path) -> None:
    """An identity file whose two halves are of two keys ends in a report, not in a wrong key."""
    body = b"".join(web1.path.read_bytes().splitlines()[1:-1])
    glued = base64.b64decode(body).replace(web1.public.blob, web2.public.blob, 1)
    begin, end = (f"-----{word} OPENSSH PRIVATE KEY-----\n".encode() for word in ("BEGIN", "END"))
    path = tmp_path / "identity"
    path.write_bytes(begin + base64.encodebytes(glued) + end)
    path.chmod(0o600)
    host = host_identity.load(path)
    assert web2.public.blob == host.public.blob
    assert refused(sealing.seal(PRIVKEY, to(web2)), host)
