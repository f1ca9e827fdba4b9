"""Which server block nginx takes for a name, and which names can be asked of a block.

    list_at         the server blocks at a listener
    match           those of them that match a name best: nginx takes the first
    covered_names   the names of a block that a certificate holds

https://nginx.org/en/docs/http/server_names.html: the exact name, the longest wildcard in front, the longest
one behind, the first matching regular expression, the default server.

Regular expressions are not tried: they are PCRE's, and one that takes PCRE no time may take Python for ever.
Where a regular expression may decide, certcast cannot tell which block answers, nor make up a name for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certcast.config.model import Listener
    from certcast.consumer.nginx.configuration import Listen, Server

# The label that stands for a wildcard's star: no configuration names it.
MADE_UP = "certcast-proof"


def list_at(servers: Sequence[Server], listener: Listener) -> list[tuple[Server, Listen]]:
    """Return the server blocks with TLS at a listener; at its port, if no block names its address."""
    listening = [(server, listen) for server in servers for listen in server.listens if listen.ssl]
    exactly = [(server, listen) for server, listen in listening if listen.listener == listener]
    if exactly or isinstance(listener.address, Path):
        return exactly
    # A configured listener: nginx may well listen at every address, and name only the port.
    port = listener.address.port
    return [
        (server, listen)
        for server, listen in listening
        if not isinstance(listen.listener.address, Path) and listen.listener.address.port == port
    ]


def match(servers: Sequence[Server], listener: Listener, name: str | None) -> list[Server]:
    """Return the server blocks that match a name best; none if a regular expression may decide.

    nginx takes the first; several are a conflict, of which nginx warns.
    """
    here = list_at(servers, listener)
    name = name or ""
    ranks = [
        (max((_rank(written.lower(), name) for written in server.names), default=(0, 0)), server)
        for server, _ in here
    ]
    best = max((rank for rank, _ in ranks), default=(0, 0))
    if best > (0, 0):
        return [server for rank, server in ranks if rank == best]
    if name and any(written.startswith("~") for server, _ in here for written in server.names):
        return []
    return [server for server, listen in here if listen.default] or [server for server, _ in here][:1]


def covered_names(server: Server, names: Sequence[str]) -> list[str]:
    """Return the names to ask a block for that a certificate with these `names` holds.

    Regular expressions and the like are left out.
    """
    return [sni_for(form) for written in server.names for form in _forms(written.lower(), names)]


def sni_for(name: str) -> str:
    """Return the name to send in a handshake (SNI); for a wildcard, a made-up one below it."""
    return MADE_UP + name[1:] if name.startswith("*.") else name


def _forms(written: str, names: Sequence[str]) -> Iterator[str]:
    if written.endswith(".*"):
        label, _, _ = written.partition(".")
        hosts = [label + name[1:] if name.startswith("*.") else name for name in names]
        yield from (host for host in hosts if host.startswith(written[:-1]))
        return
    forms = [written[1:], "*" + written] if written.startswith(".") else [written]
    yield from (form for form in forms if form in names or "*." + form.partition(".")[2] in names)


def _rank(written: str, name: str) -> tuple[int, int]:
    """Return how well a server_name matches: (kind of match, its length); (0, 0) if it does not."""
    if not name or not written:
        return (0, 0)
    if written == name or (written.startswith(".") and written[1:] == name):
        return (3, len(written))
    if written.startswith(("*.", ".")) and name.endswith(written.lstrip("*")):
        return (2, len(written))
    if written.endswith(".*") and name.startswith(written[:-1]):
        return (1, len(written))
    return (0, 0)
