"""Which handshakes prove a certificate: listeners and names, from `nginx -T` or from our configuration.

    site_of           one nginx: what its configuration says, and the paths under which it sees our files
    plan_handshakes   every TLS listener with every name that the certificate covers: the Plan

At each listener the certificate's own names are tried (for a wildcard: a made-up label), each server_name
there that it covers, and no name, as old clients do. Configured `listeners` replace those of `nginx -T`.

An address in `nginx -T` may belong to another host: keepalived's, while this one is the backup. The other
nginx would answer, so that address is not tried. Nor is a wildcard, if each address of this host has a
`listen` of its own on that port.

Not here: which server block a name leads to (server_names.py), the verdict (verdict.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.config.model import Listener
from certcast.consumer.nginx import containers, server_names
from certcast.consumer.nginx.configuration import EVERYWHERE
from certcast.consumer.proof.handshake import BROWSER, Client, Handshake, Target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from certcast.config.model import Address, CopyConfig, NginxConfig
    from certcast.consumer.disk.versions import Folder
    from certcast.consumer.nginx.configuration import Configuration, Line, Server

# Targets that are tried as every kind of client; the others once, as a browser. These 2,000 handshakes
# take about a second on two cores.
MATRIX_TARGETS = 500


@dataclass(frozen=True)
class Site:
    """One nginx. `says` is None if it does not tell; `our_files` and `snippet` are paths as it sees them."""

    nginx: NginxConfig
    says: Configuration | None
    our_files: frozenset[str]
    snippet: str

    def is_included(self) -> bool | None:
        """Whether the snippet is read, or a server names a file of ours; None if nginx does not tell."""
        if self.says is None:
            return None
        return any(self._is_one_of(file, {self.snippet}) for file in self.says.files) or any(
            map(self.shows_our_files, self.servers)
        )

    @property
    def servers(self) -> tuple[Server, ...]:
        """Its server blocks, as far as it tells."""
        return self.says.servers if self.says else ()

    def shows_our_files(self, server: Server) -> bool:
        """Whether a server names our certificate."""
        return any(self.is_our_file(certificate.path) for certificate in server.certificates)

    def is_our_file(self, path: str) -> bool:
        """Whether a path in its configuration is one of our files."""
        return self._is_one_of(path, self.our_files)

    def _is_one_of(self, path: str, files: Collection[str]) -> bool:
        if path in files:
            return True
        # As nginx: relative to the main file's folder. In a container the links are not ours to follow.
        main = self.says.files[0] if self.says else "/"
        absolute = os.path.normpath(os.path.join(os.path.dirname(main), path))  # noqa: PTH118, PTH120  text
        return absolute in files or (not self.nginx.paths and str(Path(absolute).resolve()) in files)


def site_of(
    nginx: NginxConfig,
    says: Configuration | None,
    folder: Folder,
    version: str,
    copies: Iterable[CopyConfig],
) -> Site:
    """Return one nginx, with the paths that its sites may name for this version of a certificate."""
    files = [
        directory / name
        for directory in (folder.versions / version, folder.current)
        for name in ("fullchain.pem", "combined.pem")
    ]
    files += [path for entry in copies for path in entry.targets.values()]
    # Links of this host are followed once here, as `_is_one_of` follows those of the configuration.
    ours = {*files, *(path.resolve() for path in files)}
    seen = frozenset(str(containers.path_inside(nginx, path)) for path in ours)
    return Site(nginx, says, seen, str(containers.path_inside(nginx, folder.snippet_of(nginx))))


@dataclass(frozen=True)
class Plan:
    """What is tried, what must be seen, and in words what cannot be tried.

    The new leaf must be seen at each of the `required` listeners, which are configured, and at each of the
    `expected` ones that can be connected to: there a name leads to a server block with our files. At an
    `unasked` one a server block has our files, in that line, and no name is known that leads to it: what its
    clients get cannot be told. Any other listener must not lose what it showed before.
    """

    handshakes: tuple[Handshake, ...]
    required: frozenset[Listener]
    expected: frozenset[Listener]
    not_provable: tuple[str, ...]
    unasked: Mapping[Listener, Line] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets, each once."""
        return tuple(dict.fromkeys(handshake.target for handshake in self.handshakes))


