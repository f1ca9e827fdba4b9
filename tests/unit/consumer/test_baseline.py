"""The handshakes of before a reload, as they lie on disk between two runs."""

from __future__ import annotations

from pathlib import Path

from certcast.config.model import Address, Listener
from certcast.consumer.proof import baseline
from certcast.consumer.proof.handshake import MATRIX, Handshake, Shown, Target

RSA_12, ECDSA_13 = MATRIX[0], MATRIX[3]
BY_NAME = Handshake(Target(Listener(Address("127.0.0.1", 443)), "example.test"), ECDSA_13)
AT_SOCKET = Handshake(Target(Listener(Path("/run/nginx.sock"), proxy_protocol=True), None), RSA_12)
DOWN = Shown(None, "no connection (Connection refused)", reached=False)
WRITTEN = f"""\
{{"handshakes": [
[["127.0.0.1", 443], false, "example.test", "TLS 1.3", "ECDSA", "{"a" * 64}"],
["/run/nginx.sock", true, null, "TLS 1.2", "RSA", "{"b" * 64}"]
]}}
"""


def test_killed_runs_handshakes_count_where_there_are_none_now(tmp_path: Path) -> None:
    """What a killed run wrote (a file of today's) stands in for what fails now, and for nothing else."""
    path = tmp_path / "handshakes.json"
    path.write_text(WRITTEN)
    assert {BY_NAME: Shown("c" * 64), AT_SOCKET: Shown("b" * 64)} == baseline.complete(
        path, {BY_NAME: Shown("c" * 64), AT_SOCKET: DOWN}
    )


def test_only_handshakes_that_came_about_are_written(tmp_path: Path) -> None:
    """The file has a line for each that did; once it is removed, what is seen now counts."""
    path = tmp_path / "handshakes.json"
    never = Handshake(AT_SOCKET.target, ECDSA_13)
    baseline.write(path, {BY_NAME: Shown("a" * 64), AT_SOCKET: Shown("b" * 64), never: DOWN})
    assert WRITTEN == path.read_text()
    baseline.remove(path)
    assert {AT_SOCKET: DOWN} == baseline.complete(path, {AT_SOCKET: DOWN})
