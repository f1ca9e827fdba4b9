"""The lab's mail server, spoken to by smtplib."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from certcast_lab.mailbox import Door, Mailbox
from certcast_lab.serving.authority import Authority

AUTHORITY = Authority("lab")
TRUST = ssl.create_default_context(cadata=AUTHORITY.pem.decode())


@pytest.fixture(scope="module")
def one_mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox(AUTHORITY)
    yield mailbox
    mailbox.stop()


@pytest.fixture
def mailbox(one_mailbox: Mailbox) -> Mailbox:
    one_mailbox.clear()
    return one_mailbox


def message(subject: str = "hello") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "certcast@example.test", "it@example.test", subject
    message.set_content("was geschah: nichts, überhaupt nichts\n")
    return message


def connect(mailbox: Mailbox, door: Door) -> smtplib.SMTP:
    port = mailbox.ports[door]
    if door == "tls":
        return smtplib.SMTP_SSL("localhost", port, context=TRUST, timeout=30)
    client = smtplib.SMTP("localhost", port, timeout=30)
    if door == "starttls":
        client.starttls(context=TRUST)
    return client


@pytest.mark.parametrize("door", ["none", "starttls", "tls"])
def test_each_door_takes_mail_and_keeps_it_readable(mailbox: Mailbox, door: Door):
    """A message sent plain, after STARTTLS or over implicit TLS is kept, decoded, with its envelope."""
    with connect(mailbox, door) as client:
        client.send_message(message())

    received = mailbox.wait_for(lambda received: received.subject == "hello")
    assert (door, None) == (received.door, received.user)
    assert ("certcast@example.test", ("it@example.test",)) == (received.sender, received.recipients)
    assert "was geschah: nichts, überhaupt nichts\n" == received.text


def test_the_starttls_door_takes_nothing_in_the_clear(mailbox: Mailbox):
    """A client that forgets STARTTLS is refused."""
    with (
        smtplib.SMTP("localhost", mailbox.ports["starttls"], timeout=30) as client,
        pytest.raises(smtplib.SMTPSenderRefused, match="STARTTLS"),
    ):
        client.send_message(message())


@pytest.mark.parametrize("door", ["starttls", "tls"])
def test_login_is_required_and_checked(mailbox: Mailbox, door: Door):
    """With login required: no login and a wrong password are refused, the right one is recorded."""
    mailbox.require_login("certcast", "secret")

    with connect(mailbox, door) as client, pytest.raises(smtplib.SMTPSenderRefused, match="Authentication"):
        client.send_message(message())
    with connect(mailbox, door) as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login("certcast", "guess")
    with connect(mailbox, door) as client:
        client.login("certcast", "secret")
        client.send_message(message())
    assert ["certcast"] == [received.user for received in mailbox.messages]


def test_a_password_cannot_be_sent_in_the_clear(mailbox: Mailbox):
    """The plain door offers no AUTH."""
    mailbox.require_login("certcast", "secret")
    with connect(mailbox, "none") as client, pytest.raises(smtplib.SMTPNotSupportedError):
        client.login("certcast", "secret")


def test_refusals_are_permanent_or_temporary(mailbox: Mailbox):
    """`refuse` answers 550, `greylist` 451, and nothing is kept; afterwards mail flows again."""
    for fault, status in (("refuse", 550), ("greylist", 451)):
        mailbox.fault = fault
        with connect(mailbox, "none") as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.send_message(message())
        assert [status] == [code for code, _ in refused.value.recipients.values()]
    assert [] == mailbox.messages

    mailbox.fault = None
    with connect(mailbox, "none") as client:
        client.send_message(message())
    assert 1 == len(mailbox.messages)


def test_the_connection_can_be_cut(mailbox: Mailbox):
    """`close` ends the connection at the message: the sender never learns what became of it."""
    mailbox.fault = "close"
    with pytest.raises(smtplib.SMTPServerDisconnected), connect(mailbox, "none") as client:
        client.send_message(message())
    assert [] == mailbox.messages


def test_a_hanging_server_runs_into_the_time_out_of_its_client(mailbox: Mailbox):
    """With a delay of an hour, a client gives up after its own time-out."""
    mailbox.delay = 3600
    client = connect(mailbox, "none")
    client.sock.settimeout(0.2)
    with client.sock, pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
        client.send_message(message())


def test_waiting_for_a_message(mailbox: Mailbox):
    """`wait_for` returns a message that arrives later; in vain, it names the subjects that did arrive."""

    def later() -> None:
        with connect(mailbox, "none") as client:
            client.send_message(message("first"))
            client.send_message(message("second"))

    sender = threading.Thread(target=later)
    sender.start()
    assert "second" == mailbox.wait_for(lambda received: received.subject == "second").subject
    sender.join()
    with pytest.raises(TimeoutError, match=r"\['first', 'second'\]"):
        mailbox.wait_for(lambda received: received.subject == "third", timeout=0.05)


def test_stopping_leaves_no_port_open():
    """A stopped mailbox closes its ports, cuts whoever is connected, and may be stopped again."""
    mailbox = Mailbox(AUTHORITY)
    ports = list(mailbox.ports.values())
    client = connect(mailbox, "none")
    mailbox.stop()
    mailbox.stop()
    with client.sock as connection:
        assert b"" == connection.recv(1)
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
