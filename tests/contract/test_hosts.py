"""The lab's web hosts: real nginx, looked at from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from certcast_lab.serving.authority import Authority, Pair
from certcast_lab.serving.children import ChildFailed
from certcast_lab.web.host_kinds import CompiledHost, ContainerHost, namespaces_available
from certcast_lab.web.hosts import WebHost

AUTHORITY = Authority("lab")


@pytest.fixture
def host(tmp_path: Path, nginx_program: str) -> Iterator[WebHost]:
    host = WebHost(tmp_path, "web1", program=nginx_program)
    try:
        yield host.start()
    finally:
        host.stop()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def serial(pair: Pair) -> str:
    leaf = x509.load_pem_x509_certificate(pair.fullchain_pem)
    return leaf.serial_number.to_bytes((leaf.serial_number.bit_length() + 7) // 8, "big").hex().upper()


def snippet(folder: Path, pair: Pair) -> Path:
    """Write what certcast writes: a pair, and a file that names it."""
    fullchain, key = pair.write(folder)
    snippet = folder / "nginx.conf"
    snippet.write_text(f"ssl_certificate {fullchain};\nssl_certificate_key {key};\n")
    return snippet


def test_a_new_host_serves_its_placeholder_for_every_name(host: WebHost):
    """A host runs before certcast knows it: a self-signed certificate, two workers, a valid configuration."""
    assert host.served("example.test").sha256 == host.served("www.example.test").sha256
    assert 2 == len(host.workers())
    assert host.test()
    assert str(host.pid) == host.pid_file.read_text().strip()


def test_included_snippet_is_served_after_a_reload(host: WebHost, tmp_path: Path):
    """What the site's configuration says takes effect with the reload, when the old workers are gone."""
    pair = AUTHORITY.issue("example.test", "*.example.test")
    placeholder, before = host.served().serial, host.workers()
    host.include(snippet(tmp_path / "release", pair))

    assert host.test()
    assert placeholder == host.served().serial
    host.reload()
    until(lambda: not before & host.workers())
    assert serial(pair) == host.served().serial
    openssl = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{host.ports[0]}", "-servername", "www.example.test"],
        input=b"",
        capture_output=True,
        check=False,
    )
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=openssl.stdout, capture_output=True, check=True
    )
    assert f"serial={serial(pair)}\n" == said.stdout.decode()


def test_fixed_paths_are_served_too(host: WebHost, tmp_path: Path):
    """A site that names two files by path serves these after a reload, RSA as well."""
    pair = AUTHORITY.issue("example.test", key_type="rsa")
    host.name_files(*pair.write(tmp_path / "fixed"))
    host.reload()
    until(lambda: serial(pair) == host.served().serial)


def test_broken_configuration_is_refused(host: WebHost):
    """A configuration broken on purpose fails `nginx -t`, a reload changes nothing; mended, it passes."""
    placeholder, before = host.served().serial, host.workers()
    host.break_configuration()

    assert not host.test()
    host.reload()
    until(lambda: "certcast_lab_broke_this_on_purpose" in host.error_log.read_text())
    assert (placeholder, before) == (host.served().serial, host.workers())
    host.mend()
    assert host.test()


def test_the_commands_for_an_operator_work(host: WebHost):
    """The test and reload commands that a configuration would name end with status 0 and reload nginx."""
    before = host.workers()
    assert 0 == subprocess.run(host.test_command, check=False).returncode
    assert 0 == subprocess.run(host.reload_command, check=False).returncode
    until(lambda: not before & host.workers())


def test_a_host_restarts_on_its_ports(host: WebHost):
    """nginx stopped and started again listens where it did; while stopped nobody is served."""
    ports = host.ports
    host.stop()
    with pytest.raises(ConnectionRefusedError):
        host.served()
    host.start()
    assert ports == host.ports
    assert host.served()


def test_nginx_that_cannot_start_says_why(tmp_path: Path):
    """A cold start with a broken configuration fails with nginx's own words, and leaves no process."""
    host = WebHost(tmp_path, "web1")
    host.break_configuration()
    with pytest.raises(ChildFailed, match="unknown directive"):
        host.start()


def test_several_listeners(tmp_path: Path):
    """A host may listen on more than one port, and serves the certificate on each."""
    host = WebHost(tmp_path, "web1", listeners=3)
    try:
        host.start()
        assert 3 == len(set(host.ports))
        assert 1 == len({host.served(port=port).sha256 for port in host.ports})
    finally:
        host.stop()


