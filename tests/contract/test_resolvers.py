"""Resolvers, by DNS and by HTTPS: the lab's DoH door, and our client at that door and at worse."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dns.exception
import dns.message
import dns.rcode
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from certcast.config.model import Address, HttpUrl, Resolver
from certcast.dns01.visibility.resolvers import DohServer, find_addresses, stub_resolver
from certcast_lab.dns.doh import MESSAGE, DohDoor
from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zones
from certcast_lab.serving.asgi import Server
from certcast_lab.serving.authority import Authority

AUTHORITY = Authority("lab")
QUERY = dns.message.make_query("www.example.test", "A")


@pytest.fixture
def service() -> Iterator[NameService]:
    zones = Zones()
    zone = zones.create("example.test", owner="1", nameservers=("ns1.example.test",))
    zones.add(zone, "www", "A", "192.0.2.1")
    service = NameService(zones, ["ns1.example.test"])
    yield service
    service.stop()


@pytest.fixture
def door(service: NameService) -> Iterator[DohDoor]:
    with DohDoor(service.resolver, AUTHORITY) as door:
        yield door


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests trust the lab's authority, as an operator would."""
    bundle = tmp_path / "lab-ca.pem"
    bundle.write_bytes(AUTHORITY.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))


def addresses(reply: dns.message.Message) -> list[str]:
    return [record.address for rrset in reply.answer for record in rrset]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_door_is_a_doh_server(door: DohDoor, method: str) -> None:
    """A message in the body, or in `dns` as base64url without padding, is answered (RFC 8484 section 4.1)."""
    url = urlsplit(door.url)
    trust = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    connection = http.client.HTTPSConnection(str(url.hostname), url.port, context=trust, timeout=30)
    wire = QUERY.to_wire()
    try:
        if method == "GET":
            parameter = base64.urlsafe_b64encode(wire).rstrip(b"=").decode()
            connection.request("GET", f"{url.path}?dns={parameter}", headers={"Accept": MESSAGE})
        else:
            connection.request("POST", url.path, wire, {"Content-Type": MESSAGE})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()

    assert (200, MESSAGE) == (answer.status, answer.headers["Content-Type"])
    assert ["192.0.2.1"] == addresses(dns.message.from_wire(body))


@pytest.mark.usefixtures("trusted")
def test_names_are_resolved_through_doh_alone(service: NameService, door: DohDoor) -> None:
    """With nothing but a DoH server in [dns] resolvers, the addresses of nameservers are found."""
    stub = stub_resolver([Resolver(HttpUrl(door.url))])

    assert ["192.0.2.1"] == find_addresses(stub, "www.example.test")
    assert {"https"} == {query.transport for query in service.resolver.queries}


def test_a_resolver_that_fails_at_ipv6_has_told_of_ipv4(service: NameService) -> None:
    """SERVFAIL for AAAA, which some resolvers give, does not lose a nameserver its IPv4 address."""
    service.resolver.fails_for = frozenset({"AAAA"})
    stub = stub_resolver([Resolver(Address(*service.resolver.address))])

    assert ["192.0.2.1"] == find_addresses(stub, "www.example.test")


@pytest.mark.usefixtures("trusted")
def test_a_dead_doh_server_yields_to_the_next_resolver(service: NameService, door: DohDoor) -> None:
    """Resolvers are asked in the configured order, and one that cannot be reached is passed over."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    stub = stub_resolver(
        [Resolver(HttpUrl(f"https://127.0.0.1:{port}/dns-query")), Resolver(HttpUrl(door.url))]
    )

    assert ["192.0.2.1"] == find_addresses(stub, "www.example.test")


def test_a_doh_server_that_nobody_vouches_for_is_refused(door: DohDoor) -> None:
    """Its certificate is verified: whoever stands in the way of HTTPS cannot make up answers."""
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        DohServer(door.url).query(QUERY, 5.0)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (PlainTextResponse("log in to our wireless network"), "HTTP 200 without a DNS message"),
        (Response(status_code=503), "HTTP 503 without a DNS message"),
        (Response(status_code=307, headers={"Location": "/elsewhere"}), "HTTP 307 without a DNS message"),
    ],
)
def test_an_answer_that_is_no_dns_message_is_none(answer: Response, problem: str) -> None:
    """A captive portal, an overloaded server and a redirection are no answers, and no tracebacks."""

    async def endpoint(_request: Request) -> Response:
        return answer

    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])
    with Server(app) as server, pytest.raises(OSError, match=problem):
        DohServer(f"{server.url}/dns-query").query(QUERY, 5.0)


@pytest.mark.parametrize(
    "wire",
    [b"", b"not a message", dns.message.make_response(dns.message.make_query("a.test", "A")).to_wire()],
    ids=["nothing", "no message", "another question"],
)
def test_an_answer_to_another_question_is_none(wire: bytes) -> None:
    """What is no DNS message, or one about something else, is refused as malformed."""

    async def endpoint(_request: Request) -> Response:
        return Response(wire, media_type=MESSAGE)

    app = Starlette(routes=[Route("/dns-query", endpoint, methods=["POST"])])
    with Server(app) as server, pytest.raises(dns.exception.DNSException):
        DohServer(f"{server.url}/dns-query").query(QUERY, 5.0)


def test_no_password_is_sent_to_a_doh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ~/.netrc holds for a host of that name stays where it is."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    headers: list[dict[str, str]] = []

    async def endpoint(request: Request) -> Response:
        headers.append(dict(request.headers))
        return Response(dns.message.make_response(QUERY).to_wire(), media_type=MESSAGE)

    with Server(Starlette(routes=[Route("/dns-query", endpoint, methods=["POST"])])) as server:
        DohServer(f"{server.url}/dns-query").query(QUERY, 5.0)

    assert [None] == [sent.get("authorization") for sent in headers]


def test_a_doh_server_that_drips_is_cut_at_the_deadline() -> None:
    """An octet now and then does not hold a renewal up: the time for a question is for all of its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not stop.wait(0.1):
                    try:
                        client.sendall(b"x")
                    except OSError:
                        return

        port = listener.getsockname()[1]
        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        try:
            with pytest.raises(dns.exception.Timeout):
                DohServer(f"http://127.0.0.1:{port}/dns-query").query(QUERY, 0.5)
        finally:
            stop.set()
            thread.join(5)

    assert 0.5 <= time.monotonic() - begun < 2.0
