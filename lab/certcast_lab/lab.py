"""The lab, assembled: everything that certcast meets, on loopback, in one process.

    with Lab(folder) as lab:
        web1 = lab.host("web1")
        web1.certcast_toml.write_text(consumer_toml(lab, web1))            # configuration.py
        lab.certcast(web1.certcast_toml, "pull", user="consumer")
        web1.served("www.example.test").serial

The connections:

    certcast ── Alidns API ──> zone data <── nameservers, each with its lag <── certcast, resolver
       │                                                                             │
       ├── certbot ── ACME ── renewal information (proxy) ── pebble ── validates ────┘
       ├── OSS API ──> bucket
       ├── SMTP ──> mailbox
       └── nginx, one per host

pebble makes RSA keys and starts slowly, so it starts first, in a thread beside the rest.
`reset()` gives the next test a first day: a fresh cloud account behind the same
addresses, no hosts, no mail, no faults. The CA and its root stay.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from certcast_lab.acme.nonces import Nonces
from certcast_lab.acme.pebble import LIFE, Pebble
from certcast_lab.acme.renewal_info import RenewalInfo
from certcast_lab.aliyun.cloud import NAMESERVERS, Cloud
from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zones
from certcast_lab.mailbox import Mailbox
from certcast_lab.serving.asgi import Server
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.children import run
from certcast_lab.serving.service import Stoppable
from certcast_lab.trust import Trust
from certcast_lab.web.hosts import WebHost

# The one of this environment: PATH may know another, or none.
CERTCAST = str(Path(sys.executable).with_name("certcast"))


class Lab(Stoppable):
    """A running lab whose files are below `folder`; a context manager, as stopping is not optional."""

    def __init__(
        self,
        folder: Path,
        *,
        reuse_authorizations: int = 0,
        pebble: str | Path = "pebble",
        profiles: Mapping[str, timedelta] | None = None,
        external_accounts: Mapping[str, str] | None = None,
        alternate_chains: int = 0,
    ) -> None:
        """Start it; `pebble` is the CA's program, the others are those of `Pebble`."""
        self.folder = folder
        self.hosts: dict[str, WebHost] = {}
        self._round = 0
        self.trust = Trust(folder / "keys-0")
        self._stack = ExitStack()
        try:
            self._start(
                reuse_authorizations,
                lambda: Pebble(
                    self.folder / "pebble",
                    self.authority,
                    resolver=self.dns.resolver.address,
                    life=LIFE,
                    program=pebble,
                    profiles=profiles,
                    external_accounts=external_accounts,
                    alternate_chains=alternate_chains,
                    reuse_authorizations=reuse_authorizations,
                ),
            )
        except BaseException:
            self.stop()
            raise

    def _start(self, reuse_authorizations: int, new_pebble: Callable[[], Pebble]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority("certcast lab: TLS inside")
        self.ca_file = self.folder / "lab-ca.pem"
        self.ca_file.write_bytes(self.authority.pem)
        self.cloud = Cloud()
        self.dns = NameService(self.cloud.zones, NAMESERVERS)
        self._stack.callback(self.dns.stop)
        with ThreadPoolExecutor(max_workers=1) as beside:
            starting = beside.submit(self._start_pebble, new_pebble)
            self._alidns = _Exchangeable(self.cloud.alidns.app)
            self._oss = _Exchangeable(self.cloud.oss)
            self.alidns_url = self._serve(self._alidns)
            self.oss_url = self._serve(self._oss)
            self.mailbox = Mailbox(self.authority)
            self._stack.callback(self.mailbox.stop)
            self.pebble = starting.result()
        nonces = Nonces(reuse_authorizations=reuse_authorizations > 0)
        self.renewal_info = RenewalInfo(self.pebble, self.authority, nonces)
        self.acme_faults = self.renewal_info.faults
        self._stack.callback(self.renewal_info.stop)
        self.roots_file = self.folder / "pebble-root.pem"
        self.roots_file.write_bytes(self.pebble.root_pem())

    def _start_pebble(self, new_pebble: Callable[[], Pebble]) -> Pebble:
        pebble = new_pebble()
        self._stack.callback(pebble.stop)
        return pebble

    def _serve(self, app: ASGIApp) -> str:
        server = Server(app)
        self._stack.callback(server.stop)
        return server.url

    @property
    def directory_url(self) -> str:
        """Where ACME begins, renewal information included."""
        return self.renewal_info.directory_url

    def host(self, name: str, *, names: tuple[str, ...] = ("example.test", "*.example.test")) -> WebHost:
        """Return the web host of that name; started, with a placeholder certificate, the first time."""
        if name not in self.hosts:
            host = WebHost(self.folder / f"hosts-{self._round}", name, names=names)
            # Before it starts: a host that fails half-way is stopped like any other.
            self._stack.callback(host.stop)
            self.hosts[name] = host.start()
        return self.hosts[name]

    def environment(self, user: Literal["renewal", "consumer"]) -> dict[str, str]:
        """Return what a shell on a host of this kind exports: the user's keys, and trust in the lab's CA."""
        keys = self.cloud.renewal if user == "renewal" else self.cloud.consumer
        return {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": keys.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": keys.access_key_secret,
            "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
        }

    def certcast(
        self,
        configuration: Path,
        *arguments: str,
        user: Literal["renewal", "consumer"],
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the `certcast` command as an operator would, and wait for its end; output is captured.

        `extra` is more for its environment.
        """
        argv = [CERTCAST, "--config", str(configuration), *arguments]
        return run(argv, {**_without_clouds(), **self.environment(user), **(extra or {})})

    def reset(self) -> None:
        """Begin a new first day; only the CA remembers."""
        for host in self.hosts.values():
            host.stop()
        self.hosts.clear()
        self._round += 1
        self.trust = Trust(self.folder / f"keys-{self._round}")
        self.cloud = Cloud()
        self._alidns.app, self._oss.app = self.cloud.alidns.app, self.cloud.oss
        self.dns.zones, self.dns.private = self.cloud.zones, Zones()
        self.dns.queries.clear()
        for nameserver in self.dns.servers:
            nameserver.work_well()
        for resolver in (self.dns.resolver, self.dns.vpc):
            resolver.work_well()
        self.mailbox.clear()
        self.renewal_info.reset()

    def stop(self) -> None:
        """Stop everything in the reverse order of its start; harmless twice."""
        self._stack.close()


class _Exchangeable:
    """An ASGI application behind which another one can be put, at the same address."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def _without_clouds() -> dict[str, str]:
    """The environment without what could lead out of the lab: real keys, proxies, another configuration."""
    foreign = ("ALIBABA_CLOUD_", "ALICLOUD_", "OSS_", "AWS_", "CERTCAST_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
