"""What is proved of listeners and clients of every kind, with real nginx.

Release A is served; the operator's sites are as each test says, and nginx has loaded them; then B is
published and pulled. Listeners are those that `nginx -T` shows, unless a test configures them.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from certcast.config.model import Address, Argv, Listener
from certcast.consumer.outcome import Outcome
from certcast.report.errors import NotProved
from certcast_lab.lab import Lab
from certcast_lab.serving.authority import Authority
from consuming import NAME, NAMES, Consumer, consumer, sha256
from journey import Journey

BOTH_VERSIONS = "ssl_protocols TLSv1.2 TLSv1.3;"  # nginx's own default only since 1.23.4


@pytest.fixture
def web(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    """A host that serves release A, and takes its listeners from `nginx -T`."""
    with consumer(tmp_path, program=nginx_program) as started:
        changed(started, listeners=())
        started.publish("A")
        started.first_pull()
        yield started


def changed(web: Consumer, **fields: Any) -> None:
    """Change fields of the host's one [[consumer.nginx]]."""
    assert web.config.consumer
    web.configure(nginx=(replace(web.config.consumer.nginx[0], **fields),))


def server(web: Consumer, *lines: str, port: int | None = None, takes_ours: bool = True) -> str:
    """Return a server block: a `listen` on the host's port, unless given; our include, unless not."""
    listen = f"listen 127.0.0.1:{port or web.host.ports[0]} ssl;"
    include = [f"include {web.folder.snippet};"] if takes_ours else []
    own = [] if any(line.startswith("listen") for line in lines) else [listen]
    return "\n".join(["server {", *own, *lines, *include, BOTH_VERSIONS, "}\n"])


def operate(web: Consumer, *servers: str) -> Path:
    """Let these be the sites, and nginx reload them; return their file."""
    web.host.site_conf.write_text("".join(servers))
    assert web.host.test()
    web.reload(until=lambda: True)
    return web.host.site_conf


def line_of(path: Path, text: str) -> str:
    """Return where the last such line is, as nginx and we name it."""
    lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line]
    return f"{path}:{lines[-1]}"


def lines_of(*files: Path) -> str:
    return f"ssl_certificate {files[0]};\nssl_certificate_key {files[1]};"


def pull_b(web: Consumer) -> Outcome:
    web.publish("B")
    return web.pull(force=True)


def client_of(ciphers: str) -> ssl.SSLContext:
    """A TLS 1.2 client that takes only these cipher suites; it shares no code with the proof."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(ciphers)
    return client


def leaf_for(web: Consumer, client: ssl.SSLContext, name: str | None = "www.example.test") -> str:
    with (
        socket.create_connection(("127.0.0.1", web.host.ports[0]), timeout=30) as connection,
        client.wrap_socket(connection, server_hostname=name) as tls,
    ):
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def other_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- clients


def test_both_tls_versions(web: Consumer) -> None:
    """With TLS 1.2 and 1.3 at a listener, the outcome says that both showed the new certificate."""
    operate(web, server(web, f"server_name {NAME};"))
    outcome = pull_b(web)
    assert "seen in 6 handshakes (TLS 1.2 and 1.3, ECDSA clients) on 1 listener" in outcome.text
    assert "\n" not in outcome.text
    assert web.leaf("B") == web.served()


def test_rsa_only_clients(tmp_path: Path, nginx_program: str) -> None:
    """
    RSA becomes ECDSA where that is allowed: clients that take only RSA get no handshake any more,
    which the outcome says; everybody else is served the new one.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="rsa"))
        web.first_pull()
        operate(web, server(web))
        assert web.leaf("A") == leaf_for(web, client_of("aRSA"))
        web.configure(allow_key_type_change=True)
        outcome = pull_b(web)
        assert "no longer for TLS 1.2 and 1.3, RSA clients" in outcome.text
        assert any("before it was leaf" in remark for remark in outcome.remarks)
        assert web.leaf("B") == web.served()
        with pytest.raises(ssl.SSLError):
            leaf_for(web, client_of("aRSA"))


