"""What the renewal host pays, beside a bare script on the same library, certbot, lego and dehydrated.

An order is for apex and wildcard, against the lab's pebble and nameservers. certcast's ends with "published",
the others' with two files. certbot and dehydrated get empty hooks and a CA that validates nothing, so they
do no DNS. lego does DNS, by a small script.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Command, Cost, environment_of, measure, row

from certcast.acme.issued import Issued, OrderRecord
from certcast_lab.acme.pebble import Pebble
from certcast_lab.configuration import renewal_toml
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.serving.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast_lab.web.hosts import WebHost

Certificates = dict[str, tuple[str, ...]]

NAMES = ("example.test", "*.example.test")
CERTBOT = str(Path(sys.executable).with_name("certbot"))
LAG = 2.0
# RFC 3339, of a moment long ago: the CA wants to be asked again.
LONG_AGO = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Renewing:
    """One renewal host of the lab with its own certcast.toml, and the commands that are compared."""

    lab: Lab
    host: WebHost
    environment: dict[str, str]

    @classmethod
    def with_certificates(
        cls, lab: Lab, name: str, certificates: Certificates, *, store: str | None = None
    ) -> Renewing:
        """Return a renewal host for these certificates; `store` replaces the bucket by a folder."""
        host = lab.host(name)
        text = renewal_toml(lab, host, certificates, serves=False)
        if store is not None:
            head, _, rest = text.partition("[store]\n")
            kept = [
                line
                for line in rest.splitlines()
                if not line.startswith(("url =", "region =", "endpoints ="))
            ]
            text = f'{head}[store]\nurl = "{store}"\n' + "\n".join(kept) + "\n"
        host.certcast_toml.write_text(text)
        return cls(lab, host, environment_of(lab.environment("renewal")))

    def renew(self, name: str, before: Callable[[], object] | None = None) -> Command:
        """Return `certcast renew`, as a timer runs it."""
        return Command(
            name, [CERTCAST, "--config", str(self.host.certcast_toml), "renew"], self.environment, before
        )

    def forget_issued(self) -> None:
        """Let every certificate be due, as on a first day with an account; the caps forget their orders."""
        state = self.host.certcast_folder
        shutil.rmtree(state / "issued", ignore_errors=True)
        for book in state.glob("acme/*/limits.json"):
            book.unlink()

    def let_ca_be_asked(self) -> None:
        """Let the CA's Retry-After be over, for every certificate."""
        for path in (self.host.certcast_folder / "renewing").glob("*.json"):
            fields = json.loads(path.read_text())
            path.write_text(json.dumps({**fields, "ca_again": LONG_AGO}))

    def import_issued(self, names: Certificates, ca: Authority) -> None:
        """Put a fresh certificate of another CA into certcast's own store, for each name."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        for name, dns_names in names.items():
            pair = ca.issue(*dns_names, not_before=now - timedelta(days=1))
            record = OrderRecord(self.lab.directory_url, "", "", dns_names, "p256", None, now, now)
            Issued(self.host.certcast_folder, name).add(pair.fullchain_pem, pair.key_pem, record)


def renewal(lab: Lab) -> None:
    """Print the rows about orders and about looks that find nothing to do."""
    with ExitStack() as stack:
        resolver, folder = lab.dns.resolver.address, lab.folder / "credulous"
        credulous = Pebble(folder, lab.authority, resolver=resolver, believes_everything=True)
        stack.callback(credulous.stop)
        orders(lab, credulous)
    nothing_due(lab)
    many_due(lab)


def orders(lab: Lab, credulous: Pebble) -> None:
    """One order, without a DNS lag and with one."""
    ours = Renewing.with_certificates(lab, "renewal", {"example.test": NAMES})
    renew = ours.renew("certcast", ours.forget_issued)
    bare = bare_script(lab)
    peers = [certbot(lab, credulous), *installed(lab, credulous)]
    names = ["certcast", "bare", *(one.name for one in peers)]
    costs = dict(zip(names, measure(renew, bare, *peers, runs=5), strict=True))
    found = costs["certcast"]
    what = "certcast renew, apex + wildcard, no DNS lag, to published"
    row(what, _against(found, costs["bare"], "bare script"), "<= 2.5 x")
    for peer, target in (("certbot", "<= 0.5 x"), ("lego", "<= 0.4 x"), ("dehydrated", "")):
        figure = _against(found, costs[peer], peer) if peer in costs else "not installed"
        row(f"  beside {_WORDS[peer]}", figure, target)
    lab.dns.servers[1].lag = LAG
    try:
        lagging, floor = measure(renew, bare, runs=3)
    finally:
        lab.dns.servers[1].lag = 0.0
    row(f"certcast renew, {LAG:g} s DNS lag", _against(lagging, floor, "bare script"), "<= 1.4 x")


_WORDS = {
    "certbot": "certbot with empty hooks, a CA that believes everything",
    "lego": "Debian's lego, with a script for the same emulated Alidns",
    "dehydrated": "Debian's dehydrated with an empty hook",
}


def _against(ours: Cost, theirs: Cost, name: str) -> str:
    return f"{ours.wall / theirs.wall:.2f} x {name} (CPU {ours.cpu / theirs.cpu:.2f} x)"


def bare_script(lab: Lab) -> Command:
    """Return the bare script, which brings its own account and waits for the nameservers, too."""
    servers = ["{}:{}".format(*server.address) for server in lab.dns.servers]
    script = str(Path(__file__).with_name("bare_acme.py"))
    argv = [sys.executable, script, lab.directory_url, lab.alidns_url, str(lab.folder / "bare"), *servers]
    return Command("bare", [*argv, "--", *NAMES], environment_of(lab.environment("renewal")))


def certbot(lab: Lab, credulous: Pebble) -> Command:
    """Return a certbot that orders in any case, with hooks that do nothing."""
    argv = [
        *_certbot(lab.folder / "certbot", "certonly"),
        *("--server", credulous.directory_url, "--force-renewal", "--cert-name", "example.test"),
        *("--agree-tos", "--register-unsafely-without-email", "--manual", "--preferred-challenges", "dns"),
        *("--manual-auth-hook", "true", "--manual-cleanup-hook", "true"),
        *(word for name in NAMES for word in ("-d", name)),
    ]
    return Command("certbot", argv, environment_of(lab.environment("renewal")))


def _certbot(folder: Path, command: str) -> list[str]:
    folders = ("--config-dir", folder / "etc", "--work-dir", folder / "work", "--logs-dir", folder / "logs")
    return [CERTBOT, command, "--non-interactive", *map(str, folders)]


def installed(lab: Lab, credulous: Pebble) -> list[Command]:
    """Return those of Debian's clients that are here."""
    found = []
    if shutil.which("lego"):
        found.append(lego(lab))
    if shutil.which("dehydrated"):
        found.append(dehydrated(lab, credulous))
    return found


