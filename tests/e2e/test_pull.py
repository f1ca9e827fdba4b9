"""Stories of one consumer: a release is published, pulled, and what nginx then serves.

Real nginx, real handshakes by a client that shares no code with certcast's proof.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.report.errors import FilesUnchanged, ManifestExpired, ManifestMissing, NotIncluded, Overdue
from certcast.storage.store import Store
from certcast_lab.lab import CERTCAST
from consuming import (
    DAY,
    NAME,
    NAMES,
    Consumer,
    Wrapped,
    consumer,
    on_both_nginx,
    program,
    with_serial_zero,
)

pytestmark = on_both_nginx

IN_WINDOW = DAY + timedelta(days=60)


@pytest.fixture
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    with consumer(tmp_path, program=program(request)) as started:
        yield started


def never_opened() -> Store:
    raise AssertionError("the store was opened")


def test_first_run_stages_and_prints_the_line_to_add(web: Consumer) -> None:
    """
    On a host whose site does not include certcast's snippet yet, the first run leaves nginx
    alone and ends with the line to add; running again says it again without a download.
    """
    placeholder = web.served()
    web.publish("A")
    with pytest.raises(NotIncluded) as first:
        web.pull()
    assert f"but {web.host.nginx_conf} and what it includes" in (first.value.found or "")
    asked = Wrapped(web.store)
    with pytest.raises(NotIncluded):
        web.pull(store=asked)

    assert f"include {web.folder.snippet};" in (first.value.next or "")
    assert ["manifest"] == asked.asked
    assert placeholder == web.served()
    assert web.state.proved is None


@pytest.mark.row(8)
def test_release_proved_once_the_snippet_is_included(web: Consumer, nginx_program: str) -> None:
    """
    Once the site includes the snippet, the next run reloads nginx and says "installed" with the
    listeners and names on which the new leaf was seen.
    """
    web.publish("A")
    outcome = web.first_pull()

    assert "installed" == outcome.result
    port = web.host.ports[0]
    # TLS 1.3 is among nginx's own ssl_protocols since 1.23.4; Debian 12 has 1.22.
    version = subprocess.run([nginx_program, "-v"], capture_output=True, text=True, check=True).stderr
    old = [int(number) for number in re.findall(r"\d+", version)[:3]] < [1, 23, 4]
    count, versions = (3, "TLS 1.2") if old else (6, "TLS 1.2 and 1.3")
    assert (
        f"127.0.0.1:{port} as example.test ({versions}, ECDSA clients)",
        f"127.0.0.1:{port} as certcast-proof.example.test ({versions}, ECDSA clients)",
        f"127.0.0.1:{port} without a name ({versions}, ECDSA clients)",
    ) == outcome.proved
    assert outcome.text.endswith(f"seen in {count} handshakes ({versions}, ECDSA clients) on 1 listener")
    assert web.leaf("A") == web.served() == web.served("example.test")
    assert DAY == web.state.last_downloaded


@pytest.mark.row(8)
def test_newer_release_replaces_the_old_one(web: Consumer) -> None:
    """A newer release with a new key is served after one run, and nothing temporary stays."""
    web.publish("A")
    web.first_pull()
    web.publish("B")
    outcome = web.pull(IN_WINDOW)

    assert web.leaf("B") == web.served()
    assert "installed" == outcome.result
    assert outcome.leaf
    assert outcome.previous
    assert (web.leaf("B"), web.leaf("A")) == (outcome.leaf.sha256, outcome.previous.sha256)
    assert IN_WINDOW == web.state.last_downloaded
    assert [] == web.leftovers()


@pytest.mark.row(7)
def test_outside_the_window(web: Consumer) -> None:
    """
    Outside the window the store is not even opened; after `idle_check` it is asked once, and
    a release that came early is taken.
    """
    web.publish("A")
    web.first_pull()
    web.publish("B")
    soon = web.pull(DAY + timedelta(minutes=59), open_store=never_opened)
    assert "nothing due" == soon.result
    assert web.leaf("A") == web.served()

    assert "installed" == web.pull(DAY + timedelta(minutes=60)).result
    assert web.leaf("B") == web.served()


@pytest.mark.row(7)
def test_idle_check_never_is_silent_until_the_window(web: Consumer) -> None:
    """With `idle_check = "never"` the store is left alone until two thirds of the life are over."""
    web.configure(idle_check=float("inf"))
    web.publish("A")
    web.first_pull()
    web.publish("B")
    before = web.state.proved.leaf.life.window_start - timedelta(seconds=1)  # type: ignore[union-attr]  # proved above

    assert "nothing due" == web.pull(before).result
    assert "installed" == web.pull(before + timedelta(seconds=1)).result


NOTHING_DUE = """
import sys
from datetime import datetime
from pathlib import Path
from certcast.config.reading import load
from certcast.consumer.takeover import pull

