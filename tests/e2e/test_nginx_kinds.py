"""nginx as administrators have it: compiled, twice on a host, in a container, out of cron's reach."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from certcast.config.model import (
    AbsolutePath,
    Address,
    Argv,
    CertificateConfig,
    CertificateName,
    DnsName,
    Listener,
    NginxConfig,
)
from certcast.consumer.nginx import control
from certcast.report.errors import (
    FileMounted,
    NginxMissing,
    NginxRefused,
    NotIncluded,
    NotProved,
    ReloadFailed,
)
from certcast_lab.serving.children import Child
from certcast_lab.web.host_kinds import CompiledHost, ContainerHost
from certcast_lab.web.hosts import WebHost
from consuming import DAY, NAMES, Consumer, consumer, needs_namespaces

IN_WINDOW = DAY + timedelta(days=65)
PAIR = ("fullchain.pem", "privkey.pem")
LATER = IN_WINDOW + timedelta(hours=1)


@pytest.fixture
def web(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    with consumer(tmp_path, program=nginx_program) as started:
        yield started


def section(host: WebHost, **changes: Any) -> NginxConfig:
    """What an administrator writes of a host's nginx, and no more: no pid file, no listener."""
    plain = NginxConfig(test=Argv(tuple(host.test_command)), reload=Argv(tuple(host.reload_command)))
    return replace(plain, **changes)


