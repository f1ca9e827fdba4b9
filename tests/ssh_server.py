"""An SSH server that shows a host key to whoever asks: AsyncSSH, on a free port of loopback.

with ssh_server(key_file) as address:
    ...                              address is "127.0.0.1:40022"

OpenSSH's own sshd wants a user and a folder of the machine, and Debian's package starts one on
port 22. What is under test is the client, `ssh-keyscan`, which is OpenSSH's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh


@contextmanager
def ssh_server(*host_keys: Path) -> Iterator[str]:
    """Run the server inside the block."""
    loop = asyncio.new_event_loop()

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen("127.0.0.1", 0, server_host_keys=[str(key) for key in host_keys])

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.get_port()}"
    finally:

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
