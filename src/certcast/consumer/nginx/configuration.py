"""What an nginx configuration says about its TLS listeners, from the text of `nginx -T`.

    parse(dump)  →  Configuration  →  servers: names, listens, certificates in effect, includes

Only the dump is looked at, never a file of this host: in a container the paths are not
ours, and an ordinary user may not read them.

nginx's rules that show here:
- a server block without an ssl_certificate has those of http (or stream, mail), all of
  them or none (ngx_http_ssl_module, ngx_conf_merge_ptr_value); the n-th
  ssl_certificate_key belongs to the n-th ssl_certificate.
- `ssl`, `proxy_protocol` and the default server belong to the address: what one server
  block says of it holds for the others there (ngx_http_add_addresses).
- a connection to an address that has a `listen` of its own is that one's, and never a
  wildcard's on the same port; so a wildcard is asked at an address that has none.

Not here: the dump's syntax (dump.py), running nginx (control.py), and which certificate should
be there (verdict.py).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from certcast.config.model import Address, Listener
from certcast.consumer.nginx.dump import files, included, statements_of

Kind = Literal["http", "stream", "mail"]

# What a wildcard is called here, until it is known where to ask it.
EVERYWHERE = EVERY_IPV4, EVERY_IPV6 = "0.0.0.0", "::"  # noqa: S104  words; nothing is bound
_LOOPBACK = tuple(f"127.0.0.{number}" for number in range(1, 255))
_PORTS = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:\[\]]+):)?(?P<first>\d+)(?:-(?P<last>\d+))?")


@dataclass(frozen=True)
class Line:
    """A place in the configuration, as nginx names its files."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class Certificate:
    """An ssl_certificate with its ssl_certificate_key, both as written: variables may be in them."""

    path: str
    key: str | None
    at: Line


@dataclass(frozen=True)
class Listen:
    """One `listen`: where to connect to it, and what holds for its address.

    A wildcard's address is 127.0.0.1 or, if that has a `listen` of its own, the next one that has none;
    that of IPv6 is ::1, or another one of this host's, or `::` if there is none. `default` says
    that this server answers who names no other one: as written, or as the first at the address.
    """

    listener: Listener
    ssl: bool
    quic: bool
    default: bool
    at: Line


@dataclass(frozen=True)
class Server:
    """A server block; `certificates` are those in effect, in order: the last of a key type wins.

    `includes` are the files that were included inside of it, also by one another.
    """

    kind: Kind
    names: tuple[str, ...]
    listens: tuple[Listen, ...]
    certificates: tuple[Certificate, ...]
    includes: frozenset[str]
    at: Line


@dataclass(frozen=True)
class Configuration:
    """All that nginx read: file names as it has them, the main one first; `pid` as written.

    `sha256` is over the whole text: the same again means that nobody has changed anything.
    """

    files: tuple[str, ...]
    servers: tuple[Server, ...]
    pid: str | None
    sha256: str = ""


def parse(dump: str, ipv6: Collection[str] = ("::1",)) -> Configuration:
    """Take the output of `nginx -T` apart; `ipv6` are addresses of this host, where a wildcard may be asked.

    ValueError with file and line for what cannot be read.
    """
    configuration = _Reader(files(dump)).read(ipv6)
    return replace(configuration, sha256=hashlib.sha256(dump.encode()).hexdigest())


@dataclass(frozen=True)
class _Statement:
    name: str
    args: list[str]
    block: list[dict[str, Any]] | None
    at: Line


