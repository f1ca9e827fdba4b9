"""certcast as a person, a cron job and a service manager meet it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from certcast_lab.lab import CERTCAST, Lab
from certcast_lab.serving.blocked import Blocked
from journey import Journey


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


def at_a_terminal(argv: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command whose three streams are a terminal; return exit status and what it showed."""
    controller, terminal = pty.openpty()
    child = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 4096):
            shown += chunk
    except OSError:
        pass  # Linux says EIO when the last process has closed its side
    finally:
        os.close(controller)
    return child.wait(), shown.decode().replace("\r\n", "\n")


@contextmanager
def resident(journey: Journey, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Keep a `certcast pull --watch` running inside the block."""
    host = journey.lab.host(name)
    child = subprocess.Popen(
        [CERTCAST, "--config", str(host.certcast_toml), "pull", *arguments],
        env={**os.environ, **journey.lab.environment("consumer")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def test_a_person_can_follow_a_renewal(journey: Journey) -> None:
    """
    At a terminal, `renew` says what it asks for, which TXT values it waits for at which nameservers,
    and what it published; the next run says that there is nothing to do.
    """
    environment = {**os.environ, **journey.lab.environment("renewal")}
    argv = [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"]
    status, shown = at_a_terminal(argv, environment)

    assert 0 == status, shown
    steps = ["no certificate yet", "adding TXT", "waiting until", "seen after", "removing TXT", "published"]
    assert sorted(steps, key=shown.index) == steps
    assert (0, "example.test: nothing to do\n") == at_a_terminal(argv, environment)


def test_a_person_is_warned_once(journey: Journey) -> None:
    """At a terminal a warning stands where it belongs, among the steps, and is not repeated at the end."""
    with Blocked("refuse") as filtered:
        text = journey.renewal.certcast_toml.read_text()
        text = re.sub(r"(?m)^nameservers = .*$", f'nameservers = ["{filtered}"]', text)
        journey.renewal.certcast_toml.write_text(text.replace("[dns]\n", '[dns]\nfallback_wait = "1s"\n'))
        environment = {**os.environ, **journey.lab.environment("renewal")}
        argv = [CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"]
        status, shown = at_a_terminal(argv, environment)

    assert 0 == status, shown
    assert (
        1
        == shown.count("warning: the nameservers of example.test cannot be reached")
        == shown.count("warning")
    )
    steps = ["cannot be reached; asking", "seen after", "warning: ", "removing TXT", "published"]
    assert sorted(steps, key=shown.index) == steps


def test_a_person_who_comes_too_early_is_told_of_now(journey: Journey) -> None:
    """
    At a terminal, a run that has nothing to do says so, and how to have it look all the same:
    somebody may have changed `copy_to` or `derive` a minute ago.
    """
    journey.renew()
    journey.first_pull("web1")
    environment = {**os.environ, **journey.lab.environment("consumer")}
    argv = [CERTCAST, "--config", str(journey.lab.host("web1").certcast_toml), "pull"]
    status, shown = at_a_terminal(argv, environment)

    assert 0 == status, shown
    assert "nothing due" in shown
    assert "--now looks all the same" in shown


def test_a_resident_pull_takes_over_what_is_published(journey: Journey) -> None:
    """`pull --watch` serves a new release within its period, and SIGTERM ends it with exit status 0."""
    journey.renew()
    journey.first_pull("web1")
    with resident(journey, "web1", "--now", "--watch", "100ms") as child:
        journey.want_replaced()
        journey.renew()
        wait_until(lambda: journey.served("web1") == journey.published())
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
    assert (0, "") == (child.returncode, errors)


def test_a_resident_pull_tells_of_a_lasting_failure_once(journey: Journey) -> None:
    """A bucket that refuses for many polls makes one mail, not one each poll; afterwards pull goes on."""
    journey.renew()
    journey.first_pull("web1")
    journey.lab.mailbox.clear()
    requests = journey.lab.cloud.oss.requests
    with resident(journey, "web1", "--now", "--watch", "50ms"):
        journey.lab.cloud.consumer.active = False
        seen = len(requests)
        wait_until(lambda: len(journey.lab.cloud.oss.requests) > seen + 5)
        journey.lab.cloud.consumer.active = True
        journey.want_replaced()
        journey.renew()
        wait_until(lambda: journey.served("web1") == journey.published())
    denied = [mail for mail in journey.lab.mailbox.messages if "STORE-DENIED" in mail.text]
    assert 1 == len(denied)


def test_a_consumers_installation_says_what_renewing_needs(journey: Journey) -> None:
    """Without the extra `renewal`, `certcast renew` names the command that installs it."""
    script = "import sys; sys.modules['acme'] = None; from certcast.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--config", str(journey.renewal.certcast_toml), "renew"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 3 == done.returncode
    assert "pip install 'certcast[renewal]'" in done.stderr


@pytest.mark.parametrize("gone", ["a reader that went away", "a log on a full disk"])
def test_nobody_reads_what_is_printed(journey: Journey, gone: str) -> None:
    """
    `| head -1`, or a log file on a full disk: whatever cannot be printed is dropped, and nothing else. The
    work is done, the exit status is that of the work, and its mail is sent.
    """

    def unread(name: str, *words: str, user: str) -> int:
        """Run a command whose output nobody takes, errors neither."""
        reader, writer = os.pipe()
        os.close(reader)
        if gone == "a log on a full disk":
            os.close(writer)
            writer = os.open("/dev/full", os.O_WRONLY)
        try:
            argv = [CERTCAST, "--config", str(journey.lab.host(name).certcast_toml), *words]
            environment = {**os.environ, **journey.lab.environment(user)}
            return subprocess.run(argv, env=environment, stdout=writer, stderr=writer, check=False).returncode
        finally:
            os.close(writer)

    assert 0 == unread("renewal", "renew", user="renewal")
    assert journey.live().leaf.sha256 == journey.published()
    host = journey.consumer("web1")
    assert 39 == unread("web1", "pull", user="consumer")
    assert "NOT-INCLUDED" in journey.lab.mailbox.messages[-1].text
    assert journey.lab.mailbox.messages[-1].subject.startswith("certcast on web1 failed")
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    assert 0 == unread("web1", "pull", user="consumer")
    assert journey.published() == journey.served("web1")
    assert "is valid until" in journey.lab.mailbox.messages[-1].subject
    removed = unread("renewal", "host", "remove", "web1", user="renewal")
    sealed = [key for key in journey.lab.cloud.bucket.keys("certcast/") if "/keys/web1." in key]
    assert (0, []) == (removed, sealed)


def test_a_private_key_pasted_by_mistake(journey: Journey) -> None:
    """Who pastes the private key where a public one belongs doesn't find it in the output again."""
    private = journey.lab.trust.identity("web1").read_text()
    for words in (["host", "add", "web1", private], ["host", "add", "web1", "--", private], [private]):
        done = journey.lab.certcast(journey.renewal.certcast_toml, *words, user="renewal")
        assert 0 != done.returncode
        assert private.splitlines()[2] not in done.stdout + done.stderr
        assert "error" in done.stderr.lower()


def test_watching_without_a_pause_is_refused(journey: Journey) -> None:
    """`--watch 0s` would keep a core and the bucket busy; it is a wrong use."""
    journey.consumer("web1")
    done = journey.pull("web1", "--watch", "0s")
    assert 2 == done.returncode
    assert "--watch" in done.stderr
