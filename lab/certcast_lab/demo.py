"""The whole journey in front of a person: `certcast-lab demo`.

    1  a local cloud, a renewal host, four web hosts with their old certificates
    2  keys: the publisher's with its recovery kit, an identity for each host, the list of hosts
    3  two sources: certbot issues one certificate through certcast's hooks, `certcast renew` orders another
    4  certcast pull on each host, and the one line that its operator adds
    5  a renewal with a new key from either source, taken over while clients connect without pause;
       one host's nginx is broken on purpose meanwhile
    6  a thief with the right to write to the bucket tries to get a certificate of their own installed
    7  what is left behind, and what each host serves

certcast and certbot run as the installed commands, in processes of their own, as cron would run them.
Python's `ssl` alone says what the hosts serve. Each claim is a check; a claim that does not hold makes
the exit status 1.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from certcast_lab.acme.renewal_info import Window
from certcast_lab.aliyun.cloud import PREFIX
from certcast_lab.configuration import EXAMPLE, Names, consumer_toml, renewal_toml
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.oss.oss_bucket import Stored
from certcast_lab.serving.children import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certcast_lab.web.hosts import Served, WebHost

LAG = 2.0  # seconds that the second nameserver is behind
HOSTS = ("web1", "web2", "web3")
BROKEN = "web3"
SHOP = "shop.example.test"  # the certificate that a certbot renews, and the host that serves it alone
SHOP_HOST = "shop1"
CERTBOT = str(Path(sys.executable).with_name("certbot"))
NGINX_TEST = 36  # the exit status that certcast documents for NGINX-TEST
NOT_INCLUDED = 39
SIGNATURE = 33


@dataclass
class Story:
    """What is told, and which claims did not hold."""

    begun: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)

    def chapter(self, title: str) -> None:
        """Begin a part, with the seconds since the start."""
        print(f"\n[{time.monotonic() - self.begun:4.1f} s] {title}", flush=True)

    def tell(self, text: str) -> None:
        """Print text, indented below its chapter."""
        for line in text.rstrip().splitlines():
            print(f"    {line}", flush=True)

    def check(self, claim: str, holds: bool) -> None:
        """Print a claim with whether it holds."""
        print(f"    {'ok    ' if holds else 'FAILED'}  {claim}", flush=True)
        if not holds:
            self.failed.append(claim)

    def run(self, lab: Lab, host: str, configuration: Path, *arguments: str, user: str) -> int:
        """Run certcast on a host, show command and output, return the exit status."""
        self.tell(f"{host}$ certcast {shlex.join(arguments)}")
        done = lab.certcast(configuration, *arguments, user=user)  # type: ignore[arg-type]  # one of two words
        self._show(done.stdout + done.stderr)
        return done.returncode

    def certbot(self, lab: Lab, renewal: WebHost, *arguments: str) -> int:
        """Run certbot with certcast's three hooks, show command and output, return the exit status."""
        hook = shlex.join([CERTCAST, "--config", str(renewal.certcast_toml), "hook"])
        lines = [
            arguments,
            ("--manual", "--preferred-challenges", "dns"),
            ("--manual-auth-hook", f"{hook} auth"),
            ("--manual-cleanup-hook", f"{hook} cleanup"),
            ("--deploy-hook", f"{hook} deploy"),
        ]
        shown = " \\\n    ".join(shlex.join(line).replace(hook, "certcast hook") for line in lines)
        self.tell(f"{renewal.name}$ certbot {shown}")
        argv = [CERTBOT, *(word for line in lines for word in line), *_certbots_place(lab, renewal)]
        environment = {"PATH": os.environ["PATH"], **lab.environment("renewal")}
        done = run(argv, environment, stderr=subprocess.STDOUT)
        self._show(done.stdout.partition("NEXT STEPS:")[0])
        return done.returncode

    def _show(self, output: str) -> None:
        self.tell("\n".join(f"  {line}" for line in output.splitlines()))


