"""Ctrl-C and SIGTERM in the middle of a run: an orderly end, and a next run that goes on.

At a terminal, SIGINT and SIGHUP go to every process of the command's group; `kill` signals
certcast alone. A shell starts background jobs with SIGINT ignored, and a test run may be one:
conftest.py undoes that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.serving.children import run
from journey import Journey

COMMAND_LAB = str(Path(sys.executable).with_name("certcast-lab"))

Stop = Callable[["subprocess.Popen[str]"], None]


def by_ctrl_c(child: subprocess.Popen[str]) -> None:
    os.killpg(child.pid, signal.SIGINT)


def by_sigterm(child: subprocess.Popen[str]) -> None:
    child.terminate()


def by_hanging_up(child: subprocess.Popen[str]) -> None:
    os.killpg(child.pid, signal.SIGHUP)


def by_ctrl_c_twice(child: subprocess.Popen[str]) -> None:
    by_ctrl_c(child)
    time.sleep(0.05)  # an impatient person's second one
    by_ctrl_c(child)


def interrupted(
    argv: list[str], environment: dict[str, str], *, when: Callable[[], bool], stop: Stop
) -> tuple[int, str]:
    """Run a command, stop it once `when` holds; return its exit status and what it printed."""
    with subprocess.Popen(
        argv,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            deadline = time.monotonic() + 60
            while not when():
                assert time.monotonic() < deadline, "it never came so far"
                assert child.poll() is None, child.stdout and child.stdout.read()
            stop(child)
            printed, _ = child.communicate(timeout=60)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise
    return child.returncode, printed


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


@pytest.mark.parametrize("stop", [by_ctrl_c, by_ctrl_c_twice, by_sigterm, by_hanging_up])
def test_renew_interrupted_while_it_waits_for_dns(journey: Journey, stop: Stop) -> None:
    """
    Stopped in the middle of the wait for a slow nameserver, `renew` says that running it again goes on;
    no TXT record and no temporary file stays. The next run issues and publishes, and both together cost one
    order: the second goes on with the first one's.
    """
    lab = journey.lab
    lab.dns.servers[1].lag = 60
    temporary = journey.renewal.root / "var/tmp/own"
    temporary.mkdir()
    status, printed = interrupted(
        [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"],
        {**lab.environment("renewal"), "TMPDIR": str(temporary)},
        when=lambda: len(lab.cloud.challenge_records()) == 2,
        stop=stop,
    )
    assert 130 == status, printed
    assert "interrupted; run the same command again" in printed
    assert "Traceback" not in printed
    assert [] == lab.cloud.challenge_records()
    assert [] == list(temporary.iterdir())
    assert [False] == counted(journey)

    lab.dns.servers[1].lag = 0
    done = journey.renew()
    assert 0 == done.returncode, done.stderr
    assert [] == lab.cloud.challenge_records()
    assert journey.live().leaf.sha256 == journey.published()
    assert [True] == counted(journey)
    assert (1, 1) == (lab.renewal_info.orders, lab.renewal_info.issued)


@pytest.mark.parametrize(
    "asked", ["directory", "newAccount", "newOrder", "authz", "challenge", "order", "finalize", "certificate"]
)
def test_renew_interrupted_while_the_ca_answers(journey: Journey, asked: str) -> None:
    """
    Stopped while any answer of the CA is on its way, `renew` leaves no TXT record; the next run issues and
    publishes, and both together have one order and one certificate.
    """
    lab = journey.lab
    lab.acme_faults.turn_on("delay", action=asked, times=1, seconds=0.5)
    status, printed = interrupted(
        [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"],
        lab.environment("renewal"),
        when=lambda: lab.acme_faults.consumed("delay") == 1,
        stop=by_ctrl_c,
    )
    assert 130 == status, printed
    assert "Traceback" not in printed
    assert [] == lab.cloud.challenge_records()
    assert None is journey.published()

    done = journey.renew()
    assert 0 == done.returncode, done.stderr
    assert [] == lab.cloud.challenge_records()
    assert journey.live().leaf.sha256 == journey.published()
    assert [True] == counted(journey)
    assert (1, 1) == (lab.renewal_info.orders, lab.renewal_info.issued)


def counted(journey: Journey) -> list[bool]:
    """Return, for each order that the renewal host has counted, whether it led to a certificate."""
    (book,) = journey.renewal.certcast_folder.glob("acme/*/limits.json")
    orders = json.loads(book.read_text())["orders"]
    return [order["issued"] for placed in orders.values() for order in placed]


@pytest.mark.parametrize(("where", "stop"), [("fetching", by_ctrl_c), ("testing", by_sigterm)])
def test_pull_interrupted(journey: Journey, where: str, stop: Stop) -> None:
    """
    Stopped while it fetches the key, or while nginx tests the new configuration, `pull` leaves nginx
    with what it served and able to start, and no staging folder; the next run installs.
    """
    assert 0 == journey.renew().returncode
    web1 = journey.first_pull("web1")
    before, good = journey.served("web1"), web1.certcast_toml.read_text()
    journey.want_replaced()
    assert 0 == journey.renew().returncode
    faults, reached = journey.lab.cloud.oss.faults, web1.root / "var/tmp/reached"
    if where == "fetching":
        faults.turn_on("delay", target="*/privkey.pem", seconds=60)
        folder = web1.certcast_folder / "certs/example.test"
        came = lambda: bool(list(folder.glob("incoming-*/fullchain.pem")))  # noqa: E731
    else:
        hangs = f'test = ["sh", "-c", "touch {reached}; sleep 60"]'
        web1.certcast_toml.write_text(good.replace("test = ", f"{hangs}\n# "))
        came = reached.exists
    status, printed = interrupted(
        [CERTCAST, "--config", str(web1.certcast_toml), "pull", "--now"],
        journey.lab.environment("consumer"),
        when=came,
        stop=stop,
    )
    assert 130 == status, printed
    assert "Traceback" not in printed
    assert before == journey.served("web1")
    assert web1.test()
    assert [] == list((web1.certcast_folder / "certs/example.test").glob("incoming-*"))

    faults.turn_off()
    web1.certcast_toml.write_text(good)
    done = journey.pull("web1")
    assert 0 == done.returncode, done.stderr
    assert journey.published() == journey.served("web1") != before


@pytest.mark.parametrize("stop", [by_ctrl_c, by_sigterm, by_ctrl_c_twice])
def test_demo_interrupted(tmp_path: Path, stop: Stop) -> None:
    """`certcast-lab demo` takes everything down wherever it is stopped: nginx, pebble, certbot, folders."""
    status, printed = interrupted(
        [COMMAND_LAB, "demo"],
        {"TMPDIR": str(tmp_path)},
        when=lambda: any("certonly" in line for line in processes_that_name(tmp_path)),
        stop=stop,
    )
    assert 0 != status
    assert "Traceback" not in printed
    assert [] == processes_that_name(tmp_path)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_of_the_lab_interrupted_at_its_start(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A signal that comes while the lab starts a command waits until the lab knows it, and ends it."""
    started: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(number)

    def as_interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, as_interrupt)
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(["sleep", "60"], dict(os.environ))
        assert [-signal.SIGTERM] == [child.returncode for child in started]
    finally:
        signal.signal(number, before)
        for child in started:
            child.kill()


def processes_that_name(path: Path) -> list[str]:
    """Return the command lines in which the path stands."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if str(path) in line:
            found.append(line)
    return found


def test_what_a_killed_run_left_goes_with_the_next(journey: Journey) -> None:
    """A half version that a `kill -9` left, with its key, is removed by the next run; whole ones stay."""
    assert 0 == journey.renew().returncode
    place = journey.issued().place
    half = place / ".2-0123456789abcdef.new"
    half.mkdir()
    (half / "privkey.pem").write_text("of no certificate")

    assert 0 == journey.renew("--now").returncode
    assert [journey.live().version] == [path.name for path in place.iterdir()]
