"""A run that is killed between any two of its steps, and the run after it.

The killed run is a process of its own that ends by `os._exit` right after a step:
no `finally`, no clean-up. What is in service must stay good at once, not only
after the next run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from certcast.consumer.pull import STEPS
from certcast.errors import NotIncluded, StoreUnreachable
from consuming import DAY, Consumer, Failing, Wrapped, consumer

CRASHED = 9
# Outside the window and before the next idle check: only the unfinished installation makes it due.
SOON = DAY + timedelta(minutes=1)

KILLED_RUN = """
import os, sys
from datetime import datetime
from pathlib import Path
from certcast import config_reading
from certcast.consumer.pull import pull
from certcast.storage import open_store

path, step, now = sys.argv[1:]
here = config_reading.load(Path(path))
pull(
    here,
    here.certificates[0],
    open_store=lambda: open_store(here.store),
    now=datetime.fromisoformat(now),
    force=True,
    after=lambda done: os._exit(9) if done == step else None,
)
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Consumer]:
    with consumer(tmp_path) as started:
        yield started


def killed_at(web: Consumer, step: str) -> None:
    arguments = [str(web.host.certcast_toml), step, DAY.isoformat()]
    ended = subprocess.run([sys.executable, "-c", KILLED_RUN, *arguments], check=False)
    assert CRASHED == ended.returncode, f"the run never came to {step!r}"


@pytest.mark.parametrize("step", STEPS)
def test_next_run_finishes_what_a_killed_run_began(web: Consumer, step: str) -> None:
    """
    Killed after any step, a run leaves nginx serving a good pair and able to start; the next run
    brings the new one into service by itself, and leaves no temporary file or key behind.
    """
    web.publish("A")
    web.first_pull()
    web.publish("B")
    killed_at(web, step)

    assert web.served() in {web.leaf("A"), web.leaf("B")}
    assert web.host.test()

    # Before the release was accepted nothing is unfinished, and the idle check finds it.
    then = SOON if step != "locked" else DAY + timedelta(hours=1)
    web.pull(then)
    assert web.leaf("B") == web.served()
    assert [] == web.leftovers()
    assert web.leaf("B") == (web.state.proved and web.state.proved.leaf.sha256)
    assert web.state.unfinished is None
    assert web.state.etag is not None
    assert "nothing due" == web.pull(then).result


# A first run ends after "current", with the question whether the snippet is included.
@pytest.mark.parametrize("step", STEPS[: STEPS.index("tested")])
def test_killed_first_run_still_ends_staged(web: Consumer, step: str) -> None:
    """On a host that was never set up, a killed first run is followed by one that stages and says so."""
    placeholder = web.served()
    web.publish("A")
    killed_at(web, step)
    assert placeholder == web.served()
    assert web.host.test()
    with pytest.raises(NotIncluded):
        web.pull(SOON)
    web.host.include(web.folder.snippet)
    assert "installed" == web.pull(SOON).result
    assert [] == web.leftovers()


def test_staged_release_is_not_downloaded_twice(web: Consumer) -> None:
    """What a killed run had downloaded and checked is used by the next one."""
    web.publish("A")
    web.first_pull()
    web.publish("B")
    killed_at(web, "version")
    asked = Wrapped(web.store)
    web.pull(SOON, store=asked)
    assert ["manifest"] == asked.asked
    assert web.leaf("B") == web.served()


def test_damaged_version_of_a_killed_run_is_fetched_again(web: Consumer) -> None:
    """A staged file that was cut short on the disk is not believed: the release is fetched again."""
    web.publish("A")
    web.first_pull()
    web.publish("B")
    killed_at(web, "version")
    version = web.folder.version_of(web.leaf("B"))
    assert version
    (web.folder.versions / version / "privkey.pem").write_bytes(b"")
    web.pull(SOON)
    assert web.leaf("B") == web.served()
    assert [] == web.leftovers()


def test_unfinished_installation_is_finished_without_the_store(web: Consumer) -> None:
    """
    When the store fails after a crash, the accepted release is still brought into service; the
    run then ends with the store's failure.
    """
    web.publish("A")
    web.first_pull()
    web.publish("B")
    killed_at(web, "snippet")
    with pytest.raises(StoreUnreachable):
        web.pull(SOON, store=Failing(web.store, StoreUnreachable("no answer")))
    assert web.leaf("B") == web.served()
    assert web.state.unfinished is None