def test_rsa_ciphers_under_an_ecdsa_release(tmp_path: Path, nginx_program: str) -> None:
    """
    With ssl_ciphers that suit only RSA, an ECDSA release still serves TLS 1.3, but TLS 1.2 no more:
    taken back at once, also where a change of the key's type is allowed.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="rsa"))
        web.first_pull()
        operate(web, server(web, "ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;"))
        web.configure(allow_key_type_change=True)
        with pytest.raises(NotProved, match="handshakes failed that had worked") as caught:
            pull_b(web)
        assert "as example.test (TLS 1.2, RSA clients): no handshake" in (caught.value.found or "")
        assert "what worked before works again" in (caught.value.kept or "")
        assert web.leaf("A") == leaf_for(web, client_of("aRSA")) == web.served()


@pytest.mark.parametrize("place", ["after the include", "beside it"])
def test_shadowed_certificate(tmp_path: Path, nginx_program: str, place: str) -> None:
    """
    Old lines that somebody left in the server block: below the include they win over ours, above it
    an old RSA pair still goes to RSA clients. Either is found and named with file and line.
    """
    with consumer(tmp_path, program=nginx_program) as web:
        web.publish("A", web.issue(key_type="ecdsa" if place == "after the include" else "rsa"))
        web.first_pull()
        web.configure(allow_key_type_change=True)
        old = web.pairs["A"].write(web.host.root / "etc/nginx/old")
        include = f"include {web.folder.snippet};"
        both = (include, lines_of(*old)) if place == "after the include" else (lines_of(*old), include)
        site = operate(web, server(web, *both, takes_ours=False))
        with pytest.raises(NotProved) as caught:
            pull_b(web)
        where = line_of(site, "ssl_certificate ")
        if place == "after the include":
            said = (
                f"{where} names another ssl_certificate after ours (the last of a key type wins): remove it"
            )
            found = f"127.0.0.1:{web.host.ports[0]} as example.test: still leaf {web.leaf('A')[:16]}…"
        else:
            said = f"{where} names another ssl_certificate, which RSA clients get: remove it"
            found = f"as example.test (TLS 1.2 and 1.3, RSA clients): still leaf {web.leaf('A')[:16]}…"
            assert web.leaf("B") == web.served()
            assert web.leaf("A") == leaf_for(web, client_of("aRSA"))
        assert said in (caught.value.next or "")
        assert found in (caught.value.found or "")

        # Once these lines are gone, the next run proves it.
        web.host.site_conf.write_text(server(web))
        assert "installed" == web.pull(force=True).result
        assert web.leaf("B") == web.served()


# -- many names


VHOSTS = [f"site{number:02}.example.test" for number in range(40)]


def vhosts(web: Consumer, **others: str) -> None:
    """Let forty virtual hosts include the snippet, in a file each, but for those with `others` lines."""
    for name in VHOSTS:
        label = name.partition(".")[0]
        text = server(web, f"server_name {name};", others.get(label, ""), takes_ours=label not in others)
        web.host.site_conf.with_name(f"{label}.conf").write_text(text)
    operate(web, server(web, "server_name example.test;"))


def test_forty_vhosts(web: Consumer) -> None:
    """Forty virtual hosts with one include each: the new certificate is seen under every name."""
    vhosts(web)
    outcome = pull_b(web)
    assert {f"127.0.0.1:{web.host.ports[0]} as {name}" for name in VHOSTS} <= {
        place.partition(" (")[0] for place in outcome.proved
    }
    assert "seen in 86 handshakes (TLS 1.2 and 1.3, ECDSA clients) on 1 listener" in outcome.text
    assert {web.leaf("B")} == {web.served(name) for name in VHOSTS}


def test_forty_vhosts_and_one_forgotten(web: Consumer) -> None:
    """One of forty still names a copy of the old release: the alarm says which, and in what line."""
    old = web.pairs["A"].write(web.host.root / "etc/nginx/old")
    vhosts(web, site17=lines_of(*old))
    with pytest.raises(NotProved) as caught:
        pull_b(web)
    assert f"127.0.0.1:{web.host.ports[0]} as site17.example.test: still leaf {web.leaf('A')[:16]}…" == (
        caught.value.found
    )
    where = line_of(web.host.site_conf.with_name("site17.conf"), "ssl_certificate ")
    assert f"{where} names another ssl_certificate: put `include {web.folder.snippet};` in its place" in (
        caught.value.next or ""
    )
    assert web.leaf("B") == web.served("site16.example.test")


def test_copy_of_a_release_long_ago(web: Consumer) -> None:
    """A copy of a release whose directory is long gone is still known as ours, and an alarm."""
    old = web.pairs["A"].write(web.host.root / "etc/nginx/old")
    for letter in "BCDE":
        web.publish(letter)
        web.pull(force=True)
    assert 1 not in web.versions()
    operate(web, server(web), server(web, "server_name www.example.test;", lines_of(*old), takes_ours=False))
    web.publish("F")
    with pytest.raises(NotProved) as caught:
        web.pull(force=True)
    assert f"as www.example.test: still leaf {web.leaf('A')[:16]}…" in (caught.value.found or "")


def test_forty_vhosts_and_one_with_a_certificate_of_its_own(web: Consumer) -> None:
    """
    A virtual host whose certificate was never certcast's may keep it: installed, and a remark for the
    administrator's mail says which file and line it is.
    """
    bought = Authority("Somebody").issue(*NAMES).write(web.host.root / "etc/nginx/bought")
    vhosts(web, site17=lines_of(*bought))
    outcome = pull_b(web)
    assert "another certificate in 2 handshakes" in outcome.text
    where = line_of(web.host.site_conf.with_name("site17.conf"), "ssl_certificate ")
    assert f"{where} names another ssl_certificate" in outcome.remarks, "and nothing to do"


@pytest.mark.parametrize("whose", ["the operator's", "another one of certcast's"])
def test_rsa_pair_beside_ours(web: Consumer, whose: str) -> None:
    """
    An RSA pair beside our ECDSA one in a server block is there for old clients: installed, and nobody is
    told to remove it; of certcast's own other certificate nothing is said at all.
    """
    beside = web.issue(key_type="rsa")
    folder = web.host.root / "etc/nginx/rsa"
    if whose != "the operator's":
        folder = web.folder.root.parent / "example.test-rsa/versions" / f"1-{sha256(beside)[:16]}"
    site = operate(web, server(web, lines_of(*beside.write(folder))))
    outcome = pull_b(web)
    assert web.leaf("B") == web.served()
    assert sha256(beside) == leaf_for(web, client_of("aRSA"))
    where = line_of(site, "ssl_certificate ")
    said = [f"{where} names another ssl_certificate, which RSA clients get"]
    assert (said if whose == "the operator's" else []) == [one for one in outcome.remarks if where in one]
    assert ("another certificate" in outcome.text) == (whose == "the operator's")


def test_default_server(web: Consumer) -> None:
    """Clients that send no name get the default server's certificate: they are asked for, too."""
    old = web.pairs["A"].write(web.host.root / "etc/nginx/old")
    port = web.host.ports[0]
    site = operate(
        web,
        server(web, "server_name www.example.test;"),
        server(web, f"listen 127.0.0.1:{port} ssl default_server;", lines_of(*old), takes_ours=False),
    )
    with pytest.raises(NotProved) as caught:
        pull_b(web)
    found = (caught.value.found or "").splitlines()
    assert f"127.0.0.1:{port} without a name: still leaf {web.leaf('A')[:16]}…" in found
    assert not any("as www.example.test" in line for line in found)
    assert f"{line_of(site, 'ssl_certificate ')} names another" in (caught.value.next or "")
    assert web.leaf("B") == web.served()


