"""Certificates that a renewal host holds: in certcast's own store, or in the lineage of a certbot.

held(pair)                                  a Release, as a source returns it
issued(state_dir, name, pair)               one more version in certcast's store
CertbotFiles(config_dir, name).add(pair)    one more version as certbot 5.8 writes it
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from certcast.acme.issued import Issued, OrderRecord
from certcast.certbot.lineage import KINDS
from certcast.release import certificate
from certcast.release.certificate import Leaf
from certcast.release.source import Release
from certcast_lab.serving.authority import Pair

DIRECTORY = "https://ca.test/directory"
ACCOUNT = "https://ca.test/account/1"
_LONG_AGO = datetime(2026, 11, 1, tzinfo=timezone.utc)


def leaf_of(pair: Pair) -> Leaf:
    return certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf)


def held(pair: Pair, *, name: str = "example.test", directory: str | None = DIRECTORY) -> Release:
    """The release of a pair, wherever it lies."""
    return Release(name, "1", pair.fullchain_pem, pair.key_pem, leaf_of(pair), directory)


def record_of(pair: Pair) -> OrderRecord:
    """Where a pair came from, as an order of today writes it down."""
    return OrderRecord(
        directory=DIRECTORY,
        account=ACCOUNT,
        order="https://ca.test/order/1",
        names=leaf_of(pair).names,
        key_type="p256",
        profile=None,
        placed_at=_LONG_AGO,
        issued_at=_LONG_AGO,
    )


def issued(state_dir: Path, name: str, pair: Pair) -> Release:
    """Store a pair as certcast does."""
    return Issued(state_dir, name).add(pair.fullchain_pem, pair.key_pem, record_of(pair))


class CertbotFiles:
    """What a certbot keeps of one certificate: archive, live links, and how it is renewed."""

    def __init__(self, config_dir: Path, name: str) -> None:
        self.archive = config_dir / "archive" / name
        self.live = config_dir / "live" / name
        self.conf = config_dir / "renewal" / f"{name}.conf"
        self._versions = 0

    def add(self, pair: Pair) -> int:
        """Write one more version, let the links lead to it, and return its number."""
        self._versions += 1
        self.archived(self._versions, pair)
        for kind in KINDS:
            self.link(kind, self._versions)
        self.write_conf()
        return self._versions

    def archived(self, version: int, pair: Pair) -> None:
        """Write one version into the archive alone; certbot has four files of each."""
        leaf, chain = pair.fullchain_pem.split(b"-----END CERTIFICATE-----\n", 1)
        contents = {
            "cert": leaf + b"-----END CERTIFICATE-----\n",
            "chain": chain or leaf,
            "fullchain": pair.fullchain_pem,
            "privkey": pair.key_pem,
        }
        self.archive.mkdir(parents=True, exist_ok=True)
        self.archive.parent.chmod(0o700)
        for kind, body in contents.items():
            path = self.archive / f"{kind}{version}.pem"
            path.write_bytes(body)
            path.chmod(0o600 if kind == "privkey" else 0o644)

    def link(self, kind: str, version: int) -> None:
        """Let live/NAME/KIND.pem lead to that version."""
        self.live.mkdir(parents=True, exist_ok=True)
        link = self.live / f"{kind}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{self.archive.name}/{kind}{version}.pem")

    def unlinked(self, kind: str) -> None:
        """Put a file in the place of a link, as a copy without `cp -a` does."""
        link = self.live / f"{kind}.pem"
        body = link.read_bytes()
        link.unlink()
        link.write_bytes(body)

    def write_conf(self) -> None:
        """Write renewal/NAME.conf, as complete as certbot's."""
        self.conf.parent.mkdir(exist_ok=True)
        links = "".join(f"{kind} = {self.live}/{kind}.pem\n" for kind in KINDS)
        self.conf.write_text(
            f"version = 5.8.0\narchive_dir = {self.archive}\n{links}"
            f"[renewalparams]\naccount = 0123456789abcdef\nserver = {DIRECTORY}\nauthenticator = manual\n"
        )
