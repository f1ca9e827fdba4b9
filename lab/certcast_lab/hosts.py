"""Web hosts: one real nginx each, in a folder that looks like a small machine.

    web1/etc/nginx/nginx.conf                 the operator's, includes:
    web1/etc/nginx/sites-enabled/site.conf    listeners, names, the certificate
    web1/etc/certcast/                        for the host's certcast.toml
    web1/var/lib/certcast/                    where certcast keeps its files
    web1/var/log/nginx/error.log · web1/run/nginx.pid

A host begins as every host does: nginx already runs, with a self-signed
placeholder that the site names by path. `include()` is what the operator does
after certcast's first pull: the two lines out, certcast's snippet in.

What `served()` says comes from Python's `ssl` alone; it shares no code with
certcast's own proof, so that the two can disagree.

Not here: certcast. Nothing in this file knows how a certificate is installed.
"""

from __future__ import annotations

import hashlib
import signal
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from certcast_lab.ca import Authority
from certcast_lab.children import Child, accepts_connections, start_on_free_ports

_NGINX_CONF = """\
worker_processes 2;
daemon off;  # a child of the lab: PR_SET_PDEATHSIG does not survive daemonising
pid {root}/run/nginx.pid;
error_log {root}/var/log/nginx/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {root}/var/tmp/body;
    proxy_temp_path {root}/var/tmp/proxy;
    fastcgi_temp_path {root}/var/tmp/fastcgi;
    uwsgi_temp_path {root}/var/tmp/uwsgi;
    scgi_temp_path {root}/var/tmp/scgi;
    include {root}/etc/nginx/sites-enabled/*.conf;
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


class WebHost:
    """A machine that serves `names` with nginx on `ports` of 127.0.0.1; `program` is which nginx."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        names: Sequence[str] = ("example.test", "*.example.test"),
        listeners: int = 1,
        program: str | Path = "nginx",
    ) -> None:
        self.name = name
        self.names = tuple(names)
        self.root = folder / name
        self.nginx_conf = self.root / "etc/nginx/nginx.conf"
        self.site_conf = self.root / "etc/nginx/sites-enabled/site.conf"
        self.error_log = self.root / "var/log/nginx/error.log"
        self.pid_file = self.root / "run/nginx.pid"
        self.certcast_toml = self.root / "etc/certcast/certcast.toml"
        self.certcast_folder = self.root / "var/lib/certcast"
        nginx = [str(program), "-p", str(self.root), "-c", "etc/nginx/nginx.conf"]
        self.test_command = [*nginx, "-t"]
        self.reload_command = [*nginx, "-s", "reload"]
        self._argv = nginx
        self._listeners = listeners
        self.ports: list[int] = []
        self._child: Child | None = None
        for path in ("etc/nginx/sites-enabled", "etc/certcast", "var/lib", "var/log/nginx", "var/tmp", "run"):
            (self.root / path).mkdir(parents=True, exist_ok=True)
        self.nginx_conf.write_text(_NGINX_CONF.format(root=self.root))
        placeholder = Authority(f"{name} placeholder").issue(*self.names)
        self._certificate = _two_lines(*placeholder.write(self.root / "etc/nginx/placeholder"))

    # -- nginx, as its operator handles it

    def start(self) -> WebHost:
        """Start nginx; the first start picks the ports, later ones use the same."""
        if self.ports:
            self._child = self._start(self.ports)
        else:
            self._child = start_on_free_ports(self._listeners, self._start)
        return self

    def _start(self, ports: list[int]) -> Child:
        self.ports = ports
        self._write_site()
        child = Child(self._argv, output=self.root / "var/log/nginx/console.log")
        try:
            child.wait_until(self._serves, what="serving")
        except BaseException:
            child.stop()
            raise
        return child

    def _serves(self) -> bool:
        return self.pid_file.exists() and all(accepts_connections(port) for port in self.ports)

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

    def stop(self) -> None:
        """End nginx; harmless twice."""
        if self._child:
            self._child.stop()

    # -- the site's configuration, as an operator edits it; none of these reloads

    def include(self, snippet: Path) -> None:
        """Let the site take its certificate from certcast's snippet."""
        self._certificate = f"include {snippet};"
        self._write_site()

    def name_files(self, fullchain: Path, key: Path) -> None:
        """Let the site name fixed paths, as most sites do before they meet certcast."""
        self._certificate = _two_lines(fullchain, key)
        self._write_site()

    def break_configuration(self) -> None:
        """Add a file that `nginx -t` refuses; nginx goes on with what it has loaded."""
        (self.site_conf.parent / "broken.conf").write_text(_BROKEN_CONF)

    def mend(self) -> None:
        """Take the broken file away."""
        (self.site_conf.parent / "broken.conf").unlink(missing_ok=True)

    def _write_site(self) -> None:
        listen = "\n".join(f"    listen 127.0.0.1:{port} ssl;" for port in self.ports)
        self.site_conf.write_text(
            _SITE_CONF.format(
                listen=listen, names=" ".join(self.names), certificate=self._certificate, host=self.name
            )
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
            socket.create_connection(("127.0.0.1", port or self.ports[0]), timeout=5) as connection,
            client.wrap_socket(connection, server_hostname=name) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
        assert der is not None  # a TLS server without a certificate would have failed the handshake
        return Served(der)


def _two_lines(fullchain: Path, key: Path) -> str:
    return f"ssl_certificate {fullchain};\n    ssl_certificate_key {key};"
