"""What one value of the configuration file may be: a check for each type of model.py.

Each takes what TOML gave and returns the value, or raises ValueError with what it must be.

Not here: which value stands where, and the report of all mistakes (reading.py).
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certcast.config.model import (
    AbsolutePath,
    Address,
    Argv,
    CertificateName,
    DnsName,
    FileMode,
    HostName,
    HttpsUrl,
    HttpUrl,
    IdleCheck,
    Listener,
    MailAddress,
    Propagation,
    Resolver,
    RoleArn,
    Seconds,
    Sequence,
    StoreUrl,
    Zone,
)
from certcast.release.ssh_keys import PublicKey
from certcast.report.names import to_ascii

if TYPE_CHECKING:
    from collections.abc import Callable


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        raise ValueError(f"must be a text in quotes, not {value!r}")
    return value


# The design's rule for a lineage name: it becomes a directory and a part of an object key.
_CERTIFICATE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}")
# Letters, digits, hyphen (RFC 1123, 2.1), and underscore for delegated validation zones.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def certificate_name(value: Any) -> str:
    """Return a certificate's name, which becomes a folder and a part of an object key; else ValueError."""
    name = _text(value)
    if not _CERTIFICATE_NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"must be a name like example.com in lower case, not {name!r}")
    return name


# Like a lineage name: it becomes a part of an object key, and of sealed keys' names.
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


def host_name(value: Any) -> str:
    """Return a name under which a host is enrolled; ValueError for anything else."""
    name = _text(value)
    if not _HOST_NAME.fullmatch(name) or ".." in name or name == "recovery":
        raise ValueError(f"must be a name like web1 in lower case (and not recovery), not {name!r}")
    return name


def _sequence(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 2**53:
        raise ValueError(f"must be a positive whole number, not {value!r}")
    return value


def _public_key(value: Any) -> PublicKey:
    try:
        return PublicKey.parse(_text(value))
    except ValueError as error:
        raise ValueError(f'must be a public key like "ssh-ed25519 AAAA… name": {error}') from None


def _is_name(name: str) -> bool:
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def _zone(value: Any) -> str:
    name = _text(value).rstrip(".")
    if "*" in name:
        raise ValueError(f"must be a DNS name, without *; not {value!r}")
    return _in_ascii(name)


def _dns_name(value: Any) -> str:
    name = _text(value).rstrip(".")
    if "*" in name.removeprefix("*."):
        raise ValueError(f"must be a DNS name, with * as its first label only; not {value!r}")
    return _in_ascii(name)


def _in_ascii(name: str) -> str:
    """Return a name as machines write it; a label * is known to be the first."""
    if _is_name(name.removeprefix("*.")):
        return name
    written = to_ascii(name)
    if written != name and _is_name(written.removeprefix("*.")):
        raise ValueError(f'must be written as "{written}", not {name!r}')
    raise ValueError(f"must be a DNS name, not {name!r}")


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
        raise ValueError(f"must begin with oss://, s3:// or file:///, not {url!r}")
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


def _https_url(value: Any) -> str:
    """An address from which comes what nobody may read, or change, on the way."""
    url = _http_url(value)
    if not url.startswith("https://"):
        raise ValueError(f"must be an https address, not {url!r}")
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


def _listener(value: Any) -> Listener:
    words = _text(value).split()
    if not 1 <= len(words) <= 2 or words[1:] not in ([], ["proxy_protocol"]):
        raise ValueError(f'must be an address, perhaps followed by "proxy_protocol", not {value!r}')
    if words[0].startswith("unix:"):
        return Listener(_absolute_path(words[0].removeprefix("unix:")), proxy_protocol=len(words) == 2)
    return Listener(_address(words[0]), proxy_protocol=len(words) == 2)


def _resolver(value: Any) -> Resolver:
    if isinstance(value, str) and "://" in value:
        return Resolver(HttpUrl(_https_url(value)))  # RFC 8484 section 5
    try:
        address = _address(value)
    except ValueError:
        raise ValueError(
            f'must be an address with a port, like "223.5.5.5:53", or the URL of a DoH server, not {value!r}'
        ) from None
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise ValueError(
            f"must be an IP address with a port: nobody is there to look {address.host!r} up"
        ) from None
    return Resolver(address)


def _file_mode(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError(f'must be a mode in quotes, like "0640", not {value!r}')
    return int(value, 8)


def _role_arn(value: Any) -> str:
    arn = _text(value)
    if not re.fullmatch(r"acs:ram::\d+:role/[\w.@-]+", arn):
        raise ValueError(f"must be a role like acs:ram::1234567890123456:role/certcast, not {arn!r}")
    return arn


CHECKS: dict[Any, Callable[[Any], Any]] = {
    CertificateName: certificate_name,
    DnsName: _dns_name,
    Zone: _zone,
    Seconds: seconds,
    IdleCheck: _idle_check,
    Propagation | None: _propagation,
    StoreUrl: _store_url,
    HttpUrl: _http_url,
    HttpsUrl: _https_url,
    MailAddress: _mail_address,
    Argv: _argv,
    FileMode: _file_mode,
    RoleArn: _role_arn,
    HostName: host_name,
    Sequence: _sequence,
    PublicKey: _public_key,
    AbsolutePath: _absolute_path,
    Address: _address,
    Listener: _listener,
    Resolver: _resolver,
}
