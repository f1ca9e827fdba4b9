"""The second line: what is printed, mailed and logged is free of secrets, and still of use."""

from __future__ import annotations

import base64
import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certcast.report import errors, redaction
from certcast.report.redaction import STRUCK, redacted


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, form: str) -> str:
    written = key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.NoEncryption(),
    )
    return written.decode()


KEYS = {
    "RSA PKCS 1": pem(rsa.generate_private_key(65537, 2048), "TraditionalOpenSSL"),
    "ECDSA PKCS 8": pem(ec.generate_private_key(ec.SECP256R1()), "PKCS8"),
    "ECDSA SEC 1": pem(ec.generate_private_key(ec.SECP256R1()), "TraditionalOpenSSL"),
    "OpenSSH": pem(ed25519.Ed25519PrivateKey.generate(), "OpenSSH"),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("form", ["as it is", "indented", "repr", "carriage returns", "cut short"])
def test_a_private_key_is_struck_out_however_it_is_written(key: str, form: str) -> None:
    """As a file, indented in a report, in a traceback's repr or without its end: no line of it stays."""
    whole = f"the file says {key} and more: run `certcast renew`"
    text = {
        "as it is": whole,
        "indented": whole.replace("\n", "\n" + " " * 11),
        "repr": repr(whole),
        "carriage returns": whole.replace("\n", "\r\n"),
        "cut short": f"the file says {key[: len(key) // 2]}",
    }[form]
    shown = redacted(text)
    assert [] == [line for line in key.splitlines()[1:-1] if line[:16] in shown]
    assert shown.count(STRUCK) == 1
    assert shown.replace("'", "").startswith("the file says [struck out]")
    if form != "cut short":
        assert "and more: run `certcast renew`" in shown


def test_an_age_identity_is_struck_out() -> None:
    """The recovery kit's identity, printed by whatever read it, does not stay readable."""
    identity = str(pyrage.x25519.Identity.generate())
    assert f"identity {STRUCK}, done" == redacted(f"identity {identity}, done")


TOKEN = "CAIS" + base64.b64encode(bytes(range(200))).decode()
SECRET = "tYq8Zk3LmN0pQrStUvWxYz12345678"  # 30 characters, as Alibaba Cloud's have


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"LTAI5tFakeFakeFakeFake:{SECRET}", f"LTAI5tFakeFakeFakeFake:{STRUCK}"),
        (f'"access_key_secret": "{SECRET}", "mode"', f'"access_key_secret": "{STRUCK}", "mode"'),
        (f"ALIBABA_CLOUD_ACCESS_KEY_SECRET={SECRET}", f"ALIBABA_CLOUD_ACCESS_KEY_SECRET={STRUCK}"),
        (f"AWS_SECRET_ACCESS_KEY={SECRET} and", f"AWS_SECRET_ACCESS_KEY={STRUCK} and"),
        (f"x-oss-security-token: {TOKEN}", f"x-oss-security-token: {STRUCK}"),
        (f"got {TOKEN} from", f"got {STRUCK} from"),
        ("?Signature=abc%2Bdefghij%3D&Version=1", f"?Signature={STRUCK}&Version=1"),
        ("x-oss-signature=0123456789abcdef", f"x-oss-signature={STRUCK}"),
        ("Authorization: OSS4-HMAC-SHA256 Credential=a,Signature=b", f"Authorization: {STRUCK}"),
        ("http://proxy:hunter2@10.0.0.1:3128/", f"http://proxy:{STRUCK}@10.0.0.1:3128/"),
        ("password = 'correct horse'", f"password = '{STRUCK} horse'"),
    ],
)
def test_secrets_are_known_by_their_form_and_their_label(said: str, shown: str) -> None:
    """What libraries write around a secret gives it away; the rest of the line stays, the key's id too."""
    assert shown == redacted(said)


@pytest.mark.parametrize("secret", [SECRET, "a/secret+with=signs", "two words of a mail password"])
def test_a_secret_of_this_process_is_struck_out_to_the_letter(secret: str) -> None:
    """Whatever certcast has used as a secret is found without any label, in an address as well."""
    from urllib.parse import quote

    redaction.remember(secret, None, "")
    assert f"it was {STRUCK}?" == redacted(f"it was {secret}?")
    assert f"https://x.test/?key={STRUCK}&a=b" == redacted(f"https://x.test/?key={quote(secret, '')}&a=b")


