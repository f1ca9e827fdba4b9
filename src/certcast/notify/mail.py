"""One mail to a person: compose it, send it.

    a failure        ──> mail.failures_to    the error's report: what happened, what is served, what now?
    an installation  ──> mail.installs_to    what is served now, and where that was seen

- Plain text, one idea a line: it is read on a phone at night.
- The encryption is the configured one: a server that has lost its STARTTLS gets no mail and no password.
- There is one attempt and no queue. The caller reports MailNotSent beside what the mail was about.
- Texts from outside (a file name, a CA's words) lose line breaks and control characters first, so they
  neither add a header nor move a cursor.
- Imports stand inside: a `pull` with nothing to tell pays for none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.host import private_files
from certcast.release.lifetime import remaining_text
from certcast.report.errors import CertcastError, MailNotSent
from certcast.report.names import printable, readable
from certcast.report.redaction import redacted, remember

if TYPE_CHECKING:
    import smtplib
    import ssl
    from collections.abc import Sequence
    from datetime import datetime
    from email.message import EmailMessage

    from certcast.config.model import MailConfig
    from certcast.release.certificate import Leaf

# Submission over implicit TLS (RFC 8314 section 3.3), submission (RFC 6409 section 3.1), relay (RFC 5321).
_PORTS = {"tls": 465, "starttls": 587, "none": 25}

# Seconds for each step of the conversation. RFC 5321 section 4.5.3.2 wants minutes, for relays; here a
# timer's run waits.
TIMEOUT = 20.0

_SUBJECT_CHARACTERS = 140  # more is cut by every reader; the whole sentence stands in the text


@dataclass(frozen=True)
class Installation:
    """What `host` serves now in place of `previous`; `proved` are the listeners that showed it."""

    host: str
    certificate: str
    leaf: Leaf
    previous: Leaf | None
    proved: Sequence[str]
    remarks: Sequence[str] = ()


def send_failure(
    mail: MailConfig | None,
    failure: CertcastError,
    *,
    host: str,
    doing: str,
    certificate: str | None,
    now: datetime,
) -> None:
    """Tell `failures_to` that `certcast DOING` failed on `host`; nothing without a [mail] section.

    Raises MailNotSent.
    """
    if mail is not None:
        subject = f"certcast on {host} failed: {failure.what}"
        text = failure_text(failure, host=host, doing=doing, certificate=certificate, now=now)
        _send(mail, mail.failures_to, subject, text, host=host, now=now)


def send_installed(mail: MailConfig | None, installation: Installation, *, now: datetime) -> None:
    """Tell `installs_to` what a host serves now. Nothing without a [mail] section or without `installs_to`.

    Raises MailNotSent.
    """
    if mail is not None and mail.installs_to:
        host, leaf = installation.host, installation.leaf
        subject = f"certcast on {host}: {installation.certificate} is valid until {leaf.not_after:%Y-%m-%d}"
        _send(mail, mail.installs_to, subject, installed_text(installation, now=now), host=host, now=now)


def failure_text(
    failure: CertcastError, *, host: str, doing: str, certificate: str | None, now: datetime
) -> str:
    """Return the body of a mail about a failure."""
    lines = [f"`certcast {doing}` failed on {host}, {_moment(now)}:", "", f"    {failure.what}", ""]
    for label, text in (
        ("Certificate", certificate),
        ("Expected", failure.expected),
        ("Found", failure.found),
        ("Meanwhile", failure.kept),
    ):
        lines += _labelled(label, text)
    if failure.next:
        lines += ["", "What to do next:", "", *(f"    {line}" for line in failure.next.splitlines())]
    lines += ["", f"Code {failure.code} (exit status {failure.exit_status}): {failure.runbook}"]
    return printable("\n".join(lines) + "\n")


_SAME = "the same: what was configured or stood on this host had changed"


def installed_text(installation: Installation, *, now: datetime) -> str:
    """Return the body of a mail about an installation; also of one that put the same release right."""
    leaf, previous = installation.leaf, installation.previous
    same = previous is not None and previous.sha256 == leaf.sha256
    what, how = ("the", " as configured again") if same else ("a new", "")
    served = f"{what} certificate for {installation.certificate}{how}"
    lines = [f"{installation.host} serves {served} since {_moment(now)}.", ""]
    for label, text in (
        ("Names", "\n".join(leaf.names)),
        ("Valid until", f"{_moment(leaf.not_after)} ({remaining_text(leaf.not_after, now)})"),
        ("Serial", leaf.serial),
        ("Issuer", leaf.issuer),
        ("SHA-256", leaf.sha256),
        ("In place of", _SAME if same else _replaced(previous)),
        ("Seen at", "\n".join(installation.proved)),
    ):
        lines += _labelled(label, text)
    if installation.remarks:
        lines += ["", "There is nothing to do, unless one of these is not as you meant it:", ""]
        lines += [f"    {remark}" for remark in installation.remarks]
    else:
        lines += ["", "There is nothing to do."]
    return printable("\n".join(lines) + "\n")


def _replaced(previous: Leaf | None) -> str:
    if previous is None:
        return "nothing: it is the first that certcast installed here"
    return f"serial {previous.serial}, valid until {_moment(previous.not_after)}"


def _labelled(label: str, text: str | None) -> list[str]:
    """Return lines with the label before the first; none without a text."""
    lines = (text or "").splitlines()
    return [f"{label if number == 0 else '':<12} {line}" for number, line in enumerate(lines)]


def _moment(moment: datetime) -> str:
    from datetime import timezone

    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def _send(mail: MailConfig, to: Sequence[str], subject: str, text: str, *, host: str, now: datetime) -> None:
    import smtplib

    port = mail.port or _PORTS[mail.security]
    try:
        refused = _deliver(mail, port, _compose(mail, to, subject, text, now=now), host=host)
    # ValueError: a password or an address that the protocol has no way to write (UnicodeEncodeError).
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise _not_sent(mail, port, to, subject, _reason(error)) from None
    except CertcastError as error:  # the password's file
        found = "\n".join(filter(None, (error.what, error.found)))
        raise _not_sent(mail, port, to, subject, found).but(next=error.next) from None
    if refused:
        # Some recipients got the mail, and others who should know did not.
        reasons = "\n".join(f"{who}: {_reply(*reply)}" for who, reply in refused.items())
        raise _not_sent(mail, port, list(refused), subject, reasons)


def _compose(mail: MailConfig, to: Sequence[str], subject: str, text: str, *, now: datetime) -> EmailMessage:
    from email.message import EmailMessage
    from email.policy import SMTP
    from email.utils import format_datetime, make_msgid

    # 7bit: not every relay on the way has 8BITMIME (RFC 6152).
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    subject = " ".join(printable(readable(redacted(subject))).split())
    if len(subject) > _SUBJECT_CHARACTERS:
        subject = subject[: _SUBJECT_CHARACTERS - 1] + "…"
    message["From"] = mail.sender
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    # The sender's domain, or make_msgid would look up this host's own name in the DNS.
    message["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5: no vacation notes, please
    message.set_content(readable(redacted(text)))
    return message


def _deliver(
    mail: MailConfig, port: int, message: EmailMessage, *, host: str
) -> dict[str, tuple[int, bytes]]:
    """Hand the message over; return the recipients that were refused while others were not.

    Raises OSError, smtplib.SMTPException and ValueError; SecretExposed and LocalFault for the
    password's file.
    """
    import contextlib
    import smtplib

    with contextlib.closing(_connect(mail, port, host)) as client:
        if mail.username is not None and mail.password_file is not None:
            body = private_files.read_private(mail.password_file, "the mail password", limit=4096)
            password = body.decode().rstrip("\r\n")
            remember(password)
            client.login(mail.username, password)
        refused = client.send_message(message)
        # The server has the message now, however the conversation ends.
        with contextlib.suppress(smtplib.SMTPException):
            client.quit()
    return refused


def _connect(mail: MailConfig, port: int, host: str) -> smtplib.SMTP:
    """Open the connection, encrypted as configured. `host` is said in EHLO, which saves a DNS look-up."""
    import smtplib

    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, port, host, timeout=TIMEOUT, context=_trust(mail))
    client = smtplib.SMTP(mail.host, port, host, timeout=TIMEOUT)
    if mail.security == "starttls":
        try:
            client.starttls(context=_trust(mail))
        except BaseException:
            client.close()
            raise
    return client


def _trust(mail: MailConfig) -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context(cafile=mail.ca_file)


def _not_sent(mail: MailConfig, port: int, to: Sequence[str], subject: str, reason: str) -> MailNotSent:
    starttls = "-starttls smtp " if mail.security == "starttls" else ""
    probe = (
        f"`nc {mail.host} {port}`"
        if mail.security == "none"
        else f"`openssl s_client {starttls}-connect {mail.host}:{port}`"
    )
    return MailNotSent(
        f"nobody was told: the mail to {', '.join(to)} was not sent",
        expected=f"{mail.host}:{port} ({mail.security}) takes mail from {mail.sender}",
        found=printable(reason),
        kept=f'only the mail is missing: "{" ".join(printable(subject).split())}"',
        next=f"check [mail] in the configuration; {probe} shows whether the server answers",
    )


def _reason(error: Exception) -> str:
    """Return what went wrong, in the server's words where it sent any."""
    import smtplib

    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "\n".join(f"{who}: {_reply(*reply)}" for who, reply in error.recipients.items())
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error)
    if isinstance(error, UnicodeError):
        # Its text would quote what has no encoding, which may be the password.
        return "a password or an address with characters that are not ASCII"
    return str(error) or type(error).__name__


def _reply(code: int, text: bytes | str) -> str:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(said.split())}"
