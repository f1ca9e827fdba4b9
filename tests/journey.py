"""The whole journey through the installed commands: one renewal host, consumers, one lab.

journey = Journey(lab)
journey.renew(); journey.pull("web1")        processes of their own, as cron starts them
assert journey.served("web1") == journey.live()
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from certcast.acme.issued import Issued
from certcast.certbot.lineage import Lineage
from certcast.release.source import Release
from certcast_lab.acme.renewal_info import Window
from certcast_lab.configuration import EXAMPLE, Names, consumer_toml, renewal_toml
from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.web.hosts import WebHost

CERTBOT = str(Path(sys.executable).with_name("certbot"))
Done = subprocess.CompletedProcess[str]


@dataclass
class Journey:
    """One renewal host without an nginx of its own (`serves`), and as many consumers as a test names."""

    lab: Lab
    certificates: Names = field(default_factory=lambda: dict(EXAMPLE))
    serves: bool = False
    by_certbot: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.renewal: WebHost = self.lab.host("renewal")
        self.configure()

    def configure(self, old: str = "", new: str = "") -> None:
        """Write the renewal host's configuration, with one text replaced."""
        text = renewal_toml(
            self.lab, self.renewal, self.certificates, serves=self.serves, by_certbot=self.by_certbot
        )
        assert old in text, f"{old!r} is not in the configuration"
        self.renewal.certcast_toml.write_text(text.replace(old, new) if old else text)

    def renew(self, *arguments: str) -> Done:
        """Run `certcast renew`."""
        return self.lab.certcast(self.renewal.certcast_toml, "renew", *arguments, user="renewal")

    def renew_with(self, environment: dict[str, str], *, without: str) -> Done:
        """Run `certcast renew` with other variables, and without those that begin with `without`."""
        usual = {**os.environ, **self.lab.environment("renewal")}
        kept = {name: value for name, value in usual.items() if not name.startswith(without)}
        argv = [CERTCAST, "--config", str(self.renewal.certcast_toml), "renew"]
        return subprocess.run(argv, env={**kept, **environment}, capture_output=True, text=True, check=False)

    def consumer(self, name: str, old: str = "", new: str = "") -> WebHost:
        """Return a started web host with a configuration, with one text replaced in it."""
        host = self.lab.host(name)
        text = consumer_toml(self.lab, host, self.certificates)
        assert old in text, f"{old!r} is not in the configuration"
        host.certcast_toml.write_text(text.replace(old, new) if old else text)
        return host

    def pull(self, name: str, *arguments: str) -> Done:
        """Run `certcast pull` on a host."""
        return self.lab.certcast(self.lab.host(name).certcast_toml, "pull", *arguments, user="consumer")

    def first_pull(self, name: str, certificate: str = "example.test") -> WebHost:
        """Bring a host to where it serves what is published: pull, include, pull."""
        host = self.consumer(name)
        assert 39 == self.pull(name).returncode
        host.include(host.certcast_folder / f"certs/{certificate}/nginx.conf")
        done = self.pull(name)
        assert 0 == done.returncode, done.stderr
        return host

    def certbot_dir(self) -> Path:
        """Return certbot's configuration directory on the renewal host."""
        return self.renewal.root / "etc/letsencrypt"

    def issued(self, name: str = "example.test") -> Issued:
        """Return certcast's own store of a certificate on the renewal host."""
        return Issued(self.renewal.certcast_folder, name)

    def live(self, name: str = "example.test") -> Release:
        """Return what the renewal host holds."""
        source = Lineage(self.certbot_dir(), name) if name in self.by_certbot else self.issued(name)
        return source.live()

    def served(self, host: str, name: str = "www.example.test") -> str:
        """Return the SHA-256 of the leaf that a host serves."""
        return self.lab.host(host).served(name).sha256

    def published(self, name: str = "example.test") -> str | None:
        """Return the SHA-256 of the leaf that the manifest in the bucket names."""
        stored = self.lab.cloud.bucket.get(f"certcast/certs/{name}/manifest")
        document = stored.body.partition(b"-----BEGIN SSH SIGNATURE-----")[0] if stored else b"null"
        return str(json.loads(document)["leaf"]["sha256"]) if stored else None

    def want_replaced(self, name: str = "example.test") -> None:
        """Let the CA's renewal information say that it should have been replaced by yesterday."""
        now = datetime.now(timezone.utc)
        window = Window(now - timedelta(days=2), now - timedelta(days=1))
        self.lab.renewal_info.suggest(self.live(name).fullchain, window)

    def certbot_with_hooks(self, *arguments: str) -> Done:
        """Run certbot with certcast as its hooks, as an administrator does who had certbot before."""
        root, configuration = self.renewal.root, self.renewal.certcast_toml
        hook = f"{shlex.quote(CERTCAST)} --config {shlex.quote(str(configuration))} hook"
        return subprocess.run(
            [
                *(CERTBOT, *arguments, "--non-interactive", "--server", self.lab.directory_url),
                *("--config-dir", str(self.certbot_dir()), "--work-dir", str(root / "var/lib/letsencrypt")),
                *(
                    "--logs-dir",
                    str(root / "var/log/letsencrypt"),
                    "--manual",
                    "--preferred-challenges",
                    "dns",
                ),
                *("--manual-auth-hook", f"{hook} auth", "--manual-cleanup-hook", f"{hook} cleanup"),
                *("--deploy-hook", f"{hook} deploy"),
            ],
            env={**os.environ, **self.lab.environment("renewal")},
            capture_output=True,
            text=True,
            check=False,
        )
