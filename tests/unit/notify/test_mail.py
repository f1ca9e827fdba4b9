"""What certcast's mails say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage

import pytest

from certcast.config.model import MailConfig
from certcast.notify import mail
from certcast.release.certificate import Leaf
from certcast.report import errors

NOW = datetime(2026, 11, 23, 18, 5, tzinfo=timezone.utc)

LEAF = Leaf(
    sha256="9c1f3ab2" * 8,
    serial="0A1B2C",
    issuer="CN=Lab",
    not_before=NOW - timedelta(hours=1),
    not_after=NOW + timedelta(days=63, hours=23),
    names=("*.example.test", "example.test"),
    public_key_sha256="0" * 64,
)

CONFIG = MailConfig(
    host="mail.example.test",
    sender="certcast@web1.example.test",
    failures_to=("it@example.test", "oncall@example.test"),
    installs_to=("administrator@example.test",),
)

FAILURE = errors.DigestMismatch(
    "example.test: fullchain.pem of version 42 is not the file that was published",
    expected="sha256 9c1f3ab2…, 5,214 bytes",
    found="sha256 77e0b410…, 2,607 bytes",
    kept="version 41, valid 23 more days; nginx was not touched",
    next="run `certcast pull example.test`",
)


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> list[EmailMessage]:
    """Messages that would have been handed to the server; the only seam to the network is replaced."""
    messages: list[EmailMessage] = []

    def deliver(
        _mail: MailConfig, _port: int, message: EmailMessage, *, host: str
    ) -> dict[str, tuple[int, bytes]]:
        messages.append(message)
        return {}

    monkeypatch.setattr(mail, "_deliver", deliver)
    return messages


def fail(failure: errors.CertcastError = FAILURE, config: MailConfig | None = CONFIG) -> None:
    mail.send_failure(config, failure, host="web1", doing="pull", certificate="example.test", now=NOW)


def test_a_failure_mail_answers_what_where_when_and_what_now(outbox: list[EmailMessage]):
    """A failure mail says what happened where, what is still served, the next command, and the code."""
    fail()

    (message,) = outbox
    assert """\
`certcast pull` failed on web1, 2026-11-23 18:05 UTC:

    example.test: fullchain.pem of version 42 is not the file that was published

Certificate  example.test
Expected     sha256 9c1f3ab2…, 5,214 bytes
Found        sha256 77e0b410…, 2,607 bytes
Meanwhile    version 41, valid 23 more days; nginx was not touched

What to do next:

    run `certcast pull example.test`

Code PULL-DIGEST (exit status 29): docs/runbook.md#pull-digest
""" == message.get_content().replace("\r\n", "\n")


def test_a_failure_mail_has_the_headers_of_a_machine(outbox: list[EmailMessage]):
    """It goes to every failure address, says who and when, and asks vacation responders to be silent."""
    fail()

    (message,) = outbox
    assert "it@example.test, oncall@example.test" == message["To"]
    assert "certcast@web1.example.test" == message["From"]
    assert "certcast on web1 failed: example.test: fullchain.pem of version 42" in message["Subject"]
    assert NOW == message["Date"].datetime
    assert "auto-generated" == message["Auto-Submitted"]
    assert message["Message-ID"].endswith("@web1.example.test>")


def test_lines_that_the_error_leaves_out_are_left_out(outbox: list[EmailMessage]):
    """An error that knows only what happened makes a mail without empty labels."""
    fail(errors.Busy("another certcast is at work"))

    text = outbox[0].get_content()
    for label in ("Expected", "Found", "Meanwhile", "What to do next"):
        assert label not in text


def test_an_installation_mail_says_what_is_served_now(outbox: list[EmailMessage]):
    """The administrator learns which certificate is served, until when, what it replaced, and who saw it."""
    previous = replace(LEAF, sha256="77e0b410" * 8, serial="07", not_after=NOW + timedelta(days=20))
    mail.send_installed(
        CONFIG,
        mail.Installation(
            host="web1",
            certificate="example.test",
            leaf=LEAF,
            previous=previous,
            proved=["192.0.2.1:443 example.test", "192.0.2.1:443 www.example.test"],
        ),
        now=NOW,
    )

    (message,) = outbox
    assert "administrator@example.test" == message["To"]
    assert "certcast on web1: example.test is valid until 2027-01-26" == message["Subject"]
    assert f"""\
web1 serves a new certificate for example.test since 2026-11-23 18:05 UTC.

Names        *.example.test
             example.test
