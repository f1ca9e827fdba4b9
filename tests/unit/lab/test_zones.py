"""Zone data: what a name answers, now and a while ago."""

from __future__ import annotations

import itertools
import threading
from datetime import datetime, timezone

import pytest

from certcast_lab.dns.zones import Zones, canonical


class Clock:
    seconds = 1000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def zones(clock: Clock) -> Zones:
    zones = Zones(
        ids=itertools.count(1),
        monotonic=lambda: clock.seconds,
        now=lambda: datetime(2026, 11, 23, tzinfo=timezone.utc),
    )
    zones.create("example.test", "100", ("ns1.test", "ns2.test"))
    return zones


def values(zones: Zones, name: str, rtype: str = "TXT", at: float | None = None) -> list[str]:
    return [record.value for record in zones.lookup(name, rtype, at).records]


def put(zones: Zones, rr: str, value: str, rtype: str = "TXT", zone: str = "example.test"):
    return zones.add(zones.get(zone), rr, rtype, value)


def test_a_name_answers_all_its_values_in_any_case(zones):
    """Both challenges of an apex and its wildcard are in one answer, however the name is written."""
    put(zones, "_acme-challenge", "a")
    put(zones, "_acme-challenge", "b")
    put(zones, "_acme-challenge", "192.0.2.1", "A")
    assert ["a", "b"] == values(zones, "_ACME-challenge.Example.TEST.")


def test_a_lagging_server_still_tells_what_was(zones, clock):
    """A change is seen by those who are up to date, and not yet by a server that is some seconds behind."""
    record = put(zones, "a", "first")
    clock.seconds = 1010
    zones.update(record, value="second")
    clock.seconds = 1020
    zones.delete(zones.by_id(record.id))
    assert [[], ["first"], ["first"], ["second"], ["second"], []] == [
        values(zones, "a.example.test", at=at) for at in (999, 1000, 1009, 1010, 1019, 1020)
    ]
    assert "NXDOMAIN" == zones.lookup("a.example.test", "TXT", at=999).rcode


def test_the_serial_grows_with_every_change(zones, clock):
    """A secondary can tell from the serial that it is behind, and how the zone stood at any time."""
    zone = zones.get("example.test")
    serials = [zones.serial(zone)]
    for step in range(3):
        clock.seconds += 1
        put(zones, "a", str(step))
        serials.append(zones.serial(zone))
    assert sorted(set(serials)) == serials
    assert serials == [zones.serial(zone, at) for at in (1000, 1001, 1002, 1003)]


def test_absent_names_and_absent_types_differ(zones):
    """NXDOMAIN is for names that don't exist; a name that exists without the type answers empty."""
    put(zones, "deep.below", "v")
    assert ("NXDOMAIN", "example.test") == (
        (answer := zones.lookup("nothing.example.test", "TXT")).rcode,
        answer.zone.name,
    )
    assert "NOERROR" == zones.lookup("deep.below.example.test", "A").rcode
    assert "NOERROR" == zones.lookup("below.example.test", "TXT").rcode  # exists through its child
    assert "NOERROR" == zones.lookup("example.test", "TXT").rcode
    assert "REFUSED" == zones.lookup("elsewhere.test", "TXT").rcode


def test_a_disabled_record_is_not_told(zones):
    """What the console has switched off no server answers."""
    record = put(zones, "a", "v")
    zones.update(record, enabled=False)
    assert "NXDOMAIN" == zones.lookup("a.example.test", "TXT").rcode
    assert [record.id] == [kept.id for kept in zones.records(zones.get("example.test"))]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x.example.test", ["wild"]),
        ("x.y.example.test", ["wild"]),
        ("here.example.test", ["here"]),
        ("x.here.example.test", []),  # the closest encloser is `here`, which has no wildcard below
        ("x.sub.example.test", ["wild sub"]),
        ("deep.example.test", []),  # exists, as the parent of a.deep
        ("*.example.test", ["wild"]),
        ("example.test", []),
    ],
)
def test_a_wildcard_covers_what_does_not_exist(zones, name, found):
    """A wildcard record answers as RFC 4592 says: for absent names, from the closest encloser only."""
    put(zones, "*", "wild")
    put(zones, "*.sub", "wild sub")
    put(zones, "here", "here")
    put(zones, "a.deep", "a")
    assert found == values(zones, name)
    assert all(name == record.name for record in zones.lookup(name, "TXT").records)


