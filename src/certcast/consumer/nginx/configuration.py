"""What an nginx configuration says about its TLS listeners, from the text of `nginx -T`.

    parse(dump)  →  Configuration  →  servers: names, listens, certificates in effect

Only the dump is read, never a file of this host: the paths may be a container's, or closed to this user.

nginx's rules that show here:
- a server block without an ssl_certificate has those of http (or stream, mail), all of them or none
  (ngx_http_ssl_module, ngx_conf_merge_ptr_value)
- `ssl`, `proxy_protocol` and the default server belong to the address: what one server block says of it
  holds for the others there (ngx_http_add_addresses)
- a connection goes to the address that has a `listen` of its own, never to a wildcard on the same port; so a
  wildcard is asked at an address that has none
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from certcast.config.model import Address, Listener

Kind = Literal["http", "stream", "mail"]

# A wildcard's host, until it is known at which address to ask it.
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
    """An ssl_certificate, as written: variables may be in it."""

    path: str
    at: Line


@dataclass(frozen=True)
class Listen:
    """One `listen`: where to connect to it, and what holds for its address.

    A wildcard's address is 127.0.0.1 or, if that has a `listen` of its own, the next one that has none; that
    of IPv6 is ::1, or another address of this host, or `::` if there is none. `default`: this server answers
    clients that name no other one, as written, or as the first at the address.
    """

    listener: Listener
    ssl: bool
    quic: bool
    default: bool
    at: Line


@dataclass(frozen=True)
class Server:
    """A server block; `certificates` are those in effect, in order: the last of a key type wins."""

    kind: Kind
    names: tuple[str, ...]
    listens: tuple[Listen, ...]
    certificates: tuple[Certificate, ...]
    at: Line


@dataclass(frozen=True)
class Configuration:
    """All that nginx read: file names as it has them, the main one first; `pid` as written.

    `sha256` is over the whole text: the same again means that nothing was changed.
    """

    files: tuple[str, ...]
    servers: tuple[Server, ...]
    pid: str | None
    sha256: str = ""


def parse(dump: str, ipv6: Collection[str] = ("::1",)) -> Configuration:
    """Take the output of `nginx -T` apart; `ipv6` are this host's addresses at which a wildcard may be asked.

    ValueError with file and line for what cannot be read.
    """
    reader = _Reader(_split(dump))
    pid = reader.read_main()
    servers = tuple(_with_addresses(reader.servers, ipv6))
    return Configuration(tuple(reader.texts), servers, pid, hashlib.sha256(dump.encode()).hexdigest())


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
    certificates: list[Certificate] = field(default_factory=list)


class _Reader:
    """One pass over the dumped files; each is parsed once, however often it is included."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.main = next(iter(texts))
        self.blocks: dict[str, list[dict[str, Any]]] = {}
        self.servers: list[Server] = []

    def read_main(self) -> str | None:
        """Collect the servers; return the pid file as written."""
        pid = None
        for statement in self._file(self.main):
            if statement.name == "pid" and statement.args:
                pid = statement.args[0]
            elif statement.name in ("http", "stream", "mail"):
                self._read_level(statement)
        return pid

    def _read_level(self, level: _Statement) -> None:
        statements = list(self._inside(level))
        above = _Level(level.name)  # type: ignore[arg-type]  # the caller has compared it
        _read_tls(statements, above)
        for statement in statements:
            if statement.name == "server" and statement.block is not None:
                self.servers.append(self._server(statement, above))

    def _server(self, server: _Statement, above: _Level) -> Server:
        statements = list(self._inside(server))
        own = _Level(above.kind, ssl=above.ssl)
        _read_tls(statements, own)
        return Server(
            above.kind,
            tuple(name for s in statements if s.name == "server_name" for name in s.args),
            tuple(listen for s in statements if s.name == "listen" for listen in _listens(s, own.ssl)),
            tuple(own.certificates or above.certificates),
            server.at,
        )

    # -- statements, with includes in their place

    def _file(self, name: str, within: tuple[str, ...] = ()) -> Iterator[_Statement]:
        if name in within:
            raise ValueError(f"{name}:1: includes itself")
        if name not in self.blocks:
            self.blocks[name] = _parse_file(name, self.texts[name])
        yield from self._block(name, self.blocks[name], (*within, name))

    def _inside(self, parent: _Statement) -> Iterator[_Statement]:
        yield from self._block(parent.at.file, parent.block or [], (parent.at.file,))

    def _block(
        self, file: str, block: Iterable[dict[str, Any]], within: tuple[str, ...]
    ) -> Iterator[_Statement]:
        for raw in block:
            statement = _Statement(raw["directive"], raw["args"], raw.get("block"), Line(file, raw["line"]))
            if statement.name == "include" and len(statement.args) == 1:
                for name in _included(statement.args[0], self.texts, self.main):
                    yield from self._file(name, within)
            else:
                yield statement


def _read_tls(statements: Iterable[_Statement], level: _Level) -> None:
    for statement in statements:
        if len(statement.args) != 1:
            continue
        if statement.name == "ssl_certificate":
            level.certificates.append(Certificate(statement.args[0], statement.at))
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
    hosts = [_normalized(host)]
    if hosts == [EVERY_IPV6] and both:
        hosts.append(EVERY_IPV4)
    first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (80, 80)
    for port in range(first, last + 1):
        for host in hosts:
            yield Address(host, port)


