"""What listens on loopback in a thread of this process, on an asyncio loop of its own.

Mail, DNS, HTTP and the proxy are such services. One is up once it is made, and
`stop()` leaves neither thread nor socket behind: clients of the lab keep
connections alive, and a fault under test may hold a reply back, so connections
are cut, not waited for.

A subclass sets its attributes, then calls `super().__init__`: from there on
`open()` listens, and clients may come.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from ssl import SSLContext
from types import TracebackType
from typing import Any, TypeVar

LOOPBACK = "127.0.0.1"
START_SECONDS = 30
STOP_SECONDS = 30

T = TypeVar("T")
Running = TypeVar("Running", bound="Stoppable")

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Stoppable:
    """What is stopped at the end of a `with`; `stop()` is harmless twice."""

    def stop(self) -> None:
        """Stop it."""
        raise NotImplementedError

    def __enter__(self: Running) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Service(Stoppable):
    """Runs from its making until `stop()`; `name` is the thread's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._listeners: list[asyncio.Server] = []
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=name, daemon=True)
        self._thread.start()
        self._opened.result(START_SECONDS)

    async def open(self) -> None:
        """Listen."""
        raise NotImplementedError

    async def close(self) -> None:
        """End what `open()` began, before listeners and connections are closed."""

    async def listen(
        self,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        host: str = LOOPBACK,
        port: int = 0,
        tls: SSLContext | None = None,
    ) -> int:
        """Give each connection a `protocol` of its own; return the port, by default one that is free."""
        return self._add(await self._loop.create_server(protocol, host, port, ssl=tls))

    async def converse(self, talk: Talk, *, host: str = LOOPBACK, port: int = 0) -> int:
        """Let `talk` read and write each connection, which is closed afterwards; return the port."""

        async def talk_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            except asyncio.CancelledError:  # by stop()
                writer.transport.abort()
            finally:
                writer.close()

        return self._add(await asyncio.start_server(talk_and_close, host, port))

    def _add(self, listener: asyncio.Server) -> int:
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the service's loop, from another thread, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_SECONDS)

    def stop(self) -> None:
        """Cut every connection, close every port, join the thread; harmless twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                raise RuntimeError(f"{self.name} did not stop in {STOP_SECONDS} s")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        try:
            await self.open()
        except BaseException as failure:
            await self._end()
            self._opened.set_exception(failure)
        else:
            self._opened.set_result(None)
            await self._over.wait()
            await self._end()

    async def _end(self) -> None:
        await self.close()
        # A connection that is accepted but not yet set up leaks its socket when its listener is closed or
        # its task cancelled. So no more are accepted, and the last ones get the turns that they need.
        for listener in self._listeners:
            for accepting in listener.sockets:
                self._loop.remove_reader(accepting.fileno())
        for _ in range(4):
            await asyncio.sleep(0)
        for listener in self._listeners:
            listener.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets one turn of the loop later
