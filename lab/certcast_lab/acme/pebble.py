"""The real CA: pebble, Let's Encrypt's own small ACME server, as a child.

Three of its defaults depend on chance and are changed here: it reuses half of all
authorizations (so there is no challenge and no hook), pauses before validation, and
refuses 5 % of good nonces. At 0 % it still reuses a few authorizations; nonces.py
deals with these for requests that pass the proxy.

Versions differ. Debian 12's 2.4 asks DNS over UDP, and ignores `profile` and
`replaces` in silence. 2.10 (scripts/current-pebble) asks over TCP only and knows
both; `resolver` must serve both transports. From 2.7 on an order that requests no
profile gets a random one, so there is just one unless `profiles` names several.

Not here: renewal information, which Debian 12's pebble lacks (renewal_info.py).
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

from certcast_lab.serving.authority import Authority
from certcast_lab.serving.children import Child, Program

LIFE = timedelta(days=90)

# Let's Encrypt's, with its lifetimes: https://letsencrypt.org/docs/profiles/
PROFILES = {"classic": LIFE, "tlsserver": timedelta(days=45), "shortlived": timedelta(hours=160)}


@dataclass(frozen=True)
class CertificateStatus:
    """A certificate that pebble issued, and whether it has been revoked."""

    certificate_pem: bytes
    revoked: bool


class Pebble(Program):
    """A running pebble.

    `directory_url` is where ACME starts, TLS by `authority`; `resolver` is the (address, port) of the
    DNS server that the CA asks. A CA that `believes_everything` validates nothing, for tests that are
    not about validation.

    `program` is the executable. `profiles` are names and lifetimes (2.10; in place of `life`).
    With `external_accounts` (key identifier to HMAC key, base64url) a new account needs one of them
    (RFC 8555 section 7.3.4). `alternate_chains` is how many chains each certificate has beside its
    first. `reuse_authorizations` is the percentage of valid authorizations that a new order gets
    again, `reject_nonces` the percentage of good nonces that are refused, both by chance.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *,
        resolver: tuple[str, int],
        life: timedelta = LIFE,
        program: str | Path = "pebble",
        profiles: Mapping[str, timedelta] | None = None,
        external_accounts: Mapping[str, str] | None = None,
        alternate_chains: int = 0,
        reuse_authorizations: int = 0,
        reject_nonces: int = 0,
        believes_everything: bool = False,
    ) -> None:
        super().__init__(2)
        self.folder = folder
        self._authority = authority
        self._resolver = resolver
        self._life = life
        self._program = program
        self._profiles = dict(profiles or {"lab": life})
        self._external_accounts = dict(external_accounts or {})
        self._environment = {
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_AUTHZREUSE": str(reuse_authorizations),
            "PEBBLE_WFE_NONCEREJECT": str(reject_nonces),
            "PEBBLE_VA_ALWAYS_VALID": "1" if believes_everything else "0",
            "PEBBLE_ALTERNATE_ROOTS": str(alternate_chains),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._trust = ssl.create_default_context(cadata=authority.pem.decode())
        self._pair = authority.issue("localhost", ips=("127.0.0.1",)).write(folder / "tls")
        self.start()

    def launch(self) -> Child:
        """Write the configuration, and start pebble with it."""
        self.port, self.management_port = self.ports
        fullchain, key = self._pair
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management_port}",
            "certificate": str(fullchain),
            "privateKey": str(key),
            # Where HTTP-01 and TLS-ALPN-01 would connect to; no test uses these.
            "httpPort": 1,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(self._external_accounts),
            "externalAccountMACKeys": self._external_accounts,
            "certificateValidityPeriod": int(self._life.total_seconds()),
            "profiles": {
                name: {"description": f"{name}, in the lab", "validityPeriod": int(life.total_seconds())}
                for name, life in self._profiles.items()
            },
        }
        configuration = self.folder / "pebble.json"
        configuration.write_text(json.dumps({"pebble": settings}, indent=2))
        resolver = "{}:{}".format(*self._resolver)
        return Child(
            [self._program, "-config", configuration, "-dnsserver", resolver],
            output=self.folder / "pebble.log",
            environment=self._environment,
        )

    @property
    def directory_url(self) -> str:
        """The ACME directory (RFC 8555 section 7.1.1)."""
        return f"https://127.0.0.1:{self.port}/dir"

    @property
    def issued(self) -> int:
        """How many certificates pebble has made since its start, by its own log, downloaded or not."""
        return (self.folder / "pebble.log").read_bytes().count(b"Issued certificate serial")

    def root_pem(self, chain: int = 0) -> bytes:
        """Return the root of everything that it issues, or of an alternate chain; a new one at each start."""
        return self._management(f"roots/{chain}")

    def intermediate_pem(self) -> bytes:
        """Return the issuing intermediate."""
        return self._management("intermediates/0")

    def certificate_status(self, serial_number: int) -> CertificateStatus | None:
        """Return what became of a certificate; None if it issued none with this serial number."""
        try:
            status = json.loads(self._management(f"cert-status-by-serial/{serial_number:x}"))
        except urllib.error.HTTPError as refused:
            if refused.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        return CertificateStatus(status["Certificate"].encode(), revoked=status["Status"] == "Revoked")

    def _management(self, path: str) -> bytes:
        url = f"https://127.0.0.1:{self.management_port}/{path}"
        with urllib.request.urlopen(url, context=self._trust, timeout=30) as answer:
            body: bytes = answer.read()
        return body