def test_forty_virtual_hosts(tmp_path: Path):
    """A host may have forty sites more, each in a file of its own; one can be left out of an `include`."""
    host = WebHost(tmp_path, "web1", vhosts=40)
    try:
        placeholder = host.start().served().sha256
        assert "site01.example.test" == host.vhosts[0]
        host.include(
            snippet(tmp_path, pair := AUTHORITY.issue(*host.names)), forgotten=["site17.example.test"]
        )
        assert "include" not in host.vhost_conf("site17.example.test").read_text()
        before = host.workers()
        host.reload()
        until(lambda: not before & host.workers())
        served = {name: host.served(name) for name in host.vhosts}
        assert placeholder == served.pop("site17.example.test").sha256
        assert (39, {serial(pair)}) == (len(served), {shown.serial for shown in served.values()})
    finally:
        host.stop()


def test_nginx_dies_with_a_lab_that_is_killed(tmp_path: Path):
    """After `kill -9` of the process that runs the lab, neither nginx nor its workers are left."""
    script = (
        "import sys, pathlib; from certcast_lab.web.hosts import WebHost\n"
        "host = WebHost(pathlib.Path(sys.argv[1]), 'web1').start()\n"
        "print(host.pid, *host.workers(), flush=True); sys.stdin.read()"
    )
    assert_dies_with_its_lab(script, tmp_path)


def assert_dies_with_its_lab(script: str, folder: Path) -> None:
    lab = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with lab:
        assert lab.stdout
        pids = [int(pid) for pid in lab.stdout.readline().split()]
        lab.kill()
    assert pids
    until(lambda: not any(running(pid) for pid in pids))


def running(pid: int) -> bool:
    """Whether the process lives; a zombie that some init has not collected yet doesn't."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


# -- other kinds of host

needs_namespaces = pytest.mark.skipif(
    not namespaces_available(), reason="needs mount and pid namespaces: run as root"
)


def test_compiled_nginx_lives_in_its_folder(tmp_path: Path, current_nginx: str):
    """A compiled nginx runs from /usr/local/nginx, and writes its pid where its default says."""
    host = CompiledHost(tmp_path, "web1", program=current_nginx)
    try:
        host.start()
        assert host.root / "usr/local/nginx/sbin/nginx" == Path(f"/proc/{host.pid}/exe").readlink()
        assert "pid" not in host.nginx_conf.read_text()
        assert str(host.pid) == host.pid_file.read_text().strip()
        assert host.test()
        assert host.served()
    finally:
        host.stop()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[ContainerHost]:
    """A container that has a directory of its host, and one file of it a second time."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("old")
    mounts = {outside: "/etc/nginx/mounted", outside / "file": "/etc/nginx/single"}
    host = ContainerHost(tmp_path, "web1", mounts=mounts)
    try:
        yield host.start()
    finally:
        host.stop()


def inside(host: ContainerHost, *words: str) -> str:
    argv = [str(host.docker), "exec", host.name, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@needs_namespaces
def test_container_has_other_paths_and_pids(container: ContainerHost):
    """nginx in a container serves, is tested and reloaded from outside, and sees its own paths and pids."""
    assert container.served()
    assert container.test()
    assert "1" == container.pid_file.read_text().strip() != str(container.pid)
    assert container.nginx_conf.read_text() == inside(container, "cat", "/etc/nginx/nginx.conf")
    before = container.workers()
    assert 0 == subprocess.run(container.reload_command, check=False).returncode
    until(lambda: not before & container.workers())


@needs_namespaces
def test_mounted_file_misses_a_rename(container: ContainerHost, tmp_path: Path):
    """As with any engine (moby#15793): a rename shows in a mounted directory, never on a single file."""
    (tmp_path / "outside/new").write_text("new")
    (tmp_path / "outside/new").rename(tmp_path / "outside/file")
    assert "new" == inside(container, "cat", "/etc/nginx/mounted/file")
    assert "old" == inside(container, "cat", "/etc/nginx/single")
    assert "Read-only file system" in inside(container, "touch", "/etc/nginx/mounted/file")


@needs_namespaces
def test_container_ends_with_its_mounts(container: ContainerHost):
    """A stopped container leaves no process and no mount; `docker exec` says so; it can start again."""
    pids = {container.pid, *container.workers()}
    container.stop()
    until(lambda: not any(running(pid) for pid in pids))
    assert str(container.root) not in Path("/proc/self/mountinfo").read_text()
    assert "container web1 is not running" in inside(container, "true")
    assert container.start().served()


@needs_namespaces
def test_container_dies_with_a_lab_that_is_killed(tmp_path: Path):
    """After `kill -9` of the process that runs the lab, nothing of a container is left."""
    script = (
        "import sys, pathlib; from certcast_lab.web.host_kinds import ContainerHost\n"
        "host = ContainerHost(pathlib.Path(sys.argv[1]), 'web1', mounts={}).start()\n"
        "print(host.pid, *host.workers(), flush=True); sys.stdin.read()"
    )
    assert_dies_with_its_lab(script, tmp_path)
