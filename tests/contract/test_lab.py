"""The lab as a whole: it comes up, forgets, shows itself, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from certcast.config import reading
from certcast_lab import show
from certcast_lab.configuration import consumer_toml, renewal_toml
from certcast_lab.lab import Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.serving.authority import Authority

COMMAND = str(Path(sys.executable).with_name("certcast-lab"))


def test_each_test_finds_a_first_day(lab: Lab):
    """After a reset there are no records, objects, mails, hosts or faults; addresses stay."""
    addresses = (lab.alidns_url, lab.oss_url, lab.directory_url, lab.dns.servers[0].address)
    host = lab.host("web1")
    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", "left over")
    lab.cloud.bucket.put("certcast/x", Stored(b"x", 0))
    lab.cloud.add_zone("other.test")
    lab.dns.servers[1].lag = 60
    lab.mailbox.fault = "refuse"

    lab.reset()

    assert addresses == (lab.alidns_url, lab.oss_url, lab.directory_url, lab.dns.servers[0].address)
    assert [] == lab.cloud.challenge_records()
    assert [] == lab.cloud.bucket.keys()
    assert lab.cloud.zones.get("other.test") is None
    assert lab.cloud.zones is lab.dns.zones
    assert (0, None) == (lab.dns.servers[1].lag, lab.mailbox.fault)
    assert {} == lab.hosts
    with pytest.raises(ConnectionRefusedError):
        host.served()
    assert lab.host("web1").root != host.root


def test_the_configurations_are_ones_that_certcast_accepts(lab: Lab):
    """What the lab writes for its hosts is read by certcast without a complaint, several zones included."""
    lab.cloud.add_zone("challenges.test")
    host = lab.host("web1")

    host.certcast_toml.write_text(consumer_toml(lab, host))
    consumer = reading.load(host.certcast_toml)
    host.certcast_toml.write_text(
        renewal_toml(lab, host, {"a": ("a.example.test",), "b": ("b.example.test",)})
    )
    renewal = reading.load(host.certcast_toml)

    assert consumer.consumer is not None
    assert host.ports == [listener.address.port for listener in consumer.consumer.nginx[0].listeners]
    assert {"example.test", "challenges.test"} == {str(zone.name) for zone in renewal.zones}
    assert ["a", "b"] == [certificate.name for certificate in renewal.certificates]


def test_zone_bucket_and_mailbox_can_be_read_by_a_person(lab: Lab):
    """The pages name what is there, and say so when nothing is."""
    assert "no records" in show.zone_page(lab)
    assert "no objects" in show.bucket_page(lab)
    assert "no messages" in show.mailbox_page(lab)

    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", "token")
    lab.cloud.bucket.put("certcast/certs/x", Stored(b"12345", 0))
    assert "_acme-challenge.example.test 600 TXT token" in show.zone_page(lab)
    assert re.search(r" 5 octets .* certcast/certs/x\n", show.bucket_page(lab))


def test_stopping_leaves_neither_threads_nor_listeners(tmp_path: Path):
    """A lab that was used and stopped has joined its threads, ended its children and closed its ports."""
    before = set(threading.enumerate())
    with Lab(tmp_path) as lab:
        ports = [
            lab.host("web1").ports[0],
            lab.pebble.port,
            lab.dns.resolver.port,
            *lab.mailbox.ports.values(),
        ]
        ports += [int(url.rpartition(":")[2]) for url in (lab.alidns_url, lab.oss_url)]
    lab.stop()

    # The thread that forks children lives as long as the interpreter; children.py says why.
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert set() == {name for name in left if not name.startswith("children")}
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)


@pytest.fixture
def running_lab(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`certcast-lab up` in a process of its own, and what it printed."""
    process = subprocess.Popen(
        [COMMAND, "up"], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    with process:
        try:
            assert process.stdout
            printed = ""
            while "Ctrl-C ends it" not in printed:
                line = process.stdout.readline()
                assert line, f"it ended after printing:\n{printed}"
                printed += line
            yield process, printed
        finally:
            if process.poll() is None:
                process.kill()


def test_up_says_how_to_look_into_it_and_ctrl_c_removes_it(
    running_lab: tuple[subprocess.Popen[str], str], tmp_path: Path
):
    """The printed exports make `certcast-lab show` work in another terminal; Ctrl-C leaves no file behind."""
    process, printed = running_lab
    (url,) = set(re.findall(r"export CERTCAST_LAB=(\S+)", printed))
    shown = subprocess.run(
        [COMMAND, "show", "zone"],
        env={**os.environ, "CERTCAST_LAB": url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "zone example.test" in shown.stdout
    for configuration in re.findall(r"export CERTCAST_CONFIG=(\S+)", printed):
        assert reading.load(Path(configuration)).certificates

    process.send_signal(signal.SIGINT)
    assert 0 == process.wait(60)
    assert [] == list(tmp_path.iterdir())


def test_show_without_a_lab_says_what_to_do():
    """With no lab, or a stopped one, `show` names the way out instead of a traceback."""
    for environment in ({}, {"CERTCAST_LAB": "http://127.0.0.1:1"}):
        done = subprocess.run(
            [COMMAND, "show", "zone"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 != done.returncode
        assert "Traceback" not in done.stderr
        assert "lab" in done.stderr


def test_the_throw_away_ca_makes_certificates_wrong_on_purpose(tmp_path: Path):
    """Expired, for other names, with a reused key, by an intermediate: openssl sees what was asked for."""
    root = Authority("root")
    old = Authority("intermediate", parent=root).issue(
        "old.example.test", not_after=datetime(2020, 1, 1, tzinfo=timezone.utc),
        not_before=datetime(2019, 10, 1, tzinfo=timezone.utc),
    )  # fmt: skip
    again = root.issue("new.example.test", key=old.key_pem)
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "old.pem").write_bytes(old.fullchain_pem)

    def verify(*options: str) -> str:
        chain = tmp_path / "old.pem"
        argv = ["openssl", "verify", "-CAfile", tmp_path / "root.pem", "-untrusted", chain, *options, chain]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    in_its_life = ("-attime", "1573000000", "-x509_strict")
    assert "certificate has expired" in verify()
    assert "OK" in verify(*in_its_life, "-verify_hostname", "old.example.test")
    assert "hostname mismatch" in verify(*in_its_life, "-verify_hostname", "new.example.test").lower()
    assert old.key_pem == again.key_pem
    assert 2 == old.fullchain_pem.count(b"BEGIN CERTIFICATE")
