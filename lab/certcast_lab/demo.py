"""The whole journey in front of a person: `certcast-lab demo`.

    1  a local cloud, a renewal host, three web hosts with their old certificates
    2  certcast renew: certbot, DNS-01 with a nameserver that lags, publish
    3  certcast pull on each host, and the one line that its operator adds
    4  a renewal with a new key, taken over while clients connect without pause;
       one host's nginx is broken on purpose meanwhile
    5  what is left behind, and who serves what

Everything that certcast does here it does as the installed command, in a process
of its own, as cron would run it. What the hosts serve is looked at with Python's
`ssl` alone. Each claim is a check; one that does not hold makes the exit status 1.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from certcast_lab.configuration import consumer_toml, renewal_toml
from certcast_lab.lab import Lab
from certcast_lab.renewal_info import Window

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from certcast_lab.hosts import Served, WebHost

LAG = 2.0  # seconds that the second nameserver is behind
HOSTS = ("web1", "web2", "web3")
BROKEN = "web3"
NGINX_TEST = 36  # the exit status that certcast documents for NGINX-TEST
NOT_INCLUDED = 39


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
        self.tell(f"{host}$ certcast {' '.join(arguments)}")
        done: subprocess.CompletedProcess[str] = lab.certcast(configuration, *arguments, user=user)  # type: ignore[arg-type]  # one of two words
        self.tell("\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines()))
        return done.returncode


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
        renewal, hosts = _set_up(lab, story)
        _first_certificate(lab, renewal, hosts, story)
        _second_certificate(lab, renewal, hosts, story)
        _left_behind(lab, hosts, story)
        _where_to_look(lab, keep, story)
        if keep:
            _until_interrupted()
    return 1 if story.failed else 0


def _set_up(lab: Lab, story: Story) -> tuple[WebHost, list[WebHost]]:
    lab.dns.servers[1].lag = LAG
    renewal = lab.host("renewal")
    renewal.certcast_toml.write_text(renewal_toml(lab, renewal, serves=False))
    hosts = [lab.host(name) for name in HOSTS]
    for host in hosts:
        host.certcast_toml.write_text(consumer_toml(lab, host))
    story.tell(
        f"real:      CA (pebble) {lab.directory_url}, nginx on {len(hosts)} hosts,\n"
        f"           two nameservers (the second {LAG:g} s behind), SMTP\n"
        f"emulated:  Alidns {lab.alidns_url}, OSS {lab.oss_url}"
    )
    return renewal, hosts


def _first_certificate(lab: Lab, renewal: WebHost, hosts: list[WebHost], story: Story) -> None:
    story.chapter("the renewal host gets a certificate for example.test and *.example.test")
    status = story.run(lab, renewal.name, renewal.certcast_toml, "renew", user="renewal")
    story.check("issued and published", status == 0)

    story.chapter("three hosts take it over; each operator adds one line, once")
    for host in hosts:
        if host is hosts[0]:
            first = story.run(lab, host.name, host.certcast_toml, "pull", user="consumer")
            story.tell(f"{host.name}: its operator adds that line")
        else:
            first = lab.certcast(host.certcast_toml, "pull", user="consumer").returncode
        host.include(host.certcast_folder / "certs/example.test/nginx.conf")
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
    lab.renewal_info.suggest(
        (renewal.root / "etc/letsencrypt/live/example.test/fullchain.pem").read_bytes(),
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


def _left_behind(lab: Lab, hosts: list[WebHost], story: Story) -> None:
    story.chapter("what is left behind, and who serves what")
    records = lab.cloud.challenge_records()
    story.check(f"TXT records left: {len(records)}", not records)
    leftovers = list(lab.folder.glob("hosts-*/*/var/lib/certcast/certs/*/incoming-*"))
    story.check(f"staging folders left: {len(leftovers)}", not leftovers)
    story.tell("")
    story.tell(f"{'host':<6}{'serial':<40}{'valid until':<22}proved")
    for host in hosts:
        served = host.served()
        proved = served.sha256[:16] in (host.certcast_folder / "certs/example.test/nginx.conf").read_text()
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
            "README.md                   a real renewal host and a real consumer, five commands each"
        )


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("\nstopping")
