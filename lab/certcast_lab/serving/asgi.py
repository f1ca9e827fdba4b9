"""Run one ASGI application on loopback, in a thread of this process.

Every HTTP service of the lab is a `Server`, at a port that the kernel picks; how
it starts and stops is in service.py.

HTTP through uvicorn, with one addition: each request's scope carries its
transport, so that an application can `hang_up()` without a reply, as a cloud
does when its front end dies between the work and the answer.

Not here: what goes wrong on the wire, and when (faults.py).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from email.utils import formatdate
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from certcast_lab.serving.service import LOOPBACK, START_SECONDS, Service


class Server(Service):
    """`app` at `url` until `stop()`. With `tls`, `url` is https."""

    def __init__(self, app: ASGIApp, *, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        # asyncio sets this on sockets whose protocol is named; accepted ones say 0. Without it a reply
        # whose header and body go out apart waits 40 ms for the client's delayed acknowledgement.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{LOOPBACK}:{self.port}"
        config = uvicorn.Config(
            _dated(app),
            http=_Protocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        config.load()
        # The context is ready made; uvicorn's own options only know file names (`ssl_context_factory`
        # is too new to count on).
        config.ssl = tls
        self._uvicorn = _Uvicorn(config)
        super().__init__(f"serve-{self.port}")

    async def open(self) -> None:
        self._serving = asyncio.create_task(self._uvicorn.serve([self._listener]))
        await asyncio.wait_for(self._uvicorn.ready.wait(), START_SECONDS)

    async def close(self) -> None:
        self._uvicorn.should_exit = True
        await self._serving
        self._listener.close()


def hang_up(scope: Scope) -> None:
    """Close the connection of this request at once: what was not yet sent never arrives."""
    transport: asyncio.Transport = scope["state"]["transport"]
    transport.abort()


def server_context(chain_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """A server-side TLS context from PEM in memory; the ssl module itself only reads files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as pair:
        Path(pair.name).write_bytes(chain_pem + b"\n" + key_pem)
        context.load_cert_chain(pair.name)
    return context


def _dated(app: ASGIApp) -> ASGIApp:
    """Give each reply the Date of RFC 9110 section 6.6.1, unless `app` has one by a clock of its own."""

    async def dated(scope: Scope, receive: Receive, send: Send) -> None:
        async def dating(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name.lower() == b"date" for name, _ in headers):
                    headers.append((b"date", formatdate(usegmt=True).encode()))
                message["headers"] = headers
            await send(message)

        await app(scope, receive, dating)

    return dated


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the transport put where applications see it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, which says when it listens and doesn't wait for clients to leave."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, H11Protocol):
                connection.transport.abort()
        await super().shutdown(sockets)
