"""What a consumer remembers survives as it was written, or is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.consumer.state import Proved, State, load, save
from certcast.release.certificate import Leaf
from certcast.report.errors import LocalFault

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
LEAF = Leaf(
    "a" * 64, "0F", "CN=CA", NOON, NOON + timedelta(days=90), ("*.example.test", "example.test"), "b" * 64
)
FULL = State(
    last_downloaded=NOON,
    last_checked=NOON + timedelta(hours=1),
    store="oss://bucket/prefix",
    sequence=42,
    seen='{"format": 1}\n',
    expires=NOON + timedelta(days=7),
    etag='"ABC"',
    unfinished="c" * 64,
    broke="d" * 64,
    standing="41-" + "c" * 16,
    standing_with="1" * 64,
    former=("40-" + "2" * 16,),
    proved=Proved(LEAF, "42-" + "a" * 16, {"fullchain.pem": "e" * 32, "privkey.pem": "f" * 32}),
)


@pytest.mark.parametrize("state", [State(), FULL])
def test_state_is_read_as_it_was_written(tmp_path: Path, state: State) -> None:
    """Nothing is lost or changed between two runs."""
    save(tmp_path / "state.json", state)
    assert state == load(tmp_path / "state.json")


def test_state_of_an_earlier_certcast(tmp_path: Path) -> None:
    """What an earlier version did not remember yet is unknown, and no reason to stop."""
    path = tmp_path / "state.json"
    save(path, FULL)
    later = {"standing": None, "standing_with": None, "former": ()}
    document = {name: value for name, value in json.loads(path.read_text()).items() if name not in later}
    path.write_text(json.dumps(document))
    assert replace(FULL, **later) == load(path)


def test_no_state_is_a_fresh_host(tmp_path: Path) -> None:
    """A host without a state file begins anew, without an error."""
    assert State() == load(tmp_path / "state.json")


@pytest.mark.parametrize(
    "change",
    [
        {"proved": {}},
        {"proved": "yes"},
        {"last_checked": "yesterday"},
        {"sequence": "many"},
        {"invented": 1},
    ],
)
def test_state_that_makes_no_sense_is_reported(tmp_path: Path, change: dict[str, object]) -> None:
    """A state that somebody edited wrongly is reported with its path and what to do; it is not guessed at."""
    path = tmp_path / "state.json"
    save(path, FULL)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(LocalFault, match="state") as caught:
        load(path)
    assert f"move {path} away" in (caught.value.next or "")


def test_dates_are_readable(tmp_path: Path) -> None:
    """A person who opens the file finds `last_downloaded` as a date."""
    save(tmp_path / "state.json", FULL)
    assert "2026-11-23T12:00:00Z" == json.loads((tmp_path / "state.json").read_text())["last_downloaded"]