class Clients:
    """One client a host that shakes hands without pause, as visitors do; nothing is resumed."""

    def __init__(self, hosts: list[WebHost]) -> None:
        self.handshakes = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._connect, args=(host,)) for host in hosts]

    @contextmanager
    def connecting(self) -> Iterator[Clients]:
        """Keep connecting inside the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _connect(self, host: WebHost) -> None:
        while not self._stop.is_set():
            try:
                host.served("www.example.test")
            except OSError as error:
                with self._lock:
                    self.failures.append(f"{host.name}: {error}")
            with self._lock:
                self.handshakes += 1


def demo(*, keep: bool) -> int:
    """Tell the story; return 0 if every claim held, else 1. With `keep`, stay until Ctrl-C."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="certcast-demo-")))
        story = Story()
        story.chapter("a local cloud")
        lab = stack.enter_context(Lab(folder))
        renewal, hosts, shop = _set_up(lab, story)
        _keys(lab, renewal, [*hosts, shop], story)
        _first_certificates(lab, renewal, story)
        _first_pulls(lab, hosts, shop, story)
        _second_certificate(lab, renewal, hosts, story)
        _renewed_by_certbot(lab, renewal, shop, story)
        _stranger(lab, renewal, hosts, story)
        _left_behind(lab, renewal, [*hosts, shop], story)
        _where_to_look(lab, keep, story)
        if keep:
            _until_interrupted()
    return 1 if story.failed else 0


def _set_up(lab: Lab, story: Story) -> tuple[WebHost, list[WebHost], WebHost]:
    """Return the renewal host, the hosts of example.test, and the one of shop.example.test."""
    lab.dns.servers[1].lag = LAG
    renewal = lab.host("renewal")
    certificates = {**EXAMPLE, SHOP: (SHOP,)}
    text = renewal_toml(lab, renewal, certificates, serves=False, keys=False, by_certbot=[SHOP])
    renewal.certcast_toml.write_text(text)
    hosts = [lab.host(name) for name in HOSTS]
    shop = lab.host(SHOP_HOST, names=(SHOP,))
    story.tell(
        f"real:      CA (pebble) {lab.directory_url}, certbot, nginx on {len(hosts) + 1} hosts,\n"
        f"           two nameservers (the second {LAG:g} s behind), SMTP\n"
        f"emulated:  Alidns {lab.alidns_url}, OSS {lab.oss_url}"
    )
    return renewal, hosts, shop


def _certificate_of(host: WebHost) -> str:
    return SHOP if host.name == SHOP_HOST else "example.test"


def _certbots_folder(renewal: WebHost) -> Path:
    return renewal.root / "etc/letsencrypt"


def _certbots_place(lab: Lab, renewal: WebHost) -> list[str]:
    """Return what certbot asks a person at its first run, and where the lab's CA and folders are."""
    root = renewal.root
    return [
        *("--non-interactive", "--agree-tos", "--register-unsafely-without-email"),
        *("--server", lab.directory_url, "--no-random-sleep-on-renew"),
        *("--config-dir", str(_certbots_folder(renewal)), "--work-dir", str(root / "var/lib/letsencrypt")),
        *("--logs-dir", str(root / "var/log/letsencrypt")),
    ]


def _keys(lab: Lab, renewal: WebHost, hosts: list[WebHost], story: Story) -> None:
    story.chapter("keys, once: the publisher signs, and private keys are sealed to each host")
    passphrase = lab.trust.folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_hex(16))
    kit = lab.trust.folder / "kit.txt"
    arguments = ("publisher", "init", "--passphrase-file", str(passphrase), "--kit", str(kit))
    status = story.run(lab, renewal.name, renewal.certcast_toml, *arguments, user="renewal")
    story.check("a signing key, and a recovery kit for the safe", status == 0 and kit.exists())
    for host in hosts:
        certificates: Names = {SHOP: (SHOP,)} if host.name == SHOP_HOST else EXAMPLE
        host.certcast_toml.write_text(consumer_toml(lab, host, certificates, keys=False))
        made = lab.certcast(host.certcast_toml, "identity", user="consumer")
        story.tell(f"{host.name}$ certcast identity\n  {made.stdout.strip()}")
        status = story.run(
            lab,
            renewal.name,
            renewal.certcast_toml,
            "host",
            "add",
            host.name,
            made.stdout.strip(),
            "--certificate",
            _certificate_of(host),
            user="renewal",
        )
        story.check(f"{host.name} is enrolled", (made.returncode, status) == (0, 0))