def plan_handshakes(sites: Iterable[Site], names: Sequence[str], kinds: Sequence[Client]) -> Plan:
    """Return the handshakes for a certificate with these `names` (its wildcards as `*.…`)."""
    survey = _Survey(names)
    for site in sites:
        survey.add(site)
    # What the certificate holds comes first everywhere: it is what the matrix must not leave out.
    ordered = sorted(survey.targets, key=lambda target: target.name not in survey.own)
    handshakes = [Handshake(target, client) for target in ordered[:MATRIX_TARGETS] for client in kinds]
    handshakes += [Handshake(target, BROWSER) for target in ordered[MATRIX_TARGETS:]]
    return Plan(
        tuple(handshakes),
        frozenset(survey.required),
        frozenset(survey.expected),
        (*dict.fromkeys(survey.not_provable), *_bounds(len(ordered), kinds)),
        {listener: line for listener, line in survey.unasked.items() if listener not in survey.expected},
    )


class _Survey:
    """What a certificate's sites come to, one nginx after the other."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.own: list[str | None] = [*map(server_names.sni_for, names), None]
        self.targets: dict[Target, None] = {}
        self.required: set[Listener] = set()
        self.expected: set[Listener] = set()
        self.unasked: dict[Listener, Line] = {}
        self.not_provable: list[str] = []

    def add(self, site: Site) -> None:
        self.required.update(site.nginx.listeners)
        tried = self._tried_names(site)
        for listener, names in tried.items():
            self.targets.update(dict.fromkeys(Target(listener, name) for name in names))
        for server in filter(site.shows_our_files, site.servers):
            self.not_provable += _other_ways(server)
            for listen in server.listens:
                if listen.ssl and listen.listener in tried and listen.listener not in self.expected:
                    self._expect(site, server, listen.listener)

    def _tried_names(self, site: Site) -> dict[Listener, list[str | None]]:
        """Return the names to try at each listener, and note the listeners that can't be tried."""
        covered = {server: server_names.covered_names(server, self.names) for server in site.servers}
        if site.nginx.listeners:
            every = [name for names in covered.values() for name in names]
            return {listener: [*self.own, *every] for listener in site.nginx.listeners}
        found: dict[Listener, list[str | None]] = {}
        for server, names in covered.items():
            for listen in server.listens:
                if listen.ssl:
                    found.setdefault(listen.listener, list(self.own)).extend(names)
        for listener in tuple(found):
            if why := _why_not(listener.address):
                self.not_provable.append(f"{listener}: {why}")
                del found[listener]
        return found

    def _expect(self, site: Site, server: Server, listener: Listener) -> None:
        """Note whether a name that is tried at the listener leads to a server block with our files."""
        # Of a listener that is `unasked` already, the certificate's own names lead to none.
        names = [] if listener in self.unasked else self.own
        if any(
            site.shows_our_files(answering)
            for name in (*names, *server_names.covered_names(server, self.names))
            for answering in server_names.match(site.servers, listener, name)
        ):
            self.expected.add(listener)
        else:
            self.unasked.setdefault(listener, server.at)


def _other_ways(server: Server) -> Iterator[str]:
    """Say where a server block shows its certificate in a way that is not tried here."""
    for listen in server.listens:
        if listen.quic:
            yield f"QUIC on {listen.listener}"
        elif server.kind == "mail" and not listen.ssl:
            yield f"STARTTLS on {listen.listener}"


def _why_not(address: Address | Path) -> str | None:
    """Return why an address that nginx shows cannot be tried; None if it can."""
    if not isinstance(address, Path) and address.host in EVERYWHERE:
        return "each address of this host has a `listen` of its own there"
    return None if is_here(address) else "no address of this host"


def is_here(address: Address | Path) -> bool:
    """Whether an address is this host's: the kernel would talk to it from the same one. Sends nothing."""
    import ipaddress
    import socket

    if isinstance(address, Path):
        return True
    try:
        for family, kind, _, _, where in socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind) as probe:
                probe.connect(where)
                source = probe.getsockname()[0]
            if source == where[0] or ipaddress.ip_address(source).is_loopback:
                return True
    except OSError:
        return False  # no such name, or no way there
    return False


def _bounds(targets: int, kinds: Sequence[Client]) -> Iterator[str]:
    if any(client.keys == "any" for client in kinds):
        yield "TLS 1.3 clients of one key type (this Python's OpenSSL takes no configuration)"
    if targets > MATRIX_TARGETS:
        rest = targets - MATRIX_TARGETS
        yield f"old clients at {rest:,} of {targets:,} names (tried once each, as a browser)"
