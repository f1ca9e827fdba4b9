"""The handshakes that came about before a reload, on disk until the reload has its verdict.

    certs/example.com/handshakes.json     a line for each: listener, name, client, leaf

A run that is killed between the reload and its verdict leaves a release in service of which
nobody has asked whether it broke a handshake. The next run's first round would find these
handshakes broken already, and take that for how it always was. So what was seen before
the reload counts until there is a verdict, or the way back was gone.

Not here: the comparison (verdict.py), and when there is a verdict (switch.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certcast.config.model import Address, Listener
from certcast.consumer.proof.handshake import Client, Handshake, Shown, Target
from certcast.host import files

if TYPE_CHECKING:
    from collections.abc import Mapping


def completed(path: Path, now: Mapping[Handshake, Shown]) -> dict[Handshake, Shown]:
    """Return what is seen `now`, but where that is no handshake, what a killed run saw before its reload.

    LocalFault if that cannot be read.
    """
    document = files.read_json(path) or {"handshakes": []}
    with files.understood(path):
        earlier = dict(map(_from_row, document["handshakes"]))
    return {one: shown if shown.leaf else earlier.get(one, shown) for one, shown in now.items()}


def note(path: Path, before: Mapping[Handshake, Shown]) -> None:
    """Write down which handshakes came about, durably. OSError if the disk refuses."""
    rows = [json.dumps(_to_row(one, shown)) for one, shown in before.items() if shown.leaf]
    files.write_atomically(path, ('{"handshakes": [\n' + ",\n".join(rows) + "\n]}\n").encode())


def forget(path: Path) -> None:
    """Let the next run go by what it sees itself. Harmless twice."""
    path.unlink(missing_ok=True)


def _to_row(one: Handshake, shown: Shown) -> list[Any]:
    listener = one.target.listener
    address = listener.address
    where = str(address) if isinstance(address, Path) else [address.host, address.port]
    client = one.client
    return [where, listener.proxy_protocol, one.target.name, client.version, client.keys, shown.leaf]


def _from_row(row: list[Any]) -> tuple[Handshake, Shown]:
    where, proxy_protocol, name, version, keys, leaf = row
    address = Path(where) if isinstance(where, str) else Address(*where)
    target = Target(Listener(address, proxy_protocol), name)
    return Handshake(target, Client(version, keys)), Shown(leaf)
