"""What settles a certificate for a run without a question, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.acme.renewal_info import Suggestion
from certcast.renewal import last_look
from certcast.renewal.last_look import LOOK_AGAIN, LastLook, mark_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
MONTH = timedelta(days=30)
LIVE, AROUND = "1-0123456789abcdef 17 4", "f" * 64
LOOK = LastLook(
    live=LIVE,
    leaf="80000000" + "0" * 56,
    window_start=NOW + MONTH,
    at=NOW,
    true_for=AROUND,
    sign_again=NOW + MONTH,
    ca_id="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
)


def settles(look: LastLook, after: timedelta = HOUR, *, live: str = LIVE, around: str = AROUND) -> bool:
    return look.settles(live, around, NOW + after)


def test_an_hour_after_a_good_look_nothing_is_asked() -> None:
    """Where nothing has changed, a run asks neither the store nor the CA."""
    assert settles(LOOK)
    assert settles(LOOK, timedelta())


def test_after_five_hours_the_store_is_asked_again() -> None:
    """A timer that runs four times a day asks each time, also with a splay of an hour."""
    assert settles(LOOK, LOOK_AGAIN - SECOND)
    assert not settles(LOOK, LOOK_AGAIN)
    assert timedelta(hours=5) == LOOK_AGAIN


def test_from_the_window_on_everything_is_asked() -> None:
    """The first run in the window orders: no look of before keeps it from that."""
    look = replace(LOOK, window_start=NOW + HOUR)
    assert settles(look, HOUR - SECOND)
    assert not settles(look, HOUR)


def test_a_manifest_that_ages_is_signed_again_in_time() -> None:
    """Half-way to its expiry the manifest is dated anew: hosts never take this one for silent."""
    look = replace(LOOK, sign_again=NOW + HOUR)
    assert settles(look, HOUR - SECOND)
    assert not settles(look, HOUR)


def test_another_live_release_is_looked_at() -> None:
    """What an order, a hook or a restore has put there is published by the next run."""
    assert not settles(LOOK, live="2-fedcba9876543210 18 5")


def test_other_surroundings_are_looked_at() -> None:
    """A host more in the list gets its key by the next run, not hours later."""
    assert not settles(LOOK, around="e" * 64)


def test_a_clock_that_went_back_settles_nothing() -> None:
    """A look of the future proves nothing: the clock was wrong then, or is now."""
    assert not settles(LOOK, -SECOND)


# -- the CA's word


def test_the_ca_is_asked_when_it_wanted_to_be() -> None:
    """Its Retry-After is obeyed to the second; before its first answer it is asked."""
    assert LOOK.is_ca_due(NOW)
    told = LOOK.with_word(Suggestion(NOW + 6 * HOUR))
    assert not told.is_ca_due(NOW + 6 * HOUR - SECOND)
    assert told.is_ca_due(NOW + 6 * HOUR)


def test_without_an_identifier_the_ca_is_never_asked() -> None:
    """Of a certbot's certificate, or one without a key identifier, the CA is not asked."""
    assert not replace(LOOK, ca_id="").is_ca_due(NOW + MONTH)


def test_the_moment_of_the_ca_ends_the_rest() -> None:
    """Half-way in the window, for this leaf: then an order is due, whatever the store was like."""
    told = LOOK.with_word(Suggestion(NOW + 6 * HOUR, NOW + HOUR, NOW + 3 * HOUR))
    assert not told.is_due_by_ca(NOW + 2 * HOUR - SECOND)
    assert told.is_due_by_ca(NOW + 2 * HOUR)


def test_without_a_window_the_ca_makes_nothing_due() -> None:
    """A CA without renewal information never hurries anybody."""
    assert not LOOK.is_due_by_ca(NOW + MONTH)
    assert not LOOK.with_word(Suggestion(NOW + HOUR)).is_due_by_ca(NOW + MONTH)


# -- the file


