"""What certcast costs, beside the floor it stands on. `make bench` prints the table.

measuring.py     how a command is timed
bare_acme.py     the floor for an order
renewal.py       the renewal host, beside that floor and its peers
bench.py         the hosts that serve; begin reading here

Against the lab: real certbot, lego, dehydrated, pebble, nginx; emulated Alidns and OSS; loopback only.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from measuring import Command, measure, row
from renewal import renewal

from certcast.config.model import CertificateConfig, StoreConfig
from certcast.config.reading import load
from certcast.consumer.disk.versions import Folder
from certcast.consumer.incoming import current, gate
from certcast.consumer.incoming.fetch import Fetcher
from certcast.consumer.state import State
from certcast.publisher.hosts.sealed_keys import seal_missing
from certcast.publisher.releases import Releases
from certcast.publisher.signer import Signer
from certcast.release import host_identity
from certcast.release.certificate import describe, read_chain
from certcast.release.sealing import Recipient
from certcast.release.source import Release
from certcast.storage import open_store
from certcast.storage.oss import OssStore
from certcast_lab.aliyun import signatures
from certcast_lab.aliyun.cloud import REGION
from certcast_lab.configuration import consumer_toml, renewal_toml
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.oss import oss_signatures
from certcast_lab.serving.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


NAMES = ("example.test", "*.example.test")
WANTED = CertificateConfig("example.test", NAMES)
# A run with nothing to do must not import any of these: SDK, X.509, TLS; and without a socket, no network.
HEAVY = ("alibabacloud_oss_v2", "alibabacloud_credentials", "cryptography", "ssl", "socket", "requests")


class Bench:
    """The lab with one consumer whose releases come from a CA that issues at once."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ca = Authority("bench")
        self.issued = datetime.now(timezone.utc) - timedelta(days=1)
        self.host = lab.host("web1")
        roots = lab.folder / "bench-root.pem"
        roots.write_bytes(self.ca.pem)
        toml = consumer_toml(lab, self.host).replace(str(lab.roots_file), str(roots))
        self.host.certcast_toml.write_text(toml)
        self.environment = {**os.environ, **lab.environment("consumer")}
        renewal = lab.host("renewal")
        renewal.certcast_toml.write_text(renewal_toml(lab, renewal, serves=False))
        config = load(renewal.certcast_toml)
        assert config.renewal is not None
        self.signer = Signer.of(config, config.renewal, "bench")

    def certcast(self, name: str, *arguments: str, before: Callable[[], None] | None = None) -> Command:
        """Return a certcast command on the consumer."""
        argv = [CERTCAST, "--config", str(self.host.certcast_toml), *arguments]
        return Command(name, argv, self.environment, before)

    def publish(self) -> None:
        """Publish a newer release with a new key, as the renewal host would."""
        self.issued += timedelta(seconds=1)
        config = load(self.host.certcast_toml).store
        with _environment(self.lab.environment("renewal")):
            store = OssStore.from_config(StoreConfig(config.url, config.region, config.endpoints))
        Releases(WANTED, store, self.signer).publish(self.release(), now=datetime.now(timezone.utc))

    def release(self) -> Release:
        """Return what the renewal host would hold after a renewal now."""
        pair = self.ca.issue(*NAMES, not_before=self.issued)
        leaf = describe(read_chain(pair.fullchain_pem).leaf)
        return Release("example.test", "1-bench", pair.fullchain_pem, pair.key_pem, leaf)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def consumer(bench: Bench) -> None:
    """What a host that serves pays."""
    bench.publish()
    include(bench)
    floor = Command("floor", [sys.executable, "-c", "pass"], bench.environment)

    bare, idle = measure(floor, bench.certcast("idle", "pull"), runs=15)
    row("python3 -c pass", f"{bare.wall * 1000:.0f} ms, {bare.memory:.0f} MiB", "the floor")
    row(
        "pull, nothing due",
        f"{idle.wall * 1000:.0f} ms = {idle.wall / bare.wall:.1f} x floor, {idle.memory:.0f} MiB",
        "<= 12 x, <= 30 MiB",
    )
    loaded = heavy_modules(bench)
    row("  of its imports, SDK, X.509, TLS and sockets", ", ".join(loaded) or "none", "none")

    requests = len(bench.lab.cloud.oss.requests)
    (unchanged,) = measure(bench.certcast("304", "pull", "--now"), runs=9)
    answers = {request.status for request in bench.lab.cloud.oss.requests[requests:]}
    assert answers == {304}, answers
    row("pull, answered 304", f"{unchanged.cpu:.2f} s CPU, {unchanged.wall:.2f} s wall", "<= 0.5 s CPU")

    row("pull --watch, each poll (304)", f"{1000 * watch(bench):.1f} ms CPU", "<= 10 ms CPU")

    (changed,) = measure(bench.certcast("change", "pull", "--now", before=bench.publish), runs=7)
    row("pull with a change, to its proof", f"{changed.wall:.2f} s wall", "<= 1.2 s wall")


def include(bench: Bench) -> None:
    """Bring the consumer to where its certificate is included and proved."""
    bench.lab.certcast(bench.host.certcast_toml, "pull", user="consumer")
    bench.host.include(bench.host.certcast_folder / "certs/example.test/nginx.conf")
    bench.certcast("first", "pull").run()


