"""Where a TXT record belongs: the zone with the longest name, after CNAMEs."""

from __future__ import annotations

import pytest

from certcast.dns01.provider import zone_of
from certcast.dns01.visibility.delegation import Alias, RecordLocation, locate_record
from certcast.report.errors import ZoneMissing


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_acme-challenge.example.com", ("example.com", "_acme-challenge")),
        ("_acme-challenge.www.example.com", ("example.com", "_acme-challenge.www")),
        ("_acme-challenge.sub.example.com", ("sub.example.com", "_acme-challenge")),
        ("_acme-challenge.a.b.sub.example.com", ("sub.example.com", "_acme-challenge.a.b")),
        ("_ACME-Challenge.Example.COM.", ("example.com", "_acme-challenge")),
        ("sub.example.com", ("sub.example.com", "@")),
        ("_acme-challenge.example.com.cn", ("com.cn", "_acme-challenge.example")),
        ("_acme-challenge.notexample.com", None),
        ("_acme-challenge.example.org", None),
    ],
)
def test_the_longest_zone_wins(name, expected):
    """The record goes into the deepest managed zone that holds the name; a mere likeness of names is none."""
    zones = ["example.com", "sub.example.com", "com.cn"]

    assert expected == zone_of(name, zones)
    assert expected == zone_of(name, zones[::-1])


class Names:
    """CNAMEs and sub-zones as a world of names would tell them, and who was asked."""

    def __init__(self, aliases: dict[str, str], subzones: dict[str, str] | None = None) -> None:
        self.aliases = aliases
        self.subzones = subzones or {}
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, name: str, zone: str | None) -> Alias:
        self.asked.append((name, zone))
        return Alias(self.aliases.get(name), self.subzones.get(name))


def test_a_chain_of_cnames_is_followed_across_zones():
    """A challenge name delegated by CNAMEs, even through a foreign domain, is answered at their end."""
    names = Names(
        {
            "_acme-challenge.shop.org": "shop.hosting.net",
            "shop.hosting.net": "shop-org.acme.example.com",
        }
    )

    where = locate_record("_acme-challenge.shop.org", ["example.com", "acme.example.com"], names)

    assert RecordLocation("acme.example.com", "shop-org") == where
    assert [
        ("_acme-challenge.shop.org", None),
        ("shop.hosting.net", None),
        ("shop-org.acme.example.com", "acme.example.com"),
    ] == names.asked


def test_cnames_in_a_circle_end_with_an_error_that_shows_it():
    """CNAMEs that point at each other are reported with the whole circle, and the run doesn't hang."""
    names = Names(
        {"_acme-challenge.example.com": "a.example.com", "a.example.com": "_acme-challenge.example.com"}
    )

    with pytest.raises(ZoneMissing, match="do not end") as failure:
        locate_record("_acme-challenge.example.com", ["example.com"], names)

    assert "_acme-challenge.example.com → a.example.com → _acme-challenge.example.com" == failure.value.found


def test_cnames_without_an_end_are_given_up():
    """A chain that goes on and on is given up after ten names."""

    def endless(name: str, zone: str | None) -> Alias:
        return Alias("x" + name)

    with pytest.raises(ZoneMissing, match="do not end"):
        locate_record("_acme-challenge.example.com", ["example.com"], endless)


def test_a_name_in_no_managed_zone_is_refused():
    """Whoever forgot a zone reads which name is homeless and which zones are managed."""
    with pytest.raises(ZoneMissing, match=r"no managed zone holds _acme-challenge\.example\.org") as failure:
        locate_record("_acme-challenge.example.org", ["example.net", "example.com"], Names({}))

    assert "a name in one of: example.com, example.net" == failure.value.expected


def test_a_name_in_a_foreign_sub_zone_is_refused():
    """A record in the parent of a delegated zone would never be seen: said at once, not after a time-out."""
    names = Names({}, {"_acme-challenge.sub.example.com": "sub.example.com"})

    with pytest.raises(ZoneMissing, match=r"lies in sub\.example\.com, which example\.com delegates away"):
        locate_record("_acme-challenge.sub.example.com", ["example.com"], names)