def test_a_look_is_kept_as_it_was(tmp_path: Path) -> None:
    """The next process decides by the same facts, the CA's word included."""
    word = Suggestion(NOW + HOUR, NOW + 2 * HOUR, NOW + 3 * HOUR, "https://ca.test/why")
    for look in (LOOK, LOOK.with_word(word)):
        last_look.write(tmp_path, "example.test", look)
        assert look == last_look.read(tmp_path, "example.test")
    assert word == look.suggestion()
    assert last_look.read(tmp_path, "other.test") is None


def test_a_look_that_is_on_disk_today_is_read(tmp_path: Path) -> None:
    """An update costs no run its quiet: the file has these fields, a moment that was not said being null."""
    path = tmp_path / "renewing/example.test.json"
    path.parent.mkdir()
    path.write_text(
        """{
  "live": "1-0123456789abcdef 17 4",
  "leaf": "8000000000000000000000000000000000000000000000000000000000000000",
  "window_start": "2026-12-23T12:00:00Z",
  "at": "2026-11-23T12:00:00Z",
  "true_for": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "sign_again": "2026-12-23T12:00:00Z",
  "ca_id": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
  "ca_again": "2026-11-23T13:00:00Z",
  "ca_start": null,
  "ca_end": null,
  "ca_url": null
}
"""
    )
    assert LOOK.with_word(Suggestion(NOW + HOUR)) == last_look.read(tmp_path, "example.test")
    written = path.read_text()
    last_look.write(tmp_path, "example.test", LOOK.with_word(Suggestion(NOW + HOUR)))
    assert written == path.read_text()


def test_what_was_forgotten_is_looked_at(tmp_path: Path) -> None:
    """After a failure the next run looks at everything; to forget twice is no failure."""
    last_look.write(tmp_path, "example.test", LOOK)
    for _ in range(2):
        last_look.forget(tmp_path, "example.test")
        assert last_look.read(tmp_path, "example.test") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace("2026-11-23T12:00:00Z", "yesterday"),
        lambda text: text.replace('"at"', '"when"'),
        lambda text: text.replace("{", '{"later": 1,', 1),
        lambda text: text.replace('"2026-11-23T12:00:00Z"', "17"),
        lambda text: text.replace('"at": "2026-11-23T12:00:00Z"', '"at": null'),
        lambda text: text.replace('"leaf": "8', '"leaf": "x'),
    ],
)
def test_a_damaged_look_is_no_look(tmp_path: Path, damage: Callable[[str], str]) -> None:
    """What cannot be read costs a look at everything, and never a run."""
    last_look.write(tmp_path, "example.test", LOOK)
    path = tmp_path / "renewing/example.test.json"
    path.write_text(damage(path.read_text()))
    assert last_look.read(tmp_path, "example.test") is None


# -- what it was true for


def test_each_change_of_the_host_list_changes_the_mark(tmp_path: Path) -> None:
    """A line more, another file in its place, the same file under another inode: each is a change."""
    hosts = tmp_path / "hosts"
    marks = [mark_of([hosts])]
    hosts.write_text("web1 ssh-ed25519 AAAA\n")
    marks.append(mark_of([hosts]))
    hosts.write_text("web1 ssh-ed25519 AAAA\nweb2 ssh-ed25519 BBBB\n")
    marks.append(mark_of([hosts]))
    beside = tmp_path / "new"
    beside.write_text(hosts.read_text())
    status = hosts.stat()
    os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
    beside.rename(hosts)
    marks.append(mark_of([hosts]))
    assert len(marks) == len(set(marks))


def test_the_same_files_have_the_same_mark(tmp_path: Path) -> None:
    """To read a file, or to run twice, changes nothing."""
    hosts, config = tmp_path / "hosts", tmp_path / "certcast.toml"
    hosts.write_text("web1\n")
    before = mark_of([hosts, config])
    hosts.read_text()
    assert before == mark_of([hosts, config])
    assert before != mark_of([config, hosts])


def test_a_write_within_the_same_size_changes_the_mark(tmp_path: Path) -> None:
    """One host exchanged for another of the same length is seen by the moment of the write."""
    hosts = tmp_path / "hosts"
    hosts.write_text("web1\n")
    os.utime(hosts, ns=(1, 1))
    before = mark_of([hosts])
    hosts.write_text("web2\n")
    assert before != mark_of([hosts])
