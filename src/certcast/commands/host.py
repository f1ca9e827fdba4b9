"""`certcast host add|list|remove`: who gets the private key, on the renewal host.

    host add web1 "ssh-ed25519 AAAA…"      what `certcast identity` printed on web1
    host add --group web "ssh-ed25519 …"   one identity for a scaling group, or an image
    host add --from known_hosts [NAME…]    many at once, all or none (host_lists.py)
    host add [web1] --scan web1.internal   asked of its SSH server, and confirmed (host_scan.py)

Adding writes the list (publisher/hosts/enrolled_hosts.py), then seals what is published at present. Removing
takes the name from the list, then deletes what is sealed to it. If the store fails in between, the list
counts: the same command again, or the next `certcast renew`, does the rest.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun
from certcast.config.model import Address
from certcast.config.types import host_name
from certcast.publisher.hosts import enrolled_hosts, host_lists, host_scan
from certcast.publisher.hosts.enrolled_hosts import Host
from certcast.publisher.hosts.enrolment import Enrolment
from certcast.release.sealing import require_sealable
from certcast.release.ssh_keys import PublicKey
from certcast.report import console
from certcast.report.errors import EnrolRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@click.group()
def host() -> None:
    """Say who gets the private key: enrol hosts, list them, remove them."""


@host.command()
@click.argument("words", metavar="[NAME] [KEY]", nargs=-1)
@click.option("--group", is_flag=True, help="NAME is a group: many hosts with one identity.")
@click.option(
    "--certificate", "certificates", metavar="NAME", multiple=True, help="Only this one; may repeat."
)
@click.option("--from", "list_file", metavar="FILE", help="known_hosts, lines `name key`, Ansible's facts.")
@click.option("--scan", "address", metavar="ADDRESS", help="Ask the host's SSH server, host or host:port.")
@click.option("--fingerprint", metavar="SHA256:…", help="Confirms a scan; from the host, not from the scan.")
@click.pass_context
def add(
    context: click.Context,
    *,
    words: tuple[str, ...],
    group: bool,
    certificates: tuple[str, ...],
    list_file: str | None,
    address: str | None,
    fingerprint: str | None,
) -> int:
    """Enrol a host: the private key of what is published is sealed to it at once.

    NAME is what the host calls itself, KEY its public line; `certcast identity` prints both there.
    With --from, NAMEs choose from the list ('*.internal').
    """
    run = _run(context, "add")
    config, renewal = run.config, run.renewal
    certificates = tuple(dict.fromkeys(config.chosen(name)[0].name for name in certificates))
    mistakes: list[str] = []
    if list_file is not None:
        if address or fingerprint or group:
            raise click.UsageError("--from goes with names and --certificate only")
        hosts, mistakes = _read_list(Path(list_file), words, certificates)
    elif address is not None:
        if len(words) > 1:
            raise click.UsageError("--scan asks for the key; give at most a NAME")
        hosts = [_scan(address, words, fingerprint, group=group, certificates=certificates)]
    else:
        if fingerprint:
            raise click.UsageError("--fingerprint confirms a --scan")
        if len(words) < 2:
            raise click.UsageError('give a NAME and a "KEY", or --from FILE, or --scan ADDRESS')
        # A key that lost its quotes comes as several words.
        hosts = [_host(words[0], " ".join(words[1:]), group=group, certificates=certificates)]
    before = {host.name: host for host in enrolled_hosts.read_hosts(renewal.hosts_file)}
    lock = enrolled_hosts.lock_of(config.state_dir)
    changed = enrolled_hosts.add(renewal.hosts_file, hosts, lock=lock, mistakes=mistakes)
    for new in hosts:
        console.changed(f"{new.name}: {_outcome(before.get(new.name), new)}, {new.key.fingerprint}")
    narrowed = [host.name for host in changed if host.name in before and host.certificates]
    for failure in _enrolment(run).seal(hosts, narrowed=narrowed):
        run.failed(None, failure)
    return run.status


def _outcome(old: Host | None, new: Host) -> str:
    if old is None:
        return "enrolled"
    return "enrolled already" if old.line == new.line else "enrolled otherwise now"


def _read_list(
    path: Path, wanted: tuple[str, ...], certificates: tuple[str, ...]
) -> tuple[list[Host], list[str]]:
    found = host_lists.read_list(path, certificates=certificates, wanted=wanted)
    for reason in found.left_out:
        console.hint(f"left out: {reason}")
    if not found.mistakes and sys.stdin.isatty():
        # A person's known_hosts has strangers in it, who would get the private key.
        for host in found.hosts:
            console.hint(f"  {host.name}  {host.key.fingerprint}")
        if not click.confirm(f"Shall these {len(found.hosts)} get the private key?", err=True):
            raise EnrolRefused(
                "the list was not confirmed",
                kept="nobody was enrolled",
                next=f"name those you mean: `certcast host add --from {path} NAME…`, like '*.internal'",
            )
    return found.hosts, found.mistakes


def _scan(
    text: str,
    words: tuple[str, ...],
    fingerprint: str | None,
    *,
    group: bool,
    certificates: tuple[str, ...],
) -> Host:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w][\w.-]*))(?::(\d{1,5}))?", text, re.ASCII)
    if not match or not 0 < int(match[3] or 22) < 65536:
        raise click.BadParameter(
            f"must be like web1.internal, web1.internal:2222 or [::1]:22, not {text!r}", param_hint="--scan"
        )
    address = Address(match[1] or match[2], int(match[3] or 22))
    name = words[0] if words else address.host.lower()
    if not words and (match[1] or re.fullmatch(r"[\d.]+", address.host)):
        raise click.UsageError("an address is no name: `certcast host add NAME --scan ADDRESS`")
    _checked(name)
    key = host_scan.scan(address)
    host_scan.require_confirmed(address, name, key, fingerprint)
    return Host(_checked(name), key, group, certificates)


def _host(name: str, key: str, *, group: bool, certificates: tuple[str, ...]) -> Host:
    try:
        return Host(_checked(name), require_sealable(PublicKey.parse(key)), group, certificates)
    except ValueError as error:
        raise EnrolRefused(
            f"this is no key of a host: {error}",
            expected='a line like "ssh-ed25519 AAAA…", in quotes',
            kept="nobody was enrolled",
            next=f"copy the line that `certcast identity` prints on {name}",
        ) from None


def _checked(name: str) -> str:
    try:
        return host_name(name)
    except ValueError as error:
        raise EnrolRefused(
            f"this is no name of a host: it {error}",
            next="`certcast identity` on the host shows the name that it goes by",
        ) from None


@host.command(name="list")
@click.pass_context
def list_(context: click.Context) -> int:
    """Show who is enrolled, and whether what is published at present is sealed to them."""
    run = _run(context, "list")
    config, hosts_file = run.config, run.renewal.hosts_file
    hosts = enrolled_hosts.read_hosts(hosts_file)
    if not hosts:
        console.hint(f"nobody is enrolled in {hosts_file}; `certcast host add`")
        return 0
    lacking, failures = _enrolment(run).lacking(hosts)
    console.document(_table(hosts, lacking))
    known = {certificate.name for certificate in config.certificates}
    for host in hosts:
        for name in sorted(set(host.certificates) - known):
            console.hint(f"{host.name}: no [[certificate]] in {config.path} is called {name}")
    if any(lacking.values()):
        console.hint("`certcast renew` seals what is missing")
    for failure in failures:
        run.failed(None, failure)
    return run.status


def _table(hosts: Sequence[Host], lacking: Mapping[str, list[str] | None]) -> str:
    rows = [("HOST", "CERTIFICATES", "SEALED", "FINGERPRINT")]
    for host in hosts:
        missing = lacking[host.name]
        sealed = "?" if missing is None else f"NO: {','.join(missing)}" if missing else "yes"
        name = f"@{host.name}" if host.group else host.name
        rows.append((name, ",".join(host.certificates) or "all", sealed, host.key.fingerprint))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


@host.command()
@click.argument("name")
@click.argument("key", nargs=-1)
@click.pass_context
def remove(context: click.Context, name: str, key: tuple[str, ...]) -> int:
    """Take a host or group out: nothing new is sealed to it, and what is in the store is deleted.

    KEY is needed only to go on where deleting older versions has failed; the report shows it.
    """
    run = _run(context, "remove")
    config, renewal = run.config, run.renewal
    name = _checked(name.removeprefix("@"))
    given = _host(name, " ".join(key), group=False, certificates=()) if key else None
    removed = enrolled_hosts.remove(renewal.hosts_file, name, lock=enrolled_hosts.lock_of(config.state_dir))
    if removed is not None:
        console.changed(f"{name}: removed, {removed.key.fingerprint}")
    leaver = removed or given
    deleted, failures = _enrolment(run).take_away(name, leaver.key if leaver else None)
    for certificate, count in deleted.items():
        console.changed(f"{name}: {count} sealed key{'s' if count != 1 else ''} of {certificate} deleted")
    if leaver is None and not deleted and not failures:
        raise EnrolRefused(
            f"nobody is enrolled as {name}",
            next="`certcast host list` shows who is",
        )
    certificates = [certificate.name for certificate in config.certificates]
    which = ", ".join(name for name in certificates if leaver is None or leaver.gets(name))
    console.hint(
        f"What {name} has fetched it still has, private keys included. To make that worthless, for each of\n"
        f"{which}: `certcast renew --replace NAME --reason superseded`\n"
        "(`--reason keyCompromise` if somebody else may have it)."
    )
    for failure in failures:
        run.failed(None, failure)
    return run.status


def _run(context: click.Context, command: str) -> CommandRun:
    return CommandRun(context, f"host {command}", role="renewal", attended=True, changes=True)


def _enrolment(run: CommandRun) -> Enrolment:
    return Enrolment(run.config, run.renewal, run.store, run.signer)
