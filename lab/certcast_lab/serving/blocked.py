"""An address on loopback that a firewall seems to stand before.

    drop      nothing comes back: neither for a datagram nor for a SYN
    refuse    ICMP "port unreachable" for a datagram, RST for a SYN

A firewall would take root. Instead, Linux drops SYNs for a TCP listener whose backlog
is full (listen(2), tcp_abort_on_overflow in tcp(7)), and a bound UDP socket that is
never read swallows datagrams. A port that is bound and doesn't listen refuses.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Literal

Block = Literal["drop", "refuse"]


class Blocked:
    """`address` behind such a firewall, until the block ends; a context manager."""

    def __init__(self, how: Block) -> None:
        self._sockets = ExitStack()
        tcp = self._sockets.enter_context(socket.socket())
        tcp.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = tcp.getsockname()
        if how == "drop":
            tcp.listen(0)
            # One waiting connection fills a backlog of 0.
            self._sockets.enter_context(socket.create_connection(self.address))
            udp = self._sockets.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            udp.bind(self.address)

    def __str__(self) -> str:
        return "{}:{}".format(*self.address)

    def __enter__(self) -> Blocked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sockets.close()