@dataclass
class _Level:
    """What a server block may inherit: http, stream or mail."""

    kind: Kind
    ssl: bool = False
    certificates: list[tuple[str, Line]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


class _Reader:
    """One pass over the dumped files; each is taken apart once, however often it is included."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.main = next(iter(texts))
        self.blocks: dict[str, list[dict[str, Any]]] = {}
        self.servers: list[Server] = []

    def read(self, ipv6: Collection[str]) -> Configuration:
        pid = None
        for statement in self._file(self.main):
            if statement.name == "pid" and statement.args:
                pid = statement.args[0]
            elif statement.name in ("http", "stream", "mail"):
                self._read_level(statement)
        return Configuration(tuple(self.texts), tuple(_with_addresses(self.servers, ipv6)), pid)

    def _read_level(self, level: _Statement) -> None:
        statements = list(self._inside(level))
        above = _Level(level.name)  # type: ignore[arg-type]  # the caller has compared it
        _tls(statements, above)
        for statement in statements:
            if statement.name == "server" and statement.block is not None:
                self.servers.append(self._server(statement, above))

    def _server(self, server: _Statement, above: _Level) -> Server:
        includes: set[str] = set()
        statements = list(self._inside(server, includes))
        own = _Level(above.kind, ssl=above.ssl)
        _tls(statements, own)
        certificates, keys = own.certificates or above.certificates, own.keys or above.keys
        return Server(
            above.kind,
            tuple(name for s in statements if s.name == "server_name" for name in s.args),
            tuple(listen for s in statements if s.name == "listen" for listen in _listens(s, own.ssl)),
            tuple(
                Certificate(path, keys[index] if index < len(keys) else None, at)
                for index, (path, at) in enumerate(certificates)
            ),
            frozenset(includes),
            server.at,
        )

    # -- statements, with includes in their place

    def _file(
        self, name: str, within: tuple[str, ...] = (), seen: set[str] | None = None
    ) -> Iterator[_Statement]:
        if name in within:
            raise ValueError(f"{name}:1: includes itself")
        if name not in self.blocks:
            self.blocks[name] = statements_of(name, self.texts[name])
        yield from self._block(name, self.blocks[name], (*within, name), seen)

    def _inside(self, parent: _Statement, seen: set[str] | None = None) -> Iterator[_Statement]:
        yield from self._block(parent.at.file, parent.block or [], (parent.at.file,), seen)

    def _block(
        self, file: str, block: Iterable[dict[str, Any]], within: tuple[str, ...], seen: set[str] | None
    ) -> Iterator[_Statement]:
        for raw in block:
            statement = _Statement(raw["directive"], raw["args"], raw.get("block"), Line(file, raw["line"]))
            if statement.name == "include" and len(statement.args) == 1:
                for name in included(statement.args[0], self.texts, self.main):
                    if seen is not None:
                        seen.add(name)
                    yield from self._file(name, within, seen)
            else:
                yield statement


def _tls(statements: Iterable[_Statement], level: _Level) -> None:
    for statement in statements:
        if len(statement.args) != 1:
            continue
        if statement.name == "ssl_certificate":
            level.certificates.append((statement.args[0], statement.at))
        elif statement.name == "ssl_certificate_key":
            level.keys.append(statement.args[0])
        elif statement.name == "ssl":  # until nginx 1.25.0
            level.ssl = statement.args[0] == "on"


# -- listen


def _listens(statement: _Statement, ssl: bool) -> Iterator[Listen]:
    where, *parameters = statement.args or [""]
    for address in _addresses(where, statement.at, both="ipv6only=off" in parameters):
        quic = "quic" in parameters
        yield Listen(
            Listener(address, proxy_protocol="proxy_protocol" in parameters),
            ssl=(ssl or "ssl" in parameters) and not quic,
            quic=quic,
            default=bool({"default_server", "default"} & set(parameters)),
            at=statement.at,
        )


def _addresses(where: str, at: Line, *, both: bool) -> Iterator[Address | Path]:
    if where.startswith("unix:"):
        yield Path(where.removeprefix("unix:"))
        return
    match = _PORTS.fullmatch(where)
    host = (match["host"] or "*") if match else where  # an address alone: port 80
    if not host or not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[\w.*-]+", host):
        raise ValueError(f"{at}: cannot read listen {where!r}")
    hosts = [_one_spelling(host)]
    if hosts == [EVERY_IPV6] and both:
        hosts.append(EVERY_IPV4)
    first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (80, 80)
    for port in range(first, last + 1):
        for one in hosts:
            yield Address(one, port)


def _one_spelling(host: str) -> str:
    """Return an address as Python writes it, without brackets; `*` as 0.0.0.0, and a name as it is."""
    try:
        return EVERY_IPV4 if host == "*" else str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host


def _with_addresses(servers: list[Server], ipv6: Collection[str]) -> Iterator[Server]:
    """Give each listen what other servers say of its address, and each address one default server."""
    groups: dict[tuple[Kind, Address | Path, bool], list[Listen]] = {}
    for server in servers:
        for listen in server.listens:
            groups.setdefault((server.kind, listen.listener.address, listen.quic), []).append(listen)
    written = {address for _, address, quic in groups if not quic}
    # The one name that means these everywhere; what others mean is not asked.
    written |= {
        Address(host, one.port)
        for one in written
        if isinstance(one, Address) and one.host == "localhost"
        for host in ("127.0.0.1", "::1")
    }
    settled = {}
    for (_, address, _), group in groups.items():
        ssl = any(listen.ssl for listen in group)
        proxied = any(listen.listener.proxy_protocol for listen in group)
        first = next((listen for listen in group if listen.default), group[0])
        listener = Listener(_asked_at(address, written, ipv6), proxied)
        for listen in group:
            settled[id(listen)] = replace(listen, listener=listener, ssl=ssl, default=listen is first)
    for server in servers:
        yield replace(server, listens=tuple(settled[id(listen)] for listen in server.listens))


def _asked_at(
    address: Address | Path, written: Collection[Address | Path], ipv6: Collection[str]
) -> Address | Path:
    """Return where to connect to a listener: to a wildcard where no `listen` that is `written` is nearer."""
    if isinstance(address, Path) or address.host not in EVERYWHERE:
        return address
    hosts = _LOOPBACK if address.host == EVERY_IPV4 else ipv6
    free = (one for host in hosts if (one := Address(host, address.port)) not in written)
    return next(free, address)