Valid until  2027-01-26 17:05 UTC (63 days)
Serial       0A1B2C
Issuer       CN=Lab
SHA-256      {LEAF.sha256}
In place of  serial 07, valid until 2026-12-13 18:05 UTC
Seen at      192.0.2.1:443 example.test
             192.0.2.1:443 www.example.test

There is nothing to do.
""" == message.get_content().replace("\r\n", "\n")


def test_an_installation_mail_says_what_was_not_proved(outbox: list[EmailMessage]):
    """What the proof could not look at is in the mail, and that it may need somebody."""
    mail.send_installed(
        CONFIG,
        mail.Installation(
            host="web1",
            certificate="example.test",
            leaf=LEAF,
            proved=["x"],
            remarks=["not provable: QUIC on 127.0.0.1:443"],
            previous=None,
        ),
        now=NOW,
    )
    text = outbox[0].get_content().replace("\r\n", "\n")
    assert "unless one of these is not as you meant it:\n\n    not provable: QUIC on 127.0.0.1:443\n" in text


def test_the_first_installation_replaces_nothing(outbox: list[EmailMessage]):
    """Without a previous certificate the mail says that this is the first one."""
    mail.send_installed(
        CONFIG,
        mail.Installation(host="web1", certificate="example.test", leaf=LEAF, proved=["x"], previous=None),
        now=NOW,
    )
    assert "In place of  nothing: it is the first" in outbox[0].get_content()


def test_the_same_release_put_right_is_not_called_new(outbox: list[EmailMessage]):
    """A target of copy_to that was written again, for example: nobody looks for a new certificate."""
    mail.send_installed(
        CONFIG,
        mail.Installation(host="web1", certificate="example.test", leaf=LEAF, previous=LEAF, proved=["x"]),
        now=NOW,
    )
    text = outbox[0].get_content()
    assert "web1 serves the certificate for example.test as configured again since" in text
    assert "In place of  the same: what was configured or stood on this host had changed" in text


def test_nobody_to_tell_means_no_mail(outbox: list[EmailMessage]):
    """Without a [mail] section, or with nobody in installs_to, nothing is sent and nothing fails."""
    fail(config=None)
    silent = replace(CONFIG, installs_to=())
    for config in (None, silent):
        mail.send_installed(
            config,
            mail.Installation(host="web1", certificate="example.test", leaf=LEAF, proved=[], previous=None),
            now=NOW,
        )
    assert [] == outbox


@pytest.mark.parametrize(
    "attack", ["\r\nBcc: thief@example.org", "\nBcc: thief@example.org\n\nhello", "\x00\x1b[2J"]
)
def test_no_text_can_add_a_header_or_move_a_cursor(outbox: list[EmailMessage], attack: str):
    """An error whose words came from outside, line breaks and escapes included, stays one harmless mail."""
    failure = errors.CaRefused(f"the CA said {attack}", found=attack, kept=attack, next=attack)
    mail.send_failure(
        CONFIG, failure, host="web1", doing="renew", certificate=f"example.test{attack}", now=NOW
    )

    message = outbox[0].as_bytes()
    head, _, body = message.partition(b"\r\n\r\n")
    assert b"\r\nBcc:" not in head
    assert b"\x1b" not in message
    assert b"\x00" not in message
    assert 1 == head.count(b"\nSubject:")
    assert b"the CA said" in body


def test_a_long_subject_is_cut_and_the_text_is_whole(outbox: list[EmailMessage]):
    """A sentence too long for a subject line is cut there, and complete in the text."""
    fail(errors.CaRefused("the CA failed " + "very " * 60 + "badly"))
    assert 140 == len(outbox[0]["Subject"])
    assert "very badly" in outbox[0].get_content()


@pytest.mark.parametrize("text", ["Zertifikat für Bücher", "证书已更新", "x" * 2000 + " für"])
def test_mail_needs_no_eight_bit_relay(outbox: list[EmailMessage], text: str):
    """Every octet on the wire is ASCII, whatever the text says, in lines that RFC 5321 allows."""
    fail(errors.CaRefused("the CA refused", found=text))

    wire = outbox[0].as_bytes()
    assert wire.isascii()
    assert max(len(line) for line in wire.split(b"\r\n")) <= 998
    assert text in outbox[0].get_content()


def test_a_host_with_nothing_to_tell_loads_no_mail_library():
    """Importing the module costs a consumer neither smtplib nor ssl nor the email package."""
    script = "import sys, certcast.notify.mail; print({'smtplib', 'ssl', 'email'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "set()" == done.stdout.strip()
