"""What the clients of a proof are served by a real nginx that has a pair of either type of key.

The certificates come from an RSA authority, as many ECDSA ones of public CAs do: an ECDSA client must
take its signatures, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from certcast.config.model import Address, Listener
from certcast.consumer.proof import handshake, tls_client
from certcast.consumer.proof.handshake import BROWSER, MATRIX, Client, Clients, Handshake, Shown, Target
from certcast.release.certificate import describe, read_chain
from certcast.report.errors import NotProved
from certcast_lab.serving.authority import Authority, Pair
from certcast_lab.web.hosts import WebHost

AUTHORITY = Authority("RSA authority", key_type="rsa")
PAIRS = {keys: AUTHORITY.issue("example.test", key_type=keys.lower()) for keys in ("RSA", "ECDSA")}  # type: ignore[arg-type]
NAME = "example.test"


def leaf(pair: Pair) -> str:
    return describe(read_chain(pair.fullchain_pem).leaf).sha256


@pytest.fixture
def host(tmp_path: Path, nginx_program: str) -> Iterator[WebHost]:
    host = WebHost(tmp_path, "web1", program=nginx_program)
    try:
        yield host.start()
    finally:
        host.stop()


def serve(host: WebHost, *types: str) -> Listener:
    """Let nginx serve these pairs with TLS 1.2 and 1.3."""
    files = [PAIRS[keys].write(host.root / keys) for keys in types]
    lines = [f"ssl_certificate {pem};\nssl_certificate_key {key};" for pem, key in files]
    listen = f"listen 127.0.0.1:{host.ports[0]} ssl; ssl_protocols TLSv1.2 TLSv1.3;"
    host.site_conf.write_text("\n".join(["server {", listen, *lines, "}"]))
    assert host.test()
    before = host.workers()
    host.reload()
    deadline = time.monotonic() + 60
    while before & host.workers() or not host.workers():
        assert time.monotonic() < deadline, "nginx did not reload"
        time.sleep(0.01)
    return Listener(Address("127.0.0.1", host.ports[0]))


def shown(listener: Listener, *kinds: Client, name: str | None = NAME) -> list[Shown]:
    with Clients() as clients:
        asked = [Handshake(Target(listener, name), client) for client in kinds]
        answers = clients.try_all(asked)
        return [answers[one] for one in asked]


def test_each_kind_of_client_gets_the_pair_of_its_type(host: WebHost) -> None:
    """Of two pairs, RSA clients are shown the RSA one and ECDSA clients the other, in both TLS versions."""
    listener = serve(host, "RSA", "ECDSA")
    assert [leaf(PAIRS[client.keys]) for client in MATRIX] == [one.leaf for one in shown(listener, *MATRIX)]


@pytest.mark.parametrize("alone", ["RSA", "ECDSA"])
def test_clients_of_the_other_type_get_no_handshake(host: WebHost, alone: str) -> None:
    """Where nginx has one pair, clients that don't take its type of key are refused, in both versions."""
    listener = serve(host, alone)
    found = shown(listener, *MATRIX)
    assert [leaf(PAIRS[alone]) if client.keys == alone else None for client in MATRIX] == [
        one.leaf for one in found
    ]
    assert all(one.reached for one in found)
    assert all(one.leaf or one.failure.startswith("no handshake (") for one in found)


def test_browser_gets_what_the_server_prefers(host: WebHost) -> None:
    """A client without limits is shown either pair, and each where it is the only one."""
    assert shown(serve(host, "RSA"), BROWSER)[0].leaf == leaf(PAIRS["RSA"])
    assert shown(serve(host, "ECDSA"), BROWSER)[0].leaf == leaf(PAIRS["ECDSA"])


