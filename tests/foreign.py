"""Other people's Alidns clients in the lab, beside certcast: they know the real address only.

with Colleagues(lab) as colleagues:
    colleagues.lego(folder)
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from certcast_lab.aliyun.alidns_api import HOST
from certcast_lab.aliyun.cloud import ACCOUNT
from certcast_lab.aliyun.ram import User
from certcast_lab.lab import Lab
from certcast_lab.serving.asgi import Server, server_context
from certcast_lab.serving.intercept import Intercept

CLIENTS = Path(__file__).parents[1] / ".venv-clients/bin"
_EVERYTHING = {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "alidns:*", "Resource": "*"}]}
Done = subprocess.CompletedProcess[str]


class Colleagues(ExitStack):
    """A RAM user of the same account, and a proxy that leads clients from the real address to the lab."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        if not CLIENTS.exists():
            pytest.fail("other people's clients are not installed; run scripts/foreign-clients")
        self._lab = lab
        self._user = lab.cloud.ram.add(
            User(ACCOUNT, "colleague", "lab-colleague", "lab-colleague-secret", policies=[_EVERYTHING])
        )
        tls = server_context(*lab.authority.issue(HOST))
        alidns = self.enter_context(Server(lab.cloud.alidns.app, tls=tls))
        self.proxy = self.enter_context(Intercept({HOST: alidns.port}))

    def certbot_dns_aliyun(self, folder: Path) -> Done:
        """Order a certificate for example.test; it waits 5 s, and removes the newest TXT at the name."""
        keys = (
            f"dns_aliyun_access_key = {self._user.access_key_id}\n"
            f"dns_aliyun_access_key_secret = {self._user.access_key_secret}\n"
        )
        plugin = ["-a", "dns-aliyun", "--dns-aliyun-propagation-seconds", "5", "--dns-aliyun-credentials"]
        return self._certbot(folder, plugin, keys)

    def lego(self, folder: Path) -> Done:
        """Order one with certbot-dns-multi, which is lego; it removes every TXT at the name."""
        keys = (
            "dns_multi_provider = alidns\n"
            f"ALICLOUD_ACCESS_KEY = {self._user.access_key_id}\n"
            f"ALICLOUD_SECRET_KEY = {self._user.access_key_secret}\n"
        )
        resolver = "{}:{}".format(*self._lab.dns.resolver.address)
        plugin = [
            *("-a", "dns-multi", "--dns-multi-propagation-seconds", "0"),
            *("--dns-multi-nameservers", resolver, "--dns-multi-credentials"),
        ]
        return self._certbot(folder, plugin, keys)

    def _certbot(self, folder: Path, plugin: list[str], keys: str) -> Done:
        folder.mkdir()
        credentials = folder / "credentials.ini"
        credentials.write_text(keys)
        credentials.chmod(0o600)
        argv: list[str | Path] = [
            *(CLIENTS / "certbot", "certonly", "-n", "--agree-tos", "--register-unsafely-without-email"),
            *("--server", self._lab.pebble.directory_url, "-d", "example.test"),
            *("--config-dir", folder, "--work-dir", folder, "--logs-dir", folder, *plugin, credentials),
        ]
        return self._run(argv, folder)

    def _run(self, argv: list[str | Path], home: Path) -> Done:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HTTPS_PROXY": self.proxy.url,
            "NO_PROXY": "127.0.0.1",  # the CA is asked directly
            "REQUESTS_CA_BUNDLE": str(self._lab.ca_file),  # Python's clients
            "SSL_CERT_FILE": str(self._lab.ca_file),  # Go's
        }
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