def both_workers(host: WebHost) -> set[int]:
    """The pids of a host's two workers; a moment after the start there may be fewer."""
    deadline = time.monotonic() + 60
    while len(host.workers()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return host.workers()


def listeners(host: WebHost) -> tuple[Listener, ...]:
    return tuple(Listener(Address("127.0.0.1", port)) for port in host.ports)


def printed_include(staged: NotIncluded) -> Path:
    """The path in the line that a first run prints for the administrator."""
    line = re.search(r"include (\S+);", staged.expected or "")
    assert line
    return Path(line[1])


A_RUN = """
import sys
from datetime import datetime
from pathlib import Path
from certcast.config import reading
from certcast.consumer.takeover import pull
from certcast.report.errors import CertcastError
from certcast.storage import open_store

here = reading.load(Path(sys.argv[1]))
try:
    pull(here, here.certificates[0], open_store=lambda: open_store(here.store),
         now=datetime.fromisoformat(sys.argv[2]), force=True)
except CertcastError as error:
    sys.exit(error.report())
"""


def only_section(web: Consumer, nginx: str = "") -> None:
    """Let the host's certcast.toml have one [[consumer.nginx]] with this text."""
    toml = web.host.certcast_toml.read_text().partition("[[consumer.nginx]]")[0]
    web.host.certcast_toml.write_text(f"{toml}[[consumer.nginx]]\n{nginx}\n")


def run_of(web: Consumer, *before: str) -> str:
    """Pull in a process that `before` starts, with cron's PATH; return its complaint."""
    words = ["env", "PATH=/usr/bin:/bin", sys.executable, "-c", A_RUN]
    words += [str(web.host.certcast_toml), DAY.isoformat()]
    return subprocess.run([*before, *words], capture_output=True, text=True, check=False).stderr


# -- the distribution's; cron, sudo, and masters without a pid file


def test_one_include_for_all_sites(web: Consumer):
    """The snippet included once, beside the server blocks, serves every one that names no certificate."""
    web.publish("A")
    with pytest.raises(NotIncluded) as staged:
        web.pull()
    site = web.host.site_conf
    bare = re.sub(r"ssl_certificate(_key)? \S+;", "", site.read_text())
    site.write_text(f"include {printed_include(staged.value)};\n{bare}")
    web.configure(nginx=(section(web.host),))
    assert "installed" == web.pull().result
    web.publish("B")
    assert "installed" == web.pull(IN_WINDOW).result
    assert web.leaf("B") == web.served()


@needs_namespaces
def test_plain_nginx(tmp_path: Path):
    """The distribution's nginx in its own paths, and an empty [[consumer.nginx]]: nothing more is needed."""
    # Namespaces give a machine of its own, here: /etc/nginx, /run and /proc. certcast runs in it, too.
    host = ContainerHost(tmp_path, "web1", names=NAMES, mounts={})
    with consumer(tmp_path, host=host) as web:
        only_section(web)
        there = [str(host.docker), "exec", "web1"]
        web.publish("A")
        assert "NOT-INCLUDED" in run_of(web, *there)
        host.include(web.folder.snippet)
        assert "" == run_of(web, *there)
        assert web.leaf("A") == web.served()
        web.publish("B")
        assert "" == run_of(web, *there)
        assert web.leaf("B") == web.served()

        # The master is found without its pid file, but `nginx -s reload` needs it, and says so.
        host.pid_file.unlink()
        web.publish("C")
        report = run_of(web, *there)
        assert "NGINX-RELOAD" in report
        assert 'invalid PID number "" in "/run/nginx.pid"' in report
        assert web.leaf("B") == web.served()


def test_cron_path(web: Consumer, monkeypatch: pytest.MonkeyPatch):
    """
    Under cron's PATH, in which there is no nginx, the test, the reload and the proof work
    all the same; nothing but the two commands is configured.
    """
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert shutil.which("nginx") is None
    web.configure(nginx=(section(web.host),))
    web.publish("A")
    web.first_pull()
    assert web.leaf("A") == web.served()
    web.host.stop()
    assert control.examine(section(web.host))  # without a process that would tell where its program is


def test_sudo_that_allows_only_the_test(web: Consumer, tmp_path: Path):
    """
    Where only the exact test command may be run, `nginx -T` is refused: with configured
    listeners a release is installed and proved; without them it is said what to set.
    """
    only = tmp_path / "sudo"
    allowed = " ".join(web.host.test_command)
    only.write_text(
        f'#!/bin/sh\n[ "$*" = "{allowed}" ] && exec "$@"\necho "sudo: a password is required" >&2\nexit 1\n'
    )
    only.chmod(0o755)
    strict = section(web.host, test=Argv((str(only), *web.host.test_command)))
    assert control.examine(strict) is None
    web.publish("A")

    web.configure(nginx=(strict,))
    web.host.include(web.folder.snippet)
    with pytest.raises(NotProved, match="no TLS listener is known") as unknown:
        web.pull()
    assert "consumer.nginx.listeners" in (unknown.value.next or "")

    web.configure(nginx=(replace(strict, listeners=listeners(web.host)),))
    web.pull()
    assert web.leaf("A") == web.served()

    web.host.break_configuration()
    with pytest.raises(NginxRefused) as refused:
        control.examine(strict)
    assert "certcast_lab_broke_this_on_purpose" in (refused.value.found or "")


def test_one_run_tests_and_tells(web: Consumer, tmp_path: Path):
    """
    A configuration of a thousand sites is read once for the test and for what it says; failing,
    too. An option `-t` of the wrapper's own (as docker has one) stays.
    """
    counting = tmp_path / "counting"
    counting.write_text(f'#!/bin/sh\n[ $1 = -t ] || exit 9\nshift\necho "$*" >>{tmp_path}/runs\nexec "$@"\n')
    counting.chmod(0o755)
    counted = section(web.host, test=Argv((str(counting), "-t", *web.host.test_command)))
    found = control.examine(counted)
    assert found
    assert NAMES == found.servers[0].names
    web.host.break_configuration()
    with pytest.raises(NginxRefused) as refused:
        control.examine(counted)
    assert "certcast_lab_broke_this_on_purpose" in (refused.value.found or "")
    assert f"{' '.join(web.host.test_command)}`, exit status 1" in (refused.value.found or "")
    assert 2 == len((tmp_path / "runs").read_text().splitlines())


def test_master_is_found_without_its_pid_file(web: Consumer):
    """
    With the pid file gone, the master is the process that runs this configuration with this
    program; another nginx beside it is left out.
    """
    other = WebHost(web.host.root.parent, "web2").start()
    try:
        mine, pids = section(web.host), both_workers(web.host)
        expected = control.find_workers(mine, control.examine(mine))
        assert pids == {worker.pid for worker in expected}
        web.host.pid_file.unlink()
        assert expected == control.find_workers(mine, control.examine(mine))
        assert expected == control.find_workers(mine)  # also by the words of the command alone
    finally:
        other.stop()


def test_two_masters_of_one_configuration(web: Consumer):
    """Where two processes fit and no pid file tells, both are listed, and it is said what decides."""
    web.host.stop()
    site = web.host.site_conf.read_text().replace(" ssl;", " ssl reuseport;")
    web.host.name_files(*(web.host.root / "etc/nginx/placeholder" / name for name in PAIR))
    web.host.site_conf.write_text(site)
    argv = web.host.test_command[:-1]
    first = Child(argv, output=web.host.root / "first.log")
    second = Child(argv, output=web.host.root / "second.log")
    try:
        for child in (first, second):
            child.wait_until(lambda pid=child.pid: _is_master(pid), what="running")
        web.host.pid_file.unlink()
        with pytest.raises(NginxMissing, match="not clear which") as several:
            control.find_workers(section(web.host))
        assert {f"process {child.pid}: {' '.join(argv)}" for child in (first, second)} <= set(
            (several.value.found or "").splitlines()
        )
        assert "set consumer.nginx.pid_file" in (several.value.next or "")
    finally:
        first.stop()
        second.stop()


def _is_master(pid: int) -> bool:
    return b": master process" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_master_that_does_not_run_is_named_by_its_configuration(web: Consumer):
    """Where no process runs the configuration, the error names it, and the pid file that is not there."""
    web.host.stop()
    with pytest.raises(NginxMissing) as missing:
        control.find_workers(section(web.host))
    assert str(web.host.nginx_conf) in (missing.value.expected or "")
    assert "no " in (missing.value.found or "")
    assert "consumer.nginx.pid_file" in (missing.value.next or "")


def test_a_user_finds_the_workers_of_roots_nginx(web: Consumer):
    """An ordinary user, who may not know a master's program, finds it by its title."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    web.host.pid_file.unlink()
    mine = section(web.host)
    pids = both_workers(web.host)
    assert pids == set(_as_nobody(lambda: [worker.pid for worker in control.find_workers(mine)]))


def _as_nobody(ask: Any) -> list[int]:
    """Ask in a child that has given up root: whatever it needs is imported by then."""
    ask()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, " ".join(map(str, ask())).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return [int(pid) for pid in answer.read().split()]


# -- compiled into a folder


def run_without_a_distributions_nginx(web: Consumer) -> str:
    """Pull in a process for which Debian's nginx does not exist; return its complaint."""
    script = f'mount --bind /dev/null {shutil.which("nginx")} && exec "$@"'
    return run_of(web, "unshare", "-m", "sh", "-c", script, "-")


@needs_namespaces
def test_compiled_nginx(tmp_path: Path, current_nginx: str):
    """
    An nginx that was compiled into /usr/local/nginx is in no PATH, and its configuration names
    no pid file. With the word `nginx` alone, the program that runs is taken: tested, reloaded, proved.
    """
    host = CompiledHost(tmp_path, "web1", names=NAMES, program=current_nginx)
    with consumer(tmp_path, host=host) as web:
        words = '"nginx", ' + ", ".join(f'"{word}"' for word in host.test_command[1:-1])
        only_section(web, f'test = [{words}, "-t"]\nreload = [{words}, "-s", "reload"]')
        web.publish("A")
        assert "NOT-INCLUDED" in run_without_a_distributions_nginx(web)
        host.include(web.folder.snippet)
        assert "" == run_without_a_distributions_nginx(web)
        assert web.leaf("A") == web.served()

        web.publish("B")
        program = Path(host.test_command[0])
        program.chmod(0o757)  # anybody could put something else there for root to run
        assert "`nginx` cannot be run" in run_without_a_distributions_nginx(web)
        program.chmod(0o755)
        host.stop()
        assert "`nginx` cannot be run" in run_without_a_distributions_nginx(web)


# -- two on a host


@pytest.fixture
def two(tmp_path: Path, current_nginx: str) -> Iterator[tuple[Consumer, WebHost]]:
    """A host with two nginx, of two programs and with two configurations, that serve one certificate."""
    second = WebHost(tmp_path, "web2", names=NAMES, program=current_nginx)
    try:
        with consumer(tmp_path) as web:
            second.start()
            web.configure(nginx=(section(web.host), section(second)))
            web.publish("A")
            with pytest.raises(NotIncluded):
                web.pull()
            for host in (web.host, second):
                host.include(web.folder.snippet)
            web.pull()
            yield web, second
    finally:
        second.stop()


def test_two_instances(two: tuple[Consumer, WebHost]):
    """Two nginx on a host both get the release, each by its own commands and its own master."""
    web, second = two
    assert web.leaf("A") == web.served() == second.served().sha256
    web.publish("B")
    outcome = web.pull(IN_WINDOW)
    assert web.leaf("B") == web.served() == second.served().sha256
    for host in (web.host, second):
        assert any(str(host.ports[0]) in place for place in outcome.proved)


def test_two_instances_and_one_is_broken(two: tuple[Consumer, WebHost]):
    """All are tested before any is reloaded: a broken second one leaves the first as it was."""
    web, second = two
    before = control.find_workers(section(web.host))
    second.break_configuration()
    web.publish("B")
    with pytest.raises(NginxRefused):
        web.pull(IN_WINDOW)
    assert before == control.find_workers(section(web.host))
    assert web.leaf("A") == web.served() == second.served().sha256

    second.mend()
    web.pull(LATER)
    assert web.leaf("B") == web.served() == second.served().sha256


def test_two_instances_and_one_is_not_reloaded(two: tuple[Consumer, WebHost]):
    """If the second one's reload fails, the first, which was reloaded, serves the old certificate again."""
    web, second = two
    web.configure(nginx=(section(web.host), section(second, reload=Argv(("false",)))))
    web.publish("B")
    with pytest.raises(ReloadFailed) as failed:
        web.pull(IN_WINDOW)
    assert "switched back" in (failed.value.kept or "")
    assert web.leaf("A") == web.served() == second.served().sha256


def test_two_instances_and_one_does_not_tell(two: tuple[Consumer, WebHost], tmp_path: Path):
    """
    If the second one shows no listeners (only its test may be run), the first proves the release,
    and the outcome says of the second one that it is not provable.
    """
    web, second = two
    test_only = tmp_path / "test-only"
    allowed = " ".join(second.test_command)
    test_only.write_text(f'#!/bin/sh\n[ "$*" = "{allowed}" ] && exec "$@"\nexit 1\n')
    test_only.chmod(0o755)
    silent = section(second, test=Argv((str(test_only), *second.test_command)))
    web.configure(nginx=(section(web.host), silent))
    web.publish("B")
    outcome = web.pull(IN_WINDOW)
    assert web.leaf("B") == web.served()
    assert any("does not show its listeners" in remark for remark in outcome.remarks)


def test_instance_of_another_certificate_is_left_alone(two: tuple[Consumer, WebHost]):
    """An nginx that serves other certificates is neither tested nor reloaded, and cannot fail the run."""
    web, second = two
    other = CertificateName("other.test")
    web.config = replace(
        web.config,
        certificates=(*web.config.certificates, CertificateConfig(other, (DnsName("other.test"),))),
    )
    web.configure(nginx=(section(web.host), section(second, certificates=(other,))))
    second.break_configuration()
    before = control.find_workers(section(second))
    web.publish("B")
    web.pull(IN_WINDOW)
    assert web.leaf("B") == web.served()
    assert before == control.find_workers(section(second))


# -- in a container


@pytest.fixture
def contained(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    """A host whose nginx runs in a container that has the directory of certificates under another path."""
    certificates = tmp_path / "web1/var/lib/certcast/certs"
    mounts = {certificates: "/etc/nginx/certs"}
    host = ContainerHost(tmp_path, "web1", names=NAMES, mounts=mounts, program=nginx_program)
    with consumer(tmp_path, host=host) as web:
        mapping = {AbsolutePath(certificates): AbsolutePath(Path("/etc/nginx/certs"))}
        web.configure(nginx=(section(host, listeners=listeners(host), paths=mapping),))
        yield web


def install_first(web: Consumer, letter: str = "A") -> None:
    """Do on a host with a container what the first run's report says."""
    web.publish(letter)
    with pytest.raises(NotIncluded) as staged:
        web.pull()
    web.host.include(printed_include(staged.value))
    web.pull()
    assert web.leaf(letter) == web.served()


@needs_namespaces
def test_container(contained: Consumer):
    """
    nginx in a container, with other paths: the first run prints the path that *it* is to include,
    then every release is tested, reloaded and proved by `docker exec`, and a cold start serves it.
    """
    web = contained
    install_first(web)
    assert "/etc/nginx/certs/example.test/nginx.etc-nginx-certs.conf" in web.host.site_conf.read_text()
    web.publish("B")
    web.pull(IN_WINDOW)
    assert web.leaf("B") == web.served()
    web.host.stop()
    web.host.start()
    assert web.leaf("B") == web.served()
    assert ["nginx.etc-nginx-certs.conf"] == web.leftovers()


@needs_namespaces
def test_container_with_copies(contained: Consumer):
    """A site in a container that names fixed paths gets them by copy_to, in a directory that is mounted."""
    web = contained
    ssl = web.host.root / "srv/ssl"
    mapping = {**_paths(web), AbsolutePath(ssl): AbsolutePath(Path("/etc/nginx/ssl"))}
    web.copy_to(fullchain=ssl / "fullchain.pem", privkey=ssl / "privkey.pem")
    web.configure(nginx=(section(web.host, listeners=listeners(web.host), paths=mapping),))
    assert isinstance(web.host, ContainerHost)
    web.host.stop()
    web.host.mounts[ssl] = "/etc/nginx/ssl"
    ssl.mkdir(parents=True)
    web.issue().write(ssl)
    web.host.name_files(*(Path("/etc/nginx/ssl") / name for name in PAIR))
    web.host.start()
    for letter, now in (("A", DAY), ("B", IN_WINDOW)):
        web.publish(letter)
        web.pull(now)
        assert web.leaf(letter) == web.served()


@pytest.fixture
def replica(contained: Consumer, tmp_path: Path, nginx_program: str) -> Iterator[ContainerHost]:
    """A second container beside `contained`, with a directory of its own under the mapped path."""
    others = tmp_path / "other certificates"
    (others / "example.test").mkdir(parents=True)
    mounts = {others: "/etc/nginx/certs"}
    host = ContainerHost(tmp_path, "web2", names=NAMES, mounts=mounts, program=nginx_program)
    try:
        host.start()
        yield host
    finally:
        host.stop()


@needs_namespaces
def test_two_containers(contained: Consumer, replica: ContainerHost):
    """Of two containers that have something under the path, the one with this host's directory is meant."""
    install_first(contained)
    assert contained.config.consumer
    ours = contained.config.consumer.nginx[0]
    found = control.find_workers(ours)
    assert {worker.pid for worker in found} <= contained.host.workers()

    # What somebody else's container has mounted does not stop ours.
    replica.stop()
    replica.mounts[contained.folder.snippet_of(ours)] = "/etc/nginx/somebody.conf"
    replica.start()
    contained.publish("B")
    contained.pull(IN_WINDOW)
    assert contained.leaf("B") == contained.served()


@needs_namespaces
def test_container_that_nobody_reloads(contained: Consumer, replica: ContainerHost):
    """A second container with the same certificates must be configured too: else it serves the old one."""
    web = contained
    install_first(web)
    replica.stop()
    replica.mounts = {web.folder.root.parent: "/etc/nginx/certs"}
    replica.include(Path("/etc/nginx/certs/example.test/nginx.etc-nginx-certs.conf"))
    replica.start()
    web.configure(proof_deadline=1.0)
    web.publish("B")
    with pytest.raises(NotProved) as held:
        web.pull(IN_WINDOW)
    assert all(str(pid) in (held.value.found or "") for pid in replica.workers())
    assert web.leaf("A") == replica.served().sha256

    both = [section(host, listeners=listeners(host), paths=_paths(web)) for host in (web.host, replica)]
    web.configure(nginx=tuple(both))
    web.pull(LATER)
    assert web.leaf("B") == web.served() == replica.served().sha256


@needs_namespaces
def test_container_of_another_certificate(contained: Consumer, replica: ContainerHost):
    """
    A second container that has the same directory, and is configured for another certificate, is not
    reloaded and holds nothing up; one that took no reload of its own is still found beside it.
    """
    web = contained
    install_first(web)
    replica.stop()
    replica.mounts = {web.folder.root.parent: "/etc/nginx/certs"}
    replica.start()
    other = CertificateName("other.test")
    web.config = replace(
        web.config,
        certificates=(*web.config.certificates, CertificateConfig(other, (DnsName("other.test"),))),
    )
    ours, theirs = (
        section(host, listeners=listeners(host), paths=_paths(web), certificates=(CertificateName(name),))
        for host, name in ((web.host, "example.test"), (replica, other))
    )
    web.configure(nginx=(ours, theirs), proof_deadline=2.0)
    before = both_workers(replica)
    web.publish("B")
    assert "installed" == web.pull(IN_WINDOW).result
    assert web.leaf("B") == web.served()
    assert before == replica.workers()

    web.configure(nginx=(replace(ours, reload=Argv(("true",))), theirs))
    web.publish("C")
    with pytest.raises(NotProved) as held:
        web.pull(LATER)
    assert all(str(pid) in (held.value.found or "") for pid in web.host.workers())


@needs_namespaces
@pytest.mark.parametrize("directory", ["of its own", "ours, but it doesn't run"])
def test_container_of_another_certificate_excuses_nobody_here(
    contained: Consumer, replica: ContainerHost, directory: str
):
    """
    Where a container for another certificate has a directory of its own, or does not run, the
    workers of ours are waited for: a reload that comes to nothing is said, and repeated by the next run.
    """
    web = contained
    install_first(web)
    if directory == "ours, but it doesn't run":
        replica.stop()
    other = CertificateName("other.test")
    certificates = (*web.config.certificates, CertificateConfig(other, (DnsName("other.test"),)))
    web.config = replace(web.config, certificates=certificates)
    paths = {web.host: _paths(web), replica: _paths(web)}
    if directory == "of its own":
        theirs_at = next(iter(replica.mounts))
        paths[replica] = {AbsolutePath(Path(theirs_at)): AbsolutePath(Path("/etc/nginx/certs"))}
    ours, theirs = (
        section(host, listeners=listeners(host), paths=paths[host], certificates=(CertificateName(name),))
        for host, name in ((web.host, "example.test"), (replica, other))
    )
    web.configure(nginx=(replace(ours, reload=Argv(("true",))), theirs), proof_deadline=2.0)
    web.publish("B")
    with pytest.raises(NotProved) as held:
        web.pull(IN_WINDOW)
    assert all(str(pid) in (held.value.found or "") for pid in web.host.workers())
    web.configure(nginx=(ours, theirs))
    assert "installed" == web.pull(LATER).result
    assert web.leaf("B") == web.served()


@needs_namespaces
def test_container_whose_pid_file_this_host_sees(contained: Consumer, replica: ContainerHost):
    """A pid file that nginx wrote in its container holds the inner pid, 1, as another one does."""
    web = contained
    assert web.config.consumer
    configured = replace(web.config.consumer.nginx[0], pid_file=AbsolutePath(web.host.pid_file))
    assert "1" == web.host.pid_file.read_text().strip() == replica.pid_file.read_text().strip()
    assert both_workers(web.host) == {worker.pid for worker in control.find_workers(configured)}


@needs_namespaces
def test_container_that_does_not_run(contained: Consumer, replica: ContainerHost):
    """
    A stopped container fails the run with the engine's words, whoever's container runs beside
    it; started again, the next run goes on.
    """
    web = contained
    install_first(web)
    web.host.stop()
    assert replica.served()
    web.publish("B")
    with pytest.raises(NginxRefused) as stopped:
        web.pull(IN_WINDOW)
    assert "nginx could not be asked" in stopped.value.what, "its configuration is not at fault"
    assert "container web1 is not running" in (stopped.value.found or "")
    web.host.start()
    web.pull(LATER)
    assert web.leaf("B") == web.served()


@needs_namespaces
def test_container_that_refuses_goes_back(contained: Consumer):
    """A configuration in the container that is broken is nginx's own words in the report, and no switch."""
    web = contained
    install_first(web)
    snippet = next(web.folder.root.glob("nginx.*.conf"))
    before = snippet.read_text()
    web.host.break_configuration()
    web.publish("B")
    with pytest.raises(NginxRefused) as refused:
        web.pull(IN_WINDOW)
    assert "certcast_lab_broke_this_on_purpose" in (refused.value.found or "")
    assert before == snippet.read_text()
    assert web.leaf("A") == web.served()


@needs_namespaces
def test_container_with_a_single_file_mount(contained: Consumer):
    """
    A container with the snippet mounted as a file would go on reading the old one after every
    rename. It is refused before anything is switched, and the directory to mount is named.
    """
    web = contained
    install_first(web)
    snippet = next(web.folder.root.glob("nginx.*.conf"))
    certificates = web.folder.root.parent
    assert isinstance(web.host, ContainerHost)
    web.host.stop()
    web.host.mounts = {
        web.folder.versions: "/etc/nginx/certs/example.test/versions",
        snippet: f"/etc/nginx/certs/example.test/{snippet.name}",
    }
    web.host.start()
    assert web.leaf("A") == web.served()

    before = snippet.read_text()
    web.publish("B")
    with pytest.raises(FileMounted) as refused:
        web.pull(IN_WINDOW)
    assert f"{snippet} mounted as /etc/nginx/certs/example.test/{snippet.name}" == refused.value.found
    assert f"`-v {certificates}:/etc/nginx/certs:ro`" in (refused.value.next or "")
    assert before == snippet.read_text()
    assert web.leaf("A") == web.served()

    # The container that has already missed a rename is recognised too.
    snippet.with_name("new").write_text(before)
    snippet.with_name("new").rename(snippet)
    with pytest.raises(FileMounted, match="single file"):
        web.pull(LATER)

    web.host.stop()
    web.host.mounts = {certificates: "/etc/nginx/certs"}
    web.host.start()
    web.pull(LATER)
    assert web.leaf("B") == web.served()


@needs_namespaces
def test_container_with_the_files_of_a_version(contained: Consumer):
    """
    A container whose site names the two files of `current`, mounted one by one, has those of one version for
    ever, since a mount follows links once. It is refused in the same words before anything is switched.
    """
    web = contained
    install_first(web)
    certificates = web.folder.root.parent
    assert isinstance(web.host, ContainerHost)
    web.host.stop()
    files = {(web.folder.current / name).resolve(): f"/etc/nginx/tls/{name}" for name in PAIR}
    web.host.mounts = {certificates: "/etc/nginx/certs", **files}
    web.host.name_files(*map(Path, files.values()))
    web.host.start()
    assert web.leaf("A") == web.served()

    web.publish("B")
    with pytest.raises(FileMounted) as refused:
        web.pull(IN_WINDOW)
    assert f"{next(iter(files))} mounted as /etc/nginx/tls/fullchain.pem" == refused.value.found
    assert f"`-v {certificates}:/etc/nginx/certs:ro`" in (refused.value.next or "")
    assert web.leaf("A") == web.served()

    web.host.stop()
    web.host.mounts = {certificates: "/etc/nginx/certs"}
    web.host.include(next(web.folder.root.glob("nginx.*.conf")))
    web.host.start()
    web.pull(LATER)
    assert web.leaf("B") == web.served()


@needs_namespaces
def test_container_with_a_single_copied_file(contained: Consumer):
    """A target of copy_to that a container has mounted as a file is refused too, wherever it is mounted."""
    web = contained
    install_first(web)
    copied = web.host.root / "srv/tls.pem"
    copied.parent.mkdir()
    copied.write_text("placeholder")
    assert isinstance(web.host, ContainerHost)
    web.host.stop()
    web.host.mounts[copied] = "/etc/nginx/tls.pem"
    web.host.start()
    web.copy_to(fullchain=copied)
    web.configure(nginx=(section(web.host, listeners=listeners(web.host), paths=_paths(web)),))
    web.publish("B")
    with pytest.raises(FileMounted) as refused:
        web.pull(IN_WINDOW)
    assert f"{copied} mounted as /etc/nginx/tls.pem" == refused.value.found
    assert f'paths = {{"{copied.parent}" = "/etc/nginx"}}' in (refused.value.next or "")
    assert "placeholder" == copied.read_text()


def _paths(web: Consumer) -> dict[AbsolutePath, AbsolutePath]:
    return {AbsolutePath(web.folder.root.parent): AbsolutePath(Path("/etc/nginx/certs"))}


@needs_namespaces
def test_container_without_the_directory(contained: Consumer):
    """A container that does not have the mapped directory at all is refused, and the mount is named."""
    web = contained
    install_first(web)
    before = web.folder.snippet.read_text()
    assert isinstance(web.host, ContainerHost)
    web.host.stop()
    web.host.mounts = {}
    shutil.rmtree(web.host.root / "etc/nginx/certs")
    web.host.name_files(*(Path("/etc/nginx/placeholder") / name for name in PAIR))
    web.host.start()
    web.publish("B")
    with pytest.raises(FileMounted, match="does not have the directory") as refused:
        web.pull(IN_WINDOW)
    assert "/etc/nginx/certs: No such file or directory" in (refused.value.found or "")
    assert f"`-v {web.folder.root.parent}:/etc/nginx/certs:ro`" in (refused.value.next or "")
    assert before == web.folder.snippet.read_text()