def heavy_modules(bench: Bench) -> list[str]:
    """Return which of HEAVY a `pull` with nothing due imports."""
    argv = [sys.executable, "-X", "importtime", *bench.certcast("", "pull").argv]
    done = subprocess.run(argv, env=bench.environment, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return [name for name in HEAVY if name in imported]


def watch(bench: Bench, polls: int = 100) -> float:
    """Return the CPU seconds of one poll of a resident `pull --watch`, the start not counted.

    Each poll asks twice: for the manifest, and for what is sealed to this host.
    """

    def wait_for(more: int) -> None:
        enough = len(bench.lab.cloud.oss.requests) + 2 * more
        while len(bench.lab.cloud.oss.requests) < enough:
            assert child.poll() is None, "pull --watch ended"
            time.sleep(0.005)

    argv = bench.certcast("watch", "pull", "--now", "--watch", "20ms").argv
    child = subprocess.Popen(argv, env=bench.environment)
    try:
        wait_for(5)
        before = cpu_seconds(child.pid)
        wait_for(polls)
        return (cpu_seconds(child.pid) - before) / polls
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def cpu_seconds(pid: int) -> float:
    """Return what the kernel has accounted to a running process (proc(5), stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def trust(bench: Bench) -> None:
    """What signing and sealing cost in a process that has its imports, by the clock."""
    store = open_store(StoreConfig("memory://bench"))
    release, now = bench.release(), datetime.now(timezone.utc)
    fleet = [Recipient.of_host(f"web{number}", host_identity.new_key("")[1]) for number in range(1000)]

    def seal() -> None:
        for key in store.list(""):
            store.delete(key)
        seal_missing(store, "example.test", release.leaf.sha256, fleet, lambda: release.privkey)

    (sealing_all,) = in_turn(seal, runs=3)
    assert len(store.list("")) == len(fleet)
    row("a release's key sealed to 1,000 hosts, into memory", f"{sealing_all:.2f} s", "<= 5 s")

    Releases(WANTED, store, bench.signer).publish(release, now=now)
    config = load(bench.host.certcast_toml)
    at_memory = replace(config, store=replace(config.store, url=store.url))
    wanted, roots = at_memory.certificates[0], at_memory.consumer.trust_roots if at_memory.consumer else None

    def take() -> None:
        folder = Folder(at_memory.state_dir, "bench")
        found = current.fetch_trusted(store, at_memory, wanted, State(store=store.url), folder).manifest
        fetcher = Fetcher(at_memory, store)
        pair = {"fullchain.pem": fetcher.chain(found), "privkey.pem": fetcher.privkey(found)[0]}
        gate.require_published(pair, found)
        gate.require_fit(pair, found, names=wanted.names, trust_roots=roots, proved=None, now=now)

    (taking,) = in_turn(take, runs=30)
    row("a release verified, unsealed, and through the gate", f"{1000 * taking:.1f} ms", "<= 50 ms")


def in_turn(*work: Callable[[], None], runs: int) -> list[float]:
    """Return the median wall seconds of each, after one run that is not counted: it imports."""
    for one in work:
        one()
    times: list[list[float]] = [[] for _ in work]
    for _ in range(runs):
        for one, spent in zip(work, times, strict=True):
            begun = time.perf_counter()
            one()
            spent.append(time.perf_counter() - begun)
    return [median(spent) for spent in times]


def emulators(bench: Bench) -> None:
    """How much traffic the lab itself can bear: one client, one connection, every request signed."""
    lab = bench.lab
    for name, url, request in (
        ("Alidns emulator, DescribeDomainRecords", lab.alidns_url, describe_domain_records),
        ("OSS emulator, GetObject", lab.oss_url, get_object),
    ):
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        begun, count = time.perf_counter(), 500
        for number in range(count):
            target, headers = request(lab, number)
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, (name, answer.status)
        connection.close()
        row(name, f"{count / (time.perf_counter() - begun):,.0f} requests/s", "")


def describe_domain_records(lab: Lab, number: int) -> tuple[str, dict[str, str]]:
    """Return a request signed with RPC-SHA1, with a nonce of its own."""
    user = lab.cloud.renewal
    parameters = {
        "Action": "DescribeDomainRecords",
        "DomainName": "example.test",
        "Version": "2015-01-09",
        "Format": "JSON",
        "AccessKeyId": user.access_key_id,
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "SignatureNonce": f"bench-{os.getpid()}-{number}",
        "Timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    text = signatures.rpc_string_to_sign("GET", parameters)
    parameters["Signature"] = signatures.rpc_signature(text, user.access_key_secret)
    return "/?" + urlencode(parameters), {}


def get_object(lab: Lab, _number: int) -> tuple[str, dict[str, str]]:
    """Return a request for the manifest, signed with V4."""
    user = lab.cloud.consumer
    now = datetime.now(timezone.utc)
    headers = {
        "x-oss-date": now.strftime("%Y%m%dT%H%M%SZ"),
        "x-oss-content-sha256": oss_signatures.UNSIGNED_PAYLOAD,
    }
    key = "certcast/certs/example.test/manifest"
    scope = (now.strftime("%Y%m%d"), REGION, "oss")
    claim = oss_signatures.Claim(user.access_key_id, "", scope)
    request = oss_signatures.SignedRequest("GET", lab.cloud.bucket.name, key, (), headers)
    signed = oss_signatures.signature(
        user.access_key_secret, oss_signatures.string_to_sign(request, claim), scope
    )
    credential = "/".join((user.access_key_id, *scope, "aliyun_v4_request"))
    headers["Authorization"] = f"{oss_signatures.V4} Credential={credential},Signature={signed}"
    return f"/{lab.cloud.bucket.name}/{key}", headers


def main() -> None:
    """Print the table."""
    os.environ["ALIBABA_CLOUD_ECS_METADATA_DISABLED"] = "true"
    with tempfile.TemporaryDirectory(prefix="certcast-bench-") as folder, Lab(Path(folder)) as lab:
        bench = Bench(lab)
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs; medians\n")
        consumer(bench)
        trust(bench)
        renewal(lab)
        emulators(bench)


if __name__ == "__main__":
    main()
