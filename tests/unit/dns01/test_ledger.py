"""The ledger of TXT records: what a crash may leave behind is known afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from certcast.dns01.ledger import Entry, Ledger, Process
from certcast.report.errors import LocalFault

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=timezone.utc)
NAME = "_acme-challenge.example.com"


def entry(value: str, run: Process | None = None, *, zone: str = "example.com") -> Entry:
    return Entry(NAME, value, zone, "_acme-challenge", run or Process.current(), NOW)


def test_two_values_at_one_name_are_two_entries(tmp_path):
    """Apex and wildcard share a name; removing one's record says nothing of the other's."""
    ledger = Ledger(tmp_path)
    apex, wildcard = ledger.intend([entry("apex"), entry("wildcard")])
    ledger.put([replace(apex, record_id="1"), replace(wildcard, record_id="2")])

    ledger.drop(apex)

    assert [replace(wildcard, record_id="2")] == Ledger(tmp_path).entries()


def test_an_entry_comes_back_from_disk_as_it_was(tmp_path):
    """What the auth hook wrote down, the cleanup hook reads: zone, name, id, time and run."""
    written = replace(entry("value"), record_id="176062010691676160", ours=False, leaving=True)

    Ledger(tmp_path).put([written])

    assert written == Ledger(tmp_path).find(NAME, "value")


def test_an_intention_takes_over_an_earlier_entry(tmp_path):
    """The CA hands out a pending value again: the new run owns the record that the crashed one made."""
    ledger = Ledger(tmp_path)
    dead = Process(pid=2**22 + 1, started=1, boot="an earlier one")
    ledger.put([replace(entry("value", dead), record_id="7")])

    (taken_over,) = ledger.intend([entry("value")])

    assert ("7", True, Process.current()) == (taken_over.record_id, taken_over.inherited, taken_over.run)
    assert [taken_over] == ledger.entries()


def test_an_intention_at_another_place_is_a_new_one(tmp_path):
    """A CNAME that was moved between two runs doesn't lend the old record's id to the new zone."""
    ledger = Ledger(tmp_path)
    ledger.put([replace(entry("value"), record_id="7")])

    (fresh,) = ledger.intend([entry("value", zone="acme.example.net")])

    assert (None, False) == (fresh.record_id, fresh.inherited)


def test_a_process_is_alive_until_it_ends():
    """A record is nobody's leftover while its certbot lives, and is one from the moment it ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as certbot:
        run = Process.find(certbot.pid)
        assert run is not None
        assert run.is_alive()
        os.kill(certbot.pid, signal.SIGKILL)
        os.waitid(os.P_PID, certbot.pid, os.WEXITED | os.WNOWAIT)
        assert not run.is_alive(), "it has ended, even if its parent did not collect it yet"

    assert not run.is_alive()


def test_a_reused_process_id_is_another_process():
    """A new process with a dead certbot's id doesn't keep its records alive."""
    living = Process.find(os.getpid())
    assert living is not None

    assert not replace(living, started=living.started - 1).is_alive()
    assert not replace(living, boot="before the reboot").is_alive()


def test_a_process_that_never_was_is_none():
    """Asking for a process that doesn't exist gives nothing, not an error."""
    assert Process.find(2**22 + 1) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"records": [{"name": 1}]}', '{"records": 3}', "{}"])
def test_a_damaged_ledger_is_reported_and_kept(tmp_path, content):
    """A ledger that can't be read is never replaced by an empty one: it may know of records that are ours."""
    ledger = Ledger(tmp_path)
    ledger.put([])
    ledger.path.write_text(content)

    with pytest.raises(LocalFault, match="damaged"):
        ledger.intend([entry("value")])

    assert content == ledger.path.read_text()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    """An unusable state folder is an error of this host, with the path, and not a traceback."""
    (tmp_path / "dns01").write_text("a file where the folder should be")

    with pytest.raises(LocalFault, match="dns01"):
        Ledger(tmp_path).entries()


