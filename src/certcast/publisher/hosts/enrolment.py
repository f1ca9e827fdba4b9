"""What enrolling and removing a host does in the store, one certificate after the other.

A failure with one certificate doesn't stop the others; all failures are reported, and the
first gives the exit status.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from certcast.publisher import record, releases
from certcast.publisher.hosts import sealed_keys
from certcast.publisher.keys.key_files import is_set_up
from certcast.publisher.signer import Signer
from certcast.release import manifest
from certcast.release.sealing import Recipient, sealed_prefix
from certcast.report import console
from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.publisher.hosts.enrolled_hosts import Host
    from certcast.release.ssh_keys import PublicKey
    from certcast.storage.store import Store

Failures = list[CertcastError]


def seal(
    config: Config, renewal: RenewalConfig, hosts: Sequence[Host], *, narrowed: Collection[str]
) -> Failures:
    """Seal each current release to those of `hosts` that get it, anew where something is there.

    `narrowed` are hosts that got more certificates before, which are taken away.
    """
    names = _some([host.name for host in hosts])
    kept = f"{names}: in the list; `certcast renew` seals to them too"
    if not is_set_up(renewal.signing_key):
        click.echo("nothing was published here yet; `certcast renew` seals to them", err=True)
        return []
    try:
        signer = Signer.of(config, renewal, config.host or socket.gethostname())
    except CertcastError as failure:
        failure.kept = kept
        return [failure]
    if signer.encryption == "none":
        click.echo(
            f'nothing is sealed to anybody: {config.path} has encryption = "none"; '
            "who waits for a sealed key waits in vain",
            err=True,
        )

    def act(certificate: CertificateConfig, store: Store) -> None:
        name = certificate.name
        for one in (host for host in hosts if host.name in narrowed and not host.gets(name)):
            releases.take_away(certificate, store, signer.folder, one.name)
        anew = frozenset(host.name for host in hosts if host.gets(name))
        done = releases.seal_to(certificate, store, signer, anew) if anew else None
        if done is None:
            if anew:
                click.echo(f"{name}: nothing is published yet; `certcast renew` seals to them", err=True)
            return
        if done.sealed_to:
            console.changed(f"{name}: private key sealed to {_some(done.sealed_to)}")
        for warning in done.warnings:
            click.echo(f"warning: {name}: {warning}", err=True)

    return _each(config, act, kept=kept)


def take_away(
    config: Config, renewal: RenewalConfig, host: str, key: PublicKey | None
) -> tuple[dict[str, int], Failures]:
    """Delete what is sealed to a host, older versions included; return how many objects, by certificate.

    `key` is the host's, where it is known: an earlier try may have left older versions that no listing shows.
    """
    deleted: dict[str, int] = {}
    if not is_set_up(renewal.signing_key):  # nothing was published here
        return deleted, []
    folder = config.state_dir / "publisher"

    def act(certificate: CertificateConfig, store: Store) -> None:
        there = store.list(manifest.releases_prefix(certificate.name))
        count = sum(sealed_keys.is_sealed_to(host, one) for one in there)
        if count == 0 and key is None:
            return
        whole = releases.take_away(certificate, store, folder, host, key=key)
        deleted[certificate.name] = count
        if not whole:
            where = f"{config.store.url}/{manifest.releases_prefix(certificate.name)}*/keys/{host}.*"
            click.echo(
                f"warning: older versions of what is sealed to {host} may be left in the bucket:\n"
                f"delete there every version of {where}",
                err=True,
            )

    failures = _each(
        config,
        act,
        kept=f"{host}: not in the list any more",
        next_step=f"`certcast host remove {host}" + (f' "{key.bare}"`' if key else "`"),
    )
    return deleted, failures


def lacking(
    config: Config, renewal: RenewalConfig, hosts: Iterable[Host]
) -> tuple[dict[str, list[str] | None], Failures]:
    """Return for each host the certificates whose current release is not sealed to it.

    None where that can't be known. What is current is what this host has published last.
    """
    found: dict[str, list[str] | None] = {host.name: [] for host in hosts}
    folder = config.state_dir / "publisher"

    def act(certificate: CertificateConfig, store: Store) -> None:
        current = record.read(folder, certificate.name, config.store.url).manifest
        if current is None or config.store.encryption == "none":
            found.update((host.name, None) for host in hosts if host.gets(certificate.name))
            return
        leaf = current.leaf.sha256
        keys = set(store.list(sealed_prefix(certificate.name, leaf)))
        for host in hosts:
            missing = found[host.name]
            object_key = Recipient.of_host(host.name, host.key).object_key(certificate.name, leaf)
            if missing is not None and host.gets(certificate.name) and object_key not in keys:
                missing.append(certificate.name)

    failures = _each(config, act, kept="the list is this host's, and whole")
    if failures:
        found = dict.fromkeys(found)
    return found, failures


def _each(
    config: Config,
    act: Callable[[CertificateConfig, Store], None],
    *,
    kept: str,
    next_step: str | None = None,
) -> Failures:
    from certcast.storage import open_store

    failures: Failures = []
    try:
        store = open_store(config.store)
    except CertcastError as failure:
        failure.kept = kept
        return [failure]
    for certificate in config.certificates:
        try:
            act(certificate, store)
        except CertcastError as failure:
            failure.kept = f"{kept}; {failure.kept}" if failure.kept else kept
            if next_step:
                failure.next = f"{failure.next}\nthen {next_step}" if failure.next else next_step
            failures.append(failure)
    return failures


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
