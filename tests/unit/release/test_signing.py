"""The publisher's signature: held against ssh-keygen in both ways, and against what libraries let pass."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from by_hand import BEGIN, END, ByHand, armored, by_hand, string
from certcast.release import host_identity, signing
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import SecretExposed, SignatureInvalid, SigningFailed

DOCUMENT = '{\n  "format": 1,\n  "publisher": "Zürich"\n}\n'.encode()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "publisher"
    host_identity.make(path, "publisher")
    return path


@pytest.fixture(scope="module")
def pinned(key: Path) -> tuple[PublicKey, ...]:
    return (host_identity.load(key).public,)


@pytest.fixture(scope="module")
def signed(key: Path) -> bytes:
    return signing.sign(DOCUMENT, key)


def keygen(
    *arguments: str | Path, stdin: bytes = b"", check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *map(str, arguments)], input=stdin, capture_output=True, check=check)


def refused(signed: bytes, pinned: tuple[PublicKey, ...]) -> str:
    """Return in which words it is refused."""
    with pytest.raises(SignatureInvalid) as caught:
        signing.verify(signed, pinned, what="example.com: the published manifest")
    return caught.value.found or ""


# -- with ssh-keygen, both ways


def test_what_is_signed_here_ssh_keygen_verifies(
    key: Path, pinned: tuple[PublicKey, ...], signed: bytes, tmp_path: Path
) -> None:
    """An administrator checks a manifest with ssh-keygen alone: who signed it, and that nothing changed."""
    (tmp_path / "signature").write_bytes(signed.removeprefix(DOCUMENT))
    (tmp_path / "signers").write_text(f'certcast namespaces="certcast-manifest" {pinned[0].bare}\n')
    verify = [
        *("-Y", "verify", "-f", tmp_path / "signers", "-I", "certcast"),
        *("-n", "certcast-manifest", "-s", tmp_path / "signature"),
    ]
    assert b'Good "certcast-manifest" signature' in keygen(*verify, stdin=DOCUMENT).stdout
    assert 0 != keygen(*verify, stdin=DOCUMENT + b" ", check=False).returncode
    anybody = ["-Y", "check-novalidate", "-n", "certcast-manifest", "-s", tmp_path / "signature"]
    assert pinned[0].fingerprint.encode() in keygen(*anybody, stdin=DOCUMENT).stdout


@pytest.mark.parametrize("hashed", ["sha512", "sha256"])
def test_what_ssh_keygen_signs_verifies_here(key: Path, pinned: tuple[PublicKey, ...], hashed: str) -> None:
    """A manifest that was signed by hand with ssh-keygen, with either of its hashes, is believed."""
    by = keygen(
        "-q", "-Y", "sign", "-n", "certcast-manifest", "-O", f"hashalg={hashed}", "-f", key, stdin=DOCUMENT
    )
    verified = signing.verify(DOCUMENT + by.stdout, pinned, what="it")
    assert (DOCUMENT, pinned[0].fingerprint) == (verified.document, verified.publisher)
    assert hashed.encode() == ByHand.of(by.stdout).digest


def test_either_of_two_pinned_keys_will_do(pinned: tuple[PublicKey, ...], signed: bytes) -> None:
    """The working and the spare key are both believed, and the report says which it was."""
    spare = host_identity.new_key("spare")[1]
    assert pinned[0].fingerprint == signing.verify(signed, (spare, *pinned), what="it").publisher


def test_the_parts_by_hand_are_ssh_keygens(key: Path, pinned: tuple[PublicKey, ...], signed: bytes) -> None:
    """What the tests below put together by hand is, with right parts, a signature that is believed."""
    assert signed == DOCUMENT + ByHand.of(signed).armor
    assert DOCUMENT == signing.verify(by_hand(DOCUMENT, key.read_bytes()), pinned, what="it").document


# -- who signed, and what for


def test_somebody_elses_signature_is_refused(pinned: tuple[PublicKey, ...], tmp_path: Path) -> None:
    """A good signature by a key that isn't pinned is refused, and the report names that key."""
    other = host_identity.make(tmp_path / "other", "other")
    assert f"signed by another key: {other.public.fingerprint}" == refused(
        signing.sign(DOCUMENT, other.path), pinned
    )


