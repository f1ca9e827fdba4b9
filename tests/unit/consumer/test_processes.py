"""Which nginx is meant, from the words of command lines; the processes themselves are real in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from certcast.consumer.nginx.processes import (
    Defaults,
    Master,
    conf_of,
    find_by_pid_file,
    match_masters,
    prefix_of,
    read_defaults,
)

DEBIAN = "--prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --pid-path=/run/nginx.pid --with-debug"
PLAIN = Defaults()
SBIN = "/usr/sbin/nginx"


def master(words: str, *, program: str | None = SBIN, contained: bool = False) -> Master:
    # No process has the pid 0, so there is no folder that a relative path could belong to.
    return Master(0, 1 if contained else 0, program, tuple(words.split()), contained)


def test_compiled_in_paths_are_read_from_nginx_v():
    """The paths of ./configure show in `nginx -V`; what was not said there is nginx's own default."""
    assert Defaults("/usr/share/nginx", "/etc/nginx/nginx.conf", "/run/nginx.pid") == read_defaults(DEBIAN)
    assert Defaults("/opt/nginx", "conf/nginx.conf", "logs/nginx.pid") == read_defaults("--prefix=/opt/nginx")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nginx", "/usr/local/nginx/conf/nginx.conf"),
        ("nginx -t", "/usr/local/nginx/conf/nginx.conf"),
        ("nginx -c /etc/n.conf", "/etc/n.conf"),
        ("nginx -c/etc/n.conf", "/etc/n.conf"),
        ("nginx -tc /etc/n.conf", "/etc/n.conf"),
        ("nginx -c n.conf", "/usr/local/nginx/n.conf"),
        ("nginx -p /srv -c n.conf -t", "/srv/n.conf"),
        ("nginx -p /srv/ -t", "/srv/conf/nginx.conf"),
        ("nginx -p here -t", "/cwd/here/conf/nginx.conf"),
        ("nginx -g daemon off; master_process on;", "/usr/local/nginx/conf/nginx.conf"),
    ],
)
def test_configuration_file_of_a_command_line(words: str, expected: str):
    """`-c` and `-p` lead to the configuration file as nginx itself reads them."""
    assert Path(expected) == conf_of(words.split(), PLAIN, Path("/cwd"))


def test_relative_prefix_of_a_process_that_hides_its_folder():
    """A path that depends on what this user may not know is not guessed."""
    assert prefix_of(["nginx", "-p", "here"], PLAIN, None) is None
    assert conf_of(["nginx", "-p", "here"], PLAIN, None) is None


def test_masters_match_by_configuration_and_program():
    """
    Of several masters, those count that run on our configuration file with our program, on this
    host itself; who hides one of the two is not excluded by it.
    """
    ours = master("nginx -c /etc/a.conf")
    other_conf = master("nginx -c /etc/b.conf")
    other_program = master("/opt/nginx -c /etc/a.conf", program="/opt/nginx")
    contained = master("nginx -c /etc/a.conf", contained=True)
    unknown = master("nginx -c /etc/a.conf", program=None)
    unknown_folder = master("nginx -p here -c a.conf")
    every = [ours, other_conf, other_program, contained, unknown, unknown_folder]
    assert [ours, unknown, unknown_folder] == match_masters(every, Path("/etc/a.conf"), {SBIN}, PLAIN)
    assert [ours, other_program, unknown, unknown_folder] == match_masters(
        every, Path("/etc/a.conf"), set(), PLAIN
    )
    assert [ours, other_conf, unknown, unknown_folder] == match_masters(every, None, {SBIN}, PLAIN)


def test_an_empty_pid_file_is_said_to_have_no_pid(tmp_path: Path):
    """`nginx -t` leaves an empty pid file where nginx doesn't run; no words of Python's come of it."""
    (tmp_path / "nginx.pid").write_text("")
    assert f"no pid in {tmp_path / 'nginx.pid'}" == find_by_pid_file(tmp_path / "nginx.pid")
