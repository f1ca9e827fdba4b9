"""Servers that misbehave: a port, and what each client that connects hears.

with answering(b"HTTP/1.1 200 OK") as port:
    ...
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress


@contextmanager
def port_where(speak: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A port where `speak` talks to each client, until the event says that it is over."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            speak(connection, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=talk, args=(connection,)))
                threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def answering(answer: bytes) -> AbstractContextManager[int]:
    """A port where a request gets `answer`, and the end of the connection."""

    def speak(connection: socket.socket, _over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return port_where(speak)


def dripping(answer: bytes) -> AbstractContextManager[int]:
    """A port where a request gets `answer`, then an octet every 50 ms, without an end."""

    def speak(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        while not over.wait(0.05):
            connection.sendall(b"x")

    return port_where(speak)
