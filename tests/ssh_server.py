"""An SSH server that shows its host key: AsyncSSH, on a free port of loopback.

with ssh_server(key_file) as address:
    ...                              address is "127.0.0.1:40022"

OpenSSH's own sshd wants a user and a folder of the machine, and Debian's package starts one on
port 22. What is under test is the client, `ssh-keyscan`, which is OpenSSH's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from certcast_lab.serving.service import LOOPBACK, Service


@contextmanager
def ssh_server(*host_keys: Path) -> Iterator[str]:
    """Run the server inside the block."""
    with _SshServer(host_keys) as server:
        yield f"{LOOPBACK}:{server.port}"


class _SshServer(Service):
    def __init__(self, host_keys: tuple[Path, ...]) -> None:
        self._host_keys = [str(key) for key in host_keys]
        super().__init__("ssh")

    async def open(self) -> None:
        self._acceptor = await asyncssh.listen(LOOPBACK, 0, server_host_keys=self._host_keys)
        self.port = self._acceptor.get_port()

    async def close(self) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()
