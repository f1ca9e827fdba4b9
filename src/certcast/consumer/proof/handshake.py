"""Full TLS handshakes with what nginx serves, by clients that accept one type of key.

    with Clients() as clients:
        clients.try_all([Handshake(target, client) for client in clients.kinds])

nginx may hold a pair of each type of key, and the client decides which it gets: a browser the one, an old
device the other. So each target is tried as four clients: TLS 1.2 and 1.3, each for RSA and for ECDSA.

One process for each type of key shakes hands (tls_client.py says why). The processes start while nginx tests
its configuration, and end with the `with` block.

Not here: which handshakes are tried (plan.py), and what the answers mean (verdict.py).
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from certcast.host import children
from certcast.report.errors import NotProved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from certcast.config.model import Listener

Keys = Literal["RSA", "ECDSA", "any"]
_CODE = Path(__file__).with_name("tls_client.py")


@dataclass(frozen=True)
class Target:
    """A listener, asked for a name; without one, a client gets the default server's certificate."""

    listener: Listener
    name: str | None

    def __str__(self) -> str:
        return f"{self.listener} " + (f"as {self.name}" if self.name else "without a name")


@dataclass(frozen=True)
class Client:
    """A kind of client: its TLS version, and the type of key that it accepts."""

    version: Literal["TLS 1.2", "TLS 1.3", "TLS"]
    keys: Keys


MATRIX = (
    Client("TLS 1.2", "RSA"),
    Client("TLS 1.2", "ECDSA"),
    Client("TLS 1.3", "RSA"),
    Client("TLS 1.3", "ECDSA"),
)
# Where this Python's OpenSSL takes no configuration from us, TLS 1.3 clients cannot be limited.
MATRIX_WITHOUT_CONFIGURATION = (*MATRIX[:2], Client("TLS 1.3", "any"))
BROWSER = Client("TLS", "any")


@dataclass(frozen=True)
class Handshake:
    """One handshake that is tried."""

    target: Target
    client: Client


@dataclass(frozen=True)
class Shown:
    """What a handshake showed: the leaf's SHA-256 (64 hex digits), or why there was none.

    `reached` is false where there was not even a connection.
    """

    leaf: str | None
    failure: str = ""
    reached: bool = True

    def __str__(self) -> str:
        return f"leaf {self.leaf[:16]}…" if self.leaf else self.failure


class Clients:
    """The clients, ready to be asked any number of times within a `with` block."""

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}

    def __enter__(self) -> Clients:
        try:
            for keys in ("RSA", "ECDSA"):
                self._process(keys)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.end()

    @property
    def kinds(self) -> tuple[Client, ...]:
        """Every kind of client there is on this host."""
        limited = all(self._process(keys).limited for keys in ("RSA", "ECDSA"))
        return MATRIX if limited else MATRIX_WITHOUT_CONFIGURATION

    def try_all(self, handshakes: Iterable[Handshake]) -> dict[Handshake, Shown]:
        """Return what each handshake shows now. NotProved if a process of ours has ended.

        Sixteen at once for each type of key; each takes at most 5 s.
        """
        by_keys: dict[str, list[Handshake]] = {}
        for handshake in handshakes:
            by_keys.setdefault(handshake.client.keys, []).append(handshake)
        processes = {keys: self._process(keys) for keys in by_keys}
        for keys, questions in by_keys.items():
            processes[keys].ask([_question(handshake) for handshake in questions])
        shown: dict[Handshake, Shown] = {}
        for keys, questions in by_keys.items():
            answers = processes[keys].answers()
            for handshake, (leaf, reached, failure) in zip(questions, answers, strict=True):
                shown[handshake] = Shown(leaf, failure, reached)
        return shown

    def _process(self, keys: str) -> _Process:
        found = self._processes.get(keys)
        if found is not None and found.ended:
            found.end()
            found = None  # the next round, perhaps that of a rollback, gets a new one
        if found is None:
            found = self._processes[keys] = _Process(keys.lower())
        return found


def place_of(listener: Listener) -> list[str | int] | str:
    """Return where to connect to, as JSON has it: host and port, or the path of a socket."""
    address = listener.address
    return str(address) if isinstance(address, Path) else [address.host, address.port]


def _question(handshake: Handshake) -> list[Any]:
    target = handshake.target
    return [
        place_of(target.listener),
        target.name,
        target.listener.proxy_protocol,
        handshake.client.version,
    ]


class _Process:
    """tls_client.py for one type of key."""

    def __init__(self, keys: str) -> None:
        # There is no any.cnf: OpenSSL takes it for an empty one, so that the host's policy doesn't count.
        configuration = str(_CODE.with_name(f"{keys}.cnf"))
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CODE), keys],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=children.bare_environment(OPENSSL_CONF=configuration),
            text=True,
        )

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself, or was killed for want of memory."""
        return self._child.poll() is not None

    @functools.cached_property
    def limited(self) -> bool:
        """Whether its OpenSSL took the configuration that limits it. Read before anything else."""
        return bool(self._read()["limited"])

    def ask(self, questions: list[Any]) -> None:
        """Begin a round. The process reads the whole line first, so neither waits for the other."""
        assert self._child.stdin
        _ = self.limited  # its first line is read before any answer
        with self._or_say_so():
            self._child.stdin.write(json.dumps(questions) + "\n")
            self._child.stdin.flush()

    def answers(self) -> list[Any]:
        """Wait for the round's answers."""
        return list(self._read())

    def _read(self) -> Any:
        assert self._child.stdout
        with self._or_say_so():
            return json.loads(self._child.stdout.readline())

    def end(self) -> None:
        """End the process at once: it holds nothing worth a wait, and may be in a handshake that hangs."""
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):  # what it did not read any more
                assert pipe
                pipe.close()
        self._child.kill()
        self._child.wait()

    @contextlib.contextmanager
    def _or_say_so(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(1)
            raise NotProved(
                "the process that tries handshakes has ended",
                expected=f"`OPENSSL_CONF={_CODE.parent}/rsa.cnf {sys.executable} -I -S {_CODE} rsa` to run",
                found=f"exit status {self._child.poll()}",
                next="run that command: it waits for input, or says what is the matter; then `certcast pull`",
            ) from error
