"""`certcast host add --scan`: a key that an SSH server shows is taken only once somebody vouches for it.

ssh-keyscan is OpenSSH's, the servers are real ones or silent sockets on loopback, and the
terminal is a terminal.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from answering import answering
from certcast.publisher.hosts import enrolled_hosts
from certcast.release.ssh_keys import PublicKey
from certcast_lab.lab import CERTCAST
from ssh_server import ssh_server

Done = subprocess.CompletedProcess[str]


@dataclass
class RenewalHost:
    """A renewal host that has published nothing yet, and a host's SSH key with a server that shows it."""

    folder: Path
    address: str
    key: PublicKey

    @property
    def hosts_file(self) -> Path:
        return self.folder / "hosts"

    def argv(self, *arguments: str) -> list[str]:
        return [CERTCAST, "--config", str(self.folder / "certcast.toml"), "host", "add", *arguments]

    def add(self, *arguments: str, path: str | None = None) -> Done:
        environment = {**os.environ, **({"PATH": path} if path else {})}
        return subprocess.run(
            self.argv(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    def enrolled(self) -> dict[str, str]:
        return {host.name: host.key.fingerprint for host in enrolled_hosts.read_hosts(self.hosts_file)}


def make_key(path: Path, kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def renewal(tmp_path: Path) -> Iterator[RenewalHost]:
    (tmp_path / "store").mkdir()
    (tmp_path / "certcast.toml").write_text(
        f"state_dir = {json.dumps(str(tmp_path / 'state'))}\n"
        f"[store]\nurl = {json.dumps(f'file://{tmp_path}/store')}\n"
        '[[certificate]]\nname = "example.test"\nnames = ["example.test"]\n'
        f"[renewal]\nhosts_file = {json.dumps(str(tmp_path / 'hosts'))}\n"
        f"signing_key = {json.dumps(str(tmp_path / 'publisher'))}\n"
    )
    key = make_key(tmp_path / "ssh_host_ed25519_key")
    with ssh_server(key, make_key(tmp_path / "ssh_host_ecdsa_key", "ecdsa")) as address:
        yield RenewalHost(tmp_path, address, PublicKey.parse(key.with_suffix(".pub").read_text()))


def test_a_fingerprint_that_is_typed_enrols(renewal: RenewalHost) -> None:
    """At a terminal the fingerprint is shown, and the host is enrolled once the same one is typed."""
    status, shown = answering(
        renewal.argv("web1", "--scan", renewal.address), [renewal.key.fingerprint], dict(os.environ)
    )
    assert 0 == status, shown
    assert 3 <= shown.count(renewal.key.fingerprint)  # shown, echoed, enrolled
    assert "web1: enrolled, " in shown
    assert {"web1": renewal.key.fingerprint} == renewal.enrolled()


@pytest.mark.parametrize("typed", ["yes", "SHA256:" + "A" * 43])
def test_another_fingerprint_is_refused(renewal: RenewalHost, typed: str) -> None:
    """What is typed must be that fingerprint: "yes" is none, and another host's enrols nobody."""
    status, shown = answering(renewal.argv("web1", "--scan", renewal.address), [typed], dict(os.environ))
    assert 18 == status
    assert "is not the one that was confirmed" in shown
    assert {} == renewal.enrolled()


@pytest.mark.parametrize("answer", ["\x03", "\x04"])
def test_ctrl_c_at_the_question_enrols_nobody(renewal: RenewalHost, answer: str) -> None:
    """Ctrl-C and Ctrl-D leave the question with exit status 130 and nobody enrolled."""
    status, shown = answering(renewal.argv("web1", "--scan", renewal.address), [answer], dict(os.environ))
    assert 130 == status
    assert "Traceback" not in shown
    assert {} == renewal.enrolled()


def test_a_fingerprint_that_is_given_enrols(renewal: RenewalHost) -> None:
    """A script that knows the fingerprint gives it, and needs no terminal; a wrong one enrols nobody."""
    wrong = renewal.add("web1", "--scan", renewal.address, "--fingerprint", "SHA256:" + "B" * 43)
    assert 18 == wrong.returncode
    assert renewal.key.fingerprint in wrong.stderr
    assert {} == renewal.enrolled()

    right = renewal.add("web1", "--scan", renewal.address, "--fingerprint", renewal.key.fingerprint)
    assert 0 == right.returncode, right.stderr
    assert {"web1": renewal.key.fingerprint} == renewal.enrolled()


def test_without_a_terminal_nobody_is_enrolled_unconfirmed(renewal: RenewalHost) -> None:
    """From a script, a scan alone ends in an error that shows the fingerprint and both ways to go on."""
    done = renewal.add("web1", "--scan", renewal.address)
    assert 18 == done.returncode
    assert "unauthenticated scan" in done.stderr
    assert "at a terminal" in done.stderr
    assert {} == renewal.enrolled()

    command = next(line for line in done.stderr.splitlines() if "--fingerprint" in line)
    words = command.strip().strip("`").removeprefix("certcast host add ").split()
    assert 0 == renewal.add(*words).returncode
    assert {"web1": renewal.key.fingerprint} == renewal.enrolled()


def test_an_address_is_no_name(renewal: RenewalHost) -> None:
    """Without a NAME the address must be one; an IP address isn't, and the usage is shown."""
    done = renewal.add("--scan", renewal.address, "--fingerprint", renewal.key.fingerprint)
    assert 2 == done.returncode
    assert "an address is no name" in done.stderr
    by_name = renewal.address.replace("127.0.0.1", "localhost")
    assert 0 == renewal.add("--scan", by_name, "--fingerprint", renewal.key.fingerprint).returncode
    assert {"localhost": renewal.key.fingerprint} == renewal.enrolled()


@pytest.mark.parametrize(
    "address", ["-oProxyCommand=x", "web1 web2", "10.0.0.0/8", "web1:0", "web1:99999", "a,b", ""]
)
def test_an_address_that_is_none(renewal: RenewalHost, address: str) -> None:
    """What is no host and port never reaches ssh-keyscan, as an option, a network or two hosts."""
    done = renewal.add("web1", f"--scan={address}")
    assert 2 == done.returncode
    assert {} == renewal.enrolled()


def test_a_silent_host(renewal: RenewalHost) -> None:
    """A host that takes the connection and says nothing ends in an error, within the time that is named."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = renewal.add("web1", "--scan", f"127.0.0.1:{silent.getsockname()[1]}")
    assert 18 == done.returncode
    assert "no Ed25519 host key came from" in done.stderr
    assert "within 5 s" in done.stderr
    assert {} == renewal.enrolled()


def test_nobody_listens(renewal: RenewalHost) -> None:
    """A closed port, and a name that does not exist, end in the same error with ssh-keyscan's word."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "no answer" in renewal.add("web1", "--scan", f"127.0.0.1:{port}").stderr
    unknown = renewal.add("web1", "--scan", "nosuch.invalid")
    assert 18 == unknown.returncode
    assert "nosuch.invalid" in unknown.stderr


def test_a_host_without_an_ed25519_key(renewal: RenewalHost) -> None:
    """A server that has only another type of key cannot be enrolled by it; the report says so."""
    with ssh_server(renewal.folder / "ssh_host_ecdsa_key") as address:
        done = renewal.add("web1", "--scan", address)
    assert 18 == done.returncode
    assert "no Ed25519 host key" in done.stderr


def test_ssh_keyscan_is_missing(renewal: RenewalHost) -> None:
    """Without OpenSSH's client, the report names its package, and the way without it."""
    done = renewal.add("web1", "--scan", renewal.address, path=str(renewal.folder))
    assert 18 == done.returncode
    assert "apt-get install openssh-client" in done.stderr
    assert "certcast identity" in done.stderr
