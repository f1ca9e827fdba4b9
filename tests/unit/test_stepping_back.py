"""Which release `certcast publish --release` means."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import click
import pytest

from certcast import certificate
from certcast.config import AbsolutePath, CertificateConfig, CertificateName, DnsName, RenewalConfig
from certcast.errors import LineageUnusable
from certcast.operate.publish import _chosen
from certcast_lab.ca import Authority

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
WANTED = CertificateConfig(CertificateName("example.test"), (DnsName("example.test"),))


@pytest.fixture
def leaves(tmp_path: Path) -> dict[str, str]:
    """An archive with an expired version, one in its window, and a new one; and a file of somebody else."""
    archive, issuer, found = tmp_path / "archive/example.test", Authority("Test Root"), {}
    archive.mkdir(parents=True)
    for version, (name, days_ago) in enumerate({"expired": 100, "older": 70, "new": 1}.items(), 1):
        begin = NOW - timedelta(days=days_ago)
        pair = issuer.issue("example.test", not_before=begin, not_after=begin + timedelta(days=90))
        (archive / f"fullchain{version}.pem").write_bytes(pair.fullchain_pem)
        found[name] = certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf).sha256
    (archive / "fullchain4.pem").write_text("not a certificate")
    return found


def chosen(folder: Path, prefix: str) -> str:
    return _chosen(RenewalConfig(config_dir=AbsolutePath(folder)), WANTED, prefix, NOW)


def test_the_first_digits_are_enough(tmp_path: Path, leaves: dict[str, str]) -> None:
    """As they stand in the name of a version directory on a host; all 64 and upper case will do, too."""
    for prefix in (leaves["older"][:16], leaves["older"], leaves["older"][:20].upper()):
        assert leaves["older"] == chosen(tmp_path, prefix)


@pytest.mark.parametrize("prefix", ["", "0" * 15, "0" * 65, "g" * 16, "../" * 8, "*" * 16])
def test_what_is_no_digits_is_wrong_usage(tmp_path: Path, leaves: dict[str, str], prefix: str) -> None:
    """Too short to be sure, too long, or something else altogether."""
    with pytest.raises(click.BadParameter):
        chosen(tmp_path, prefix)


def test_what_cannot_be_meant_lists_what_can(tmp_path: Path, leaves: dict[str, str]) -> None:
    """For one that is unknown or has expired, the error lists those that are valid, and no other."""
    for prefix, why in (("0" * 16, "begins like that"), (leaves["expired"], "is not valid")):
        with pytest.raises(LineageUnusable, match=why) as caught:
            chosen(tmp_path, prefix)
        expected = caught.value.expected or ""
        assert leaves["new"][:16] in expected
        assert leaves["older"][:16] in expected
        assert leaves["expired"][:16] not in expected