def test_a_cname_is_followed_into_other_zones(zones):
    """A delegated challenge name leads to the value in the zone that it points to."""
    zones.create("challenges.test", "200", ("ns1.test",))
    put(zones, "_acme-challenge", "example.challenges.test.", "CNAME")
    put(zones, "example", "token", zone="challenges.test")
    answer = zones.lookup("_acme-challenge.example.test", "TXT")
    assert [("_acme-challenge.example.test", "CNAME"), ("example.challenges.test", "TXT")] == [
        (record.name, record.type) for record in answer.records
    ]
    assert "challenges.test" == answer.zone.name
    assert ["example.challenges.test."] == values(zones, "_acme-challenge.example.test", "CNAME")


def test_a_cname_that_leads_nowhere_or_in_a_circle_ends(zones):
    """A dangling CNAME is NXDOMAIN at its end, one that leaves the lab is left to the asker, a loop stops."""
    put(zones, "dangling", "nothing.example.test", "CNAME")
    put(zones, "out", "www.elsewhere.test", "CNAME")
    put(zones, "loop", "loop.example.test", "CNAME")
    assert "NXDOMAIN" == zones.lookup("dangling.example.test", "TXT").rcode
    assert ("NOERROR", ["www.elsewhere.test"]) == (
        zones.lookup("out.example.test", "TXT").rcode,
        values(zones, "out.example.test"),
    )
    assert "NOERROR" == zones.lookup("loop.example.test", "TXT").rcode


def test_the_deepest_zone_answers(zones):
    """Below a delegated sub-zone, its own data count and the parent's don't."""
    zones.create("sub.example.test", "100", ("ns1.test",))
    put(zones, "a.sub", "parent's")
    assert "NXDOMAIN" == zones.lookup("a.sub.example.test", "TXT").rcode
    put(zones, "a", "child's", zone="sub.example.test")
    assert ["child's"] == values(zones, "a.sub.example.test")
    assert ["sub.example.test", "example.test"] == [zone.name for zone in zones.all()]


def test_ids_are_never_used_twice(zones):
    """A record added again after its deletion is another record."""
    first = put(zones, "a", "v")
    zones.delete(first)
    assert first.id != put(zones, "a", "v").id
    assert zones.by_id(first.id) is None
    with pytest.raises(KeyError):
        zones.delete(first)
    with pytest.raises(ValueError, match="exists already"):
        zones.create("EXAMPLE.test.", "200", ())


def test_reading_while_others_write_is_safe():
    """Nameservers answer from the zone data while the API changes them, without errors or torn answers."""
    zones = Zones()
    zone = zones.create("example.test", "100", ("ns1.test",))
    failures: list[BaseException] = []

    def change() -> None:
        try:
            for number in range(200):
                with zones.lock:  # a pair, put and taken together
                    pair = [zones.add(zone, "a", "TXT", f"{number}{half}") for half in "xy"]
                with zones.lock:
                    for record in pair:
                        zones.delete(record)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=change) for _ in range(2)]
    for writer in writers:
        writer.start()
    counts = set()
    while any(writer.is_alive() for writer in writers):
        counts.add(len(zones.lookup("a.example.test", "TXT").records))
    for writer in writers:
        writer.join()
    assert [] == failures
    assert counts <= {0, 2, 4}


def test_names_are_compared_in_canonical_form():
    """Case and the trailing dot make no difference."""
    assert "example.test" == canonical("Example.TEST.")


def test_a_challenge_takes_its_domain_out_of_the_wildcard(zones):
    """
    While a TXT stands at _acme-challenge.www, www exists, and `*` no longer answers for it (RFC 4592
    section 2.2.2): a site that has nothing but the wildcard is gone from DNS for so long.
    """
    put(zones, "*", "cdn.test", "CNAME")
    assert ["cdn.test"] == values(zones, "www.example.test", "A")
    challenge = put(zones, "_acme-challenge.www", "v")
    assert ("NOERROR", []) == (
        zones.lookup("www.example.test", "A").rcode,
        values(zones, "www.example.test", "A"),
    )
    zones.delete(challenge)
    assert ["cdn.test"] == values(zones, "www.example.test", "A")
