"""Mistakes that only two values of the configuration file together make.

Not here: what one value may be (types.py), and the report (reading.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.config.model import CertificateConfig, NginxConfig

if TYPE_CHECKING:
    from certcast.config.model import Config, ConsumerConfig, KeySource, MailConfig, StoreConfig


def contradictions(config: Config) -> list[str]:
    """Return each such mistake with its path; none if there is none."""
    mistakes = _certificate_contradictions(config.certificates)
    seen: set[str] = {certificate.name for certificate in config.certificates}
    zones = [zone.name for zone in config.zones]
    mistakes += [
        f"zone[{index}].name: {name} stands here twice"
        for index, name in enumerate(zones)
        if name in zones[:index]
    ]
    mistakes += _source_contradictions(config)
    if not config.certificates:
        mistakes.append("certificate: at least one [[certificate]] is needed")
    mistakes += _store_contradictions(config.store)
    if config.store.read_from is not None and config.renewal is not None:
        mistakes.append("store.read_from: is for hosts that only read; this one publishes, by [renewal]")
    if not config.store.publishers and config.renewal is None and config.consumer is not None:
        mistakes.append(
            "store.publishers: must hold the publisher's public keys, or anybody's certificate would do; "
            "`certcast publisher show` on the renewal host prints the line"
        )
    if config.consumer is not None:
        mistakes += _nginx_contradictions(config.consumer, seen)
        if config.renewal is None:  # which also lists what only other hosts serve
            mistakes += _unserved(config.consumer, config.certificates)
        mistakes += _path_contradictions(config.consumer, config.state_dir)
        mistakes += _copy_contradictions(config.consumer, seen)
        mistakes += _target_contradictions(config.consumer, config.state_dir)
    if config.mail is not None:
        mistakes += _mail_contradictions(config.mail)
    return mistakes


def _certificate_contradictions(certificates: tuple[CertificateConfig, ...]) -> list[str]:
    mistakes = []
    seen: set[str] = set()
    for index, certificate in enumerate(certificates):
        if certificate.name in seen:
            mistakes.append(f"certificate[{index}].name: {certificate.name} stands here twice")
        seen.add(certificate.name)
        if not certificate.names:
            mistakes.append(f"certificate[{index}].names: must hold at least one name")
        if certificate.source == "certbot":
            mistakes += [
                f'certificate[{index}].{key}: is for source = "acme"; its certbot has an option of its own'
                for key in ("key_type", "reuse_key", "preferred_chain", "profile")
                if getattr(certificate, key) != getattr(CertificateConfig, key)
            ]
    return mistakes


def _store_contradictions(store: StoreConfig) -> list[str]:
    mistakes = [
        f"store.publishers: {key.fingerprint} stands here twice"
        for index, key in enumerate(store.publishers)
        if key.blob in [other.blob for other in store.publishers[:index]]
    ]
    if store.url.startswith("oss://"):
        if store.region is None and store.read_from is None:
            mistakes.append('store.region: is needed by oss://, like "cn-hangzhou": signature V4 names it')
        return mistakes
    if len(store.endpoints) > 1:
        mistakes.append("store.endpoints: several are for oss://, whose buckets have more than one")
    mistakes += [
        f"store.{key}: is for oss://; other stores have their own way to keys"
        for key in ("profile", "role_arn", "sts_endpoint")
        if getattr(store, key) is not None
    ]
    return mistakes


def _source_contradictions(config: Config) -> list[str]:
    """Name each sts_endpoint at which no role is assumed: it would change nothing, or the account alone."""
    mistakes = []
    if config.store.url.startswith("oss://"):
        mistakes += _lonely("store.sts_endpoint", config.store)
    mistakes += _lonely("dns.sts_endpoint", config.dns)
    for index, zone in enumerate(config.zones):
        mistakes += [
            f"{mistake}; it replaces profile and role_arn of [dns], too"
            for mistake in _lonely(f"zone[{index}].sts_endpoint", zone)
        ]
    return mistakes


def _lonely(path: str, source: KeySource) -> list[str]:
    if source.sts_endpoint is None or source.role_arn is not None:
        return []
    return [f"{path}: needs role_arn beside it, the role that is assumed there"]


def _path_contradictions(consumer: ConsumerConfig, state_dir: Path) -> list[str]:
    certs = state_dir / "certs"
    written = [certs, *(path for copy in consumer.copy_to for path in copy.targets.values())]
    return [
        f"consumer.nginx[{index}].paths: none of its first paths holds {certs}, or a target of copy_to"
        for index, nginx in enumerate(consumer.nginx)
        if nginx.paths
        # A container may also have the directory of one certificate.
        and not any(
            path.is_relative_to(host) or host.is_relative_to(certs)
            for path in written
            for host in nginx.paths
        )
    ]


def _nginx_contradictions(consumer: ConsumerConfig, certificates: set[str]) -> list[str]:
    mistakes = []
    if not consumer.nginx:
        mistakes.append("consumer.nginx: at least one [[consumer.nginx]] is needed")
    for index, nginx in enumerate(consumer.nginx):
        where = f"consumer.nginx[{index}]"
        mistakes += [
            f"{where}.certificates: no [[certificate]] is called {name}"
            for name in nginx.certificates
            if name not in certificates
        ]
        if nginx.reload == NginxConfig.reload and not set(nginx.test) <= {"nginx", "-t", "-q"}:
            mistakes.append(f"{where}.reload: must be said where test is, or another nginx may be reloaded")
        if nginx.paths and not nginx.listeners:
            mistakes.append(
                f"{where}.listeners: must hold at least one address as this host sees it, "
                "since a container's own are not this host's"
            )
        if not nginx.listeners and "-t" not in nginx.test:
            mistakes.append(
                f'{where}.listeners: must hold at least one address; only a test with "-t" shows them'
            )
    return mistakes


def _unserved(consumer: ConsumerConfig, certificates: tuple[CertificateConfig, ...]) -> list[str]:
    if any(
        name not in {one.name for one in certificates} for one in consumer.nginx for name in one.certificates
    ):
        return []  # a misspelt name, which is told by itself
    return [
        f"certificate[{index}].name: no [[consumer.nginx]] serves {certificate.name}, so nothing could "
        "prove it; add it to the certificates of one"
        for index, certificate in enumerate(certificates)
        if consumer.nginx and not consumer.nginx_of(certificate.name)
    ]


def _copy_contradictions(consumer: ConsumerConfig, certificates: set[str]) -> list[str]:
    mistakes = []
    for index, copy in enumerate(consumer.copy_to):
        where = f"consumer.copy_to[{index}]"
        if copy.mode & 0o007 and (copy.privkey or copy.combined):
            mistakes.append(
                f"{where}.mode: must give others no rights, since the private key is among the files"
            )
        if not copy.targets:
            mistakes.append(f"{where}: must name a path, like fullchain or privkey")
        if copy.certificate is None and len(certificates) > 1:
            mistakes.append(f"{where}.certificate: must say which, since there are {len(certificates)}")
        elif copy.certificate is not None and copy.certificate not in certificates:
            mistakes.append(f"{where}.certificate: no [[certificate]] is called {copy.certificate}")
    return mistakes


def _target_contradictions(consumer: ConsumerConfig, state_dir: Path) -> list[str]:
    # As text: what links make of a path is seen when it is written.
    targets = [os.path.normpath(path) for copy in consumer.copy_to for path in copy.targets.values()]
    mistakes = [
        f"consumer.copy_to: two files would be written to {path}"
        for path in sorted(set(targets))
        if targets.count(path) > 1
    ]
    mistakes += [
        f"consumer.copy_to: {path} lies in state_dir, whose files are certcast's own"
        for path in sorted(set(targets))
        if Path(path).is_relative_to(os.path.normpath(state_dir))
    ]
    return mistakes


def _mail_contradictions(mail: MailConfig) -> list[str]:
    mistakes = []
    if (mail.username is None) != (mail.password_file is None):
        mistakes.append("mail: username and password_file belong together")
    if not mail.failures_to:
        mistakes.append("mail.failures_to: must hold at least one address")
    if mail.username and mail.security == "none":
        mistakes.append('mail.security: a login needs "tls" or "starttls", or the password is readable')
    return mistakes
