"""Programs that run beside the lab, pebble and nginx, and commands that it runs to their end.

A child writes to a file, is stopped by its own pid, and dies with the lab
whatever ends the lab, `kill -9` included: `setpriv --pdeathsig` (util-linux,
part of every Debian) asks the kernel for a SIGTERM on the parent's death. A
`preexec_fn` would do it too, but may deadlock in a process that has threads,
and the lab is all threads.

Neither program can be given port 0, so ports are picked (`free_ports`) and
may be taken by somebody else a moment later; `start_on_free_ports` then tries
again with others.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

# "Parent" in PR_SET_PDEATHSIG is the *thread* that forked (prctl(2)). A child
# started from a thread pool or a test's helper thread would die with it; this
# one lives as long as the interpreter.
_FORKING_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="children")

_POLL = 0.01
_GRACE = 5.0

T = TypeVar("T")


class ChildFailed(Exception):
    """A child ended early or did not become ready; the message ends with what it wrote last."""


class Child:
    """One running program; `output` receives its stdout and stderr.

    `death_signal` is what it gets when the lab dies: KILL for one that is deaf to TERM.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        output: Path,
        environment: Mapping[str, str] | None = None,
        death_signal: str = "TERM",
    ) -> None:
        self.name = Path(argv[0]).name
        self.output = output
        with output.open("ab") as log:
            self._process = _FORKING_THREAD.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", death_signal, *map(str, argv)],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for the lab, which stops its children in order.
                start_new_session=True,
            ).result()
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout: float = 20) -> None:
        """Return once `ready()` is true; raise ChildFailed if the child ends or `timeout` seconds pass."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self._process.poll() is not None:
                raise ChildFailed(f"{self.name} ended with status {self._process.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} is not {what} after {timeout:g} s\n{self.tail()}")
            time.sleep(_POLL)

    def tail(self, lines: int = 20) -> str:
        """Return the end of what the child wrote."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child itself."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End the child with SIGTERM, after 5 s with SIGKILL to its whole session. Harmless twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.wait()


def run(
    argv: Sequence[str], environment: Mapping[str, str], *, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; output is captured.

    Interrupted, it ends the command with SIGTERM and waits for it: `subprocess.run` would kill it, and
    leave what it has started or put into the zone to nobody.
    """
    with ExitStack() as stack:
        with _interrupts_held():
            child = stack.enter_context(_child_ended(argv, environment, stderr))
        stdout, errors = child.communicate()
    return subprocess.CompletedProcess(list(argv), child.returncode, stdout, errors)


@contextmanager
def _child_ended(
    argv: Sequence[str], environment: Mapping[str, str], stderr: int
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True) as child:
        try:
            yield child
        except BaseException:
            child.terminate()
            child.communicate()
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let an interrupt wait until the block is done.

    One that comes inside of Popen, after the fork, leaves a child that nobody knows (seen once in CI).
    Not `pthread_sigmask`: the child would inherit that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python's signal handlers run in the main thread alone
        return
    came: list[tuple[int, object]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(signal.Signals(came[0][0]))


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback TCP ports that were free a moment ago."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def start_on_free_ports(count: int, start: Callable[[list[int]], T], attempts: int = 5) -> T:
    """Return `start(ports)`, called again with other ports while it fails because one was taken."""
    for attempt in range(1, attempts + 1):
        try:
            return start(free_ports(count))
        except ChildFailed as failure:
            if "ddress already in use" not in str(failure) or attempt == attempts:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def accepts_connections(port: int) -> bool:
    """Return whether something on loopback listens on the TCP port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