def test_policy_of_the_host_does_not_blind_the_clients(
    host: WebHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where OpenSSL's own configuration allows TLS 1.3 and ECDSA keys alone, old clients are still played."""
    listener = serve(host, "RSA")
    strict = tmp_path / "openssl.cnf"
    text = Path(handshake.__file__).with_name("ecdsa.cnf").read_text()
    strict.write_text(text + "MinProtocol = TLSv1.3\nCipherString = DEFAULT:@SECLEVEL=4\n")
    monkeypatch.setenv("OPENSSL_CONF", str(strict))
    assert [leaf(PAIRS["RSA"])] * 3 == [one.leaf for one in shown(listener, MATRIX[0], MATRIX[2], BROWSER)]


def test_python_that_takes_no_configuration_is_noticed(
    host: WebHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Where OpenSSL reads no file of ours, TLS 1.3 cannot be limited to one type of key: one kind of client
    stands for both, and nothing is claimed of RSA or ECDSA clients.
    """
    script = tmp_path / "tls_client.py"
    script.write_bytes(Path(tls_client.__file__).read_bytes())  # without its configuration beside it
    monkeypatch.setattr(handshake, "_CODE", script)
    listener = serve(host, "RSA", "ECDSA")
    with Clients() as clients:
        kinds = clients.kinds
    assert [("TLS 1.2", "RSA"), ("TLS 1.2", "ECDSA"), ("TLS 1.3", "any")] == [
        (client.version, client.keys) for client in kinds
    ]
    found = [one.leaf for one in shown(listener, *kinds)]
    assert [leaf(PAIRS["RSA"]), leaf(PAIRS["ECDSA"])] == found[:2]
    assert found[2] in {leaf(pair) for pair in PAIRS.values()}


def test_every_python_at_hand_can_be_limited(host: WebHost) -> None:
    """The system's own Python, too, takes the configuration, and is shown the RSA pair as an RSA client."""
    listener = serve(host, "RSA", "ECDSA")
    program = "/usr/bin/python3"
    if not Path(program).exists():
        pytest.skip("the system has no Python of its own")
    for keys in ("RSA", "ECDSA"):
        code = Path(tls_client.__file__)
        asked = f'[[["127.0.0.1", {host.ports[0]}], "{NAME}", false, "TLS 1.3"]]\n'
        done = subprocess.run(
            [program, "-I", "-S", code, keys.lower()],
            input=asked,
            env={"OPENSSL_CONF": str(code.with_name(f"{keys.lower()}.cnf"))},
            capture_output=True,
            text=True,
            check=True,
        )
        first, answer = done.stdout.splitlines()
        assert '{"limited": true}' == first
        assert leaf(PAIRS[keys]) in answer
    assert listener


def test_listener_that_hangs_delays_no_other() -> None:
    """A listener that takes connections and never answers costs its five seconds, for all kinds at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listener = Listener(Address("127.0.0.1", silent.getsockname()[1]))
        began = time.monotonic()
        found = shown(listener, *MATRIX)
        assert time.monotonic() - began < tls_client.SECONDS + 2
    assert all(one.reached and "timed out" in one.failure for one in found)


def test_one_reset_is_no_failure(host: WebHost) -> None:
    """
    A connection that is reset once is tried once more, as browsers do: a retiring worker resets what waits
    in a queue of its own. The second reset counts.
    """
    port = serve(host, "RSA").address.port  # type: ignore[union-attr]
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(10)
        resets = [1, 0, 1, 1]

        def pass_on() -> None:
            for reset in resets:
                try:
                    client, _ = door.accept()
                except OSError:
                    return  # nobody came: the test has failed
                if reset:
                    client.recv(1)  # closing with unread bytes sends a reset
                    client.close()
                    continue
                with client, socket.create_connection(("127.0.0.1", port)) as server:
                    back = threading.Thread(target=copy, args=(server, client))
                    back.start()
                    copy(client, server)
                    back.join()

        server = threading.Thread(target=pass_on, daemon=True)
        server.start()
        listener = Listener(Address("127.0.0.1", door.getsockname()[1]))
        assert leaf(PAIRS["RSA"]) == shown(listener, MATRIX[0])[0].leaf
        assert "no handshake (Connection reset by peer)" == shown(listener, MATRIX[0])[0].failure
        server.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_nothing_listens_there() -> None:
    """Without a listener there is no connection, which is another thing than no handshake."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        listener = Listener(Address("127.0.0.1", bound.getsockname()[1]))
        tcp = shown(listener, BROWSER)[0]
    unix = shown(Listener(Path("/nowhere/tls")), BROWSER)[0]  # type: ignore[arg-type]
    assert Shown(None, "no connection (Connection refused)", reached=False) == tcp
    assert Shown(None, "no connection (No such file or directory)", reached=False) == unix


def test_processes_end_with_the_block() -> None:
    """The clients are gone when the proof is over, also when it fails."""
    with contextlib.suppress(RuntimeError), Clients() as clients:
        pids = [process._child.pid for process in clients._processes.values()]
        raise RuntimeError
    assert 2 == len(pids)
    assert [] == [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_interrupted_proof_ends_at_once() -> None:
    """Ctrl-C while a listener hangs does not wait for it, and leaves no process behind."""
    with socket.create_server(("127.0.0.1", 0)) as silent, Clients() as clients:
        pids = [process._child.pid for process in clients._processes.values()]
        listener = Listener(Address("127.0.0.1", silent.getsockname()[1]))
        timer = threading.Timer(0.3, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
        began = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt), clients:
            clients.try_all([Handshake(Target(listener, NAME), client) for client in MATRIX])
        assert time.monotonic() - began < tls_client.SECONDS - 2
        timer.join()
    assert [] == [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    """When certcast itself is killed, its clients end by themselves: their input has ended."""
    script = (
        "import os, time; from certcast.consumer.proof.handshake import Clients\n"
        "with Clients() as clients:\n"
        "    print(*[process._child.pid for process in clients._processes.values()], flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pids = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a client outlives its parent"
        time.sleep(0.01)


def is_alive(pid: str) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_killed_handshake_process(host: WebHost) -> None:
    """
    A client that the kernel ends in the middle, as it does when memory is short, is a report and no
    traceback; what follows, the way back for one, is looked at by a new one.
    """
    listener = serve(host, "RSA")
    with socket.create_server(("127.0.0.1", 0)) as silent, Clients() as clients:
        child = clients._process("RSA")._child
        killer = threading.Timer(0.3, child.kill)
        killer.start()
        hanging = Handshake(Target(Listener(Address("127.0.0.1", silent.getsockname()[1])), NAME), MATRIX[0])
        with pytest.raises(NotProved, match="has ended") as caught:
            clients.try_all([hanging])
        killer.join()
        child.wait()
        good = Handshake(Target(listener, NAME), MATRIX[0])
        assert leaf(PAIRS["RSA"]) == clients.try_all([good])[good].leaf
    assert "exit status -9" == caught.value.found


def test_leaf_is_named_by_its_sha256(host: WebHost) -> None:
    """What a client reports is the SHA-256 of the certificate that nginx sent, as another client sees it."""
    listener = serve(host, "ECDSA")
    assert hashlib.sha256(host.served(NAME).der).hexdigest() == shown(listener, BROWSER)[0].leaf
