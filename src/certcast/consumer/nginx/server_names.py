"""Which server block nginx takes for a name, and which names can be asked of a block.

    at        the server blocks at a listener
    fitting   those of them that fit a target best: nginx takes the first
    covered   the names of a block that a certificate holds

https://nginx.org/en/docs/http/server_names.html: the exact name, the longest wildcard
in front, the longest one behind, the first fitting regular expression, the default server.

Regular expressions are not tried: they are PCRE's, and one that takes PCRE no time may
take Python for ever. Where one may decide, nobody knows who answers, and its names cannot
be made up.

Not here: the certificate that a block shows (configuration.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certcast.config.model import Listener
    from certcast.consumer.nginx.configuration import Listen, Server
    from certcast.consumer.proof.handshake import Target

# A wildcard is asked for by a name that nobody configured.
MADE_UP = "certcast-proof"


def at(servers: Sequence[Server], listener: Listener) -> list[tuple[Server, Listen]]:
    """Return the server blocks with TLS at a listener; at its port, if no block names its address."""
    listening = [(server, one) for server in servers for one in server.listens if one.ssl]
    exactly = [(server, one) for server, one in listening if one.listener == listener]
    if exactly or isinstance(listener.address, Path):
        return exactly
    # A configured listener: nginx may well wait at every address, and say only the port.
    port = listener.address.port
    return [
        (server, one)
        for server, one in listening
        if not isinstance(one.listener.address, Path) and one.listener.address.port == port
    ]


def fitting(servers: Sequence[Server], target: Target) -> list[Server]:
    """Return the server blocks that fit a target best; none if a regular expression may decide.

    nginx takes the first; several are a conflict, of which it warns.
    """
    here = at(servers, target.listener)
    name = target.name or ""
    ranks = [
        (max((_rank(one.lower(), name) for one in server.names), default=(0, 0)), server)
        for server, _ in here
    ]
    best = max((rank for rank, _ in ranks), default=(0, 0))
    if best > (0, 0):
        return [server for rank, server in ranks if rank == best]
    if name and any(one.startswith("~") for server, _ in here for one in server.names):
        return []
    return [server for server, listen in here if listen.default] or [server for server, _ in here][:1]


def covered(server: Server, names: Sequence[str]) -> list[str]:
    """Return the names to ask a block for that a certificate with these `names` holds.

    Regular expressions and the like are left out.
    """
    return [host(form) for written in server.names for form in _forms(written.lower(), names)]


def host(name: str) -> str:
    """Return the name to ask for; of a wildcard, one that nobody configured."""
    return MADE_UP + name[1:] if name.startswith("*.") else name


def _forms(written: str, names: Sequence[str]) -> Iterator[str]:
    if written.endswith(".*"):
        label, _, _ = written.partition(".")
        hosts = [label + name[1:] if name.startswith("*.") else name for name in names]
        yield from (one for one in hosts if one.startswith(written[:-1]))
        return
    forms = [written[1:], "*" + written] if written.startswith(".") else [written]
    yield from (form for form in forms if _covers(names, form))


def _covers(names: Sequence[str], name: str) -> bool:
    return name in names or "*." + name.partition(".")[2] in names


def _rank(written: str, name: str) -> tuple[int, int]:
    """Return how well a server_name fits: (kind of match, its length); (0, 0) if it does not."""
    if not name or not written:
        return (0, 0)
    if written == name or (written.startswith(".") and written[1:] == name):
        return (3, len(written))
    if written.startswith(("*.", ".")) and name.endswith(written.lstrip("*")):
        return (2, len(written))
    if written.endswith(".*") and name.startswith(written[:-1]):
        return (1, len(written))
    return (0, 0)
