"""When certbot may place an order, and when it must: without asking the CA, which cannot be reached here."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from certcast import certificate
from certcast.config import CertificateConfig, CertificateName, DnsName, HttpUrl, RenewalConfig
from certcast.errors import CertbotFailed
from certcast.manifest import Manifest
from certcast.renewal.due import Due, decide
from certcast.renewal.lineage import Lineage
from certcast.renewal.replacement import Old, Replacement
from certcast_lab.ca import Authority

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
WANTED = CertificateConfig(CertificateName("example.test"), (DnsName("example.test"),))
RENEWAL = RenewalConfig(server=HttpUrl("https://127.0.0.1:9/dir"))


def held(*, days_ago: float) -> Lineage:
    """What certbot holds: issued so long ago, valid for 90 days."""
    begin = NOW - timedelta(days=days_ago)
    pair = Authority("Test Root").issue("example.test", not_before=begin, not_after=begin + 90 * DAY)
    leaf = certificate.describe(certificate.read_chain(pair.fullchain_pem).leaf)
    return Lineage("example.test", 1, pair.fullchain_pem, pair.key_pem, leaf)


def stepped_back_to(lineage: Lineage, *, from_: Lineage) -> Manifest:
    return Manifest(
        store="oss://certs/certcast",
        certificate="example.test",
        sequence=3,
        published_at=NOW,
        expires=NOW + 7 * DAY,
        publisher="renewal",
        leaf=lineage.leaf,
        files={},
        step_back=True,
        held_off=(from_.leaf.sha256,),
    )


def decided(
    before: Lineage | None, *, asked: Replacement | None = None, stepped_back: Manifest | None = None
) -> Due:
    return decide(RENEWAL, WANTED, before, asked=asked, stepped_back=stepped_back, now=NOW)


def to_replace(lineage: Lineage) -> Replacement:
    old = Old(lineage.leaf.sha256, lineage.leaf.serial, lineage.leaf.not_after)
    return Replacement("example.test", "superseded", DAY, NOW, (old,))


def test_what_is_to_be_replaced_is_ordered_with_another_key_until_it_is() -> None:
    """As long as certbot holds an old one each run orders; once it holds another, none does."""
    old, new = held(days_ago=1), held(days_ago=0)
    due = decided(old, asked=to_replace(old))
    assert (True, True, True) == (due.may_order, due.force, due.new_key)
    due = decided(new, asked=to_replace(old))
    assert (False, False, False) == (due.may_order, due.force, due.new_key)


def test_a_step_back_lasts_until_a_sixth_of_the_life_is_left() -> None:
    """
    certbot would wait for the window of the release that is held off, and the one that hosts serve would
    expire long before. So another one is ordered when a sixth of its life is left, and not sooner.
    """
    newer = held(days_ago=10)
    due = decided(newer, stepped_back=stepped_back_to(held(days_ago=74), from_=newer))
    assert (False, False) == (due.may_order, due.force)
    due = decided(newer, stepped_back=stepped_back_to(held(days_ago=76), from_=newer))
    assert (True, True, False) == (due.may_order, due.force, due.new_key)
    assert "stepped back to is valid for 14 days more" in due.why


def test_what_is_not_due_does_not_need_the_ca() -> None:
    """A CA that cannot be reached is told of only where it is needed: in the window, or for other names."""
    assert not decided(held(days_ago=10)).may_order
    with pytest.raises(CertbotFailed, match="the CA cannot be reached"):
        decided(held(days_ago=61))
    other = held(days_ago=10)
    with pytest.raises(CertbotFailed):
        decided(replace(other, leaf=replace(other.leaf, names=("example.test", "more.example.test"))))


def test_the_first_one_is_not_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lineage certbot orders by itself, as soon as there is a CA to order from."""
    with pytest.raises(CertbotFailed, match="the CA cannot be reached"):
        decided(None)
    monkeypatch.setattr("certcast.renewal.ari.require_reachable", lambda _url: None)
    due = decided(None)
    assert (True, False, False) == (due.may_order, due.force, due.new_key)