def _normalized(host: str) -> str:
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
    # `localhost` means these addresses everywhere; other names are not looked up.
    written |= {
        Address(host, address.port)
        for address in written
        if isinstance(address, Address) and address.host == "localhost"
        for host in ("127.0.0.1", "::1")
    }
    settled = {}
    for (_, address, _), group in groups.items():
        ssl = any(listen.ssl for listen in group)
        proxied = any(listen.listener.proxy_protocol for listen in group)
        first = next((listen for listen in group if listen.default), group[0])
        listener = Listener(_reached_at(address, written, ipv6), proxied)
        for listen in group:
            settled[id(listen)] = replace(listen, listener=listener, ssl=ssl, default=listen is first)
    for server in servers:
        yield replace(server, listens=tuple(settled[id(listen)] for listen in server.listens))


def _reached_at(
    address: Address | Path, written: Collection[Address | Path], ipv6: Collection[str]
) -> Address | Path:
    """Return where to connect to a listener; to a wildcard where no `listen` of `written` is nearer."""
    if isinstance(address, Path) or address.host not in EVERYWHERE:
        return address
    candidates = (Address(host, address.port) for host in (_LOOPBACK if address.host == EVERY_IPV4 else ipv6))
    return next((candidate for candidate in candidates if candidate not in written), address)


# -- the dump
#
# crossplane parses a file that it opens by name, and follows includes on the disk. Neither is possible here,
# since the files may be a container's. So each text becomes a file in memory, and includes are looked up in
# the dump, as nginx does: relative to the folder of the main file, patterns as glob(3).

_HEADER = re.compile(r"# configuration file (.+):")
# The brackets of Lua are not nginx's: its strings and comments are skipped as Lua does (manual, section 3.1).
_LUA_BLOCK = re.compile(r"^[^#\n]*?\b\w+_by_lua_block\b[^{;#]*\{", re.MULTILINE)
_LUA_TOKEN = re.compile(
    r"""--\[(=*)\[.*?\]\1\] | --[^\n]* | \[(=*)\[.*?\]\2\] | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [{}]""",
    re.DOTALL | re.VERBOSE,
)


def _split(dump: str) -> dict[str, str]:
    """Return each file's text by name, the main one first. ValueError if this is no dump."""
    texts: dict[str, list[str]] = {}
    name, current = "", []
    for line in dump.split("\n"):
        header = _HEADER.fullmatch(line.rstrip("\r"))
        # Its own name again is a comment: that of a file which was made of a dump.
        if header is None or header[1] == name:
            current.append(line)
            continue
        name, current = header[1], []
        # An old nginx may print the text of a file twice that is included twice.
        texts.setdefault(name, current)
    if not texts:
        raise ValueError("no `# configuration file` line: this is not the output of `nginx -T`")
    # A carriage return is a blank to nginx, and ends no line; Python would count one.
    return {name: "\n".join(lines).replace("\r", " ").removeprefix("\ufeff") for name, lines in texts.items()}


def _parse_file(name: str, text: str) -> list[dict[str, Any]]:
    """Return the statements of one file as crossplane's dicts. ValueError names file and line."""
    import crossplane

    memory = os.memfd_create("nginx.conf")
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(_without_lua(text).encode())
        path = f"/proc/self/fd/{memory}"
        payload = crossplane.parse(path, single=True, check_ctx=False, check_args=False)
    finally:
        os.close(memory)
    (found,) = payload["config"]
    for error in found["errors"]:
        reason = re.sub(r" in /proc/self/fd/\d+(:\d+)?$", "", str(error["error"]))
        raise ValueError(f"{name}:{error['line'] or 1}: {reason}")
    statements: list[dict[str, Any]] = found["parsed"]
    return statements


def _included(pattern: str, names: Collection[str], main: str) -> list[str]:
    """Return the dumped files that an `include` means, in the order of glob(3)."""
    path = pattern if pattern.startswith("/") else os.path.dirname(main) + "/" + pattern  # noqa: PTH120  text
    if not re.search(r"[*?\[]", path):
        return [path] if path in names else []
    parts = path.split("/")
    return sorted(name for name in names if _matches(name.split("/"), parts))


def _matches(name: list[str], pattern: list[str]) -> bool:
    # As glob(3): no wildcard stands for a slash, nor for a dot at the beginning.
    return len(name) == len(pattern) and all(
        fnmatchcase(part, wanted) and (not part.startswith(".") or wanted.startswith("."))
        for part, wanted in zip(name, pattern, strict=True)
    )


def _without_lua(text: str) -> str:
    """Return the text with Lua blocks emptied, line feeds kept."""
    if "_by_lua_block" not in text:
        return text
    parts, end = [], 0
    while block := _LUA_BLOCK.search(text, end):
        depth, close = 1, len(text)
        for token in _LUA_TOKEN.finditer(text, block.end()):
            depth += {"{": 1, "}": -1}.get(token[0], 0)
            if depth == 0:
                close = token.start()
                break
        parts += [text[end : block.end()], "\n" * text.count("\n", block.end(), close)]
        end = close
    return "".join([*parts, text[end:]])
