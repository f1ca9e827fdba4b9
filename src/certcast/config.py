"""One TOML file to frozen types, with every mistake in one report.

    /etc/certcast/certcast.toml  →  Config
      [store]                          where releases are published
      [[certificate]]                  which certificates, with which names
      [renewal] [dns] [[zone]]         on the renewal host
      [consumer] [[consumer.nginx]]    on a host that serves
      [mail]                           who is told

A host's role is which sections it has. Each field's type carries its own
check, so one wrong value never hides another; a key that is not known is a
mistake too, since a misspelt option is an option that silently does nothing.

Not here: whether files, hosts and buckets exist. That shows when they are used,
and is reported then with the command that failed.
"""

from __future__ import annotations

import operator
import os
import re
import sys
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NewType, NoReturn

from certcast.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

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


def config_path(option: str | None) -> Path:
    """Return the file to read: `--config`, else CERTCAST_CONFIG, else /etc/certcast/certcast.toml."""
    return Path(option or os.environ.get("CERTCAST_CONFIG") or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Read and check the configuration file.

    Raises ConfigInvalid, with all mistakes in `found`, one a line.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    next_step = f"edit {path}, then `certcast check`"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigInvalid(
            f"there is no configuration file {path}",
            kept="nothing was changed",
            next=f"write {path} (the README has one), or name another with --config or CERTCAST_CONFIG",
        ) from None
    except OSError as error:
        raise ConfigInvalid(
            f"{path} cannot be read",
            found=error.strerror or str(error),
            kept="nothing was changed",
            next=f"run as the file's owner, or `ls -l {path}`",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(
            f"{path} is not TOML", found=str(error), kept="nothing was changed", next=next_step
        ) from None
    config, mistakes = structure(document, path)
    if config is None:
        plural = "mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigInvalid(
            f"{path} has {'a ' if len(mistakes) == 1 else ''}{plural}",
            found="\n".join(mistakes),
            kept="nothing was changed",
            next=next_step,
        )
    return config


def structure(document: dict[str, Any], path: Path) -> tuple[Config | None, list[str]]:
    """Turn a parsed TOML document into a Config, or None and the list of its mistakes."""
    from cattrs import transform_error
    from cattrs.errors import ClassValidationError

    try:
        config: Config = _converter().structure({**document, "path": str(path)}, Config)
    except ClassValidationError as error:
        lines = transform_error(error, path="", format_exception=_explain)
        return None, [_at_path(line) for line in lines]
    mistakes = _contradictions(config)
    return (None, mistakes) if mistakes else (config, [])


def _contradictions(config: Config) -> list[str]:
    """Mistakes that only two values together make."""
    mistakes = []
    seen: set[str] = set()
    for index, certificate in enumerate(config.certificates):
        if certificate.name in seen:
            mistakes.append(f"certificate[{index}].name: {certificate.name} stands here twice")
        seen.add(certificate.name)
        if not certificate.names:
            mistakes.append(f"certificate[{index}].names: must hold at least one name")
    if not config.certificates:
        mistakes.append("certificate: at least one [[certificate]] is needed")
    if config.consumer is not None:
        mistakes += [
            f"consumer.nginx[{index}].listeners: must hold at least one address"
            for index, nginx in enumerate(config.consumer.nginx)
            if not nginx.listeners
        ]
    if config.mail is not None:
        if (config.mail.username is None) != (config.mail.password_file is None):
            mistakes.append("mail: username and password_file belong together")
        if not config.mail.failures_to:
            mistakes.append("mail.failures_to: must hold at least one address")
        if config.mail.username and config.mail.security == "none":
            mistakes.append('mail.security: a login needs "tls" or "starttls", or the password is readable')
    return mistakes


def _at_path(line: str) -> str:
    """cattrs writes "what @ .path"; we write "path: what"."""
    what, _, where = line.rpartition(" @ ")
    where = where.lstrip(".").replace(".certificates[", ".certificate[").replace(".zones[", ".zone[")
    where = re.sub(r"^certificates\b", "certificate", where)
    where = re.sub(r"^zones\b", "zone", where)
    return f"{where}: {what}" if where else what


def _explain(error: BaseException, type_: type | None) -> str:
    from cattrs.errors import ForbiddenExtraKeysError

    if isinstance(error, ForbiddenExtraKeysError):
        return "; ".join(_unknown_key(key, error.cl) for key in sorted(error.extra_fields))
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing".replace("'certificates'", "[[certificate]]")
    if isinstance(error, (ValueError, TypeError)):
        return str(error)
    return f"not understood ({error})"


def _unknown_key(key: str, owner: type) -> str:
    from difflib import get_close_matches

    known = [_TOML_NAMES.get(f.name, f.name) for f in fields(owner) if f.name != "path"]
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
    return f"{key!r} is not a known key; {hint}"


# Arrays of tables read better in the singular in TOML: one [[certificate]] is one certificate.
_TOML_NAMES = {"certificates": "certificate", "zones": "zone"}


def _converter() -> Any:
    """Build the converter: strict scalars, and one hook for each checked type."""
    import cattrs
    from cattrs.gen import make_dict_structure_fn, override

    converter = cattrs.Converter(forbid_extra_keys=True)
    for scalar in (str, int, bool):
        converter.register_structure_hook(scalar, _strict(scalar))
    for checked, check in _CHECKS.items():
        converter.register_structure_hook_func(partial(operator.is_, checked), _ignoring_type(check))
    converter.register_structure_hook_func(
        lambda t: getattr(t, "__origin__", None) is tuple,
        lambda value, t: _array(value, t.__args__[0], converter),
    )
    converter.register_structure_hook_func(
        lambda t: getattr(t, "__origin__", None) is Literal, lambda value, t: _one_of(value, t.__args__)
    )
    converter.register_structure_hook(Address, lambda value, _type: _address(value))
    converter.register_structure_hook(Path, lambda value, _type: Path(value))
    converter.register_structure_hook(
        Config,
        make_dict_structure_fn(
            Config,
            converter,
            _cattrs_forbid_extra_keys=True,
            certificates=override(rename="certificate"),
            zones=override(rename="zone"),
        ),
    )
    return converter


def _ignoring_type(check: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _type: check(value)


def _strict(scalar: type) -> Callable[[Any, Any], Any]:
    words = {str: "a text in quotes", int: "a whole number", bool: "true or false"}

    def check(value: Any, _type: Any) -> Any:
        if type(value) is not scalar:
            raise ValueError(f"must be {words[scalar]}, not {value!r}")
        return value

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        raise ValueError(f"must be a text in quotes, not {value!r}")
    return value


def _array(value: Any, element: Any, converter: Any) -> tuple[Any, ...]:
    from cattrs.errors import IterableValidationError, IterableValidationNote

    if not isinstance(value, list):
        raise ValueError(f"must be a list in [brackets], not {value!r}")
    taken, failures = [], []
    for index, item in enumerate(value):
        try:
            taken.append(converter.structure(item, element))
        except Exception as error:  # noqa: BLE001, RUF100  collected, so that all are reported
            note = IterableValidationNote(f"element {index}", index, element)
            error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]  # 3.10 has no add_note
            failures.append(error)
    if failures:
        raise IterableValidationError("list", failures, tuple)
    return tuple(taken)


def _one_of(value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
    return str(value)


# The design's rule for a lineage name: it becomes a directory and a part of an object key.
_CERTIFICATE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}")
# Letters, digits, hyphen (RFC 1123, 2.1), and underscore for delegated validation zones.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def _certificate_name(value: Any) -> str:
    name = _text(value)
    if not _CERTIFICATE_NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"must be a name like example.com in lower case, not {name!r}")
    return name


