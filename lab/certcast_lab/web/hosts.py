"""Web hosts: one real nginx each, in a folder that looks like a small machine.

    web1/etc/nginx/nginx.conf                 the operator's, includes:
    web1/etc/nginx/sites-enabled/site.conf    listeners, names, the certificate
    web1/etc/nginx/sites-enabled/site07.conf  one of many virtual hosts, if there are any
    web1/etc/certcast/                        for the host's certcast.toml
    web1/var/lib/certcast/                    where certcast keeps its files
    web1/var/log/nginx/error.log · web1/run/nginx.pid

At the beginning nginx runs with a self-signed placeholder, which the site names by
path. `include()` is the operator's step after certcast's first pull: the two lines
out, certcast's snippet in.

`served()` uses Python's `ssl` alone and shares no code with certcast's proof, so that
the two can disagree.

Not here: nginx compiled into a folder, or in a container (host_kinds.py); how certcast
installs a certificate.
"""

from __future__ import annotations

import hashlib
import signal
import socket
import ssl
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from certcast_lab.serving.authority import Authority
from certcast_lab.serving.children import Child, Program
from certcast_lab.serving.service import LOOPBACK

_NGINX_CONF = """\
worker_processes 2;
daemon off;  # a child of the lab: PR_SET_PDEATHSIG does not survive daemonising
{pid}
error_log {logs}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {tmp}/body;
    proxy_temp_path {tmp}/proxy;
    fastcgi_temp_path {tmp}/fastcgi;
    uwsgi_temp_path {tmp}/uwsgi;
    scgi_temp_path {tmp}/scgi;
    include {sites}/*.conf;
}}
"""

_SITE_CONF = """\
server {{
{listen}
    server_name {names};
    {certificate}
    location / {{ return 200 "{host}\\n"; }}
}}
"""

_BROKEN_CONF = "certcast_lab_broke_this_on_purpose;\n"


@dataclass(frozen=True)
class Served:
    """The leaf that a listener presented in one full handshake."""

    der: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the DER, 64 hex digits: how certcast names a release."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def serial(self) -> str:
        """The serial number in hex, as `openssl x509 -serial` prints it."""
        number = f"{self._certificate.serial_number:X}"
        return number.zfill(len(number) + len(number) % 2)

    @property
    def not_after(self) -> datetime:
        """The end of its validity, UTC."""
        return self._certificate.not_valid_after_utc

    @property
    def _certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)