EXPRESSION = r"server_name ~^(app|api)\.example\.test$;"


@pytest.mark.parametrize("default", ["rejects", "is somebody else's"])
def test_names_that_are_regular_expressions(web: Consumer, default: str) -> None:
    """
    A site whose names are a regular expression, behind a default server that has nothing of ours, cannot be
    asked for: said to be not provable, while what the other listener shows proves the release.
    """
    bought = Authority("Somebody").issue("shop.test").write(web.host.root / "etc/nginx/bought")
    own = "ssl_reject_handshake on;" if default == "rejects" else lines_of(*bought)
    port = other_port()
    site = operate(
        web,
        server(web, f"server_name {NAME};"),
        server(web, f"listen 127.0.0.1:{port} ssl default_server;", own, takes_ours=False),
        server(web, EXPRESSION, port=port),
    )
    line = line_of(site, "server {")
    outcome = pull_b(web)
    assert f"not provable: 127.0.0.1:{port}: no name is known that leads to {line}" in outcome.remarks
    assert web.leaf("B") == web.host.served("app.example.test", port).sha256


def test_nothing_but_regular_expressions(web: Consumer) -> None:
    """
    Where a regular expression is all that leads to the certificate, no handshake proves it: the report asks
    for a plain name in that server block, and leaves the one that rejects handshakes alone; with a
    plain name, or one with any ending, it is proved.
    """
    rejecting = server(
        web,
        f"listen 127.0.0.1:{web.host.ports[0]} ssl default_server;",
        "ssl_reject_handshake on;",
        takes_ours=False,
    )
    site = operate(web, rejecting, server(web, EXPRESSION))
    with pytest.raises(NotProved) as caught:
        pull_b(web)
    assert (caught.value.next or "").startswith(f"{line_of(site, 'server {')}: add a name to its server_name")
    assert "another ssl_certificate" not in (caught.value.next or "")

    for letter, names in (("C", "app.example.test"), ("D", "api.example.*")):
        site.write_text(rejecting + server(web, EXPRESSION.replace("~", f"{names} ~")))
        web.publish(letter)
        assert "installed" == web.pull(force=True).result


