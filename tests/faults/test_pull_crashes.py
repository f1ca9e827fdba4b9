"""A run that is killed between any two of its steps, and the run after it.

The killed run is a process of its own that ends by `os._exit` right after a step:
no `finally`, no clean-up. What is in service must stay good at once, not only
after the next run.
"""

from __future__ import annotations

import contextlib
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from certcast.consumer.takeover import STEPS
from certcast.report.errors import GateRefused, NginxRefused, NotIncluded, NotProved, StoreUnreachable
from consuming import DAY, Consumer, Failing, Wrapped, consumer

CRASHED = 9
# Outside the window and before the next idle check: only the unfinished installation makes it due.
SOON = DAY + timedelta(minutes=1)

# What copies.py does between "derived" and "snippet", and after the proof.
COPY_STEPS = (
    "noted", "prepared", "copied fullchain.pem", "copied privkey.pem", "copied combined.pem", "left",
)  # fmt: skip


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Consumer]:
    with consumer(tmp_path) as started:
        yield started


@pytest.fixture
def current_web(tmp_path: Path, current_nginx: str) -> Iterator[Consumer]:
    with consumer(tmp_path, program=current_nginx) as started:
        yield started


@pytest.fixture
def fixed_paths(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    """A host whose site names fixed paths; another program reads a third one, and what nobody asked for."""
    with consumer(tmp_path, program=nginx_program) as started:
        fullchain, _ = started.name_fixed_paths()
        started.copy_to(combined=fullchain.with_name("combined.pem"))
        yield started


def killed_at(web: Consumer, step: str) -> None:
    ended = subprocess.run(web.command(killed_at=step), check=False)
    assert CRASHED == ended.returncode, f"the run never came to {step!r}"


@pytest.mark.parametrize("step", STEPS)
def test_next_run_finishes_what_a_killed_run_began(web: Consumer, step: str) -> None:
    """
    Killed after any step, a run leaves nginx serving a good pair and able to start; the next run
    brings the new one into service by itself, and leaves no temporary file or key behind.
    """
    finished_by_the_next_run(web, step)


@pytest.mark.parametrize("step", STEPS[STEPS.index("snippet") : STEPS.index("pruned")])
def test_next_run_finishes_with_a_current_nginx(current_web: Consumer, step: str) -> None:
    """The same of a current nginx, for the steps that it has a part in."""
    finished_by_the_next_run(current_web, step)


def finished_by_the_next_run(web: Consumer, step: str) -> None:
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


def test_killed_run_does_not_hide_what_its_release_broke(tmp_path: Path) -> None:
    """
    A run that is killed right after the reload leaves a release that serves no client any more; the next
    run knows that there were handshakes before, and takes the release back.
    """
    with consumer(tmp_path) as web:
        web.publish("A", web.issue(key_type="rsa"))
        web.first_pull()
        web.host.certcast_toml.write_text(
            web.host.certcast_toml.read_text().replace(
                "[consumer]", "[consumer]\nallow_key_type_change = true"
            )
        )
        web.configure(allow_key_type_change=True)
        rsa_only = "ssl_protocols TLSv1.2; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;"
        site = web.host.site_conf.read_text()
        web.host.site_conf.write_text(site.replace("server_name", f"{rsa_only}\nserver_name"))
        web.reload(until=lambda: True)
        web.publish("B")
        killed_at(web, "reloaded")
        wait_until_nobody_is_served(web)

        with pytest.raises(NotProved, match="handshakes failed that had worked"):
            web.pull(SOON)

        assert web.leaf("A") == web.served()
        assert [] == web.leftovers()
        web.host.site_conf.write_text(site)
        assert "installed" == web.pull(SOON, force=True).result


@pytest.mark.parametrize("step", ["accepted", "current", "tested", "reloaded"])
def test_killed_over_an_unproved_release(web: Consumer, step: str) -> None:
    """
    A release that is not proved, and not reloaded again and again, is reloaded once more after a run that
    was killed: nobody knows whether that one had come to it.
    """
    web.publish("A")
    web.first_pull()
    web.publish("B")
    web.host.name_files(*web.pairs["A"].write(web.host.root / "etc/nginx/old"))
    for reloads in (True, False):
        before = web.workers()
        with pytest.raises(NotProved):
            web.pull(SOON, force=reloads)
        assert reloads == before.isdisjoint(web.workers())
    killed_at(web, step)
    before = web.workers()
    with pytest.raises(NotProved):
        web.pull(SOON)
    assert before.isdisjoint(web.workers())


def wait_until_nobody_is_served(web: Consumer) -> None:
    deadline = time.monotonic() + 60
    with contextlib.suppress(ssl.SSLError):
        while web.served():
            assert time.monotonic() < deadline, "the reload of the killed run broke nothing"
            time.sleep(0.02)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("step", [*STEPS[STEPS.index("derived") :], *COPY_STEPS])
def test_killed_run_between_two_copies_is_mended_by_the_next(fixed_paths: Consumer, step: str) -> None:
    """
    Killed between any two of the fixed paths, a run is followed by one that first puts all back and
    then brings the release into service; what it keeps beside the targets is nobody else's to read.
    """
    web = fixed_paths
    folder = web.host.root / "etc/nginx/ssl"
    web.publish("A")
    web.pull()
    web.publish("B")
    killed_at(web, step)

    assert web.served() in {web.leaf("A"), web.leaf("B")}
    assert {0o600} == {stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()}
    web.pull(SOON)
    pair = web.pairs["B"]
    names = ("fullchain.pem", "privkey.pem", "combined.pem")
    contents = (pair.fullchain_pem, pair.key_pem, pair.key_pem + pair.fullchain_pem)
    assert dict(zip(names, contents, strict=True)) == everything(folder)
    assert web.leaf("B") == web.served()
    assert web.host.test()
    assert [] == web.leftovers()


@pytest.mark.parametrize("step", COPY_STEPS[:-1])
def test_next_run_undoes_half_copies_even_if_it_can_do_no_more(fixed_paths: Consumer, step: str) -> None:
    """
    After a run was killed between two copies, the next one mends the pair on the disk before it
    does anything else, so also when the release is too old by then.
    """
    web = fixed_paths
    folder = web.host.root / "etc/nginx/ssl"
    (folder / "combined.pem").symlink_to("privkey.pem")
    (folder / "fullchain.pem").chmod(0o644)
    before, last = everything(folder), (folder / "combined.pem").lstat().st_ino
    web.publish("A")
    killed_at(web, step)
    beside = [path for path in folder.glob(".*") if not path.is_symlink()]
    assert {0o600} >= {stat.S_IMODE(path.stat().st_mode) for path in beside}
    with pytest.raises(GateRefused):
        web.pull(DAY + timedelta(days=300))
    assert before == everything(folder)
    assert 0o644 == stat.S_IMODE((folder / "fullchain.pem").stat().st_mode)
    assert (folder / "combined.pem").is_symlink()
    if step != "copied combined.pem":  # what its turn never came to is not touched
        assert last == (folder / "combined.pem").lstat().st_ino
    assert web.host.test()
    assert [] == web.leftovers()


@pytest.mark.parametrize("step", ["put back fullchain.pem", "put back privkey.pem", "left"])
def test_run_killed_while_it_puts_copies_back(fixed_paths: Consumer, step: str) -> None:
    """Killed on its way back, between any two of the fixed paths, a run is followed by one that goes on."""
    web = fixed_paths
    folder = web.host.root / "etc/nginx/ssl"
    before = everything(folder)
    web.publish("A")
    web.host.break_configuration()
    killed_at(web, step)
    with pytest.raises(NginxRefused):
        web.pull(SOON)
    assert before == everything(folder)
    web.host.mend()
    assert "installed" == web.pull(SOON).result
    assert web.leaf("A") == web.served()


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
    version = web.folder.find_version(web.leaf("B"))
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
