"""certbot as an administrator runs it, with certcast as its hooks, against the lab.

Certbot(lab).hooks("certonly", "-d", "example.test")
Certbot(lab, certbot_21()).hooks("renew")                 Debian 12's
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from certcast.certbot.lineage import Lineage
from certcast_lab.configuration import EXAMPLE, Names, renewal_toml
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.web.hosts import WebHost

CERTBOT_58 = Path(sys.executable).with_name("certbot")
Done = subprocess.CompletedProcess[str]


def certbot_21() -> Path:
    """Return Debian 12's certbot; the test fails with the command to run where it is missing."""
    certbot = Path(__file__).parents[1] / ".venv-certbot21/bin/certbot"
    if not certbot.exists():
        pytest.fail("certbot 2.1 is not here: run scripts/certbot-2.1 (`make test` does)")
    return certbot


@dataclass
class Certbot:
    """One certbot with folders of its own on the host `renewal`, which has a certcast.toml."""

    lab: Lab
    executable: Path = CERTBOT_58
    certificates: Names | None = None

    def __post_init__(self) -> None:
        self.host: WebHost = self.lab.host("renewal")
        self.configure()

    def configure(self, old: str = "", new: str = "") -> None:
        """Write certcast.toml, with one text replaced."""
        certificates = self.certificates or dict(EXAMPLE)
        text = renewal_toml(self.lab, self.host, certificates, serves=False, by_certbot=certificates)
        assert old in text, f"{old!r} is not in the configuration"
        self.host.certcast_toml.write_text(text.replace(old, new) if old else text)

    @property
    def config_dir(self) -> Path:
        return self.host.root / "etc/letsencrypt"

    @property
    def live(self) -> Path:
        return self.config_dir / "live/example.test"

    @property
    def archive(self) -> Path:
        return self.config_dir / "archive/example.test"

    @property
    def conf(self) -> Path:
        return self.config_dir / "renewal/example.test.conf"

    def hook(self, event: str) -> str:
        """Return the command line of a hook, as certbot's shell gets it."""
        return f"{shlex.quote(CERTCAST)} --config {shlex.quote(str(self.host.certcast_toml))} hook {event}"

    def hooks(self, command: str, *arguments: str) -> Done:
        """Run certbot with the three hooks, as the README spells it."""
        hooks = [
            *("--manual", "--preferred-challenges", "dns"),
            *("--manual-auth-hook", self.hook("auth"), "--manual-cleanup-hook", self.hook("cleanup")),
            *("--deploy-hook", self.hook("deploy")),
        ]
        return self._run([*self._argv(command), *hooks, *arguments])

    def environment(self) -> dict[str, str]:
        """Return the lab's environment, with a folder for what a killed certbot leaves."""
        scratch = self.host.root / "tmp"
        scratch.mkdir(exist_ok=True)
        return {**os.environ, **self.lab.environment("renewal"), "TMPDIR": str(scratch)}

    def _argv(self, command: str) -> list[str]:
        argv = [
            *(str(self.executable), command, "--non-interactive", "--server", self.lab.directory_url),
            *(
                "--config-dir",
                str(self.config_dir),
                "--work-dir",
                str(self.host.root / "var/lib/letsencrypt"),
            ),
            *("--logs-dir", str(self.host.root / "var/log/letsencrypt")),
        ]
        if command == "renew":
            return [*argv, "--no-random-sleep-on-renew"]
        return [*argv, "--agree-tos", "--register-unsafely-without-email"]

    def _run(self, argv: list[str]) -> Done:
        return subprocess.run(argv, env=self.environment(), capture_output=True, text=True, check=False)

    def names(self, certificate: str = "example.test") -> set[str]:
        """Return the names in the certificate that certbot holds now."""
        from cryptography import x509

        leaf = x509.load_pem_x509_certificate(
            (self.config_dir / "live" / certificate / "cert.pem").read_bytes()
        )
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return set(names.get_values_for_type(x509.DNSName))

    def lineage(self, certificate: str = "example.test") -> Lineage:
        """Return what certcast sees of it."""
        return Lineage(self.config_dir, certificate)

    def published(self, certificate: str = "example.test") -> str | None:
        """Return the SHA-256 of the leaf that the manifest in the bucket names."""
        stored = self.lab.cloud.bucket.get(f"certcast/certs/{certificate}/manifest")
        if stored is None:
            return None
        return str(json.loads(stored.body.partition(b"-----BEGIN SSH SIGNATURE-----")[0])["leaf"]["sha256"])

    def renew(self, *words: str) -> Done:
        """Run `certcast renew` on the same host."""
        return self.lab.certcast(self.host.certcast_toml, "renew", *words, user="renewal")

    def snapshot(self) -> dict[Path, tuple[str, bytes]]:
        """Return every file below certbot's folder, with where it leads and what is in it."""
        return {
            path: (str(path.readlink()) if path.is_symlink() else "", path.read_bytes())
            for path in sorted(self.config_dir.rglob("*"))
            if path.is_file()
        }

    def fullchain(self, certificate: str = "example.test") -> bytes:
        return (self.config_dir / "live" / certificate / "fullchain.pem").read_bytes()