def test_mail_says_who_saw_it_and_what_is_served_besides(lab: Lab) -> None:
    """
    The installed command prints one line; the administrator's mail has each listener and name with the
    kinds of client, and the line of a virtual host with another certificate.
    """
    journey = Journey(lab)
    assert 0 == journey.renew().returncode
    host = journey.first_pull("web1")
    bought = Authority("Somebody").issue("shop.example.test").write(host.root / "etc/nginx/bought")
    shop = host.site_conf.with_name("shop.conf")
    listen = f"listen 127.0.0.1:{host.ports[0]} ssl; server_name shop.example.test;"
    shop.write_text("\n".join(["server {", listen, lines_of(*bought), "}"]))
    workers = host.workers()
    host.reload()
    while workers & host.workers():
        time.sleep(0.01)
    journey.want_replaced()
    assert 0 == journey.renew().returncode
    lab.mailbox.clear()
    done = journey.pull("web1", "--now")
    assert 0 == done.returncode, done.stderr
    assert 1 == len(done.stdout.splitlines())
    # Which versions an nginx offers by itself has changed with 1.23.4.
    assert re.search(
        r"seen in \d+ handshakes \(TLS 1\.2( and 1\.3)?, ECDSA clients\) on 1 listener; another certificate",
        done.stdout,
    )
    mail = lab.mailbox.wait_for(lambda received: "administrator@example.test" in received.recipients)
    assert f"127.0.0.1:{host.ports[0]} as example.test (TLS 1.2" in mail.text
    assert f"{shop}:3 names another ssl_certificate\n" in mail.text


# -- listeners


@pytest.mark.parametrize("told_by", ["nginx -T", "our configuration"])
def test_proxy_protocol(web: Consumer, told_by: str) -> None:
    """Behind a load balancer that speaks the PROXY protocol, the handshakes begin with its line."""
    port = other_port()
    log = web.host.root / "var/log/nginx/addresses.log"
    # Loopback comes from itself, so nginx is told to believe it, and notes whom it believed in.
    addresses = f"log_format of_proxy '$proxy_protocol_addr'; access_log {log} of_proxy;"
    operate(web, addresses, server(web, f"listen 127.0.0.1:{port} ssl proxy_protocol;"))
    if told_by == "our configuration":
        changed(web, listeners=(Listener(Address("127.0.0.1", port), proxy_protocol=True),))
    outcome = pull_b(web)
    assert f"127.0.0.1:{port} proxy_protocol as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved
    assert "broken header" not in web.host.error_log.read_text()


@pytest.mark.parametrize("wanted", [True, False])
def test_proxy_protocol_said_otherwise_than_nginx_has_it(web: Consumer, wanted: bool) -> None:
    """
    A listener that is configured without proxy_protocol, and wants it, fails, and so does the reverse;
    the report shows what to write.
    """
    port = other_port()
    site = operate(web, server(web, f"listen 127.0.0.1:{port} ssl{' proxy_protocol' if wanted else ''};"))
    changed(web, listeners=(Listener(Address("127.0.0.1", port), proxy_protocol=not wanted),))
    with pytest.raises(NotProved) as caught:
        pull_b(web)
    assert "no handshake" in (caught.value.found or "")
    right = f"127.0.0.1:{port} proxy_protocol" if wanted else f"127.0.0.1:{port}"
    assert [
        f'{line_of(site, "listen")} has it otherwise: write "{right}" in consumer.nginx.listeners',
        f"then run `certcast pull --now {NAME}`",
    ] == (caught.value.next or "").splitlines()


def test_a_wrong_port(web: Consumer) -> None:
    """A configured listener at which nothing answers fails; nobody else's configuration is blamed."""
    port = other_port()
    changed(web, listeners=(Listener(Address("127.0.0.1", port)),))
    with pytest.raises(NotProved) as caught:
        pull_b(web)
    assert f"nothing answers at 127.0.0.1:{port}: correct consumer.nginx.listeners" in (
        caught.value.next or ""
    )


