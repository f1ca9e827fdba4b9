"""What a consumer remembers survives as it was written, or is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.consumer.state import ProvedRelease, State
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
    seen_by="SHA256:" + "3" * 43,
    expires=NOON + timedelta(days=7),
    etag='"ABC"',
    unfinished="c" * 64,
    broke="d" * 64,
    reloaded_version="41-" + "c" * 16,
    reloaded_config="1" * 64,
    former=("40-" + "2" * 16,),
    proved=ProvedRelease(
        LEAF, "42-" + "a" * 16, {"fullchain.pem": "e" * 32, "privkey.pem": "f" * 32}, "ECDSA"
    ),
    once_proved=("a" * 64,),
    leaves=("9" * 64, "a" * 64),
    sealed_etag='"S"',
    sealed_leaf="a" * 64,
    sealed_to="SHA256:" + "4" * 43,
)
# What the version before the documents' converter wrote for FULL.
WRITTEN = r"""
{
  "last_downloaded": "2026-11-23T12:00:00Z",
  "last_checked": "2026-11-23T13:00:00Z",
  "store": "oss://bucket/prefix",
  "sequence": 42,
  "seen": "{\"format\": 1}\n",
  "seen_by": "SHA256:3333333333333333333333333333333333333333333",
  "former": [
    "40-2222222222222222"
  ],
  "expires": "2026-11-30T12:00:00Z",
  "etag": "\"ABC\"",
  "unfinished": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
  "broke": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
  "standing": "41-cccccccccccccccc",
  "standing_with": "1111111111111111111111111111111111111111111111111111111111111111",
  "proved": {
    "leaf": {
      "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "serial": "0F",
      "issuer": "CN=CA",
      "not_before": "2026-11-23T12:00:00Z",
      "not_after": "2027-02-21T12:00:00Z",
      "names": [
        "*.example.test",
        "example.test"
      ],
      "public_key_sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    },
    "version": "42-aaaaaaaaaaaaaaaa",
    "md5": {
      "fullchain.pem": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
      "privkey.pem": "ffffffffffffffffffffffffffffffff"
    },
    "key_type": "ECDSA"
  },
  "once_proved": [
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  ],
  "leaves": [
    "9999999999999999999999999999999999999999999999999999999999999999",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  ],
  "sealed_etag": "\"S\"",
  "sealed_leaf": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "sealed_to": "SHA256:4444444444444444444444444444444444444444444"
}
"""


@pytest.mark.parametrize("state", [State(), FULL])
def test_state_is_read_as_it_was_written(tmp_path: Path, state: State) -> None:
    """Nothing is lost or changed between two runs."""
    state.write(tmp_path / "state.json")
    assert state == State.read(tmp_path / "state.json")


def test_file_keeps_the_keys_that_it_always_had(tmp_path: Path) -> None:
    """What is on hosts today is read with every field, and an earlier certcast reads what is written now."""
    path = tmp_path / "state.json"
    path.write_text(WRITTEN)
    assert FULL == State.read(path)
    FULL.write(path)
    assert WRITTEN.lstrip() == path.read_text()


def test_state_of_an_earlier_certcast(tmp_path: Path) -> None:
    """What an earlier version did not remember yet is unknown, and no reason to stop."""
    path = tmp_path / "state.json"
    FULL.write(path)
    later = {"standing", "standing_with", "former"}
    document = {name: value for name, value in json.loads(path.read_text()).items() if name not in later}
    path.write_text(json.dumps(document))
    assert replace(FULL, reloaded_version=None, reloaded_config=None, former=()) == State.read(path)


def test_no_state_is_a_fresh_host(tmp_path: Path) -> None:
    """A host without a state file begins anew, without an error."""
    assert State() == State.read(tmp_path / "state.json")


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
    FULL.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(LocalFault, match="state") as caught:
        State.read(path)
    assert f"move {path} away" in (caught.value.next or "")


@pytest.mark.parametrize("name", ["sequence", "proved", "expires", "last_checked", "last_downloaded"])
def test_a_state_that_lacks_what_counts_is_damaged(tmp_path: Path, name: str) -> None:
    """A state without its sequence, or another thing that each version writes, is not a fresh host's."""
    path = tmp_path / "state.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(WRITTEN).items() if key != name}))
    with pytest.raises(LocalFault, match="damaged"):
        State.read(path)
    path.write_text("{}")
    with pytest.raises(LocalFault, match="damaged"):
        State.read(path)


def test_mistakes_of_a_state_are_all_told(tmp_path: Path) -> None:
    """Each mistake is reported with its place, in the order of the fields; what is not known comes last."""
    path = tmp_path / "state.json"
    document = json.loads(WRITTEN)
    del document["proved"]["version"]
    document["proved"]["leaf"]["names"] = [1]
    path.write_text(json.dumps({**document, "sequence": "42", "invented": 1}))
    with pytest.raises(LocalFault) as caught:
        State.read(path)
    assert (
        "sequence: must be a whole number, not '42'; proved.leaf.names[0]: is not a plain text; "
        "proved.version: is missing; unknown: invented"
    ) in (caught.value.found or "")


def test_dates_are_readable(tmp_path: Path) -> None:
    """A person who opens the file finds `last_downloaded` as a date."""
    FULL.write(tmp_path / "state.json")
    assert "2026-11-23T12:00:00Z" == json.loads((tmp_path / "state.json").read_text())["last_downloaded"]