def test_without_a_pinned_key_nothing_is_believed(signed: bytes) -> None:
    """A host that knows no publisher believes none."""
    assert "signed by another key" in refused(signed, ())


@pytest.mark.parametrize(("kind", "bits"), [("rsa", "2048"), ("ecdsa", "256")])
def test_another_type_of_key_is_refused(
    pinned: tuple[PublicKey, ...], tmp_path: Path, kind: str, bits: str
) -> None:
    """RSA and ECDSA signatures by ssh-keygen are nobody's that could be pinned."""
    keygen("-q", "-t", kind, "-b", bits, "-N", "", "-f", tmp_path / "key")
    by = keygen("-q", "-Y", "sign", "-n", "certcast-manifest", "-f", tmp_path / "key", stdin=DOCUMENT)
    assert "signed by another key, of another type" == refused(DOCUMENT + by.stdout, pinned)


@pytest.mark.parametrize("namespace", ["file", "git", "certcast-report", "certcast-manifest2"])
def test_a_signature_for_another_purpose_is_refused(
    key: Path, pinned: tuple[PublicKey, ...], namespace: str
) -> None:
    """What our own key has signed for another purpose (a commit, a mail) is no manifest."""
    by = keygen("-q", "-Y", "sign", "-n", namespace, "-f", key, stdin=DOCUMENT)
    assert f"a signature for '{namespace}', not for certcast-manifest" == refused(
        DOCUMENT + by.stdout, pinned
    )


def test_our_key_over_a_signature_of_another_is_refused(
    pinned: tuple[PublicKey, ...], tmp_path: Path
) -> None:
    """A signature that claims to be the publisher's, made with another key, is refused by arithmetic."""
    other = host_identity.make(tmp_path / "other", "other")
    forged = replace(ByHand.of(signing.sign(DOCUMENT, other.path)), claimed=pinned[0].blob)
    assert "the text was changed, or the signature" == refused(DOCUMENT + forged.armor, pinned)


def test_the_signature_of_another_manifest_is_refused(key: Path, pinned: tuple[PublicKey, ...]) -> None:
    """A genuine signature under another text is refused."""
    other = signing.sign(b'{"format": 1}\n', key)
    assert "the text was changed" in refused(DOCUMENT + other[other.index(BEGIN) :], pinned)


# -- one spelling


def _noncanonical(signed: bytes) -> bytes:
    """The last letter before the padding carries four bits that mean nothing: set one."""
    at = signed.rindex(b"==") - 1
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return signed[:at] + bytes([letters[letters.index(signed[at]) ^ 1]]) + signed[at + 1 :]


SPELT = {
    "text behind END": lambda s: s + b"and more\n",
    "white space behind END": lambda s: s + b" ",
    "an empty line behind END": lambda s: s + b"\n",
    "NUL behind END": lambda s: s + b"\0",
    "no line feed behind END": lambda s: s[:-1],
    "CRLF in the armor": lambda s: DOCUMENT + s.removeprefix(DOCUMENT).replace(b"\n", b"\r\n"),
    "CRLF everywhere": lambda s: s.replace(b"\n", b"\r\n"),
    "two armors": lambda s: s + s.removeprefix(DOCUMENT),
    "two manifests": lambda s: s + s,
    "the document after the armor": lambda s: s.removeprefix(DOCUMENT) + DOCUMENT,
    "the armor alone": lambda s: s.removeprefix(DOCUMENT),
    "no armor": lambda s: DOCUMENT,
    "nothing": lambda s: b"",
    "END alone": lambda s: DOCUMENT + END,
    "an empty armor": lambda s: DOCUMENT + BEGIN + END,
    "no END": lambda s: s.removesuffix(END),
    "BEGIN in the middle of a line": lambda s: s.replace(b"\n" + BEGIN, BEGIN),
    "an indented armor": lambda s: s.replace(BEGIN, b" " + BEGIN),
    "other words": lambda s: s.replace(b"SSH SIGNATURE", b"SSH signature"),
    "junk within the base64": lambda s: s.replace(BEGIN, BEGIN + b"!!\n"),
    "a blank within the base64": lambda s: s.replace(END, b" \n" + END),
    "an empty line within the base64": lambda s: s.replace(BEGIN, BEGIN + b"\n"),
    "NUL within the base64": lambda s: s.replace(BEGIN, BEGIN + b"\0"),
    "a header within the armor": lambda s: s.replace(BEGIN, BEGIN + b"Comment: x\n"),
    "longer lines": lambda s: DOCUMENT + armored(ByHand.of(s).blob, 76),
    "one line": lambda s: DOCUMENT + armored(ByHand.of(s).blob, 1000),
    "bits of base64 that mean nothing": _noncanonical,
    "one more =": lambda s: s.replace(b"==\n", b"===\n"),
    "one = less": lambda s: s.replace(b"==\n", b"=\n"),
    "base64 for URLs": lambda s: DOCUMENT + BEGIN + base64.urlsafe_b64encode(b"\xff" * 60) + b"\n" + END,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELT.values(), ids=SPELT)
