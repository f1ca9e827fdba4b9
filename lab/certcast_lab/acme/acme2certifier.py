"""A CA of another make, as a child: acme2certifier, in Python, with real DNS-01, external accounts and ARI.

A client that relies on pebble's ways fails here. This CA wants a contact, validates before it
answers the challenge's POST, takes 3 s to finalize, and suggests renewal from 85 % of the life on, with a
Retry-After of a day.

acme2certifier is GPL: it has a virtual environment of its own (scripts/acme2certifier), and the lab never
imports it. It asks DNS at port 53 only, and knows its resolver by address. So the lab's resolver listens at
port 53 of one more address of 127.0.0.0/8; only root may do that on most machines.
"""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from certcast_lab.dns.nameservers import NameService
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.children import Child, Program

VALIDITY_DAYS = 90

# argv: port, certificate, key. It serves one request at a time: its database is one SQLite file.
_SERVE = """
import ssl, sys
from wsgiref.simple_server import make_server
from acme2certifier.share.acme2certifier_wsgi import application, get_handler_cls

def https(environ, start_response):
    return application({**environ, "wsgi.url_scheme": "https"}, start_response)

server = make_server("127.0.0.1", int(sys.argv[1]), https, handler_class=get_handler_cls())
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


class NoPort53(Exception):
    """The lab cannot listen at port 53 here."""


class Acme2certifier(Program):
    """A running acme2certifier of the environment whose interpreter is `python`.

    `directory_url` is where ACME starts, TLS by `authority`. An account needs the external account
    `kid` with `hmac_key` (base64url). `issuer` signs; its root is `root`. NoPort53 where DNS can't be served.
    """

    kid = "lab-1"

    def __init__(self, python: Path, folder: Path, authority: Authority, dns: NameService) -> None:
        super().__init__(1)
        self.root = Authority("acme2certifier: root")
        self.issuer = Authority("acme2certifier: issuer", parent=self.root)
        # Of hex digits, so that the key never begins with a dash: on a command line that is an option.
        self.hmac_key = base64.urlsafe_b64encode(secrets.token_hex(24).encode()).decode()
        self._python = python
        self._folder = folder
        self._dns = dns
        (folder / "certificates").mkdir(parents=True)  # it refuses to issue without
        (folder / "root.pem").write_bytes(self.root.pem)
        (folder / "issuer.pem").write_bytes(self.issuer.pem)
        (folder / "issuer-key.pem").write_bytes(
            self.issuer._key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "external.json").write_text(json.dumps({self.kid: self.hmac_key}))
        self._pair = authority.issue("localhost", ips=("127.0.0.1",)).write(folder / "tls")
        self.start()

    @property
    def directory_url(self) -> str:
        """The ACME directory (RFC 8555 section 7.1.1)."""
        return f"https://127.0.0.1:{self.port}/directory"

    def launch(self) -> Child:
        """Let DNS listen for it at port 53, write its configuration, and start it."""
        (self.port,) = self.ports
        # The free port's number makes an address that no other run of the tests has.
        resolver = f"127.53.{self.port >> 8}.{self.port & 255}"
        try:
            self._dns.listen_also(self._dns.resolver, resolver, 53)
        except OSError as refused:  # forbidden, or taken by a resolver that listens everywhere
            raise NoPort53(f"port 53 of {resolver} cannot be had: {refused.strerror}") from None
        configuration = self._folder / "acme_srv.cfg"
        configuration.write_text(self._configuration(resolver))
        return Child(
            [self._python, "-c", _SERVE, str(self.port), *self._pair],
            output=self._folder / "acme2certifier.log",
            environment={
                "ACME_SRV_CONFIGFILE": str(configuration),
                "ACME2CERTIFIER_BASE_DIR": str(self._folder),
            },
        )

    def _configuration(self, resolver: str) -> str:
        return f"""
[DEFAULT]
debug: False
server_name: 127.0.0.1:{self.port}
dns_server_list: ["{resolver}"]

[Nonce]
nonce_check_disable: False

[DBhandler]
handler: wsgi
dbfile: {self._folder}/acme.db

[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: {self._folder}/issuer-key.pem
issuing_ca_cert: {self._folder}/issuer.pem
issuing_ca_crl: {self._folder}/crl.pem
ca_cert_chain_list: []
cert_validity_days: {VALIDITY_DAYS}
cert_save_path: {self._folder}/certificates

[EABhandler]
eab_handler_module: acme2certifier.eabhandlers.json_handler
key_file: {self._folder}/external.json

[Challenge]
challenge_validation_disable: False
dns_validation_pause_timer: 0

[Renewalinfo]
renewalinfo_disable: False
"""
