"""The one TOML file, as frozen types.

    /etc/certcast/certcast.toml  →  Config
      host, identity, state_dir        who this host is
      [store]                          where releases are published
      [[certificate]]                  which certificates, with which names
      [renewal] [dns] [[zone]]         on the renewal host
      [consumer] [[consumer.nginx]]    on a host that serves
      [mail]                           who is told

A host's role is which sections it has. What each type accepts, and how mistakes
are reported, is in reading.py.

Not checked: whether files, hosts and buckets exist. That shows when they are
used, and is reported then with the command that failed.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from certcast.config.types import (
    AbsolutePath,
    Argv,
    CertificateName,
    DnsName,
    FileMode,
    HostName,
    HttpsUrl,
    HttpUrl,
    IdleCheck,
    MailAddress,
    Propagation,
    PublisherKey,
    RoleArn,
    Seconds,
    Sequence,
    StoreUrl,
    Zone,
    absolute_path,
    host_name,
    https_url,
    text,
)
from certcast.report.errors import ConfigInvalid

DEFAULT_PATH = Path("/etc/certcast/certcast.toml")


@dataclass(frozen=True)
class Address:
    """Where something listens: an IP address or host name, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: Any) -> Address:
        """Read an address of the configuration. ValueError with what it must be."""
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+)):(\d{1,5})", text(value))
        if not match or not 0 < int(match[3]) < 65536:
            raise ValueError(
                f'must be an address with a port, like "127.0.0.1:443" or "[::1]:443", not {value!r}'
            )
        return cls(match[1] or match[2], int(match[3]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Listener:
    """Where a web server waits for TLS: an address or a unix socket; `proxy_protocol` as nginx's `listen`."""

    address: Address | Path
    proxy_protocol: bool = False

    @classmethod
    def parse(cls, value: Any) -> Listener:
        """Read a listener of the configuration. ValueError with what it must be."""
        words = text(value).split()
        if not 1 <= len(words) <= 2 or words[1:] not in ([], ["proxy_protocol"]):
            raise ValueError(f'must be an address, perhaps followed by "proxy_protocol", not {value!r}')
        is_socket = words[0].startswith("unix:")
        where = absolute_path(words[0].removeprefix("unix:")) if is_socket else Address.parse(words[0])
        return cls(where, proxy_protocol=len(words) == 2)

    def __str__(self) -> str:
        where = f"unix:{self.address}" if isinstance(self.address, Path) else str(self.address)
        return f"{where} proxy_protocol" if self.proxy_protocol else where


@dataclass(frozen=True)
class Resolver:
    """A recursive resolver: an address for plain DNS, or the https URL of a DoH server (RFC 8484)."""

    at: Address | HttpUrl

    @classmethod
    def parse(cls, value: Any) -> Resolver:
        """Read a resolver of the configuration. ValueError with what it must be."""
        if isinstance(value, str) and "://" in value:
            return cls(https_url(value))  # RFC 8484 section 5
        try:
            address = Address.parse(value)
        except ValueError:
            raise ValueError(
                f'must be an address with a port, like "223.5.5.5:53", or a DoH server\'s URL, not {value!r}'
            ) from None
        try:
            ipaddress.ip_address(address.host)
        except ValueError:
            raise ValueError(f"must be an IP address with a port, not a name like {address.host!r}") from None
        return cls(address)

    def __str__(self) -> str:
        return str(self.at)


@dataclass(frozen=True, kw_only=True)
class KeySource:
    """Where an AccessKey comes from: what [store], [dns] and each [[zone]] may say. False: nothing is said.

    `profile` names an entry of the official `~/.aliyun/config.json`; without it the
    official credential chain decides. With these keys the RAM role `role_arn` is
    assumed at `sts_endpoint`, or at sts.aliyuncs.com.
    """

    profile: str | None = None
    role_arn: RoleArn | None = None
    sts_endpoint: HttpsUrl | None = None

    def __bool__(self) -> bool:
        return (self.profile, self.role_arn, self.sts_endpoint) != (None, None, None)

    @property
    def source(self) -> KeySource:
        """These three alone, of a section that has more."""
        return KeySource(profile=self.profile, role_arn=self.role_arn, sts_endpoint=self.sts_endpoint)


@dataclass(frozen=True)
class StoreConfig(KeySource):
    """`[store]`: the bucket and where its API is.

    `url` is the store's identity: `oss://bucket/prefix`, `s3://bucket/prefix`,
    `file:///path` or `memory://name`. Of `endpoints` the first that can be reached
    is used: internal, custom domain (CNAME), public. `read_from` is where a host without
    credentials reads the same objects by HTTP: a relay, a CDN, the bucket itself.

    `publishers` are the public keys whose signature under a manifest counts: the
    working one and the spare one. `encryption` is what protects private keys in the bucket.
    """

    url: StoreUrl
    region: str | None = None
    endpoints: tuple[HttpUrl, ...] = ()
    read_from: HttpUrl | None = None
    publishers: tuple[PublisherKey, ...] = ()
    encryption: Literal["age", "none"] = "age"


KeyType = Literal["p256", "p384", "rsa2048", "rsa3072", "rsa4096"]


@dataclass(frozen=True)
class CertificateConfig:
    """`[[certificate]]`: its name, the names it must hold, and where it comes from.

    `source` "acme": certcast orders it, with a key of `key_type`, at the CA's `profile`, and takes the chain
    whose topmost issuer is `preferred_chain`. "certbot": another certbot renews it through the hooks, and
    `name` is its lineage. A manifest with a sequence below `at_least` is refused by a host that has seen
    none yet.
    """

    name: CertificateName
    names: tuple[DnsName, ...]
    source: Literal["acme", "certbot"] = "acme"
    key_type: KeyType = "p256"
    reuse_key: bool = False
    preferred_chain: str | None = None
    profile: str | None = None
    at_least: Sequence = 1


@dataclass(frozen=True)
class ExternalAccount:
    """`[renewal.external_account]`: what a CA hands out to bind an account to a customer (RFC 8555, 7.3.4).

    `hmac_key_file` holds the MAC key as the CA shows it, base64url.
    """

    key_id: str
    hmac_key_file: AbsolutePath


@dataclass(frozen=True)
class RenewalConfig:
    """`[renewal]`: the CA, by its ACME `directory`, and how releases are signed.

    `terms_of_service_agreed` is the operator's word to the CA (RFC 8555, 7.3); no account is made without it.
    `certbot_config_dir` is where a certbot keeps the lineages of `source = "certbot"`, and those to adopt.
    `signing_key` is the publisher's OpenSSH private key; its public half, the spare key's and the
    recovery kit's recipient lie beside it. `hosts_file` lists who gets the private key (enrolled_hosts.py).
    """

    directory: HttpUrl = "https://acme-v02.api.letsencrypt.org/directory"
    terms_of_service_agreed: bool = False
    email: MailAddress | None = None
    external_account: ExternalAccount | None = None
    certbot_config_dir: AbsolutePath = Path("/etc/letsencrypt")
    signing_key: AbsolutePath = Path("/etc/certcast/publisher")
    hosts_file: AbsolutePath = Path("/etc/certcast/hosts")


@dataclass(frozen=True)
class DnsConfig(KeySource):
    """`[dns]`: the Alidns API and how long a TXT value may take to be seen.

    `propagation` is None for asking the authoritative servers, or the seconds
    of a fixed wait. `resolvers` find the addresses of nameservers, and are asked
    instead of these where port 53 is filtered; without them the system's do. Where
    they can't be reached either, `fallback_wait` seconds pass after the API has shown
    the values.
    """

    propagation: Propagation = None
    deadline: Seconds = 300.0
    settle: Seconds = 10.0
    fallback_wait: Seconds = 60.0
    resolvers: tuple[Resolver, ...] = ()
    follow_cname: bool = True
    endpoint: HttpUrl = "https://alidns.aliyuncs.com"


@dataclass(frozen=True)
class ZoneConfig(KeySource):
    """`[[zone]]`: a zone, and the account that has it where that isn't the one of [dns].

    `nameservers` replaces what Alidns says of it.
    """

    name: Zone
    nameservers: tuple[Address, ...] = ()
    endpoint: HttpUrl | None = None


@dataclass(frozen=True)
class NginxConfig:
    """`[[consumer.nginx]]`: one nginx.

    Without `listeners` they are those that `nginx -T` shows; without a `pid_file`,
    the master is found by its program and configuration file. `certificates` are
    the ones that it serves (none given: all). `paths` says under which path it sees
    a directory of this host, where it runs in a container: host path → its path.
    """

    listeners: tuple[Listener, ...] = ()
    test: Argv = ("nginx", "-t")
    reload: Argv = ("nginx", "-s", "reload")
    pid_file: AbsolutePath | None = None
    certificates: tuple[CertificateName, ...] = ()
    paths: dict[AbsolutePath, AbsolutePath] = field(default_factory=dict)


@dataclass(frozen=True)
class CopyConfig:
    """`[[consumer.copy_to]]`: fixed paths that sites already name; each path is one file of the release.

    `mode` holds for every file of the entry, `owner` and `group` too. `certificate` may be
    left out where there is only one.
    """

    certificate: CertificateName | None = None
    fullchain: AbsolutePath | None = None
    privkey: AbsolutePath | None = None
    chain: AbsolutePath | None = None
    cert: AbsolutePath | None = None
    combined: AbsolutePath | None = None
    owner: str | None = None
    group: str | None = None
    mode: FileMode = 0o600

    @property
    def targets(self) -> dict[str, Path]:
        """The file names of a release, each with the path that it is copied to."""
        paths = {
            f"{name}.pem": getattr(self, name)
            for name in ("fullchain", "privkey", "chain", "cert", "combined")
        }
        return {name: path for name, path in paths.items() if path is not None}


@dataclass(frozen=True)
class ConsumerConfig:
    """`[consumer]`: the host that serves.

    `idle_check` is how often to look outside the window, in seconds, or
    infinity for never. `trust_roots` is a PEM file instead of the system's
    roots. `proof_deadline` bounds the handshakes after a reload. `derive` names
    files that are made of the release for other programs, beside the two. `group` is the
    name under which this host shares an identity with others, instead of its own.
    """

    nginx: tuple[NginxConfig, ...]
    copy_to: tuple[CopyConfig, ...] = ()
    derive: tuple[Literal["chain.pem", "cert.pem", "combined.pem"], ...] = ()
    idle_check: IdleCheck = 3600.0
    allow_reused_key: bool = False
    allow_key_type_change: bool = False
    trust_roots: AbsolutePath | None = None
    proof_deadline: Seconds = 30.0
    group: HostName | None = None

    def nginx_of(self, certificate: str) -> tuple[NginxConfig, ...]:
        """Return each nginx that serves the certificate."""
        return tuple(one for one in self.nginx if not one.certificates or certificate in one.certificates)

    def copies_of(self, certificate: str) -> tuple[CopyConfig, ...]:
        """Return the entries of `copy_to` for the certificate."""
        return tuple(one for one in self.copy_to if one.certificate in (None, certificate))


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
    state_dir: AbsolutePath = Path("/var/lib/certcast")
    host: HostName | None = None
    identity: AbsolutePath = Path("/etc/certcast/identity")
    path: Path = DEFAULT_PATH

    @property
    def enrolled_as(self) -> str:
        """The name under which the renewal host knows this one: its group, `host`, or its host name.

        Raises ConfigInvalid if the system's host name is not such a name.
        """
        import socket

        if self.consumer is not None and self.consumer.group is not None:
            return self.consumer.group
        if self.host is not None:
            return self.host
        name = socket.gethostname().lower()
        try:
            return host_name(name)
        except ValueError as error:
            raise ConfigInvalid(
                f"this host's name cannot be used as its name in the store: it {error}",
                kept="nothing was changed",
                next=f'add a line like host = "web1" at the top of {self.path}',
            ) from None

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
