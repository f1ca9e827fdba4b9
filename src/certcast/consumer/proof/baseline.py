"""The handshakes that came about before a reload, on disk until the reload has its verdict.

    certs/example.com/handshakes.json     a line for each: listener, name, client, leaf

A run may be killed between the reload and its verdict. The next run's first round would find the handshakes
that this reload broke, and take them for broken as always. So the earlier round counts until there is a
verdict or a rollback (docs/adr/0009).

Not here: the comparison (verdict.py), and when there is a verdict (switch.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certcast.config.model import Address, Listener
from certcast.consumer.proof.handshake import Client, Handshake, Shown, Target, place_of
from certcast.host import files

if TYPE_CHECKING:
    from collections.abc import Mapping


def complete(path: Path, now: Mapping[Handshake, Shown]) -> dict[Handshake, Shown]:
    """Return what is seen `now`; where that is no handshake, what a killed run saw before its reload.

    LocalFault if the file cannot be read.
    """
    document = files.read_json(path) or {"handshakes": []}
    with files.understood(path):
        earlier = dict(map(_from_row, document["handshakes"]))
    return {
        handshake: shown if shown.leaf else earlier.get(handshake, shown) for handshake, shown in now.items()
    }


def write(path: Path, before: Mapping[Handshake, Shown]) -> None:
    """Write down which handshakes came about, durably. OSError if the disk refuses."""
    rows = [json.dumps(_to_row(handshake, shown.leaf)) for handshake, shown in before.items() if shown.leaf]
    files.write_atomically(path, ('{"handshakes": [\n' + ",\n".join(rows) + "\n]}\n").encode())


def remove(path: Path) -> None:
    """Let the next run go by what it sees itself. Harmless twice."""
    path.unlink(missing_ok=True)


def _to_row(handshake: Handshake, leaf: str) -> list[Any]:
    target, client = handshake.target, handshake.client
    proxied = target.listener.proxy_protocol
    return [place_of(target.listener), proxied, target.name, client.version, client.keys, leaf]


def _from_row(row: list[Any]) -> tuple[Handshake, Shown]:
    where, proxy_protocol, name, version, keys, leaf = row
    address = Path(where) if isinstance(where, str) else Address(*where)
    target = Target(Listener(address, proxy_protocol), name)
    return Handshake(target, Client(version, keys)), Shown(leaf)
