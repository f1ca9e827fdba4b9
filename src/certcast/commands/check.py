"""`certcast check`: read the configuration, and say what this host would do with it. It changes nothing.

    /etc/certcast/certcast.toml: good. This host renews and serves.
      example.com: example.com, *.example.com; certcast orders it
      store oss://my-bucket/tls
      is called web1; identity SHA256:… in /etc/certcast/identity
      orders at https://acme-v02.api.letsencrypt.org/directory with the account https://…/acct/1
      signs with SHA256:… in /etc/certcast/publisher
      failures are mailed to it@example.com

No server is asked: the CA's account is the one that this host has written down. A key that is not there yet
is no mistake, since a new host is checked before its keys are made. A file that is there and cannot be used
is one, with the report and exit status of every other command. A setting that works and should not stay is a
warning, on stderr.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun
from certcast.host import files
from certcast.report import console
from certcast.report.errors import CertcastError, LocalFault, SigningFailed, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.config.model import CertificateConfig, Config, RenewalConfig


@click.command()
@click.pass_context
def check(context: click.Context) -> int:
    """Read the configuration and say what this host would do with it."""
    run = CommandRun(context, "check", attended=True)
    config = run.config
    found, failures = _look(config)
    verdict = "good" if not failures else "not good, as said below"
    roles = [word for word, on in (("renews", config.renewal), ("serves", config.consumer)) if on]
    console.changed(f"{config.path}: {verdict}. This host {' and '.join(roles) or 'has no role yet'}.")
    for certificate in config.certificates:
        console.changed(f"  {certificate.name}: {', '.join(certificate.names)}{_source(config, certificate)}")
    if config.renewal is not None and (outside := _outside(config)):
        console.changed(f"  in none of the [[zone]]s, so by a CNAME at _acme-challenge into one: {outside}")
    for line in found:
        console.changed(f"  {line}")
    if len(config.store.publishers) == 1 and config.renewal is None:
        console.warned(
            "store.publishers names one key, not the spare one: if the renewal host is lost, this host must "
            "be set up anew; `certcast publisher show` there prints both"
        )
    for failure in failures:
        run.failed(None, failure)
    return run.status


def _look(config: Config) -> tuple[list[str], list[CertcastError]]:
    """Return a line for each part of the configuration, and the failures of parts that have none."""
    parts: list[Callable[[], str]] = [partial(_store, config)]
    if config.store.publishers:
        parts.append(partial(_pinned, config))
    if config.consumer is not None:
        parts.append(partial(_identity, config))
    if config.renewal is not None:
        if any(certificate.source == "acme" for certificate in config.certificates):
            parts.append(partial(_account, config, config.renewal))
        parts += [partial(_signing_key, config.renewal), partial(_enrolled, config.renewal)]
    found, failures = [], []
    parts.append(partial(_mail, config))
    for part in parts:
        try:
            with within(kept="nothing was changed"):
                found.append(part())
        except CertcastError as failure:
            failures.append(failure)
    return found, failures


def _outside(config: Config) -> str:
    """Return the names that no [[zone]] holds; none without [[zone]]s, where the account lists its own."""
    from certcast.dns01.provider import zone_of

    zones = [zone.name for zone in config.zones]
    names = [name.removeprefix("*.") for certificate in config.certificates for name in certificate.names]
    return ", ".join(name for name in dict.fromkeys(names) if zones and zone_of(name, zones) is None)


def _store(config: Config) -> str:
    if config.store.read_from is None:
        return f"store {config.store.url}"
    from certcast.storage import open_reader

    open_reader(config.store)  # asks nobody; refuses an address with a password, and what it would lay open
    return f"store {config.store.url}, read by {config.store.read_from}"


def _pinned(config: Config) -> str:
    return "takes what is signed by " + ", ".join(key.fingerprint for key in config.store.publishers)


def _identity(config: Config) -> str:
    from certcast.release import host_identity

    group = config.consumer is not None and config.consumer.group is not None
    called = f"is called {config.enrolled_as}{', as all of its group' if group else ''}"
    if config.store.encryption == "none":
        return called
    with files.reported(f"look for {config.identity}", kept="nothing was changed"):
        there = config.identity.exists()
    if not there:
        return f"{called}; no identity in {config.identity} yet: `certcast identity` makes one"
    return f"{called}; identity {host_identity.load(config.identity).public.fingerprint} in {config.identity}"


def _source(config: Config, certificate: CertificateConfig) -> str:
    """Return who renews it, on the host that would know."""
    if config.renewal is None:
        return ""
    if certificate.source == "certbot":
        return f"; the certbot of {config.renewal.certbot_config_dir} renews it"
    return "; certcast orders it"


def _account(config: Config, renewal: RenewalConfig) -> str:
    """Return the CA and our account there, whose URL may be the `accounturi` of a CAA record (RFC 8657)."""
    from certcast.acme import account
    from certcast.acme.ca import folder_of

    folder = folder_of(config.state_dir, renewal.directory)
    uri, key = account.recorded_uri(folder), account.read_key(folder)
    if uri is not None and key is not None:
        return f"orders at {renewal.directory} with the account {uri}"
    if uri is not None:
        lost = f"the key of the account {uri} is lost"
    elif key is not None:
        lost = "the account's URL is lost, and found again by its key"
    else:
        lost = "no account there yet"
    agreed = (
        "the terms of service are agreed to"
        if renewal.terms_of_service_agreed
        else "the terms of service are not agreed to: read them, then `terms_of_service_agreed = true`"
    )
    return f"orders at {renewal.directory}; {lost}; {agreed}"


def _signing_key(renewal: RenewalConfig) -> str:
    from certcast.publisher.keys import keyring
    from certcast.publisher.keys.key_files import public_file
    from certcast.publisher.signer import public_half_command

    ring = keyring.read(renewal.signing_key)
    if ring.working is None:
        return f"no signing key in {renewal.signing_key} yet: `certcast publisher init` makes one"
    if ring.published is None or ring.published.blob != ring.working.blob:
        raise SigningFailed(
            f"{public_file(renewal.signing_key)} is not the public half of the signing key",
            expected=ring.working.fingerprint,
            found=ring.published.fingerprint if ring.published else "no such file",
            next=public_half_command(renewal.signing_key),
        )
    kit = "" if ring.recovery else "; no recovery kit: `certcast publisher kit` makes one"
    return f"signs with {ring.working.fingerprint} in {renewal.signing_key}{kit}"


def _enrolled(renewal: RenewalConfig) -> str:
    from certcast.publisher.hosts import enrolled_hosts

    hosts = enrolled_hosts.read_hosts(renewal.hosts_file)
    if not hosts:
        return f"nobody is enrolled in {renewal.hosts_file} yet: `certcast host add`"
    return f"{len(hosts)} enrolled in {renewal.hosts_file}: `certcast host list` shows them"


def _mail(config: Config) -> str:
    if config.mail is None:
        return "nobody is told of failures: there is no [mail]"
    if config.mail.password_file is not None:
        from certcast.host import private_files

        path = config.mail.password_file
        try:
            private_files.read_private(path, "the mail password")
        except FileNotFoundError:
            raise LocalFault(
                "the mail password is not there, so nobody would be told of failures",
                expected=f"it in {path}",
                found="no such file",
                next=f"`install -m 600 /dev/null {path} && editor {path}`",
            ) from None
    return f"failures are mailed to {', '.join(config.mail.failures_to)}"
