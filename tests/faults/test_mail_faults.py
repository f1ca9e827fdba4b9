"""certcast's mail against a real SMTP server that is well, ugly, or gone."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import cast, get_args

import pytest

from certcast.config.model import AbsolutePath, MailAddress, MailConfig
from certcast.notify import mail
from certcast.report import errors
from certcast_lab.lab import Lab
from certcast_lab.mailbox import Door, Fault
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.children import free_ports

NOW = datetime(2026, 11, 23, 18, 5, tzinfo=timezone.utc)
FAILURE = errors.Busy("another certcast is at work", next="wait")


def config(lab: Lab, door: Door = "starttls") -> MailConfig:
    return MailConfig(
        host="localhost",
        port=lab.mailbox.ports[door],
        security=door,
        sender=MailAddress("certcast@web1.example.test"),
        failures_to=(MailAddress("it@example.test"),),
        installs_to=(),
        ca_file=AbsolutePath(lab.ca_file),
    )


def with_login(config: MailConfig, folder: Path, password: str) -> MailConfig:
    password_file = folder / "smtp-password"
    password_file.write_text(password)
    password_file.chmod(0o600)
    return replace(config, username="certcast", password_file=AbsolutePath(password_file))


def send(config: MailConfig) -> None:
    mail.send_failure(config, FAILURE, host="web1", doing="pull", certificate="example.test", now=NOW)


def not_sent(config: MailConfig) -> errors.MailNotSent:
    with pytest.raises(errors.MailNotSent) as raised:
        send(config)
    error = raised.value
    assert 40 == error.exit_status
    assert error.kept
    assert "another certcast is at work" in error.kept
    return error


@pytest.mark.parametrize("door", get_args(Door))
def test_mail_arrives_however_the_server_wants_it(lab: Lab, door: Door):
    """Plain, STARTTLS and implicit TLS each deliver the mail to its readers."""
    send(config(lab, door))

    received = lab.mailbox.wait_for(lambda received: "another certcast is at work" in received.subject)
    assert (door, ("it@example.test",)) == (received.door, received.recipients)
    assert "certcast@web1.example.test" == received.sender
    assert "`certcast pull` failed on web1" in received.text


@pytest.mark.parametrize("door", ["starttls", "tls"])
def test_the_login_is_used(lab: Lab, tmp_path: Path, door: Door):
    """With a user name and a password file, certcast logs in; the file may end with a line feed."""
    lab.mailbox.require_login("certcast", "secret")
    send(with_login(config(lab, door), tmp_path, "secret\n"))
    assert ["certcast"] == [received.user for received in lab.mailbox.messages]


def test_a_wrong_password_is_reported_and_not_shown(lab: Lab, tmp_path: Path):
    """A refused login says so with the server's words; the password is in no line of the report."""
    lab.mailbox.require_login("certcast", "secret")
    error = not_sent(with_login(config(lab), tmp_path, "wrong-secret"))
    assert "535" in str(error.found)
    assert "secret" not in error.report()


@pytest.mark.parametrize("password", [b"geheim-\xc3\xbc", b"geheim-\xff"])
def test_a_password_that_cannot_be_sent_is_not_shown(lab: Lab, tmp_path: Path, password: bytes):
    """A password outside ASCII, or a file that is no text, makes an error that doesn't quote it."""
    lab.mailbox.require_login("certcast", "secret")
    settings = with_login(config(lab), tmp_path, "")
    assert settings.password_file
    settings.password_file.write_bytes(password)
    error = not_sent(settings)
    assert "not ASCII" in str(error.found)
    assert "geheim" not in error.report()


def test_a_missing_password_file_is_named(lab: Lab, tmp_path: Path):
    """A password file that isn't there is an error that names it."""
    settings = with_login(config(lab), tmp_path, "x")
    assert settings.password_file
    settings.password_file.unlink()
    assert str(settings.password_file) in str(not_sent(settings).found)


def test_a_server_without_starttls_gets_no_mail(lab: Lab):
    """Configured for STARTTLS, certcast doesn't fall back to plain text when the server lacks it."""
    error = not_sent(replace(config(lab), port=lab.mailbox.ports["none"]))
    assert "STARTTLS" in str(error.found)
    assert [] == lab.mailbox.messages


@pytest.mark.parametrize("door", ["starttls", "tls"])
def test_a_server_that_cannot_prove_its_name_gets_no_mail(lab: Lab, tmp_path: Path, door: Door):
    """A certificate that the configured CA didn't sign stops the mail before a word of it is sent."""
    other = tmp_path / "other-ca.pem"
    other.write_bytes(Authority("somebody else").pem)
    error = not_sent(replace(config(lab, door), ca_file=AbsolutePath(other)))
    assert "CERTIFICATE_VERIFY_FAILED" in str(error.found)
    assert "openssl s_client" in str(error.next)
    assert [] == lab.mailbox.messages


@pytest.mark.parametrize(
    ("fault", "said"), [("refuse", "it@example.test: 550"), ("greylist", "451"), ("close", "closed")]
)
def test_an_ugly_server_is_reported_in_its_own_words(lab: Lab, fault: str, said: str):
    """Refused for good, refused for now, cut off: the error says who and what the server answered."""
    lab.mailbox.fault = cast(Fault, fault)
    assert said in str(not_sent(config(lab)).found)


def test_a_hanging_server_costs_no_more_than_the_time_out(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """A server that never answers is given up after the time-out."""
    monkeypatch.setattr(mail, "TIMEOUT", 0.2)
    lab.mailbox.delay = 3600
    assert "timed out" in str(not_sent(config(lab)).found)


def test_a_server_that_never_greets_is_given_up(monkeypatch: pytest.MonkeyPatch, lab: Lab):
    """A port that accepts and stays silent (a firewall, a dead daemon) is given up as well."""
    monkeypatch.setattr(mail, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for door in get_args(Door):
            not_sent(replace(config(lab, door), port=silent.getsockname()[1]))


def test_no_server_at_all(lab: Lab):
    """Nobody listening, and a name that doesn't exist, are errors with the address in them."""
    (port,) = free_ports(1)
    error = not_sent(replace(config(lab), port=port))
    assert "refused" in str(error.found)
    assert f"localhost:{port}" in str(error.expected)


def test_one_of_two_recipients_refused(lab: Lab):
    """When one of two addresses is refused, the other gets the mail and the error names the one."""
    both = replace(
        config(lab), failures_to=(MailAddress("it@example.test"), MailAddress("gone@example.test"))
    )
    lab.mailbox.unknown.add("gone@example.test")

    error = not_sent(both)

    assert "the mail to gone@example.test was not sent" in error.what
    assert ("it@example.test",) == lab.mailbox.messages[0].recipients
