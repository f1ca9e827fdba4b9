"""A DoH door (RFC 8484) before the lab's resolver: DNS by HTTPS, for a host whose port 53 is filtered.

It takes GET and POST, as section 4.1 wants of a server, and adds nothing: each
answer is the resolver's, and stands in its log with the transport `https`.
"""

from __future__ import annotations

import base64
import binascii

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from certcast_lab.dns.nameservers import Resolver
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.authority import Authority

MESSAGE = "application/dns-message"


class DohDoor(Server):
    """The resolver at `url`, with a certificate of `authority`."""

    def __init__(self, resolver: Resolver, authority: Authority) -> None:
        self._resolver = resolver
        app = Starlette(routes=[Route("/dns-query", self._answer, methods=["GET", "POST"])])
        super().__init__(app, tls=server_context(*authority.issue("localhost", ips=("127.0.0.1",))))
        self.url += "/dns-query"

    async def _answer(self, request: Request) -> Response:
        if request.method == "GET":
            try:
                query = base64.urlsafe_b64decode(request.query_params.get("dns", "") + "==")
            except binascii.Error:
                return Response(status_code=400)
        elif request.headers.get("content-type") == MESSAGE:
            query = await request.body()
        else:
            return Response(status_code=415)
        reply = await run_in_threadpool(self._resolver.respond, query, "https")
        return Response(bytes(reply), media_type=MESSAGE) if reply else Response(status_code=400)