path, now = sys.argv[1:]
here = load(Path(path))
outcome = pull(here, here.certificates[0], open_store=lambda: 1 / 0, now=datetime.fromisoformat(now))
heavy = {
    "alibabacloud_oss_v2", "alibabacloud_credentials", "cryptography", "obstore", "requests",
    "ssl", "socket", "crossplane", "subprocess",
}
print(outcome.result, sorted(heavy & set(sys.modules)))
"""


def test_run_with_nothing_due_loads_nothing_heavy(web: Consumer) -> None:
    """What cron starts every quarter of an hour, mostly for nothing, loads no SDK, X.509, TLS or parser."""
    fullchain, privkey = (web.host.root / name for name in ("fullchain.pem", "privkey.pem"))
    web.copy_to(fullchain=fullchain, privkey=privkey, owner=str(os.geteuid()))
    web.configure(derive=("combined.pem",))
    web.publish("A")
    web.first_pull()
    ran = subprocess.run(
        [sys.executable, "-c", NOTHING_DUE, str(web.host.certcast_toml), DAY.isoformat()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nothing due []" == ran.stdout.strip()


def test_now_ignores_window_and_idle_check(web: Consumer) -> None:
    """`--now` asks the store at once, whatever the window says."""
    web.publish("A")
    web.first_pull()
    web.publish("B")
    assert "installed" == web.pull(DAY + timedelta(minutes=1), force=True).result


def test_unchanged_manifest_costs_no_download(web: Consumer) -> None:
    """In the window, a run that finds the proved release transfers nothing (304), and reloads nothing."""
    web.publish("A")
    web.first_pull()
    workers = web.workers()
    asked = Wrapped(web.store)
    assert "current" == web.pull(IN_WINDOW, store=asked).result
    assert ["manifest", web.sealed_name()] == asked.asked == asked.unchanged
    assert workers == web.workers()


@pytest.mark.row(8)
def test_reused_key_is_refused_and_named(web: Consumer) -> None:
    """A new certificate with the old key is not installed; the report names the file that stayed the same."""
    first = web.publish("A")
    web.first_pull()
    web.publish("B", web.issue(days_ago=0, key=first.key_pem))
    with pytest.raises(FilesUnchanged, match=r"brings the same privkey\.pem as before") as refused:
        web.pull(IN_WINDOW)

    assert web.leaf("A") == web.served()
    assert "nginx was not touched" in (refused.value.kept or "")
    assert [] == web.leftovers()


@pytest.mark.row(8)
def test_reused_key_allowed(web: Consumer) -> None:
    """With `allow_reused_key` a certificate for the old key is installed."""
    first = web.publish("A")
    web.first_pull()
    web.configure(allow_reused_key=True)
    web.publish("B", web.issue(days_ago=0, key=first.key_pem))
    web.pull(IN_WINDOW)
    assert web.leaf("B") == web.served()


@pytest.mark.row(10)
def test_unchanged_chain_is_installed(web: Consumer) -> None:
    """The CA's intermediate is the same in every release; only leaf and key have to change."""
    web.publish("A")
    web.first_pull()
    web.publish("B")
    chains = [web.pairs[letter].fullchain_pem.split(b"-----END CERTIFICATE-----", 1)[1] for letter in "AB"]
    assert chains[0] == chains[1]
    assert "installed" == web.pull(IN_WINDOW).result


def test_nothing_published_says_so(web: Consumer) -> None:
    """Before the first renewal the run says that nothing was published, and on which host to renew."""
    with pytest.raises(ManifestMissing, match="nothing has been published") as missing:
        web.pull()
    assert "renewal host" in (missing.value.next or "")


