"""Recursive resolvers: those of `[dns] resolvers`, by DNS or by HTTPS (DoH, RFC 8484), else the system's.

They find the addresses of nameservers, and what lies outside the managed zones. Where the nameservers cannot
be reached, they are asked for the TXT values, too (waiting.py).

A resolver remembers a "no such name" for the zone's SOA minimum, 600 s at Alidns (RFC 2308 section 5). So no
resolver is asked about a challenge's name before the values are added.

DoH goes through `requests`: dnspython's own needs eight packages that nothing else here does. `requests`
takes its trust from REQUESTS_CA_BUNDLE and its proxy from HTTPS_PROXY, so that a host behind a proxy can
still resolve (ADR 0007). It is asked by POST, since an HTTP cache on the way may answer a GET.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dns.exception
import dns.message
import dns.nameserver
import dns.resolver
from requests import RequestException, Session
from urllib3.exceptions import HTTPError

from certcast.config.model import Address, Resolver
from certcast.dns01.visibility.exchange import Unanswered, Unreachable, exchange, make_query, require_answer
from certcast.host.transport import BoundedAdapter, Cutter, reason
from certcast.report.errors import DnsFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from requests import PreparedRequest

# Seconds for one question; the first has TCP and TLS before it.
_DOH_TIMEOUT = 5.0
_DNS_MESSAGE = "application/dns-message"  # RFC 8484 section 6


def choose_resolvers(configured: Sequence[Resolver]) -> tuple[Resolver, ...]:
    """Return the configured resolvers, or the system's; none, if the system has none."""
    if configured:
        return tuple(configured)
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return ()
    return tuple(Resolver(Address(str(host), system.port)) for host in system.nameservers)


def stub_resolver(configured: Sequence[Resolver]) -> dns.resolver.Resolver:
    """Return a stub resolver that asks the configured ones in turn, or the system's. Raises DnsFailed."""
    resolvers = choose_resolvers(configured)
    if not resolvers:
        raise DnsFailed(
            "this host has no DNS resolver",
            expected="nameserver lines in /etc/resolv.conf, or [dns] resolvers in the configuration",
            next='add resolvers = ["192.0.2.53:53"] (yours) to [dns]',
        )
    stub = dns.resolver.Resolver(configure=False)
    stub.nameservers = [
        dns.nameserver.Do53Nameserver(resolver.at.host, resolver.at.port)
        if isinstance(resolver.at, Address)
        else DohServer(resolver.at)
        for resolver in resolvers
    ]
    if not all(isinstance(resolver.at, Address) for resolver in resolvers):
        stub.timeout = _DOH_TIMEOUT
        stub.lifetime = 2 * _DOH_TIMEOUT
    return stub


def find_addresses(stub: dns.resolver.Resolver, host: str) -> list[str]:
    """Return the addresses of a host, IPv4 before IPv6.

    Raises dns.resolver.LifetimeTimeout if no resolver has answered, and dnspython's other errors.
    """

    def records(rdtype: str) -> list[str]:
        answer = stub.resolve(host, rdtype, raise_on_no_answer=False)
        return [record.address for record in answer.rrset or ()]

    found = records("A")
    try:
        found += records("AAAA")
    except dns.exception.DNSException:
        # Some resolvers fail at IPv6 and have answered for IPv4.
        if not found:
            raise
    return found


class RecursiveResolver:
    """One resolver, to be asked again and again."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._doh = None if isinstance(resolver.at, Address) else DohServer(resolver.at)

    async def ask(self, name: str, rdtype: str) -> dns.message.Message:
        """Return the resolver's answer: NOERROR or NXDOMAIN. Raises Unanswered, Unreachable."""
        return require_answer(await self._reply(name, rdtype))

    async def _reply(self, name: str, rdtype: str) -> dns.message.Message:
        if isinstance(self.resolver.at, Address):
            return await exchange(self.resolver.at, name, rdtype, recursive=True)
        assert self._doh is not None  # what isn't an address is a URL
        query = make_query(name, rdtype, recursive=True)
        try:
            return await asyncio.to_thread(self._doh.query, query, _DOH_TIMEOUT)
        except dns.exception.Timeout:
            raise Unreachable(f"no complete answer within {_DOH_TIMEOUT:g} s") from None
        except OSError as error:
            raise Unreachable(str(error)) from None
        except dns.exception.DNSException as error:
            raise Unanswered(f"an unusable answer ({type(error).__name__})") from None


class DohServer(dns.nameserver.Nameserver):
    """The DoH server at a URL, as dnspython's resolver takes one.

    One connection, kept, and one question at a time.
    """

    def __init__(self, url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # dnspython's, as below
        self.url = url
        self._lock = threading.Lock()
        self._cutter = Cutter()
        self._session = Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, BoundedAdapter(self._cutter))

    def __str__(self) -> str:
        return self.url

    def kind(self) -> str:
        return "DoH"

    def is_always_max_size(self) -> bool:
        return True  # no answer is truncated for want of room

    def answer_nameserver(self) -> str:
        return self.url

    def answer_port(self) -> int:
        return urlsplit(self.url).port or 443

    def query(
        self, request: dns.message.QueryMessage, timeout: float, *_args: Any, **_options: Any
    ) -> dns.message.Message:
        """Return the reply to `request`, within `timeout` seconds altogether.

        Raises what dnspython's resolver expects: dns.exception.Timeout; OSError where no DNS message
        came; another DNSException for a message that is no reply.
        """
        with self._lock:
            body = self._post(request.to_wire(), timeout)
        reply = dns.message.from_wire(body)
        if not request.is_response(reply):
            raise dns.exception.FormError("a reply to another question")  # type: ignore[no-untyped-call]
        return reply

    def _post(self, wire: bytes, timeout: float) -> bytes:
        try:
            with self._cutter.within(timeout):
                response = self._session.post(
                    self.url,
                    data=wire,
                    headers={"Content-Type": _DNS_MESSAGE, "Accept": _DNS_MESSAGE},
                    timeout=timeout,
                    allow_redirects=False,
                    auth=_send_no_credentials,
                )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            if self._cutter.has_cut:
                raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]
            raise OSError(reason(error)) from None
        if self._cutter.has_cut:
            # http.client takes a header that ends in mid-line for a whole one.
            raise dns.exception.Timeout(timeout=timeout)  # type: ignore[no-untyped-call]
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.status_code != 200 or kind != _DNS_MESSAGE:
            raise OSError(f"HTTP {response.status_code} without a DNS message")
        return response.content


def _send_no_credentials(prepared: PreparedRequest) -> PreparedRequest:
    """Serve as requests' `auth`, so that ~/.netrc isn't used."""
    return prepared