# -- whose an entry is

ONE, TWO = "https://ca.example/order/1", "https://ca.example/order/2"


def test_an_orders_entries_are_found_by_its_url(tmp_path):
    """What one order has added is known apart from another's, and from what certbot's hooks have added."""
    ledger = Ledger(tmp_path)
    first, second = replace(entry("a"), order=ONE), replace(entry("b"), order=TWO)
    ledger.intend([first, second, entry("hook's")])

    assert [first] == Ledger(tmp_path).of_orders([ONE])
    assert [first, second] == ledger.of_orders([ONE, TWO])


def test_an_entry_that_changed_hands_is_not_forgotten(tmp_path):
    """The CA gave one value to two orders: when the first is over, the second's record is still known."""
    ledger = Ledger(tmp_path)
    (first,) = ledger.intend([replace(entry("value"), order=ONE)])
    (second,) = ledger.intend([replace(entry("value"), order=TWO)])

    ledger.drop(first)
    assert [second] == ledger.entries()
    assert [] == ledger.of_orders([ONE])

    ledger.drop(second)
    assert [] == ledger.entries()


def test_a_ledger_of_earlier_versions_is_read(tmp_path):
    """After an upgrade the records of the last run are still known; they belong to no order."""
    ledger = Ledger(tmp_path)
    ledger.put([entry("value")])
    document = json.loads(ledger.path.read_text())
    del document["records"][0]["order"]
    ledger.path.write_text(json.dumps(document))

    assert [""] == [one.order for one in ledger.entries()]


TODAYS_FILE = """{
  "records": [
    {
      "name": "_acme-challenge.example.com",
      "value": "apex",
      "zone": "acme.example.net",
      "rr": "example-com",
      "run": {
        "pid": 4711,
        "started": 1234567,
        "boot": "0b2f6f2e-6b8b-4c2e-9d5a-0e4a1c8f7d11"
      },
      "created": "2026-11-23T18:00:00Z",
      "record_id": "176062010691676160",
      "ours": false,
      "inherited": true,
      "leaving": true,
      "order": "https://ca.example/order/1"
    },
    {
      "name": "_acme-challenge.example.com",
      "value": "wildcard",
      "zone": "example.com",
      "rr": "_acme-challenge",
      "run": {
        "pid": 4711,
        "started": 1234567,
        "boot": "0b2f6f2e-6b8b-4c2e-9d5a-0e4a1c8f7d11"
      },
      "created": "2026-11-23T18:00:00Z",
      "record_id": null,
      "ours": true,
      "inherited": false,
      "leaving": false,
      "order": ""
    }
  ]
}
"""


def test_todays_ledger_is_read_and_written_back_as_it_was(tmp_path):
    """Every field of a ledger on disk means the same after an upgrade, and is written as it was read."""
    ledger = Ledger(tmp_path)
    ledger.put([])
    ledger.path.write_text(TODAYS_FILE)
    process = Process(pid=4711, started=1234567, boot="0b2f6f2e-6b8b-4c2e-9d5a-0e4a1c8f7d11")
    apex = replace(
        Entry(NAME, "apex", "acme.example.net", "example-com", process, NOW, "176062010691676160"),
        ours=False,
        inherited=True,
        leaving=True,
        order=ONE,
    )
    wildcard = Entry(NAME, "wildcard", "example.com", "_acme-challenge", process, NOW)

    assert [apex, wildcard] == ledger.entries()
    ledger.put([])
    assert TODAYS_FILE == ledger.path.read_text()


def test_threads_of_one_process_take_turns_at_the_file(tmp_path):
    """Ten answers that come at the same moment are ten entries with their ids."""
    ledger = Ledger(tmp_path)
    intended = ledger.intend([entry(f"value-{number}") for number in range(10)])

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda one: ledger.put([replace(one, record_id=one.value)]), intended))

    assert {f"value-{number}" for number in range(10)} == {one.record_id for one in ledger.entries()}
