"""Which endpoint is asked first: the configured order, and what a host remembers."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.storage.endpoints import REMEMBERED, Endpoints

INSIDE, OWN, PUBLIC = "https://inside", "https://own", "https://public"
ALL = (INSIDE, OWN, PUBLIC)
NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def opened(folder: Path, *, later: timedelta = timedelta(0), configured: tuple[str, ...] = ALL) -> Endpoints:
    """A run of certcast, `later` than the first one."""
    return Endpoints(configured, folder, lambda: NOW + later)


def test_what_served_is_asked_first_in_later_runs(tmp_path):
    """The others stay behind it in their configured order, in case it fails."""
    opened(tmp_path).served(OWN)

    assert [OWN, INSIDE, PUBLIC] == opened(tmp_path, later=REMEMBERED - timedelta(seconds=1)).in_turn()
    assert list(ALL) == opened(tmp_path, later=REMEMBERED).in_turn()


def test_one_process_remembers_too(tmp_path):
    """A resident host asks in the new order from the next look on, and in the configured one later."""
    moment = NOW
    endpoints = Endpoints(ALL, tmp_path, lambda: moment)
    endpoints.served(PUBLIC)
    assert [PUBLIC, INSIDE, OWN] == endpoints.in_turn()
    moment = NOW + REMEMBERED
    assert list(ALL) == endpoints.in_turn()


def test_the_first_one_needs_no_note(tmp_path):
    """As long as the first endpoint serves, nothing is written; once it is back, the note goes."""
    endpoints = opened(tmp_path)
    endpoints.served(INSIDE)
    assert [] == list(tmp_path.iterdir())

    endpoints.served(OWN)
    opened(tmp_path).served(INSIDE)
    assert [] == list(tmp_path.iterdir())


def test_serving_on_does_not_make_the_six_hours_longer(tmp_path):
    """The better endpoint gets its chance after six hours, however often the other one served."""
    opened(tmp_path).served(OWN)
    opened(tmp_path, later=timedelta(hours=5)).served(OWN)
    assert list(ALL) == opened(tmp_path, later=REMEMBERED).in_turn()


def note(endpoint: str, until: datetime, of: tuple[str, ...] = ALL) -> str:
    return json.dumps({"endpoint": endpoint, "until": until.isoformat(), "of": of})


def test_a_note_is_what_it_says(tmp_path):
    """The file can be read, and written, by a person."""
    (tmp_path / "store-endpoint.json").write_text(note(PUBLIC, NOW + timedelta(hours=1)))
    assert [PUBLIC, INSIDE, OWN] == opened(tmp_path).in_turn()


@pytest.mark.parametrize(
    "found",
    [
        "",
        "[]",
        "{",
        note("https://elsewhere", NOW + REMEMBERED),
        note(OWN, NOW + timedelta(days=400)),
        note(OWN, NOW.replace(tzinfo=None) + REMEMBERED),
        note(OWN, NOW + REMEMBERED, of=(OWN, PUBLIC)),
        json.dumps({"endpoint": OWN, "of": ALL}),
        json.dumps({"endpoint": [OWN], "until": 5, "of": ALL}),
    ],
)
def test_a_note_that_cannot_be_is_ignored(tmp_path, found):
    """Damaged, of another configuration, or from a time when the clock was wrong: the configured order."""
    (tmp_path / "store-endpoint.json").write_text(found)
    assert list(ALL) == opened(tmp_path).in_turn()


def test_a_folder_that_cannot_be_written_costs_the_note_alone(tmp_path):
    """A hint is worth no failed run."""
    (tmp_path / "file").write_text("")
    endpoints = opened(tmp_path / "file")
    endpoints.served(OWN)
    assert [OWN, INSIDE, PUBLIC] == endpoints.in_turn()


def test_one_endpoint_is_nothing_to_remember(tmp_path):
    """With one endpoint, or the region's own, there is no file."""
    for configured in ((), (OWN,)):
        endpoints = opened(tmp_path, configured=configured)
        endpoints.served(endpoints.in_turn()[0])
        assert 1 == len(endpoints.in_turn())
    assert [] == list(tmp_path.iterdir())
