"""Ctrl-C and SIGTERM in the middle of a run: an orderly end, and a next run that goes on.

At a terminal, SIGINT and SIGHUP go to every process of the command's group; `kill` signals
certcast alone. Either way certcast ends its certbot. A shell starts background jobs with
SIGINT ignored, and a test run may be one: `env` undoes that.
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

import pytest

from certcast.renewal import certbot
from certcast_lab.lab import CERTCAST, Lab
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
            deadline = time.monotonic() + 30
            while not when():
                assert time.monotonic() < deadline, "it never came so far"
                assert child.poll() is None, child.stdout and child.stdout.read()
            stop(child)
            printed, _ = child.communicate(timeout=20)
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
    no TXT record, no certbot and no temporary file stays, and the next run issues and publishes. It counts as
    no order: the CA was not asked to validate.
    """
    lab = journey.lab
    lab.dns.servers[1].lag = 60
    status, printed = interrupted(
        [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"],
        {**lab.environment("renewal"), "TMPDIR": str(journey.renewal.root / "var/tmp")},
        when=lambda: len(lab.cloud.challenge_records()) == 2,
        stop=stop,
    )
    assert 130 == status, printed
    assert "interrupted; run the same command again" in printed
    assert "Traceback" not in printed
    assert [] == processes_that_name(journey.renewal.root / "etc/letsencrypt")
    assert [] == lab.cloud.challenge_records()
    assert [] == list((journey.renewal.root / "var/tmp").glob("certcast-*"))
    placed = json.loads((journey.renewal.certcast_folder / "orders.json").read_text())
    assert [[]] == list(placed.values())

    lab.dns.servers[1].lag = 0
    done = journey.renew()
    assert 0 == done.returncode, done.stderr
    assert [] == lab.cloud.challenge_records()
    assert journey.live().leaf.sha256 == journey.published()


def test_renew_interrupted_while_it_starts_certbot(journey: Journey) -> None:
    """A Ctrl-C in the millisecond in which certbot starts ends both, and leaves nothing, like any other."""
    temporary = journey.renewal.root / "var/tmp/own"
    temporary.mkdir()
    for _ in range(6):
        status, printed = interrupted(
            [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"],
            {**journey.lab.environment("renewal"), "TMPDIR": str(temporary)},
            when=lambda: bool(processes_that_name(journey.renewal.root / "etc/letsencrypt")),
            stop=by_ctrl_c,
        )
        assert 130 == status, printed
        assert [] == processes_that_name(journey.renewal.root / "etc/letsencrypt")
        assert [] == journey.lab.cloud.challenge_records()
        assert [] == [*temporary.iterdir(), *journey.renewal.certcast_folder.glob("certbot-*")]
        # An interrupted run counts as an order, and a day has two.
        (journey.renewal.root / "var/lib/certcast/orders.json").unlink()


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


def test_what_a_killed_run_left_goes_a_day_later(tmp_path: Path) -> None:
    """A folder of temporary files that a `kill -9` left is removed by a later run; one in use stays."""
    for name in ("certbot-killed", "certbot-running"):
        (tmp_path / name).mkdir()
    long_ago = time.time() - 2 * 86400
    os.utime(tmp_path / "certbot-killed", (long_ago, long_ago))
    with certbot._scratch(tmp_path) as folder:
        assert {"certbot-running", Path(folder).name} == {path.name for path in tmp_path.iterdir()}
    assert [tmp_path / "certbot-running"] == list(tmp_path.iterdir())


def test_a_certbot_that_misses_the_first_signal_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped `renew` ends in bounded time, also when certbot's libraries swallow a signal."""
    monkeypatch.setattr(certbot, "_SIGNAL_SECONDS", 0.3)
    script = (
        "import signal, sys, time\n"
        "signals = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: signals.append(1) or (len(signals) > 1 and sys.exit(7)))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "ready\n" == child.stdout.readline()
        certbot._end(child)
    assert 7 == child.returncode
