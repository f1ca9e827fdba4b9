"""A read-only relay of the store, as an administrator sets it up: a real nginx, plain GET.

    Relay(folder, "certcast", root=copy)            serves a copy of the objects, in a folder
    Relay(folder, "certcast", behind=url)           asks a bucket that lets the relay's network in
    relay.url                                       what hosts have as `store.read_from`

With `tls`, by https; the pair must hold the IP address 127.0.0.1. `extra` are lines of the
location, by which a test makes something go wrong. `server` is a whole block instead, as the
documentation has it for port 443.
"""

from __future__ import annotations

import os
from pathlib import Path

from certcast_lab.serving.authority import Pair
from certcast_lab.serving.children import Child, Program
from certcast_lab.serving.service import LOOPBACK

_CONF = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""

_SERVER = """\
    server {{
        listen {listen};
        {certificate}
        location /{name}/ {{
            limit_except GET {{ deny all; }}
            {source}
            {extra}
        }}
    }}
"""


class Relay(Program):
    """nginx in `folder`, from `start()` until `stop()`."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        root: Path | None = None,
        behind: str | None = None,
        tls: Pair | None = None,
        extra: str = "",
        server: str = "",
    ) -> None:
        super().__init__(1)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self._scheme = "https" if tls else "http"
        certificate = ""
        if tls:
            fullchain, key = tls.write(folder / "tls")
            certificate = f"ssl_certificate {fullchain}; ssl_certificate_key {key};"
        self._server = server or _SERVER.format(
            listen="443 ssl" if tls else "443",
            certificate=certificate,
            name=name,
            source=f"alias {root}/;" if root else f"proxy_pass {behind}/;",
            extra=extra,
        )

    @property
    def port(self) -> int:
        """Where it listens, once it was started."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """The address below which the store's keys are."""
        return f"{self._scheme}://127.0.0.1:{self.port}/{self.name}"

    def asked(self) -> list[str]:
        """Return path and status of every request, oldest first: `/certcast/certs/… 304`."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return [f"{fields[6]} {fields[8]}" for line in lines if (fields := line.split())]

    def launch(self) -> Child:
        """Write the configuration, and start nginx with it."""
        conf = self.folder / "nginx.conf"
        conf.write_text(
            _CONF.format(
                # The default user of its workers, nobody, may not read a test's folders.
                user="user root;" if os.geteuid() == 0 else "",
                folder=self.folder,
                server=self._server.replace("listen 443", f"listen {LOOPBACK}:{self.port}"),
            )
        )
        return Child(["nginx", "-p", self.folder, "-c", conf], output=self.folder / "console.log")
