"""requests, with the bounds that it doesn't have; under the OSS SDK and the calls to Alidns.

- A deadline that cuts. requests bounds the silence between two octets: a peer that sends one every ten
  seconds holds the caller for days. A timer shuts the sockets of the operation down, and its reads fail at
  once.
- A size for what is read whole: error bodies, listings, replies of Alidns. Callers limit objects themselves.
- No unpacking: 661 octets of gzip in gzip are half a gigabyte. A body comes as it was sent.

Rejected: a thread per operation that is abandoned at the deadline. A resident host would collect one
dripping thread with each poll, and an abandoned thread might yet send its request.
"""

from __future__ import annotations

import io
import os
import re
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as RequestsConnectionError
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import PreparedRequest, Response
    from urllib3 import HTTPConnectionPool

# A page of 1,000 keys is about 400 KiB of XML, of 500 DNS records less, an error 1 KiB.
WHOLE_BODY_LIMIT = 4 * 1024 * 1024


class Cutter:
    """Shuts down every socket of the operation that runs when its time is up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._twins: list[socket.socket] = []
        self.has_cut = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let the block use the network for so long; then its reads and writes fail."""
        self.has_cut = False
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            with self._lock:
                for twin in self._twins:
                    twin.close()
                self._twins.clear()

    def watch(self, sock: socket.socket) -> None:
        """Cut this socket too.

        A second descriptor of the connection is kept, because the first one moves: TLS takes it out of the
        plain socket, and http.client lets go of it once a header says "Connection: close".
        """
        with self._lock:
            self._twins.append(socket.socket(fileno=os.dup(sock.fileno())))
            if self.has_cut:
                self._shut_down()

    def _cut(self) -> None:
        with self._lock:
            self.has_cut = True
            self._shut_down()

    def _shut_down(self) -> None:
        for twin in self._twins:
            with suppress(OSError):  # the peer was faster
                twin.shutdown(socket.SHUT_RDWR)


class _Watched(HTTPConnection):
    """A connection that tells the cutter of its socket, when it is made and when it is used again."""

    cutter: ClassVar[Cutter]

    def _new_conn(self) -> socket.socket:
        if self.cutter.has_cut:
            raise NewConnectionError(self, "the deadline has passed")
        sock = super()._new_conn()
        self.cutter.watch(sock)
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.cutter.watch(self.sock)
        super().request(*args, **kwargs)


class BoundedAdapter(HTTPAdapter):
    """requests' adapter for one service. It never retries: the caller does."""

    def __init__(self, cutter: Cutter) -> None:
        self._watched: dict[type, type] = {}
        self._cutter = cutter
        super().__init__(pool_connections=1, max_retries=Retry(total=False, redirect=False))

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """Return the pool for a request, direct or by proxy, with watched connections in it."""
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        kind = pool.ConnectionCls
        if not issubclass(kind, _Watched):
            watched = self._watched.setdefault(
                kind, type(f"Watched{kind.__name__}", (_Watched, kind), {"cutter": self._cutter})
            )
            pool.ConnectionCls = watched
        return pool

    def send(self, request: PreparedRequest, stream: bool = False, *args: Any, **kwargs: Any) -> Response:
        """Send one request. A body that the caller does not read in chunks is read here, up to the limit."""
        request.headers["Accept-Encoding"] = "identity"
        response = super().send(request, stream, *args, **kwargs)
        # urllib3 would make its decoder of this. The response's own headers keep it.
        response.raw.headers.discard("Content-Encoding")
        if not (stream and response.ok):
            response.raw = io.BytesIO(_whole_body(request, response))
        return response


def _whole_body(request: PreparedRequest, response: Response) -> bytes:
    """Read to the end, which also gives the connection back for the next request."""
    body = bytearray()
    try:
        # To the last, empty one: there urllib3 sees that a body is shorter than its length.
        while chunk := response.raw.read(WHOLE_BODY_LIMIT + 1 - len(body), decode_content=False):
            body += chunk
            if len(body) > WHOLE_BODY_LIMIT:
                break
    except HTTPError as error:
        response.raw.close()
        raise RequestsConnectionError(error, request=request) from error
    if len(body) > WHOLE_BODY_LIMIT:
        response.raw.close()
        raise RequestsConnectionError(f"an answer of over {WHOLE_BODY_LIMIT:,} octets", request=request)
    return bytes(body)


def reason(error: BaseException) -> str:
    """The reason alone: requests wraps urllib3's error, and that one the system's, each with the address."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return re.sub(r"^\w+\(host=[^)]*\): ", "", str(error))[:200] or type(error).__name__