class WebHost(Program):
    """A machine that serves `names` with nginx on `ports` of 127.0.0.1; `program` is which nginx.

    It may have many virtual hosts: `vhosts` blocks more, for site01.example.test and so on.
    """

    conf_at = "etc/nginx"
    logs_at = "var/log/nginx"
    pid_at = "run/nginx.pid"

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        names: Sequence[str] = ("example.test", "*.example.test"),
        listeners: int = 1,
        program: str | Path = "nginx",
        vhosts: int = 0,
    ) -> None:
        super().__init__(listeners)
        self.name = name
        self.names = tuple(names)
        domain = self.names[0].removeprefix("*.")
        self.vhosts = tuple(f"site{number:02}.{domain}" for number in range(1, vhosts + 1))
        self.root = folder / name
        self.nginx_conf = self.root / self.conf_at / "nginx.conf"
        self.site_conf = self.root / self.conf_at / "sites-enabled/site.conf"
        self.error_log = self.root / self.logs_at / "error.log"
        self.pid_file = self.root / self.pid_at
        self.certcast_toml = self.root / "etc/certcast/certcast.toml"
        self.certcast_folder = self.root / "var/lib/certcast"
        self._argv = self.command(program)
        self.test_command = [*self._argv, "-t"]
        self.reload_command = [*self._argv, "-s", "reload"]
        for path in (self.site_conf, self.error_log, self.pid_file, self.certcast_toml, self.certcast_folder):
            path.parent.mkdir(parents=True, exist_ok=True)
        (self.root / "var/tmp").mkdir()
        self.nginx_conf.write_text(
            _NGINX_CONF.format(
                pid=self.pid_line(),
                logs=self.seen(self.error_log.parent),
                tmp=self.seen(self.root / "var/tmp"),
                sites=self.seen(self.site_conf.parent),
            )
        )
        placeholder = Authority(f"{name} placeholder").issue(*self.names)
        files = placeholder.write(self.root / self.conf_at / "placeholder")
        self._placeholder = self._certificate = _two_lines(*map(self.seen, files))
        self._forgotten: frozenset[str] = frozenset()

    # -- what other kinds of host have otherwise

    def command(self, program: str | Path) -> list[str]:
        """Return how this nginx is started, and called for a test or a reload."""
        return [str(program), "-p", str(self.root), "-c", f"{self.conf_at}/nginx.conf"]

    def pid_line(self) -> str:
        """Return the line of nginx.conf that says where the pid is written."""
        return f"pid {self.seen(self.pid_file)};"

    def seen(self, path: Path) -> Path:
        """Return a path of this machine as its nginx sees it."""
        return path

    def run_nginx(self, output: Path) -> Child:
        """Start the process that serves."""
        return Child(self._argv, output=output)

    # -- nginx, as its operator handles it

    def launch(self) -> Child:
        """Write the sites with their ports, and start nginx."""
        self._write_sites()
        return self.run_nginx(self.error_log.with_name("console.log"))

    def is_ready(self) -> bool:
        """Return whether nginx serves, and its pid can be read."""
        return self.pid_file.exists() and super().is_ready()

    @property
    def pid(self) -> int:
        """The master process."""
        assert self._child, f"{self.name} was not started"
        return self._child.pid

    def reload(self) -> None:
        """SIGHUP to the master: what `systemctl reload nginx` comes to. Returns at once."""
        assert self._child, f"{self.name} was not started"
        self._child.signal(signal.SIGHUP)

    def test(self) -> bool:
        """Return whether `nginx -t` accepts the configuration."""
        return subprocess.run(self.test_command, capture_output=True, check=False).returncode == 0

    def workers(self) -> set[int]:
        """Return the pids of the master's children, those that are shutting down included."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {int(pid) for pid in children}

    # -- the site's configuration, as an operator edits it; none of these reloads

    def include(self, snippet: Path, *, forgotten: Collection[str] = ()) -> None:
        """Let every site take its certificate from certcast's snippet, but for the `forgotten` vhosts."""
        self._forgotten = frozenset(forgotten)
        self._certificate = f"include {snippet};"
        self._write_sites()

    def name_files(self, fullchain: Path, key: Path) -> None:
        """Let every site name fixed paths, as most do before they meet certcast."""
        self._certificate = _two_lines(fullchain, key)
        self._write_sites()

    def vhost_conf(self, vhost: str) -> Path:
        """Return the file of a virtual host, by its name."""
        return self.site_conf.with_name(f"{vhost.partition('.')[0]}.conf")

    def break_configuration(self) -> None:
        """Add a file that `nginx -t` refuses; nginx goes on with what it has loaded."""
        (self.site_conf.parent / "broken.conf").write_text(_BROKEN_CONF)

    def mend(self) -> None:
        """Take the broken file away."""
        (self.site_conf.parent / "broken.conf").unlink(missing_ok=True)

    def _write_sites(self) -> None:
        listen = "\n".join(f"    listen {LOOPBACK}:{port} ssl;" for port in self.ports)
        files = {self.site_conf: " ".join(self.names)} | {self.vhost_conf(name): name for name in self.vhosts}
        for path, names in files.items():
            certificate = self._placeholder if names in self._forgotten else self._certificate
            path.write_text(
                _SITE_CONF.format(listen=listen, names=names, certificate=certificate, host=self.name)
            )

    # -- what the world sees

    def served(self, name: str = "example.test", port: int | None = None) -> Served:
        """
        Return the leaf that a client asking for `name` (SNI) gets, after a full handshake; nothing is
        trusted or verified. OSError (ssl.SSLError is one) when there is no handshake to be had.
        """
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((LOOPBACK, port or self.ports[0]), timeout=30) as connection,
            client.wrap_socket(connection, server_hostname=name) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
        assert der is not None  # a TLS server without a certificate would have failed the handshake
        return Served(der)


def _two_lines(fullchain: Path, key: Path) -> str:
    return f"ssl_certificate {fullchain};\n    ssl_certificate_key {key};"
