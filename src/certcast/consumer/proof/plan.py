"""Which handshakes prove a certificate: listeners and names, from `nginx -T` or from our configuration.

    Site    one nginx, what its configuration says, and the paths under which it sees our files
    plan    every TLS listener with every name that the certificate covers  →  Plan

A listener is asked for the certificate's own names (for a wildcard: a made-up label), for
each server_name there that it covers, and once without a name, as the default server
answers. Where `listeners` are configured they are the ones, with the names from `nginx -T`.

What is expected of a listener:
- `required`: it is configured, so the new leaf must be seen there
- `expected`: a name that is asked leads to a server with our files, so it must be seen there
  if there is any connection
- `unasked`: a server there has our files, but no name leads to it that could be made up
  (server_names.py). What its clients get cannot be told
- others: what they showed before they must not lose; nothing else is asked of them

An address that nginx shows may be another host's: keepalived's, while this one is the
backup. It isn't asked, since the other nginx would answer. Nor is a wildcard, if each address
of this host has a `listen` of its own on that port.

Not here: which server block a name leads to (server_names.py), shaking hands (handshake.py),
the verdict (verdict.py), and who is to blame (explanation.py).
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

# Targets that are asked as every kind of client; the others once, as a browser. These 2,000 handshakes
# take about a second on two cores.
MATRIX_TARGETS = 500


@dataclass(frozen=True)
class Site:
    """One nginx. `says` is None if it does not tell; `ours` are our files' paths as it sees them."""

    nginx: NginxConfig
    says: Configuration | None
    ours: frozenset[str]
    snippet: str

    def includes_ours(self) -> bool | None:
        """Whether the snippet is read, or a server names a file of ours; None if nginx does not tell."""
        if self.says is None:
            return None
        return any(self._same(file, {self.snippet}) for file in self.says.files) or any(
            map(self.takes_ours, self.servers)
        )

    @property
    def servers(self) -> tuple[Server, ...]:
        """Its server blocks, as far as it tells."""
        return self.says.servers if self.says else ()

    def takes_ours(self, server: Server) -> bool:
        """Whether a server names our certificate."""
        return any(self.is_ours(certificate.path) for certificate in server.certificates)

    def is_ours(self, path: str) -> bool:
        """Whether a path in its configuration is one of our files."""
        return self._same(path, self.ours)

    def _same(self, path: str, ours: Collection[str]) -> bool:
        if path in ours:
            return True
        # As nginx: relative to the main file's folder. In a container the links are not ours to follow.
        main = self.says.files[0] if self.says else "/"
        absolute = os.path.normpath(os.path.join(os.path.dirname(main), path))  # noqa: PTH118, PTH120  text
        return absolute in ours or (not self.nginx.paths and str(Path(absolute).resolve()) in ours)


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
    # Links of this host are followed once here, as `_same` follows those of the configuration.
    ours = {one for path in files for one in (path, path.resolve())}
    seen = frozenset(str(containers.path_inside(nginx, path)) for path in ours)
    return Site(nginx, says, seen, str(containers.path_inside(nginx, folder.snippet_of(nginx))))


@dataclass(frozen=True)
class Plan:
    """What is tried, what must be seen, and in words what cannot be tried.

    `unasked` are listeners at which no name leads to the server block in that line, which has our files.
    """

    handshakes: tuple[Handshake, ...]
    required: frozenset[Listener]
    expected: frozenset[Listener]
    not_provable: tuple[str, ...]
    unasked: Mapping[Listener, Line] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets, each once."""
        return tuple(dict.fromkeys(one.target for one in self.handshakes))


def plan_handshakes(sites: Iterable[Site], names: Sequence[str], kinds: Sequence[Client]) -> Plan:
    """Return the handshakes for a certificate with these `names` (its wildcards as `*.…`)."""
    own: list[str | None] = [*map(server_names.sni_for, names), None]
    targets: dict[Target, None] = {}
    required: set[Listener] = set()
    expected: dict[Listener, Line] = {}
    unasked: dict[Listener, Line] = {}
    not_provable: list[str] = []
    for site in sites:
        required.update(site.nginx.listeners)
        found = _names_by_listener(site, names, own)
        for listener in [one for one in found if one not in site.nginx.listeners]:
            if why := _why_not(listener.address):
                not_provable.append(f"{listener}: {why}")
                del found[listener]
        for listener, asked in found.items():
            targets.update(dict.fromkeys(Target(listener, name) for name in asked))
        for server in filter(site.takes_ours, site.servers):
            not_provable += _other_ways(server)
            its_names = server_names.covered_names(server, names)
            for listener in [listen.listener for listen in server.listens if listen.ssl]:
                if listener in found and listener not in expected:
                    others = [] if listener in unasked else own
                    leads = _leads_to_ours(site, listener, [*others, *its_names])
                    (expected if leads else unasked).setdefault(listener, server.at)
    # What the certificate holds comes first everywhere: it is what the matrix must not leave out.
    ordered = sorted(targets, key=lambda target: target.name not in own)
    handshakes = [Handshake(target, client) for target in ordered[:MATRIX_TARGETS] for client in kinds]
    handshakes += [Handshake(target, BROWSER) for target in ordered[MATRIX_TARGETS:]]
    return Plan(
        tuple(handshakes),
        frozenset(required),
        frozenset(expected),
        (*dict.fromkeys(not_provable), *_bounds(len(ordered), kinds)),
        {listener: line for listener, line in unasked.items() if listener not in expected},
    )


def _other_ways(server: Server) -> Iterator[str]:
    """Say where a server block shows its certificate in a way that is not tried here."""
    for listen in server.listens:
        if listen.quic:
            yield f"QUIC on {listen.listener}"
        elif server.kind == "mail" and not listen.ssl:
            yield f"STARTTLS on {listen.listener}"


def _leads_to_ours(site: Site, listener: Listener, asked: Iterable[str | None]) -> bool:
    """Whether a name that is asked at a listener leads to a server block with our files."""
    return any(
        site.takes_ours(server)
        for name in asked
        for server in server_names.match(site.servers, listener, name)
    )


def _why_not(address: Address | Path) -> str | None:
    """Return why an address that nginx shows cannot be asked; None if it can."""
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


def _names_by_listener(
    site: Site, names: Sequence[str], own: Sequence[str | None]
) -> dict[Listener, list[str | None]]:
    covered = {server: server_names.covered_names(server, names) for server in site.servers}
    if site.nginx.listeners:
        every = [name for some in covered.values() for name in some]
        return {listener: [*own, *every] for listener in site.nginx.listeners}
    found: dict[Listener, list[str | None]] = {}
    for server, some in covered.items():
        for listen in server.listens:
            if listen.ssl:
                found.setdefault(listen.listener, list(own)).extend(some)
    return found
