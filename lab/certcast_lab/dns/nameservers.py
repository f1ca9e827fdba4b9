"""The lab's DNS: what the zone data look like from outside, over UDP and TCP.

Several authoritative nameservers serve every zone, each with switches of its own:
it learns of a change `lag` seconds late, answers SERVFAIL (`servfail`), or not at
all (`silent`). The CA asks the `Resolver`. It always takes the word of the *slowest*
nameserver that answers, because the lab is there to show a CA that validates too
early. A host inside a VPC asks the `vpc`, where private zones hide public ones.

An answer that does not fit into a datagram is truncated (TC), and the client asks
again over TCP: 512 octets, or what the client offers by EDNS up to 1232. A
challenge for a name with many TXT values meets this in real life.

Messages are dnslib's. Its server is not used: it drops the question from a truncated
reply, which dnspython rightly refuses, and it wakes up twice a second.

Not here: which records answer a question, and how it was a while ago
(zones.py), and the messages that say so (dns_answers.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from dnslib import QTYPE, RCODE, DNSError, DNSRecord

from certcast_lab.dns.dns_answers import answer, failure, payload_offered, udp_limit
from certcast_lab.dns.zones import Zones, canonical
from certcast_lab.serving.service import LOOPBACK, Service

Transport = Literal["udp", "tcp", "https"]


@dataclass(frozen=True)
class Query:
    """One question that came in; `rcode` is None where it was left without an answer."""

    server: str
    transport: Transport
    name: str
    type: str
    rcode: str | None
    truncated: bool
    at: float  # monotonic seconds


class _Server:
    """One address of 127.0.0.1 that answers DNS; `hostname` is its name in NS records and the log."""

    def __init__(self, service: NameService, hostname: str) -> None:
        self.hostname = hostname
        self.port = 0
        self._service = service

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, UDP and TCP."""
        return LOOPBACK, self.port

    @property
    def queries(self) -> list[Query]:
        """What it was asked so far, oldest first."""
        return [query for query in self._service.queries if query.server == self.hostname]

    def respond(self, message: bytes, transport: Transport) -> bytes | None:
        """Return the reply to a query on the wire; None for silence."""
        try:
            request = DNSRecord.parse(message)
        except DNSError:
            return None
        if not request.questions:
            return None
        reply = self._reply(request)
        wire = reply.pack() if reply else None
        truncated = False
        if reply and wire and transport == "udp" and len(wire) > udp_limit(request):
            # RFC 2181 section 9: a reply that lost records says so and is not to be used.
            reply.rr, reply.auth, truncated = [], [], True
            reply.header.tc = 1
            wire = reply.pack()
        self._service.queries.append(
            Query(
                self.hostname,
                transport,
                canonical(str(request.q.qname)),
                QTYPE[request.q.qtype],
                RCODE[reply.header.rcode] if reply else None,
                truncated,
                time.monotonic(),
            )
        )
        return wire

    async def converse_by_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the client ends it; queries and replies each have their length in two octets before
        them (RFC 1035 section 4.2.2).
        """
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                # No reply leaves the connection open: a silent server makes its client run into a time-out.
                if reply := self.respond(await reader.readexactly(length), "tcp"):
                    writer.write(len(reply).to_bytes(2, "big") + reply)

    def _reply(self, request: DNSRecord) -> DNSRecord | None:
        raise NotImplementedError


class Nameserver(_Server):
    """An authoritative nameserver; its switches may be turned at any time."""

    def __init__(self, service: NameService, hostname: str) -> None:
        super().__init__(service, hostname)
        self.work_well()

    def work_well(self) -> None:
        """Turn all switches off."""
        self.lag: float = 0
        self.servfail = False
        self.silent = False
        self.drops: frozenset[Transport] = frozenset()  # transports that a firewall before it drops
        self.knows_edns = True

    def respond(self, message: bytes, transport: Transport) -> bytes | None:
        """Return the reply to a query that reaches it."""
        return None if transport in self.drops else super().respond(message, transport)

    @property
    def answers(self) -> bool:
        """Whether it is of any use to a resolver."""
        return not (self.servfail or self.silent)

    def _reply(self, request: DNSRecord) -> DNSRecord | None:
        if self.silent:
            return None
        if self.servfail:
            return failure(request, "SERVFAIL")
        if not self.knows_edns and payload_offered(request) is not None:
            reply = request.reply(ra=0, aa=0)
            reply.header.rcode = RCODE.FORMERR  # RFC 6891 section 7: and without an OPT
            return reply
        return answer(self._service.zones, request, at=time.monotonic() - self.lag)


class Resolver(_Server):
    """What the CA asks; SERVFAIL when no nameserver answers.

    With `remembers` on, a "no" is repeated for as long as any test runs; Alidns' SOA minimum, which
    resolvers go by (RFC 2308 section 5), is 600 s.
    """

    def __init__(self, service: NameService, hostname: str) -> None:
        super().__init__(service, hostname)
        self.work_well()

    def work_well(self) -> None:
        """Turn the switches off, and forget."""
        self.remembers = False
        self.fails_for: frozenset[str] = frozenset()  # types that it answers with SERVFAIL
        self._noes: dict[tuple[str, int], float] = {}

    def _reply(self, request: DNSRecord) -> DNSRecord | None:
        lags = [nameserver.lag for nameserver in self._service.servers if nameserver.answers]
        if not lags or QTYPE[request.q.qtype] in self.fails_for:
            return failure(request, "SERVFAIL")
        question = (canonical(str(request.q.qname)), request.q.qtype)
        at = self._noes.get(question, time.monotonic() - max(lags))
        reply = answer(self._service.zones, request, at=at)
        if self.remembers and not reply.rr:
            self._noes[question] = at
        reply.header.aa, reply.header.ra = 0, 1
        if reply.header.rcode == RCODE.REFUSED:
            reply.header.rcode = RCODE.NXDOMAIN  # in this world there is no zone but the lab's
        return reply


class VpcResolver(Resolver):
    """A VPC's resolver: a private zone (PrivateZone) hides the public one of that name, with all below it.

    What the private zone lacks doesn't exist, as at Alibaba Cloud unless the zone forwards names of its
    subdomains (https://www.alibabacloud.com/help/en/dns/api-pvtz-2018-01-01-setproxypattern).
    """

    def _reply(self, request: DNSRecord) -> DNSRecord | None:
        private = self._service.private
        if private.holding(str(request.q.qname)) is None:
            return super()._reply(request)
        reply = answer(private, request, at=time.monotonic())
        reply.header.aa, reply.header.ra = 0, 1
        return reply


class NameService(Service):
    """`servers`, one per hostname, the `resolver` and the `vpc`, listening until `stop()`.

    `zones` and the `private` ones, which only `vpc` knows, may be exchanged for others at any time.
    """

    def __init__(self, zones: Zones, hostnames: Sequence[str]) -> None:
        self.zones = zones
        self.private = Zones()
        self.queries: list[Query] = []
        self.servers = [Nameserver(self, hostname) for hostname in hostnames]
        self.resolver = Resolver(self, "resolver")
        self.vpc = VpcResolver(self, "vpc")
        self._datagrams: list[asyncio.DatagramTransport] = []
        super().__init__("dns")

    async def open(self) -> None:
        for server in [*self.servers, self.resolver, self.vpc]:
            server.port = await self._listen_at_both(server)

    async def _listen_at_both(self, server: _Server, attempts: int = 10) -> int:
        """Listen on a TCP port that the kernel picks, and on UDP under the same number."""
        port = await self.converse(server.converse_by_tcp)
        try:
            await self._listen_by_udp(server, LOOPBACK, port)
        except OSError:
            if attempts == 1:
                raise
            return await self._listen_at_both(server, attempts - 1)
        return port

    def listen_also(self, server: _Server, host: str, port: int) -> None:
        """Let a server be asked at one more address, until `stop()`. OSError if it cannot be had."""

        async def listen() -> None:
            await self.converse(server.converse_by_tcp, host=host, port=port)
            await self._listen_by_udp(server, host, port)

        self.run(listen())

    async def _listen_by_udp(self, server: _Server, host: str, port: int) -> None:
        datagrams, _ = await self._loop.create_datagram_endpoint(
            lambda: _Udp(server), local_addr=(host, port)
        )
        self._datagrams.append(datagrams)

    async def close(self) -> None:
        for datagrams in self._datagrams:
            datagrams.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: _Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an assert: until Python 3.12 the transport was one in behaviour only.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if reply := self._server.respond(data, "udp"):
            self._transport.sendto(reply, addr)