def test_a_signature_has_one_spelling(
    pinned: tuple[PublicKey, ...], signed: bytes, spelling: Callable[[bytes], bytes]
) -> None:
    """A signature that is written in any other way than ssh-keygen's is none: nothing hides beside it."""
    other = spelling(signed)
    assert other != signed
    assert refused(other, pinned) in (
        "no SSH signature as its only last part", "it is cut short", "not a signature of SSHSIG's version 1"
    )  # fmt: skip


BY_HAND = {
    "the hash shake_128": {"digest": b"shake_128"},
    "the hash md5": {"digest": b"md5"},
    "the hash sha3_512": {"digest": b"sha3_512"},
    "SHA512 in capitals": {"digest": b"SHA512"},
    "a reserved field": {"reserved": b"critical"},
    "octets behind the signature proper": {"behind": b"more"},
    "octets behind the last field": {"rest": b"more"},
    "another algorithm's name": {"kind": b"ssh-rsa"},
    "an algorithm without a name": {"kind": b""},
    "version 2": {"magic": b"SSHSIG\0\0\0\2"},
    "other magic": {"magic": b"sshsig\0\0\0\1"},
}


@pytest.mark.parametrize("parts", BY_HAND.values(), ids=BY_HAND)
def test_our_own_signature_of_another_make_is_refused(
    key: Path, pinned: tuple[PublicKey, ...], parts: dict[str, bytes]
) -> None:
    """With our own key's arithmetic right, still no hash, field or algorithm but ssh-keygen's is taken."""
    found = refused(by_hand(DOCUMENT, key.read_bytes(), **parts), pinned)
    assert found in (
        "a signature of another make than ssh-keygen's", "not a signature of SSHSIG's version 1"
    )  # fmt: skip


def test_a_signature_plus_the_order_of_the_group_is_refused(
    pinned: tuple[PublicKey, ...], signed: bytes
) -> None:
    """Ed25519's second solution (S + L) is refused (RFC 8032, 5.1.7): of a signature there is one."""
    parts = ByHand.of(signed)
    second = int.from_bytes(parts.octets[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    forged = replace(parts, octets=parts.octets[:32] + second.to_bytes(32, "little"))
    assert "the text was changed, or the signature" == refused(DOCUMENT + forged.armor, pinned)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 2**16])
def test_a_signature_of_another_length_is_refused(
    pinned: tuple[PublicKey, ...], signed: bytes, length: int
) -> None:
    """Ed25519 signatures have 64 octets; fields of other sizes, huge ones too, are refused."""
    forged = replace(ByHand.of(signed), octets=b"\1" * length)
    assert "a signature of another make than ssh-keygen's" == refused(DOCUMENT + forged.armor, pinned)


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0"])
def test_a_field_that_says_it_is_huge_is_cut_short(pinned: tuple[PublicKey, ...], length: bytes) -> None:
    """A length of 4 GiB in a blob of 100 octets allocates nothing and ends in words."""
    assert "it is cut short" == refused(DOCUMENT + armored(b"SSHSIG\0\0\0\1" + length + b"x" * 90), pinned)


