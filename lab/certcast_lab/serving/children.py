"""Programs that run beside the lab, pebble and nginx, and commands that it runs to their end.

A child writes to a file, is stopped by its own pid, and dies with the lab, even
after a `kill -9`: `setpriv --pdeathsig` (util-linux, part of every Debian) asks the
kernel for a SIGTERM on the parent's death. A `preexec_fn` may deadlock in a process
that has threads, as the lab has.

None of these programs can be given port 0, so ports are picked (`free_ports`) and
another process may take one a moment later; `Program.start` then tries again with others.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from certcast_lab.serving.service import LOOPBACK, Stoppable

# "Parent" in PR_SET_PDEATHSIG is the *thread* that forked (prctl(2)). A child
# started from a thread pool or a test's helper thread would die with it; this
# one lives as long as the interpreter.
_FORKING_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="children")

_POLL = 0.01
_GRACE = 5.0

Started = TypeVar("Started", bound="Program")


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

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout: float = 60) -> None:
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


class Program(Stoppable):
    """A child that listens on `ports` of loopback; started again after `stop()`, it has the same ones."""

    def __init__(self, port_count: int) -> None:
        self.ports: list[int] = []
        self._port_count = port_count
        self._child: Child | None = None

    def launch(self) -> Child:
        """Start the process; `ports` are picked."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Return whether it listens on all its ports."""
        return all(accepts_connections(port) for port in self.ports)

    def start(self: Started) -> Started:
        """Start it and wait until it is ready. ChildFailed, with what it wrote last, if it isn't in 60 s."""
        if self.ports:
            self._launch_and_wait()
        else:
            self._start_on_free_ports(attempts=5)
        return self

    def _start_on_free_ports(self, attempts: int) -> None:
        for attempts_left in reversed(range(attempts)):
            self.ports = free_ports(self._port_count)
            try:
                self._launch_and_wait()
            except ChildFailed as failure:
                if "ddress already in use" not in str(failure) or not attempts_left:
                    raise
            else:
                return

    def _launch_and_wait(self) -> None:
        self._child = self.launch()
        try:
            self._child.wait_until(self.is_ready, what="listening")
        except BaseException:
            self._child.stop()
            raise

    def stop(self) -> None:
        """End it; harmless twice."""
        if self._child:
            self._child.stop()
            self._child = None

    def __enter__(self: Started) -> Started:
        return self if self._child else self.start()


def run(
    argv: Sequence[str], environment: Mapping[str, str], *, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; output is captured.

    Interrupted, it ends the command with SIGTERM and waits for it. `subprocess.run` would kill the
    command, which could then clean up neither its children nor the zone.
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

    An interrupt inside of Popen, after the fork, leaves a child without an owner (seen once in CI).
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
    """Return `count` different loopback TCP ports that were free a moment ago.

    They lie below the ports that Linux picks itself (ip_local_port_range), so that neither a client's
    connection nor a server at port 0 takes one meanwhile.
    """
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            listener = held.enter_context(socket.socket())
            with suppress(OSError):  # taken: another one
                listener.bind((LOOPBACK, random.randrange(20_000, 32_768)))
                ports.append(listener.getsockname()[1])
        return ports


def accepts_connections(port: int) -> bool:
    """Return whether something on loopback listens on the TCP port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0