def lego(lab: Lab) -> Command:
    """Return Debian's lego, whose alidns provider Debian leaves out: exec calls a small script instead."""
    hook = lab.folder / "lego-hook"
    script = Path(__file__).with_name("alidns_hook.py")
    hook.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    hook.chmod(0o755)
    argv = [
        *(str(shutil.which("lego")), "--server", lab.directory_url, "--path", str(lab.folder / "lego")),
        *("--accept-tos", "--email", "it@example.test", "--dns", "exec"),
        "--dns.disable-cp",  # it would look the nameservers up in the system's DNS
        *(word for name in NAMES for word in ("--domains", name)),
        "run",
    ]
    environment = {
        **environment_of(lab.environment("renewal")),
        "ALIDNS_URL": lab.alidns_url,
        "LEGO_CA_CERTIFICATES": str(lab.ca_file),
        "EXEC_PATH": str(hook),
        "EXEC_SEQUENCE_INTERVAL": "0",  # its default adds a minute
    }
    return Command("lego", argv, environment)


def dehydrated(lab: Lab, credulous: Pebble) -> Command:
    """Return Debian's dehydrated with a hook that does nothing."""
    folder = lab.folder / "dehydrated"
    folder.mkdir()
    hook = folder / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    (folder / "config").write_text(
        f'CA="{credulous.directory_url}"\nBASEDIR="{folder}"\nCHALLENGETYPE="dns-01"\nHOOK="{hook}"\n'
        f'CURL_OPTS="--cacert {lab.ca_file}"\n'
    )
    program = str(shutil.which("dehydrated"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    argv = [program, "--config", str(folder / "config"), "--cron", "--force", "--accept-terms"]
    domains = [word for name in NAMES for word in ("--domain", name)]
    return Command("dehydrated", [*argv, "--alias", "example.test", *domains], environment)


def nothing_due(lab: Lab) -> None:
    """Runs that find nothing to do, beside `certbot renew` for as many lineages."""
    floor = Command("floor", [sys.executable, "-c", "pass"], dict(os.environ))
    for count, asking in ((1, False), (1, True), (100, False), (1000, False)):
        names: Certificates = {f"c{n}.example.test": (f"c{n}.example.test",) for n in range(count)}
        folder = lab.folder / f"store{count}{asking}"
        folder.mkdir(mode=0o700)
        store = f"file://{folder}"
        ours = Renewing.with_certificates(lab, f"idle{count}{asking}".lower(), names, store=store)
        ours.import_issued(names, Authority("bench"))
        for _ in range(2):  # the first publishes, the second asks the CA
            ours.renew("settle").run()
        idle = ours.renew("idle", ours.let_ca_be_asked if asking else None)
        if count == 1000:
            cost, bare = measure(idle, floor, runs=3)
            ratio = f"{cost.cpu / bare.cpu:.0f} x python -c pass (CPU)"
            row("nothing due, 1,000 certificates", ratio, "<= 40 x")
            continue
        cost, other = measure(idle, lineages(lab, count, asking=asking), runs=7 if count == 1 else 3)
        many, asked = "s" if count > 1 else "", "the CA asked" if asking else "nothing asked"
        target = "<= 0.4 x" if count > 1 else "<= 1 x" if asking else "<= 0.45 x"
        ratio = f"{cost.cpu / other.cpu:.2f} x certbot renew (CPU; wall {cost.wall / other.wall:.2f} x)"
        row(f"nothing due, {count} certificate{many}, {asked}", ratio, target)


def lineages(lab: Lab, count: int, *, asking: bool) -> Command:
    """Return `certbot renew` with so many lineages: one that it has made, and copies of it."""
    folder = lab.folder / f"lineages{count}{asking}"
    environment = environment_of(lab.environment("renewal"))
    base = [*("--server", lab.directory_url), "--manual", "--preferred-challenges", "dns"]
    hooks = [
        *("--manual-auth-hook", f"{CERTCAST} --config {lab.host('renewal').certcast_toml} hook auth"),
        *("--manual-cleanup-hook", f"{CERTCAST} --config {lab.host('renewal').certcast_toml} hook cleanup"),
    ]
    first = [*_certbot(folder, "certonly"), *base, *hooks, "--agree-tos", "--register-unsafely-without-email"]
    Command("first", [*first, "--cert-name", "c0", "-d", "example.test"], environment).run()
    etc = folder / "etc"
    for number in range(1, count):
        name = f"c{number}"
        shutil.copytree(etc / "archive/c0", etc / "archive" / name)
        (etc / "live" / name).mkdir()
        for kind in ("cert", "chain", "fullchain", "privkey"):
            (etc / "live" / name / f"{kind}.pem").symlink_to(f"../../archive/{name}/{kind}1.pem")
        conf = (etc / "renewal/c0.conf").read_text().replace("/c0", f"/{name}")
        (etc / f"renewal/{name}.conf").write_text(conf)

    def let_ca_be_asked() -> None:
        for path in (etc / "renewal").glob("*.conf"):
            lines = [line for line in path.read_text().splitlines() if not line.startswith("ari_retry_after")]
            path.write_text("\n".join(lines) + "\n")

    argv = [*_certbot(folder, "renew"), "--no-random-sleep-on-renew"]
    return Command("certbot renew", argv, environment, let_ca_be_asked if asking else None)


def many_due(lab: Lab) -> None:
    """Twenty certificates due at once, beside one."""
    names = [f"m{number}.example.test" for number in range(20)]
    certificates: Certificates = {name: (name, f"*.{name}") for name in names}
    # Of its own: a second renewal host orders nothing that another one publishes.
    first: Certificates = {"single.example.test": ("single.example.test", "*.single.example.test")}
    one = Renewing.with_certificates(lab, "one", first)
    many = Renewing.with_certificates(lab, "many", certificates)
    lab.dns.servers[1].lag = LAG
    try:
        single, all_of_them = measure(
            one.renew("one", one.forget_issued), many.renew("twenty", many.forget_issued), runs=3
        )
    finally:
        lab.dns.servers[1].lag = 0.0
    ratio = f"{all_of_them.wall / single.wall:.2f} x one (wall)"
    row(f"20 certificates due at once, {LAG:g} s DNS lag", ratio, "<= 3 x")
