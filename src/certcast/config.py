"""The one TOML file, as frozen types.

    /etc/certcast/certcast.toml  →  Config
      [store]                          where releases are published
      [[certificate]]                  which certificates, with which names
      [renewal] [dns] [[zone]]         on the renewal host
      [consumer] [[consumer.nginx]]    on a host that serves
      [mail]                           who is told

A host's role is which sections it has. What each type accepts, and how mistakes
are reported, is in config_reading.py.

Not checked: whether files, hosts and buckets exist. That shows when they are
used, and is reported then with the command that failed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NewType, NoReturn

from certcast.errors import ConfigInvalid

DEFAULT_PATH = Path("/etc/certcast/certcast.toml")

CertificateName = NewType("CertificateName", str)
DnsName = NewType("DnsName", str)
Zone = NewType("Zone", str)
Seconds = NewType("Seconds", float)
IdleCheck = NewType("IdleCheck", float)
Propagation = NewType("Propagation", float)
StoreUrl = NewType("StoreUrl", str)
HttpUrl = NewType("HttpUrl", str)
MailAddress = NewType("MailAddress", str)
Argv = NewType("Argv", tuple[str, ...])
AbsolutePath = NewType("AbsolutePath", Path)


@dataclass(frozen=True)
class Address:
    """Where something listens: an IP address or host name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class StoreConfig:
    """`[store]`: the bucket and where its API is.

    `url` is the store's identity: `oss://bucket/prefix`, `s3://bucket/prefix`,
    `file:///path` or `memory://name`. `profile` names an entry of the official
    `~/.aliyun/config.json`; without it the official credential chain decides.
    """

    url: StoreUrl
    region: str | None = None
    endpoint: HttpUrl | None = None
    profile: str | None = None


@dataclass(frozen=True)
class CertificateConfig:
    """`[[certificate]]`: certbot's lineage name, and the names it must hold."""

    name: CertificateName
    names: tuple[DnsName, ...]
    reuse_key: bool = False


@dataclass(frozen=True)
class RenewalConfig:
    """`[renewal]`: how certbot is run; `server` is the ACME directory's URL.

    `certbot` is the one of certcast's own environment, since the authenticator
    plugin must be importable in its process.
    """

    email: MailAddress | None = None
    server: HttpUrl = HttpUrl("https://acme-v02.api.letsencrypt.org/directory")
    certbot: Argv = Argv((str(Path(sys.executable).with_name("certbot")),))
    config_dir: AbsolutePath = AbsolutePath(Path("/etc/letsencrypt"))
    work_dir: AbsolutePath = AbsolutePath(Path("/var/lib/letsencrypt"))
    logs_dir: AbsolutePath = AbsolutePath(Path("/var/log/letsencrypt"))


@dataclass(frozen=True)
class DnsConfig:
    """`[dns]`: the Alidns API and how long a TXT value may take to be seen.

    `propagation` is None for asking the authoritative servers, or the seconds
    of a fixed wait. `resolvers` find the addresses of nameservers; without
    them the system's do.
    """

    propagation: Propagation | None = None
    deadline: Seconds = Seconds(300.0)
    settle: Seconds = Seconds(10.0)
    resolvers: tuple[Address, ...] = ()
    endpoint: HttpUrl = HttpUrl("https://alidns.aliyuncs.com")
    profile: str | None = None


@dataclass(frozen=True)
class ZoneConfig:
    """`[[zone]]`: a zone in the account; `nameservers` replaces what Alidns says of it."""

    name: Zone
    nameservers: tuple[Address, ...] = ()


@dataclass(frozen=True)
class NginxConfig:
    """`[[consumer.nginx]]`: how to test and reload one nginx, and where it listens."""

    listeners: tuple[Address, ...]
    test: Argv = Argv(("nginx", "-t"))
    reload: Argv = Argv(("nginx", "-s", "reload"))
    pid_file: AbsolutePath = AbsolutePath(Path("/run/nginx.pid"))


@dataclass(frozen=True)
class ConsumerConfig:
    """`[consumer]`: the host that serves.

    `idle_check` is how often to look outside the window, in seconds, or
    infinity for never. `trust_roots` is a PEM file instead of the system's
    roots. `proof_deadline` bounds the handshakes after a reload.
    """

    nginx: tuple[NginxConfig, ...]
    idle_check: IdleCheck = IdleCheck(3600.0)
    allow_reused_key: bool = False
    trust_roots: AbsolutePath | None = None
    proof_deadline: Seconds = Seconds(30.0)


@dataclass(frozen=True)
class MailConfig:
    """`[mail]`: the SMTP server and who reads what."""

    host: str
    sender: MailAddress
    failures_to: tuple[MailAddress, ...]
    installs_to: tuple[MailAddress, ...] = ()
    security: Literal["tls", "starttls", "none"] = "tls"
    port: int | None = None
    username: str | None = None
    password_file: AbsolutePath | None = None
    ca_file: AbsolutePath | None = None


@dataclass(frozen=True)
class Config:
    """The whole file, and where it was read."""

    store: StoreConfig
    certificates: tuple[CertificateConfig, ...]
    renewal: RenewalConfig | None = None
    dns: DnsConfig = field(default_factory=DnsConfig)
    zones: tuple[ZoneConfig, ...] = ()
    consumer: ConsumerConfig | None = None
    mail: MailConfig | None = None
    state_dir: AbsolutePath = AbsolutePath(Path("/var/lib/certcast"))
    path: Path = DEFAULT_PATH

    def chosen(self, name: str | None) -> tuple[CertificateConfig, ...]:
        """Return the certificate of that name, or all; ConfigInvalid if there is no such one."""
        if name is None:
            return self.certificates
        for certificate in self.certificates:
            if certificate.name == name:
                return (certificate,)
        raise ConfigInvalid(
            f"no certificate is called {name}",
            expected="one of " + ", ".join(c.name for c in self.certificates),
            kept="nothing was changed",
            next=f"add it to {self.path} as [[certificate]], or use one of these names",
        )

    def lacks(self, section: str, command: str) -> NoReturn:
        """Say that this host's file has no section for what was asked of it. Raises ConfigInvalid."""
        raise ConfigInvalid(
            f"`{command}` needs a [{section}] section, and {self.path} has none",
            kept="nothing was changed",
            next=f"run it on the host that has this role, or add [{section}] (the README shows one)",
        )