def _first_certificates(lab: Lab, renewal: WebHost, story: Story) -> None:
    story.chapter(f'source = "certbot": a certbot gets {SHOP} through the three hooks')
    status = story.certbot(lab, renewal, "certonly", "--cert-name", SHOP, "-d", SHOP)
    published = lab.cloud.bucket.get(f"{PREFIX}/certs/{SHOP}/manifest")
    story.check("issued by certbot, published by its deploy hook", status == 0 and published is not None)

    story.chapter('source = "acme": certcast itself orders example.test and *.example.test')
    before = _contents(_certbots_folder(renewal))
    status = story.run(lab, renewal.name, renewal.certcast_toml, "renew", user="renewal")
    story.check("issued and published", status == 0)
    story.check(
        f"{SHOP} was left to certbot, whose files are as they were",
        _contents(_certbots_folder(renewal)) == before and _issued(renewal) == ["example.test"],
    )


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _issued(renewal: WebHost) -> list[str]:
    """Return the names of the certificates that certcast has ordered."""
    return sorted(folder.name for folder in (renewal.certcast_folder / "issued").iterdir())


def _first_pulls(lab: Lab, hosts: list[WebHost], shop: WebHost, story: Story) -> None:
    story.chapter("the hosts take them over; each operator adds one line, once")
    for host in [*hosts, shop]:
        if host is hosts[0]:
            first = story.run(lab, host.name, host.certcast_toml, "pull", user="consumer")
            story.tell(f"{host.name}: its operator adds that line")
        else:
            first = lab.certcast(host.certcast_toml, "pull", user="consumer").returncode
        host.include(host.certcast_folder / f"certs/{_certificate_of(host)}/nginx.conf")
        then = story.run(lab, host.name, host.certcast_toml, "pull", user="consumer")
        story.check(
            f'{host.name}: first "staged, not included"; after the line, seen being served',
            (first, then) == (NOT_INCLUDED, 0),
        )
    _check_same_leaf(hosts, story)


def _second_certificate(lab: Lab, renewal: WebHost, hosts: list[WebHost], story: Story) -> None:
    story.chapter("the CA wants it replaced: a new key rolls out while clients connect without pause")
    before = hosts[0].served()
    broken = next(host for host in hosts if host.name == BROKEN)
    now = datetime.now(timezone.utc)
    (live,) = (renewal.certcast_folder / "issued/example.test").glob("1-*/fullchain.pem")
    lab.renewal_info.suggest(
        live.read_bytes(),
        Window(now - timedelta(days=2), now - timedelta(days=1)),
    )
    broken.break_configuration()
    story.tell(f"{BROKEN}: somebody breaks its nginx configuration")
    with Clients(hosts).connecting() as clients:
        status = story.run(lab, renewal.name, renewal.certcast_toml, "renew", user="renewal")
        story.check("renewed before its time, as the CA suggested", status == 0)
        for host in hosts:
            status = story.run(lab, host.name, host.certcast_toml, "pull", "--now", user="consumer")
            if host is broken:
                story.check(f"{BROKEN}: refused by nginx -t", status == NGINX_TEST)
                story.check(f"{BROKEN}: goes on serving what it served", host.served() == before)
            else:
                story.check(f"{host.name}: seen being served", status == 0 and host.served() != before)
        _show_mail(lab, story)
        broken.mend()
        story.tell(f"{BROKEN}: its operator mends the configuration")
        status = story.run(lab, BROKEN, broken.certcast_toml, "pull", user="consumer")
        story.check(f"{BROKEN}: caught up by itself", status == 0)
    story.check(
        f"{clients.handshakes:,} handshakes meanwhile, {len(clients.failures)} failed",
        not clients.failures and clients.handshakes > 0,
    )
    _check_same_leaf(hosts, story)


def _renewed_by_certbot(lab: Lab, renewal: WebHost, shop: WebHost, story: Story) -> None:
    story.chapter("certbot renews its own: the same three hooks, and the same way to the host")
    before = shop.served(SHOP)
    status = story.certbot(lab, renewal, "renew", "--cert-name", SHOP, "--force-renewal")
    story.check("renewed by certbot, published by its deploy hook", status == 0)
    status = story.run(lab, shop.name, shop.certcast_toml, "pull", "--now", user="consumer")
    story.check(f"{shop.name}: seen being served", status == 0 and shop.served(SHOP) != before)