def test_an_endless_number_of_armors_is_refused_at_once(pinned: tuple[PublicKey, ...], signed: bytes) -> None:
    """64 KiB of nothing but BEGIN lines, or of one armor, cost milliseconds (measured: under 2)."""
    begin = time.monotonic()
    for body in (DOCUMENT + BEGIN * 2000 + signed, DOCUMENT + armored(string(b"x" * 45_000)), b"\n" * 64_000):
        refused(body, pinned)
    assert time.monotonic() - begin < 1


def test_a_manifest_may_speak_of_signatures(key: Path, pinned: tuple[PublicKey, ...]) -> None:
    """An armor as a JSON text (its line feeds are \\n there) is text of the document, and no signature."""
    text = b'{"publisher": "-----BEGIN SSH SIGNATURE-----\\nU1NI\\n-----END SSH SIGNATURE-----\\n"}\n'
    assert text == signing.verify(signing.sign(text, key), pinned, what="it").document
    with_lines = text.replace(rb"\n", b"\n")
    assert "no SSH signature as its only last part" == refused(signing.sign(b"\n" + with_lines, key), pinned)


def test_nothing_is_read_before_it_is_verified(pinned: tuple[PublicKey, ...], signed: bytes) -> None:
    """A text that no JSON reader would survive is handed to none: it is refused for its signature."""
    armor = signed.removeprefix(DOCUMENT)
    for bomb in (b"[" * 60_000 + b"\n", b'{"a":' * 10_000 + b"\n", b"9" * 60_000 + b"\n", b"\xff\xfe\n"):
        assert "the text was changed, or the signature" == refused(bomb + armor, pinned)


# -- the key that signs


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """Where there is no signing key, the report says what makes one."""
    with pytest.raises(SigningFailed, match="no signing key") as caught:
        signing.sign(DOCUMENT, tmp_path / "publisher")
    assert "`certcast publisher init`" in (caught.value.next or "")


def test_a_key_with_a_passphrase_does_not_wait_for_it(tmp_path: Path) -> None:
    """A signing key with a passphrase is reported; nobody is there to type it."""
    keygen("-q", "-t", "ed25519", "-N", "correct horse", "-f", tmp_path / "publisher")
    with pytest.raises(SigningFailed, match="did not sign"):
        signing.sign(DOCUMENT, tmp_path / "publisher")


def test_a_damaged_key_is_reported(key: Path, tmp_path: Path) -> None:
    """A signing key that was cut short ends in a report with ssh-keygen's words."""
    damaged = tmp_path / "publisher"
    damaged.write_bytes(key.read_bytes()[:200])
    damaged.chmod(0o600)
    with pytest.raises(SigningFailed, match="did not sign the manifest") as caught:
        signing.sign(DOCUMENT, damaged)
    assert str(damaged) in (caught.value.found or "")


def test_a_key_that_others_may_read_does_not_sign(key: Path, tmp_path: Path) -> None:
    """A signing key with wide rights is refused before ssh-keygen sees it, with the command that mends it."""
    wide = tmp_path / "publisher"
    wide.write_bytes(key.read_bytes())
    wide.chmod(0o644)
    with pytest.raises(SecretExposed):
        signing.sign(DOCUMENT, wide)


def test_without_ssh_keygen_the_package_is_named(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal host without ssh-keygen is told which package has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SigningFailed) as caught:
        signing.sign(DOCUMENT, key)
    assert "install the package openssh-client" == caught.value.next


def test_an_ssh_keygen_that_cannot_sign_is_reported(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ssh-keygen older than 8.1, which knows no -Y, or one that says nothing, is not taken for success."""
    for script in ("echo 'unknown option -- Y' >&2; exit 1", "exit 0"):
        old = tmp_path / "ssh-keygen"
        old.write_text(f"#!/bin/sh\n{script}\n")
        old.chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
        with pytest.raises(SigningFailed) as caught:
            signing.sign(DOCUMENT, key)
        assert "a signature by OpenSSH 8.1 or newer" == caught.value.expected
