"""One question to one address, by UDP and by TCP, and what counts as an answer.

    UDP, offering 1232 octets (EDNS, RFC 6891)
        → without EDNS, for a server that says FORMERR or NOTIMP to it
    TCP, where the answer was truncated (TC), and where none came: some networks
        let only one of the two out

1232 octets pass everywhere unfragmented (DNS Flag Day 2020), and hold some twenty TXT values at one name;
512, the limit without EDNS, hold seven.

UDP goes through a connected socket: only there does Linux hand over the ICMP message of a firewall that
refuses (ip(7), udp(7)). Otherwise refusal would look like silence, and cost as much time.

Not here: the choice of an address, and what its answer means.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.rcode

if TYPE_CHECKING:
    from certcast.config.model import Address

_EDNS_OCTETS = 1232
# Seconds. A lost datagram costs the first, a dead server both. A resolver may have to ask others first.
UDP_TIMEOUT, RESOLVER_UDP_TIMEOUT = 1.5, 2.5
TCP_TIMEOUT = 2.5


class Unanswered(Exception):
    """No answer that counts; the text says in a few words what came instead."""


class Unreachable(Unanswered):
    """Not even that: no whole DNS message came back, by neither transport."""


async def exchange(address: Address, name: str, rdtype: str, *, recursive: bool) -> dns.message.Message:
    """Return the reply to the question, whatever its RCODE; `recursive` sets RD (RFC 1035 section 4.1.1).

    Raises Unreachable, and Unanswered for what is no reply.
    """
    query = make_query(name, rdtype, recursive=recursive)
    udp_timeout = RESOLVER_UDP_TIMEOUT if recursive else UDP_TIMEOUT
    try:
        reply = await _udp_then_tcp(query, address, udp_timeout)
        if query.edns >= 0 and reply.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            query.use_edns(False)
            reply = await _udp_then_tcp(query, address, udp_timeout)
    except dns.exception.Timeout:
        raise Unreachable("no answer, neither by UDP nor by TCP") from None
    except OSError as error:
        raise Unreachable(os.strerror(error.errno) if error.errno else str(error)) from None
    except EOFError:
        raise Unreachable("the connection was closed without an answer") from None
    except dns.exception.DNSException as error:
        raise Unanswered(f"an unusable answer ({type(error).__name__})") from None
    return reply


def require_answer(reply: dns.message.Message) -> dns.message.Message:
    """Return a reply that answers: NOERROR or NXDOMAIN. Raises Unanswered with any other RCODE."""
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Unanswered(dns.rcode.to_text(reply.rcode()))
    return reply


def make_query(name: str, rdtype: str, *, recursive: bool) -> dns.message.QueryMessage:
    """Return the question with EDNS."""
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=_EDNS_OCTETS)
    if not recursive:
        query.flags &= ~dns.flags.RD
    return query


async def _udp_then_tcp(
    query: dns.message.Message, address: Address, udp_timeout: float
) -> dns.message.Message:
    try:
        return await _udp(query, address, udp_timeout)
    except (dns.message.Truncated, dns.exception.Timeout, OSError):
        return await dns.asyncquery.tcp(query, address.host, port=address.port, timeout=TCP_TIMEOUT)


async def _udp(query: dns.message.Message, address: Address, timeout: float) -> dns.message.Message:
    family = dns.inet.af_for_address(address.host)
    backend = dns.asyncbackend.get_default_backend()
    destination = (address.host, address.port)
    connected = await backend.make_socket(family, socket.SOCK_DGRAM, destination=destination)  # type: ignore[no-untyped-call]  # dnspython's
    async with connected as sock:
        return await dns.asyncquery.udp(
            query,
            address.host,
            port=address.port,
            timeout=timeout,
            # Datagrams that don't fit the question may come from anywhere; go on waiting for ours.
            ignore_unexpected=True,
            ignore_errors=True,
            raise_on_truncation=True,
            sock=sock,
        )
