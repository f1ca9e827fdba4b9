"""When another certificate is ordered, and why: one test for each line of due.py's page."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from certcast.acme.renewal_info import Suggestion
from certcast.config.model import CertificateConfig, CertificateName, DnsName
from certcast.release.manifest import Manifest
from certcast.release.source import Release
from certcast.renewal.candidate import Candidate
from certcast.renewal.due import Due, decide
from certcast.renewal.replacement import OldLeaf, Replacement
from certcast_lab.serving.authority import Authority
from held import DIRECTORY, held

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
WANTED = CertificateConfig(CertificateName("example.test"), (DnsName("example.test"),))
CA = Authority("Test Root")
NO_SOURCE: Any = None  # to decide, no file is read


def live(*, days_ago: float, life: float = 90, directory: str | None = DIRECTORY) -> Release:
    """What this host holds: issued so long ago, valid for so many days."""
    begin = NOW - timedelta(days=days_ago)
    end = begin + timedelta(days=life)
    return held(CA.issue("example.test", not_before=begin, not_after=end), directory=directory)


def stepped_back_to(release: Release, *, from_: Release) -> Manifest:
    return Manifest(
        store="oss://certs/certcast",
        certificate="example.test",
        sequence=3,
        published_at=NOW,
        expires=NOW + 7 * DAY,
        publisher="renewal",
        leaf=release.leaf,
        files={},
        step_back=True,
        held_off=(from_.leaf.sha256,),
    )


def to_replace(release: Release) -> Replacement:
    old = OldLeaf(release.leaf.sha256, release.leaf.serial, release.leaf.not_after)
    return Replacement("superseded", DAY.total_seconds(), NOW, None, (old,))


def suggested(begin: timedelta, end: timedelta) -> Suggestion:
    return Suggestion(NOW, NOW + begin, NOW + end, "https://ca.test/why")


def decided(
    before: Release | None,
    wanted: CertificateConfig = WANTED,
    *,
    now: datetime = NOW,
    under_way: bool = False,
    **known: Any,
) -> Due:
    """The decision where nothing else is the matter, but for what is given."""
    candidate = Candidate(wanted, NO_SOURCE, live=before, **known)
    return decide(candidate, directory=DIRECTORY, under_way=under_way, now=now)


def test_a_fresh_certificate_is_left_alone() -> None:
    """In the first two thirds of its life nothing is ordered, and the reason says how long it is valid."""
    found = decided(live(days_ago=10))
    assert Due(False, "valid for 80 days more: not due") == found


def test_the_first_certificate_is_ordered() -> None:
    """Where this host holds none, one is ordered."""
    assert Due(True, "no certificate yet: ordering the first one") == decided(None)


def test_an_order_under_way_is_gone_on_with() -> None:
    """What a killed run had ordered is brought home, also where nothing else is due."""
    found = decided(live(days_ago=10), under_way=True)
    assert (True, "an order is under way: going on with it") == (found.order, found.why)


def test_a_replacement_is_ordered_with_a_new_key_until_here() -> None:
    """As long as an old one is live each run orders, with another key; once it is another one, none does."""
    old, new = live(days_ago=1), live(days_ago=0)
    found = decided(old, replacement=to_replace(old))
    assert (True, True) == (found.order, found.new_key)
    found = decided(new, replacement=to_replace(old))
    assert (False, False) == (found.order, found.new_key)


def test_a_replacement_outranks_an_order_under_way() -> None:
    """A key that may be in the wrong hands is never certified again because an order had begun with it."""
    old = live(days_ago=1)
    assert decided(old, replacement=to_replace(old), under_way=True).new_key


@pytest.mark.parametrize("names", [("example.test", "www.example.test"), ("www.example.test",)])
def test_other_names_are_ordered_at_once(names: tuple[str, ...]) -> None:
    """A name more, a name less: such a certificate is not kept until its window."""
    before = live(days_ago=10)
    before = replace(before, leaf=replace(before.leaf, names=names))
    found = decided(before)
    assert found.order
    assert ", ".join(names) in found.why


def test_names_in_another_order_are_the_same_names() -> None:
    """To sort the list in the configuration costs no order."""
    wanted = replace(WANTED, names=(DnsName("b.test"), DnsName("a.test")))
    before = live(days_ago=10)
    before = replace(before, leaf=replace(before.leaf, names=("a.test", "b.test")))
    found = decided(before, wanted)
    assert not found.order


def test_another_ca_is_ordered_from_at_once() -> None:
    """From staging to production: what the other CA has issued is not kept until its window."""
    found = decided(live(days_ago=10, directory="https://staging.test/directory"))
    assert found.order
    assert "https://staging.test/directory" in found.why
    assert DIRECTORY in found.why
    assert found.remark == found.why, "a person is told of it"


def test_a_certificate_of_unknown_origin_is_kept() -> None:
    """Where nobody wrote down which CA issued it, that alone costs no order."""
    assert not decided(live(days_ago=10, directory=None)).order


@pytest.mark.parametrize(("life", "window"), [(90, 60), (45, 30), (6, 3)])
def test_the_window_begins_with_its_second(life: float, window: float) -> None:
    """Of lives of 90 and 45 days the last third, of six days the second half: not a second sooner."""
    assert not decided(live(days_ago=window, life=life), now=NOW - SECOND).order
    found = decided(live(days_ago=window, life=life))
    assert found.order
    assert found.why.endswith("more: due")
    assert found.remark is None, "it is what everybody expects"
    assert not found.new_key


def test_the_ca_may_want_it_sooner() -> None:
    """From the moment on that was drawn in the CA's window, and not from its begin on."""
    before = live(days_ago=10)
    word = suggested(-DAY, DAY)
    moment = word.chosen(before.leaf.sha256)
    assert moment is not None
    assert not decided(before, suggestion=word, now=moment - SECOND).order
    found = decided(before, suggestion=word, now=moment)
    assert found.order
    assert (found.remark or "").endswith("the CA explains: https://ca.test/why")


def test_a_window_of_the_past_means_now() -> None:
    """So a CA announces that it will revoke; the mail gets its explanation."""
    found = decided(live(days_ago=10), suggestion=suggested(-2 * DAY, timedelta()))
    assert found.order
    assert "the CA wanted it replaced by 2026-11-23T12:00:00Z" in found.why
    assert (found.remark or "").endswith("the CA explains: https://ca.test/why")


@pytest.mark.parametrize("word", [None, Suggestion(NOW), suggested(30 * DAY, 40 * DAY)])
def test_the_cas_word_never_makes_it_later(word: Suggestion | None) -> None:
    """A CA that says nothing, or "in a month", leaves this host's own window."""
    assert decided(live(days_ago=61), suggestion=word).order
    assert not decided(live(days_ago=59), suggestion=word).order


def test_a_step_back_lasts_until_a_sixth_is_left() -> None:
    """
    The window of the release that is held off comes long after the one that hosts serve has expired. So
    another one is ordered when a sixth of the latter's life is left, and not sooner.
    """
    newer = live(days_ago=10)
    assert not decided(
        newer, stepped_back=stepped_back_to(live(days_ago=75), from_=newer), now=NOW - SECOND
    ).order
    found = decided(newer, stepped_back=stepped_back_to(live(days_ago=75), from_=newer))
    assert (True, False) == (found.order, found.new_key)
    assert "stepped back to is valid for 15 days more" in found.why