def _stranger(lab: Lab, renewal: WebHost, hosts: list[WebHost], story: Story) -> None:
    story.chapter("a thief has an AccessKey that may read and write the bucket")
    bucket = lab.cloud.bucket
    objects = {key: bucket.get(key) for key in bucket.keys("")}
    kept = [
        *(renewal.certcast_folder / "issued").glob("*/*/privkey.pem"),
        *_certbots_folder(renewal).glob("archive/*/privkey*.pem"),
    ]
    secret = [_key_lines(path.read_text()) for path in kept]
    found = [
        key
        for key, stored in objects.items()
        if stored and (b"PRIVATE KEY" in stored.body or any(lines in stored.body for lines in secret))
    ]
    story.check(
        f"{len(objects)} objects in the bucket, private keys among them: {len(found)} (of {len(secret)})",
        not found and len(secret) == 4,
    )

    host, pointer = hosts[0], f"{PREFIX}/certs/example.test/manifest"
    before, genuine = host.served(), bucket.get(pointer)
    assert genuine is not None
    document = genuine.body.partition(b"-----BEGIN SSH SIGNATURE-----")[0]
    forged = document.replace(b'"sequence": 2', b'"sequence": 3')
    bucket.put(pointer, Stored(forged + lab.trust.signed_by_stranger(forged), 0))
    story.tell("the thief publishes a manifest, signed with another key")
    status = story.run(lab, host.name, host.certcast_toml, "pull", "--now", user="consumer")
    story.check(f"{host.name}: refused", status == SIGNATURE and host.served() == before)
    status = story.run(lab, renewal.name, renewal.certcast_toml, "renew", "--now", user="renewal")
    restored = bucket.get(pointer)
    story.check(
        "the renewal host puts its own back, and alarms",
        status == SIGNATURE and restored is not None and document in restored.body,
    )


def _key_lines(pem: str) -> bytes:
    return "".join(pem.splitlines()[1:-1]).encode()


def _show_mail(lab: Lab, story: Story) -> None:
    mail = lab.mailbox.wait_for(lambda received: "NGINX-TEST" in received.text)
    story.tell("")
    story.tell(f"the mail to {', '.join(mail.recipients)}:")
    story.tell("\n".join(f"  | {line}" for line in [f"Subject: {mail.subject}", "", *mail.text.splitlines()]))
    story.tell("")


def _check_same_leaf(hosts: list[WebHost], story: Story) -> None:
    leaves: set[Served] = {host.served("www.example.test") for host in hosts}
    story.check(
        "a TLS client of another make sees one and the same certificate on every host", len(leaves) == 1
    )


def _left_behind(lab: Lab, renewal: WebHost, hosts: list[WebHost], story: Story) -> None:
    story.chapter("what is left behind, and what each host serves")
    records = lab.cloud.challenge_records()
    story.check(f"TXT records left: {len(records)}", not records)
    leftovers = list(lab.folder.glob("hosts-*/*/var/lib/certcast/certs/*/incoming-*"))
    story.check(f"staging folders left: {len(leftovers)}", not leftovers)
    unfinished = list((renewal.certcast_folder / "issued").glob("*/.*"))
    story.check(f"unfinished orders left: {len(unfinished)}", not unfinished)
    story.tell("")
    story.tell(f"{'host':<6}{'serial':<40}{'valid until':<22}proved")
    for host in hosts:
        served = host.served()
        snippet = host.certcast_folder / f"certs/{_certificate_of(host)}/nginx.conf"
        proved = served.sha256[:16] in snippet.read_text()
        until = f"{served.not_after:%Y-%m-%d %H:%M} UTC"
        story.tell(f"{host.name:<6}{served.serial:<40}{until:<22}{'yes' if proved else 'NO'}")
        story.check(f"{host.name} serves what its certcast proved", proved)


def _where_to_look(lab: Lab, keep: bool, story: Story) -> None:
    story.chapter("done" if not story.failed else f"{len(story.failed)} claims did not hold")
    for claim in story.failed:
        story.tell(f"FAILED  {claim}")
    if keep:
        story.tell(
            f"it stays until Ctrl-C; everything is below {lab.folder}\n"
            f"  openssl s_client -connect 127.0.0.1:{lab.hosts['web1'].ports[0]} -servername www.example.test"
        )
    else:
        story.tell(
            "certcast-lab demo --keep    the same, and it stays for you to look into\n"
            "certcast-lab up             the local cloud alone, to try certcast by hand\n"
            "README.md                   a real renewal host and a real consumer"
        )


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("\nstopping")
