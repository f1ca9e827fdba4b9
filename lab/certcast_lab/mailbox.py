"""A mail server that keeps every message where a test and a person can read it.

One mailbox for all recipients, behind three doors on loopback, as mail servers
have them: `none` (plain), `starttls` (required before anything else) and `tls`
(implicit). After `require_login()` all three take mail only after a login; the
plain one never offers AUTH, as real servers don't.

Faults, at any time:

    fault = "refuse"     550 at RCPT, for good
    fault = "greylist"   451 at RCPT, come back later
    fault = "close"      the connection ends when the message begins
    delay = seconds      before each answer to MAIL, RCPT and DATA; an hour is a hang
    unknown.add(who)     550 at RCPT for this address alone

SMTP is aiosmtpd's.
"""

from __future__ import annotations

import asyncio
import email.message
import email.policy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast, get_args

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from certcast_lab.serving.asgi import server_context
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.service import Service

Door = Literal["none", "starttls", "tls"]
Fault = Literal["refuse", "greylist", "close"]

_AT_RCPT = {
    "refuse": "550 5.7.1 refused by the lab, on purpose",
    "greylist": "451 4.7.1 greylisted by the lab, on purpose; try again later",
}


@dataclass(frozen=True)
class Received:
    """A message that was accepted, with its envelope and the door it came by."""

    door: Door
    user: str | None
    sender: str
    recipients: tuple[str, ...]
    message: email.message.EmailMessage

    @property
    def subject(self) -> str:
        """Its Subject, decoded."""
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        """Its plain-text body, lines ended by a line feed."""
        body = self.message.get_body(("plain",))
        return str(body.get_content()).replace("\r\n", "\n") if body else ""


class Mailbox(Service):
    """Open until `stop()`; `ports` has one for each door. TLS names 127.0.0.1 and localhost."""

    def __init__(self, authority: Authority) -> None:
        self.ports: dict[Door, int] = {}
        self.fault: Fault | None = None
        self.delay: float = 0
        self.unknown: set[str] = set()
        self._accounts: dict[bytes, bytes] = {}
        self._messages: list[Received] = []
        self._arrival = threading.Condition()
        self._tls = server_context(*authority.issue("localhost", ips=("127.0.0.1",)))
        super().__init__("mailbox")

    async def open(self) -> None:
        for door in get_args(Door):
            tls = self._tls if door == "tls" else None
            self.ports[door] = await self.listen(partial(self._connected, door), tls=tls)

    @property
    def messages(self) -> list[Received]:
        """What has arrived since the last `clear()`, oldest first."""
        with self._arrival:
            return list(self._messages)

    def clear(self) -> None:
        """Forget all messages, logins and faults."""
        with self._arrival:
            self._messages.clear()
        self._accounts.clear()
        self.unknown.clear()
        self.fault, self.delay = None, 0

    def require_login(self, username: str, password: str) -> None:
        """From now on, take mail only after a login with this account (or an earlier one)."""
        self._accounts[username.encode()] = password.encode()

    def wait_for(self, wanted: Callable[[Received], bool], timeout: float = 60) -> Received:
        """Return the first message that is `wanted`; after `timeout` seconds, TimeoutError with what came."""

        def found() -> Received | None:
            return next((received for received in self._messages if wanted(received)), None)

        deadline = time.monotonic() + timeout
        with self._arrival:
            while not (received := found()):
                if not self._arrival.wait(deadline - time.monotonic()):
                    subjects = [received.subject for received in self._messages]
                    raise TimeoutError(f"no such message after {timeout:g} s; there are: {subjects}")
            return received

    def _connected(self, door: Door) -> SMTP:
        return SMTP(
            _Handler(self, door),
            hostname="mail.certcast-lab.test",
            tls_context=self._tls if door == "starttls" else None,
            require_starttls=door == "starttls",
            authenticator=self._authenticate,
            # aiosmtpd knows of STARTTLS only; behind implicit TLS it has to be told to offer AUTH.
            auth_require_tls=door != "tls",
            loop=self._loop,
        )

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: object
    ) -> AuthResult:
        if isinstance(given, LoginPassword) and self._accounts.get(given.login) == given.password:
            return AuthResult(success=True, auth_data=given.login.decode())
        return AuthResult(success=False, handled=False)

    def _keep(self, received: Received) -> None:
        with self._arrival:
            self._messages.append(received)
            self._arrival.notify_all()


class _Handler:
    """aiosmtpd's hooks for one connection; each returns the reply line."""

    def __init__(self, mailbox: Mailbox, door: Door) -> None:
        self._mailbox = mailbox
        self._door: Door = door

    async def handle_MAIL(  # noqa: N802  aiosmtpd's name
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        await asyncio.sleep(self._mailbox.delay)
        if self._mailbox._accounts and not session.authenticated:
            return "530 5.7.0 Authentication required"  # RFC 4954 section 6
        envelope.mail_from = address
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        await asyncio.sleep(self._mailbox.delay)
        if reply := _AT_RCPT.get(self._mailbox.fault or ""):
            return reply
        if address in self._mailbox.unknown:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        await asyncio.sleep(self._mailbox.delay)
        if self._mailbox.fault == "close":
            cast(asyncio.Transport, server.transport).abort()
            return "421 4.3.0 closing"
        assert isinstance(envelope.content, bytes)  # str only where `decode_data` is on
        assert envelope.mail_from is not None  # no DATA before MAIL
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self._mailbox._keep(
            Received(
                self._door,
                session.auth_data if session.authenticated else None,
                envelope.mail_from,
                tuple(envelope.rcpt_tos),
                message,
            )
        )
        return "250 2.0.0 kept"