def test_secrets_of_the_environment_are_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anything has asked for keys: a broken start shows none."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "consumer-secret")
    assert f"argument {STRUCK} is wrong" == redacted("argument consumer-secret is wrong")


ORDINARY = """\
error: example.test: fullchain.pem of version 42 is not the file that was published
  expected   sha256 9c1f3ab29c1f3ab29c1f3ab29c1f3ab29c1f3ab29c1f3ab29c1f3ab29c1f3ab2, 5,214 bytes
  found      LTAI5tFakeFakeFakeFake has no right to oss://bucket/certcast/certs/example.test/manifest
             -----BEGIN CERTIFICATE-----
             an OpenSSH private key, -----BEGIN OPENSSH PRIVATE KEY-----, as ssh-keygen writes it
             sudo: a password is required
             SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDb12345678901234x
             TXT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa at _acme-challenge.example.test
  next       set both ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or password_file = "/x"
  code       SIGNATURE (exit 33), docs/runbook.md#signature"""


def test_what_a_person_needs_is_left_alone() -> None:
    """Digests, fingerprints, ids of keys, TXT values and advice are no secrets, and stay."""
    assert ORDINARY == redacted(ORDINARY)
    certificate = "-----BEGIN CERTIFICATE-----\n" + "MIIB" * 16 + "\n-----END CERTIFICATE-----"
    assert certificate == redacted(certificate)


def test_a_report_is_redacted() -> None:
    """An error with a secret in it, from whatever library, is printed and mailed without."""
    redaction.remember(SECRET)
    error = errors.Defect(f"no {SECRET}", expected=SECRET, found=f"key\n{KEYS['OpenSSH']}", next="go on")
    text = error.report()
    assert SECRET not in text
    assert "OPENSSH" not in text
    assert "go on" in text


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """A handler that somebody has installed: a debug log, for one."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger().addHandler(handler)
    redaction.guard_logs()
    redaction.guard_logs()
    assert 1 == len(handler.filters)
    yield written
    logging.getLogger().removeHandler(handler)


def test_a_log_holds_no_secret(log: io.StringIO) -> None:
    """Neither in the message, nor in its arguments, nor in a traceback; and it is still a log."""
    redaction.remember(SECRET)
    logger = logging.getLogger("somebody.else")
    logger.warning("signing %s with %s", "GET", SECRET)
    try:
        raise ValueError(f"no such key: {SECRET}")
    except ValueError:
        logger.exception("failed")
    written = log.getvalue()
    assert f"signing GET with {STRUCK}" in written
    assert f"ValueError: no such key: {STRUCK}" in written
    assert SECRET not in written


def test_a_mistake_in_a_log_call_is_left_to_logging() -> None:
    """A record whose arguments do not fit is passed on: logging says so on stderr, and work goes on."""
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%d bytes", ("wrong",), None)
    assert redaction._in_record(record)


def test_the_handler_of_last_resort_is_guarded_too() -> None:
    """In a process without any handler, Python writes warnings to stderr: without secrets."""
    script = (
        "import logging\nfrom certcast.report import redaction\n"
        f"redaction.remember({SECRET!r})\nredaction.guard_logs()\n"
        f"logging.getLogger('x').warning('see %s', {SECRET!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"see {STRUCK}\n" == done.stderr


def test_a_long_log_line_costs_no_more_than_its_length() -> None:
    """No text that a server sends can keep the patterns busy."""
    import time

    lines = ["A" * 200_000, "-----BEGIN PRIVATE KEY-----" + "A" * 200_000, "a:" * 100_000, "://x:" * 50_000]
    for line in lines:
        begun = time.process_time()
        redacted(line)
        assert time.process_time() - begun < 2, line[:40]


def test_a_poll_pays_for_no_pattern() -> None:
    """Importing compiles nothing and imports no logging."""
    script = (
        "import sys\nfrom certcast.report import redaction\n"
        "print(redaction._patterns.cache_info().currsize, 'logging' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "0 False\n" == done.stdout