def _zone(value: Any) -> str:
    name = _text(value).rstrip(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"must be a DNS name in lower case (punycode for others), not {value!r}")
    return name


def _dns_name(value: Any) -> str:
    name = _text(value)
    prefix = "*." if name.startswith("*.") else ""
    return prefix + _zone(name.removeprefix("*."))


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any) -> float:
    """Return a duration like "30s", "15m", "1h" or "2d" in seconds; ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'must be a duration like "30s", "15m", "1h" or "2d", not {value!r}')
    return float(match[1]) * _UNITS[match[2]]


def _idle_check(value: Any) -> float:
    return float("inf") if value == "never" else seconds(value)


def _propagation(value: Any) -> float | None:
    if value == "authoritative":
        return None
    if isinstance(value, str) and value.startswith("wait:"):
        return seconds(value.removeprefix("wait:"))
    raise ValueError(f'must be "authoritative" or a fixed wait like "wait:30s", not {value!r}')


def _store_url(value: Any) -> str:
    url = _text(value)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"oss", "s3", "file", "memory"}:
        raise ValueError(f"must begin with oss://, s3://, file:/// or memory://, not {url!r}")
    if not rest.strip("/") or (scheme == "file" and not rest.startswith("/")):
        raise ValueError(f"must name a place, like oss://bucket/prefix or file:///path, not {url!r}")
    if any(part in {"", ".", ".."} for part in rest.strip("/").split("/")) or set("?#@\\") & set(rest):
        raise ValueError(f"must be a plain path without .., empty parts, ?, # or @, not {url!r}")
    return url.rstrip("/")


def _http_url(value: Any) -> str:
    url = _text(value)
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise ValueError(f"must be an http(s) address, not {url!r}")
    return url


def _mail_address(value: Any) -> str:
    address = _text(value)
    if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", address):
        raise ValueError(f"must be a mail address, not {address!r}")
    return address


def _argv(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f'must be a list of words like ["nginx", "-t"] (no shell runs it), not {value!r}')
    return tuple(value)


def _absolute_path(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, since cron's directory is not yours; not {value!r}")
    return path


def _address(value: Any) -> Address:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+)):(\d{1,5})", _text(value))
    if not match or not 0 < int(match[3]) < 65536:
        raise ValueError(
            f'must be an address with a port, like "127.0.0.1:443" or "[::1]:443", not {value!r}'
        )
    return Address(match[1] or match[2], int(match[3]))


_CHECKS: dict[Any, Callable[[Any], Any]] = {
    CertificateName: _certificate_name,
    DnsName: _dns_name,
    Zone: _zone,
    Seconds: seconds,
    IdleCheck: _idle_check,
    Propagation | None: _propagation,
    StoreUrl: _store_url,
    HttpUrl: _http_url,
    MailAddress: _mail_address,
    Argv: _argv,
    AbsolutePath: _absolute_path,
}
