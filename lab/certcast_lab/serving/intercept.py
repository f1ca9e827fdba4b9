"""A proxy for clients that know only one address: the real cloud's.

Most certificate clients have `https://alidns.aliyuncs.com` built in. Given
HTTPS_PROXY they ask for it by CONNECT (RFC 9110 section 9.3.6), and this proxy
leads them to the lab instead:

    tls = Server(api.app, tls=server_context(*authority.issue("alidns.aliyuncs.com")))
    with Intercept({"alidns.aliyuncs.com": tls.port}) as proxy:
        env = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": authority.pem's file}

The proxy only moves bytes: the TLS session ends in the emulator's own server. The
client trusts the lab's CA, so it runs unmodified, certificate check included.

Any other address is refused and remembered (`refused`). So a test can show what a
client asked for, and nothing leaves loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from certcast_lab.serving.service import LOOPBACK, Service

HEAD_SECONDS = 10


class Intercept(Service):
    """
    An HTTP proxy at `url` that knows CONNECT only.

    `routes`: host name -> loopback port of the TLS server that stands for its port 443.
    `connected` and `refused` list `host:port` as asked for, oldest first.
    """

    def __init__(self, routes: Mapping[str, int]) -> None:
        self.routes = dict(routes)
        self.connected: list[str] = []
        self.refused: list[str] = []
        super().__init__("intercept")

    async def open(self) -> None:
        self.port = await self.converse(self._tunnel)
        self.url = f"http://{LOOPBACK}:{self.port}"

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, OSError):
            return
        method, target = [*head.decode("latin-1").split(" ", 2), "", ""][:2]
        host, _, port = target.rpartition(":")
        if method != "CONNECT" or port != "443" or host not in self.routes:
            self.refused.append(target)
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        self.connected.append(target)
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self.routes[host])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Move bytes until the source ends, then end the sink; a cut connection ends it just the same."""
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()
