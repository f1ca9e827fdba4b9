"""Which release `certcast publish --release` means."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click
import pytest

from certcast.commands.publish import choose_leaf
from certcast.config.model import CertificateConfig, CertificateName, DnsName
from certcast.publisher.chosen_source import source_of
from certcast.release.source import Source
from certcast.report.errors import LineageUnusable
from certcast_lab.serving.authority import Authority
from held import CertbotFiles, issued, leaf_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
NAME = "example.test"
WANTED = CertificateConfig(CertificateName(NAME), (DnsName(NAME),))


@pytest.fixture(params=["acme", "certbot"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    wanted = replace(WANTED, source=request.param)
    return source_of(wanted, state_dir=tmp_path, certbot_config_dir=tmp_path)


@pytest.fixture
def leaves(source: Source, tmp_path: Path) -> dict[str, str]:
    """What this host holds: an expired version, one in its window, and a new one."""
    issuer, certbot, found = Authority("Test Root"), CertbotFiles(tmp_path, NAME), {}
    for name, days_ago in {"expired": 100, "older": 70, "new": 1}.items():
        begin = NOW - timedelta(days=days_ago)
        pair = issuer.issue(NAME, not_before=begin, not_after=begin + timedelta(days=90))
        issued(tmp_path, NAME, pair)
        certbot.add(pair)
        found[name] = leaf_of(pair).sha256
    return found


def chosen(source: Source, prefix: str) -> str:
    return choose_leaf(source, WANTED, prefix, NOW)


def test_the_first_digits_are_enough(source: Source, leaves: dict[str, str]) -> None:
    """As they stand in the name of a version directory on a host; all 64 and upper case will do, too."""
    for prefix in (leaves["older"][:16], leaves["older"], leaves["older"][:20].upper()):
        assert leaves["older"] == chosen(source, prefix)


@pytest.mark.parametrize("prefix", ["", "0" * 15, "0" * 65, "g" * 16, "../" * 8, "*" * 16])
def test_what_is_no_digits_is_wrong_usage(source: Source, leaves: dict[str, str], prefix: str) -> None:
    """Too short to be sure, too long, or something else altogether."""
    with pytest.raises(click.BadParameter):
        chosen(source, prefix)


def test_what_cannot_be_meant_lists_what_can(source: Source, leaves: dict[str, str]) -> None:
    """For one that is unknown or has expired, the error lists those that are valid, and no other."""
    for prefix, why in (("0" * 16, "begins like that"), (leaves["expired"], "is not valid")):
        with pytest.raises(LineageUnusable, match=why) as caught:
            chosen(source, prefix)
        expected = caught.value.expected or ""
        assert leaves["new"][:16] in expected
        assert leaves["older"][:16] in expected
        assert leaves["expired"][:16] not in expected