@pytest.mark.parametrize("proxy_protocol", [False, True])
def test_unix_socket(web: Consumer, proxy_protocol: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A listener on a unix socket is proved as well, with the PROXY protocol (family UNKNOWN) or without."""
    path = tmp_path_factory.mktemp("s") / "tls"  # a socket's path has at most 107 characters
    operate(web, server(web, f"listen unix:{path} ssl{' proxy_protocol' if proxy_protocol else ''};"))
    outcome = pull_b(web)
    where = str(Listener(path, proxy_protocol))  # type: ignore[arg-type]
    assert f"{where} as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved
    operate(web, server(web))  # nginx removes the socket


@pytest.mark.parametrize("proxy_protocol", ["", " proxy_protocol"])
def test_ipv6(web: Consumer, proxy_protocol: str) -> None:
    """A wildcard listener of IPv6 is asked at ::1, one of IPv4 at 127.0.0.1."""
    first, second = other_port(), other_port()
    operate(
        web,
        server(web, f"listen [::]:{first} ssl ipv6only=on{proxy_protocol};", f"listen {second} ssl;"),
    )
    outcome = pull_b(web)
    assert f"[::1]:{first}{proxy_protocol} as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved
    assert f"127.0.0.1:{second} as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved
    assert "on 2 listeners" in outcome.text


def test_wildcard_beside_a_loopback_listener(web: Consumer) -> None:
    """
    The loopback listener has the new certificate, the wildcard on its port, which all the world
    talks to, a copy of the old one: an alarm, and the line is named.
    """
    old = web.pairs["A"].write(web.host.root / "etc/nginx/old")
    port = other_port()
    wildcard = server(web, f"listen {port} ssl;", lines_of(*old), takes_ours=False)
    site = operate(web, wildcard, server(web, port=port))
    with pytest.raises(NotProved) as caught:
        pull_b(web)
    assert f"127.0.0.2:{port} as {NAME}: still leaf {web.leaf('A')[:16]}…" in (caught.value.found or "")
    assert f"{line_of(site, 'ssl_certificate ')} names another" in (caught.value.next or "")
    assert web.leaf("B") == web.host.served(NAME, port).sha256


@pytest.mark.parametrize("beside", ["a health check of ours", "somebody's status page"])
def test_listeners_on_one_port_are_told_apart(web: Consumer, beside: str) -> None:
    """
    The load balancer talks PROXY protocol to the wildcard; on loopback, the same port is a health
    check without it, or a page with another certificate: the new certificate is proved at the wildcard.
    """
    port = other_port()
    bought = Authority("Somebody").issue("status.test").write(web.host.root / "etc/nginx/bought")
    ours = beside == "a health check of ours"
    near = server(web, "" if ours else lines_of(*bought), port=port, takes_ours=ours)
    operate(web, server(web, f"listen {port} ssl proxy_protocol;"), near)
    outcome = pull_b(web)
    assert f"127.0.0.2:{port} proxy_protocol as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved
    assert ours == (f"127.0.0.1:{port} as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved)
    assert "not provable" not in outcome.text


def test_stream(tmp_path: Path, current_nginx: str) -> None:
    """TLS of a `stream` server (Debian has stream as a module of its own) is proved like that of http."""
    with consumer(tmp_path, program=current_nginx) as web:
        changed(web, listeners=())
        web.publish("A")
        web.first_pull()
        port = other_port()
        block = "stream {\n" + server(web, f"listen 127.0.0.1:{port} ssl;", 'return "stream";') + "}\n"
        web.host.nginx_conf.write_text(web.host.nginx_conf.read_text() + block)
        operate(web, server(web))
        outcome = pull_b(web)
        assert f"127.0.0.1:{port} as {NAME} (TLS 1.2 and 1.3, ECDSA clients)" in outcome.proved
        assert "on 2 listeners" in outcome.text
        assert web.leaf("B") == web.host.served(NAME, port).sha256


def test_quic_is_not_provable(web: Consumer, tmp_path: Path) -> None:
    """
    QUIC cannot be tried; the outcome says so, and is a success. Debian 13's nginx has HTTP/3; of
    another one, `nginx -T` shows a `listen … quic` that the running one doesn't have.
    """
    port = web.host.ports[0]
    program = web.host.test_command[0]
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    if "http_v3_module" in built:
        operate(web, server(web, f"listen 127.0.0.1:{port} ssl; listen 127.0.0.1:{port} quic;"))
    else:
        operate(web, server(web, f"listen 127.0.0.1:{port} ssl;", "# quic"))
        wrapper = tmp_path / "nginx-with-quic"
        command = " ".join(shlex.quote(word) for word in web.host.test_command[:-1])
        wrapper.write_text(f"#!/bin/sh\n{command} \"$@\" | sed 's/# quic/listen 127.0.0.1:{port} quic;/'\n")
        wrapper.chmod(0o755)
        changed(web, test=Argv((str(wrapper), "-t")))
    outcome = pull_b(web)
    assert f"on 1 listener; not provable: QUIC on 127.0.0.1:{port}" in outcome.text
    assert (f"not provable: QUIC on 127.0.0.1:{port}",) == outcome.remarks


def test_listener_that_cannot_be_reached_is_not_provable(web: Consumer, tmp_path: Path) -> None:
    """
    A listener that nginx shows and that cannot be connected to from here, as a port inside of a
    container, is said and doesn't fail the rest.
    """
    port = other_port()
    wrapper = tmp_path / "nginx-elsewhere"
    operate(web, server(web, f"listen 127.0.0.1:{web.host.ports[0]} ssl;", "# elsewhere"))
    command = " ".join(shlex.quote(word) for word in web.host.test_command[:-1])
    wrapper.write_text(f"#!/bin/sh\n{command} \"$@\" | sed 's/# elsewhere/listen 127.0.0.1:{port} ssl;/'\n")
    wrapper.chmod(0o755)
    changed(web, test=Argv((str(wrapper), "-t")))
    outcome = pull_b(web)
    assert f"not provable: 127.0.0.1:{port}: no connection (Connection refused)" in outcome.text


def test_listener_that_goes_away_with_the_reload_is_broken(web: Consumer) -> None:
    """A listener that answered before the reload and is gone afterwards is an alarm, whoever removed it."""
    port = other_port()
    operate(web, server(web), server(web, port=port))
    changed(web, listeners=tuple(Listener(Address("127.0.0.1", one)) for one in (web.host.ports[0], port)))
    web.host.site_conf.write_text(server(web))  # an edit that waits for the next reload, which is ours
    with pytest.raises(NotProved, match="handshakes failed that had worked") as caught:
        pull_b(web)
    assert f"127.0.0.1:{port} as {NAME}: no connection (Connection refused)" in (caught.value.found or "")


def test_no_listener_is_known(web: Consumer) -> None:
    """Without a TLS listener in `nginx -T` or in our configuration nothing is reloaded."""
    workers = web.host.workers()
    changed(web, test=Argv(("true",)))
    with pytest.raises(NotProved, match="no TLS listener is known") as caught:
        pull_b(web)
    assert "consumer.nginx.listeners" in (caught.value.next or "")
    assert "nginx was not reloaded" in (caught.value.kept or "")
    assert web.host.workers() <= workers, "no new one; those of an earlier reload may have ended meanwhile"
    assert web.leaf("A") == web.served()


# -- workers


def test_reuseport(web: Consumer) -> None:
    """With `reuseport` and a number of workers that changes with each reload, every release is proved."""
    for number, letter in enumerate("BCDE"):
        text = web.host.nginx_conf.read_text()
        before, after = ("2", "4") if number == 0 else (("4", "1") if number % 2 else ("1", "4"))
        web.host.nginx_conf.write_text(
            text.replace(f"worker_processes {before};", f"worker_processes {after};")
        )
        web.host.site_conf.write_text(server(web, f"listen 127.0.0.1:{web.host.ports[0]} ssl reuseport;"))
        web.publish(letter)
        assert "installed" == web.pull(force=True).result
        assert web.leaf(letter) == web.served()


def test_long_lived_connections(web: Consumer) -> None:
    """
    A client that keeps its connection holds an old worker back for as long as it likes. That worker
    accepts nobody new: proved all the same, at once.
    """
    old_workers = web.host.workers()
    with (
        socket.create_connection(("127.0.0.1", web.host.ports[0]), timeout=30) as connection,
        client_of("ALL").wrap_socket(connection, server_hostname=NAME) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\n")  # a request that is not finished keeps the worker
        assert "installed" == pull_b(web).result
        assert old_workers & web.host.workers(), "the old worker should still be there"
        assert web.leaf("B") == web.served()
