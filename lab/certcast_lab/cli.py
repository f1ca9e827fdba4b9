"""`certcast-lab`: the local cloud from a shell.

    certcast-lab up      the lab with a renewal host and one web host, until Ctrl-C
    certcast-lab show    what stands in its zone, bucket and mailbox
    certcast-lab demo    the whole journey, told and checked

Imports stand inside the commands: `show` needs none of the lab.
"""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from certcast_lab.lab import Lab
    from certcast_lab.web.hosts import WebHost


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A local cloud for certcast: CA, DNS, OSS, mail and web servers, on loopback only."""
    signal.signal(signal.SIGTERM, _interrupt_once)
    # Ignored where a shell starts a job in the background; then it stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt_once)


def _interrupt_once(_signal: int, _frame: object) -> None:
    """Begin to take everything down in order; a second signal must not cut that short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


@main.command()
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
def demo(keep: bool) -> None:
    """Renew, publish, take over on three hosts; tell the story and check every claim."""
    from certcast_lab.demo import demo as tell

    sys.exit(tell(keep=keep))


@main.command()
@click.option("--lag", type=float, default=2.0, show_default=True, help="Seconds that ns2 is behind.")
def up(lag: float) -> None:
    """Start the lab with hosts `renewal` and `web1`, say where everything is, stay until Ctrl-C."""
    from certcast_lab import show
    from certcast_lab.configuration import consumer_toml, renewal_toml
    from certcast_lab.lab import Lab
    from certcast_lab.serving.asgi import Server
    from certcast_lab.serving.children import ChildFailed

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="certcast-lab-")))
        try:
            lab = stack.enter_context(Lab(folder))
        except ChildFailed as failure:
            raise click.ClickException(f"{failure}\n(Debian: apt-get install pebble nginx)") from None
        lab.dns.servers[1].lag = lag
        renewal, web1 = lab.host("renewal"), lab.host("web1")
        renewal.certcast_toml.write_text(renewal_toml(lab, renewal))
        web1.certcast_toml.write_text(consumer_toml(lab, web1))
        window = stack.enter_context(Server(show.app(lab)))
        click.echo(_endpoints(lab))
        click.echo(_shell(lab, "renewal", renewal, window.url))
        click.echo(_shell(lab, "consumer", web1, window.url))
        click.echo("Ctrl-C ends it and removes everything.")
        try:
            while True:
                signal.pause()
        except KeyboardInterrupt:
            click.echo("\nstopping", err=True)


@main.command()
@click.argument("page", type=click.Choice(["zone", "bucket", "mailbox"]))
@click.option("--lab", "url", envvar="CERTCAST_LAB", help="The lab's address; default: CERTCAST_LAB.")
def show(page: str, url: str | None) -> None:
    """Show what stands in the zone, the bucket or the mailbox of a running lab."""
    if url is None:
        raise click.UsageError("no lab given: export CERTCAST_LAB as `certcast-lab up` prints it")
    # A proxy of the environment leads out of this machine, and the lab is on it.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/{page}", timeout=5) as answer:
            click.echo(answer.read().decode(), nl=False)
    except (urllib.error.URLError, ValueError) as error:
        raise click.ClickException(f"no lab answers at {url}: {error}") from None


def _endpoints(lab: Lab) -> str:
    nameservers = "\n".join(
        f"  {server.hostname:<18} {server.address[0]}:{server.port} (UDP and TCP), {server.lag:g} s behind"
        for server in lab.dns.servers
    )
    ports = lab.mailbox.ports
    listeners = "\n".join(
        f"  nginx on {host.name:<9} https://127.0.0.1:{host.ports[0]}" for host in lab.hosts.values()
    )
    first, web1 = lab.dns.servers[0].port, lab.hosts["web1"]
    return f"""\
Everything below {lab.folder} and on loopback.

  ACME directory     {lab.directory_url}
  Alidns API         {lab.alidns_url}
  OSS API            {lab.oss_url}
{nameservers}
  resolver           127.0.0.1:{lab.dns.resolver.port}, as the slowest nameserver sees it
  SMTP               127.0.0.1: {ports["none"]} plain, {ports["starttls"]} STARTTLS, {ports["tls"]} TLS
{listeners}

Look into it (after one of the exports below):

  certcast-lab show zone
  certcast-lab show bucket
  certcast-lab show mailbox
  openssl s_client -connect 127.0.0.1:{web1.ports[0]} -servername www.example.test </dev/null
  curl --cacert {lab.ca_file} {lab.directory_url}
  dig @127.0.0.1 -p {first} _acme-challenge.example.test TXT        (from Debian's bind9-dnsutils)
"""


def _shell(lab: Lab, user: str, host: WebHost, window: str) -> str:
    """Return what a terminal exports to be this host, and what to type there first."""
    exported = {
        **lab.environment("renewal" if user == "renewal" else "consumer"),
        "CERTCAST_CONFIG": str(host.certcast_toml),
        "CERTCAST_LAB": window,
    }
    exports = "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in exported.items())
    exports += f"\n  export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    first = "certcast renew" if user == "renewal" else "certcast pull"
    return f"A terminal on host {host.name}, whose site is {host.site_conf}:\n\n{exports}\n  {first}\n"
