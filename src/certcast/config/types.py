"""What one value of the configuration file may be: each type beside its check.

A check takes what TOML gave, and returns the value or raises ValueError with what it must be. The converter
finds it by the type (release/documents.py).

Not here: which key has which type (model.py), and the report of all mistakes (reading.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from certcast.release.documents import Check, whole_number
from certcast.release.ssh_keys import PublicKey
from certcast.report.names import to_ascii


def text(value: Any) -> str:
    """Return a text without control characters."""
    if not isinstance(value, str) or not value or any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        raise ValueError(f"must be a text in quotes, not {value!r}")
    return value


# The design's rule for a lineage name: it becomes a directory and a part of an object key.
_CERTIFICATE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}")
# Letters, digits, hyphen (RFC 1123, 2.1), and underscore for delegated validation zones.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def certificate_name(value: Any) -> str:
    """Return a certificate's name, which becomes a folder and a part of an object key."""
    name = text(value)
    if not _CERTIFICATE_NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"must be a name like example.com in lower case, not {name!r}")
    return name


CertificateName = Annotated[str, Check(certificate_name)]


# Like a lineage name: it becomes a part of an object key, and of sealed keys' names.
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


def host_name(value: Any) -> str:
    """Return a name under which a host is enrolled."""
    name = text(value)
    if not _HOST_NAME.fullmatch(name) or ".." in name or name == "recovery":
        raise ValueError(f"must be a name like web1 in lower case (and not recovery), not {name!r}")
    return name


HostName = Annotated[str, Check(host_name)]


def _is_name(name: str) -> bool:
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def zone_name(value: Any) -> str:
    """Return the name of a DNS zone."""
    name = text(value).rstrip(".")
    if "*" in name:
        raise ValueError(f"must be a DNS name, without *; not {value!r}")
    return _in_ascii(name)


Zone = Annotated[str, Check(zone_name)]


def _dns_name(value: Any) -> str:
    name = text(value).rstrip(".")
    if "*" in name.removeprefix("*."):
        raise ValueError(f"must be a DNS name, with * as its first label only; not {value!r}")
    return _in_ascii(name)


DnsName = Annotated[str, Check(_dns_name)]


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
    """Return a duration like "30s", "15m", "1h" or "2d" in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'must be a duration like "30s", "15m", "1h" or "2d", not {value!r}')
    return float(match[1]) * _UNITS[match[2]]


Seconds = Annotated[float, Check(seconds)]


def _idle_check(value: Any) -> float:
    return float("inf") if value == "never" else seconds(value)


IdleCheck = Annotated[float, Check(_idle_check)]


def _propagation(value: Any) -> float | None:
    if value == "authoritative":
        return None
    if isinstance(value, str) and value.startswith("wait:"):
        return seconds(value.removeprefix("wait:"))
    raise ValueError(f'must be "authoritative" or a fixed wait like "wait:30s", not {value!r}')


Propagation = Annotated[float | None, Check(_propagation)]


def _store_url(value: Any) -> str:
    url = text(value)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"oss", "s3", "file", "memory"}:
        raise ValueError(f"must begin with oss://, s3:// or file:///, not {url!r}")
    if not rest.strip("/") or (scheme == "file" and not rest.startswith("/")):
        raise ValueError(f"must name a place, like oss://bucket/prefix or file:///path, not {url!r}")
    if any(part in {"", ".", ".."} for part in rest.strip("/").split("/")) or set("?#@\\") & set(rest):
        raise ValueError(f"must be a plain path without .., empty parts, ?, # or @, not {url!r}")
    return url.rstrip("/")


StoreUrl = Annotated[str, Check(_store_url)]


def http_url(value: Any) -> str:
    """Return an http or https address."""
    url = text(value)
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise ValueError(f"must be an http(s) address, not {url!r}")
    return url


HttpUrl = Annotated[str, Check(http_url)]


def https_url(value: Any) -> str:
    """Return an https address, for what nobody may read or change on the way."""
    url = http_url(value)
    if not url.startswith("https://"):
        raise ValueError(f"must be an https address, not {url!r}")
    return url


HttpsUrl = Annotated[str, Check(https_url)]


def _mail_address(value: Any) -> str:
    address = text(value)
    if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", address):
        raise ValueError(f"must be a mail address, not {address!r}")
    return address


MailAddress = Annotated[str, Check(_mail_address)]


def _argv(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f'must be a list of words like ["nginx", "-t"] (no shell runs it), not {value!r}')
    return tuple(value)


Argv = Annotated[tuple[str, ...], Check(_argv)]


def absolute_path(value: Any) -> Path:
    """Return a path that begins at /."""
    path = Path(text(value))
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, since cron's directory is not yours; not {value!r}")
    return path


AbsolutePath = Annotated[Path, Check(absolute_path)]


def _file_mode(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError(f'must be a mode in quotes, like "0640", not {value!r}')
    return int(value, 8)


FileMode = Annotated[int, Check(_file_mode)]


def _role_arn(value: Any) -> str:
    arn = text(value)
    if not re.fullmatch(r"acs:ram::\d+:role/[\w.@-]+", arn):
        raise ValueError(f"must be a role like acs:ram::1234567890123456:role/certcast, not {arn!r}")
    return arn


RoleArn = Annotated[str, Check(_role_arn)]


def _public_key(value: Any) -> PublicKey:
    try:
        return PublicKey.parse(text(value))
    except ValueError as error:
        raise ValueError(f'must be a public key like "ssh-ed25519 AAAA… name": {error}') from None


PublisherKey = Annotated[PublicKey, Check(_public_key)]

Sequence = Annotated[int, Check(whole_number)]
