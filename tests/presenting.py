"""DNS-01 for tests: an emulated Alidns and two nameservers, and what is told of orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from certcast.config.model import (
    Address,
    CertificateConfig,
    Config,
    DnsConfig,
    Resolver,
    StoreConfig,
    ZoneConfig,
)
from certcast.dns01.challenges import Challenge, Challenges
from certcast.dns01.ledger import Process
from certcast.report.errors import CertcastError
from certcast_lab.aliyun.cloud import NAMESERVERS, Cloud
from certcast_lab.dns.nameservers import NameService
from certcast_lab.dns.zones import Zone
from certcast_lab.serving.asgi import Server

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=timezone.utc)
ENDED = Process(pid=2**22 + 1, started=1, boot="a process that has ended")
URL = "https://ca.test/order/1"


class Services:
    """One API server and two nameservers; the cloud behind them may be exchanged at any time."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.dns = NameService(self.cloud.zones, NAMESERVERS)
        self._server = Server(self)
        self.url = self._server.url

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.cloud.alidns.app(scope, receive, send)

    def stop(self) -> None:
        self._server.stop()
        self.dns.stop()

    def renew(self) -> Cloud:
        """Put a new cloud behind the addresses, and turn all switches off; return it."""
        self.cloud = Cloud()
        self.dns.zones = self.cloud.zones
        self.dns.queries.clear()
        for server in self.dns.servers:
            server.work_well()
        return self.cloud

    @property
    def keys(self) -> dict[str, str]:
        """The environment of a renewal host."""
        return {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": self.cloud.renewal.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": self.cloud.renewal.access_key_secret,
        }

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the nameservers are asked."""
        return tuple(Address(*server.address) for server in self.dns.servers)

    def config(self, zones: Mapping[str, tuple[Address, ...]], state_dir: Path, **dns: Any) -> Config:
        """A renewal host's configuration, for zones and their nameservers; `dns` goes into [dns]."""
        usual = {
            "endpoint": self.url,
            "resolvers": (Resolver(Address(*self.dns.resolver.address)),),
            "settle": 0.0,
            "deadline": 20.0,
        }
        return Config(
            store=StoreConfig("memory://unused"),
            certificates=(CertificateConfig("example.test", ("example.test", "*.example.test")),),
            dns=DnsConfig(**{**usual, **dns}),
            zones=tuple(ZoneConfig(zone, addresses) for zone, addresses in zones.items()),
            state_dir=state_dir,
        )


class OrderResults:
    """What `present_orders` tells of its orders; `stop` is asked whether the run is to end."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.seen: list[str] = []
        self.failed: dict[str, CertcastError] = {}
        self._stop = stop

    def present(self, presenter: Challenges, orders: Mapping[str, Sequence[Challenge]]) -> None:
        """Present the orders; no order is told of twice."""
        presenter.present_orders(orders, NOW, seen=self._seen, failed=self._failed, stopped=self._stop)

    def _seen(self, order: str) -> None:
        assert order not in {*self.seen, *self.failed}
        self.seen.append(order)

    def _failed(self, order: str, failure: CertcastError) -> None:
        assert order not in {*self.seen, *self.failed}
        self.failed[order] = failure


def present(presenter: Challenges, challenges: Sequence[Challenge], order: str = URL) -> None:
    """Present one order; return when the CA may look, or raise what ended the order."""
    results = OrderResults()
    results.present(presenter, {order: challenges})
    for failure in results.failed.values():
        raise failure
    assert [order] == results.seen


def end_the_process(config: Config) -> None:
    """Let the ledger say that another process made its entries, which has ended."""
    ledger = Challenges(config).ledger
    ledger.put([replace(entry, run=ENDED) for entry in ledger.entries()])


def values(cloud: Cloud, zone: Zone | None = None) -> list[str]:
    """The TXT values of the zone, or of example.test."""
    return sorted(record.value for record in cloud.zones.records(zone or cloud.zone) if record.type == "TXT")