def test_expired_manifest_is_installed_and_then_alarms(web: Consumer) -> None:
    """A silent renewal host is an alarm, but its last release is installed all the same."""
    web.publish("A")
    web.first_pull()
    web.publish("B", expires=DAY + timedelta(days=7))
    outcome = web.outcome(DAY + timedelta(days=8))

    assert web.leaf("B") == web.served()
    assert "installed" == outcome.result
    assert isinstance(outcome.alarm, ManifestExpired)
    assert "renewal host is silent" in outcome.alarm.what
    assert "installed and proved in this run" in (outcome.alarm.kept or "")
    # After a 304 the stored manifest counts: the alarm stays.
    with pytest.raises(ManifestExpired):
        web.pull(DAY + timedelta(days=9))


def test_manifest_dated_anew_ends_the_alarm(web: Consumer) -> None:
    """The same release with a later expiry is accepted under the same sequence, without an installation."""
    web.publish("A", expires=DAY + timedelta(days=7))
    web.first_pull()
    later = DAY + timedelta(days=8)
    with pytest.raises(ManifestExpired):
        web.pull(later)
    web.publish("A", web.pairs["A"], sequence=1, now=later)
    workers = web.workers()
    assert "current" == web.pull(later).result
    assert workers == web.workers()


def test_overdue_certificate_alarms(web: Consumer) -> None:
    """Two days into the window without a newer release, the run says so, and how much time is left."""
    web.publish("A")
    web.first_pull()
    late = DAY + timedelta(days=62)
    with pytest.raises(Overdue, match="a newer certificate should be here") as overdue:
        web.pull(late)
    assert "27 days left" in (overdue.value.found or "")


def test_step_back_is_followed_when_the_publisher_says_so(web: Consumer) -> None:
    """An older certificate is installed only under a higher sequence that says `step_back`."""
    web.publish("A")
    web.first_pull()
    web.publish("B")
    web.pull(IN_WINDOW)
    web.publish("A", web.pairs["A"], step_back=True)
    assert "installed" == web.pull(IN_WINDOW).result
    assert web.leaf("A") == web.served()


def test_three_versions_are_kept(web: Consumer) -> None:
    """After many releases three versions are left on the disk, the served one among them."""
    web.publish("A")
    web.first_pull()
    for letter in "BCDE":
        web.publish(letter)
        web.pull(force=True)
    assert [3, 4, 5] == web.versions()
    assert web.leaf("E") == web.served()
    assert f"5-{web.leaf('E')[:16]}" == web.folder.current.readlink().name


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
def test_keys_are_private_whatever_the_umask(web: Consumer, umask: int) -> None:
    """Keys are 0600 in folders that are 0700, and so is the state, under any umask."""
    web.publish("A")
    before = os.umask(umask)
    try:
        web.first_pull()
    finally:
        os.umask(before)

    for path in (web.config.state_dir, *web.config.state_dir.rglob("*")):
        if not path.is_symlink():
            expected = 0o700 if path.is_dir() else 0o600
            assert expected == stat.S_IMODE(path.stat().st_mode), path


def test_every_listener_is_proved(tmp_path: Path, nginx_program: str) -> None:
    """On a host with two listeners, the outcome names both, each with every name."""
    with consumer(tmp_path, listeners=2, program=nginx_program) as web:
        web.publish("A")
        assert 6 == len(web.first_pull().proved)
        assert {web.leaf("A")} == {web.host.served(NAME, port).sha256 for port in web.host.ports}


def test_deleted_snippet_is_written_again(web: Consumer) -> None:
    """A run that asks the store also puts a snippet back that somebody has deleted."""
    web.publish("A")
    web.first_pull()
    web.folder.snippet.unlink()
    assert not web.host.test()
    assert "installed" == web.pull(IN_WINDOW).result
    assert web.host.test()


def test_strange_roots_say_nothing_in_cron_s_mail(web: Consumer) -> None:
    """Where the system's bundle has a root of serial 0 and a damaged one, `certcast pull` is silent."""
    damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    bundle = web.host.root.parent / "roots.pem"
    bundle.write_bytes(with_serial_zero(web.root) + damaged + web.root.pem)
    now = datetime.now(timezone.utc)
    web.publish("A", web.issuer.issue(*NAMES), now=now, expires=now + timedelta(days=9))
    web.first_pull(now=now)
    web.publish("B", web.issuer.issue(*NAMES), now=now, expires=now + timedelta(days=9))
    command = [CERTCAST, "--config", str(web.host.certcast_toml), "pull", "--now"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert web.leaf("B") == web.served()
