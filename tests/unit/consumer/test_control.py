"""Commands that fail: what sudo refuses, as the line that would allow it; a wrapper that says no."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from certcast.config.model import Argv, NginxConfig
from certcast.consumer.nginx.control import advise_on_sudo, examine
from certcast.report.errors import NginxRefused


def where(program: str) -> str:
    return f"/usr/sbin/{program}"


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (["sudo", "-n", "nginx", "-t"], "/usr/sbin/nginx -t"),
        (["/usr/bin/sudo", "-n", "-u", "root", "nginx", "-t"], "/usr/sbin/nginx -t"),
        (["sudo", "nginx", "-g", "a=b,c:d", "-t"], r"/usr/sbin/nginx -g a\=b\,c\:d -t"),
    ],
)
def test_missing_right_is_written_as_sudoers_wants_it(argv: list[str], allowed: str) -> None:
    """The line has the full path, sudo's own options left out, and its special characters escaped."""
    line = advise_on_sudo([argv], "sudo: a password is required\n", where)
    assert f" ALL=(root) NOPASSWD: {allowed}\n" in (line or "")


@pytest.mark.parametrize("find", [where, lambda program: None])
def test_program_that_sudo_does_not_find_needs_its_path(
    find: Callable[[str], str | None],
) -> None:
    """Where sudo has no nginx in its folders, the full path is asked for: no line of sudoers would do."""
    advice = advise_on_sudo([["sudo", "-n", "nginx", "-t"]], "sudo: nginx: command not found\n", find) or ""
    assert "NOPASSWD" not in advice
    assert "write nginx with its full path, as in /usr/" in advice


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nginx", "-t"], "sudo: a password is required"),
        (["sudo", "-n", "nginx", "-t"], "nginx: configuration file /etc/nginx/nginx.conf test failed"),
        (
            ["sudo", "-n", "nginx", "-t"],
            "sudo: unable to resolve host web1\nnginx: [emerg] unknown directive",
        ),
    ],
)
def test_nothing_is_said_of_sudo_where_it_has_no_part(argv: list[str], words: str) -> None:
    """A refusal of nginx's own, behind sudo or without it, is not taken for a missing right."""
    assert advise_on_sudo([argv], words, where) is None


def test_wrapper_without_t_that_fails_is_a_refusal() -> None:
    """A test command without `-t` that fails is nginx's refusal, and nothing is reloaded then."""
    with pytest.raises(NginxRefused) as refused:
        examine(NginxConfig(test=Argv(("false",)), reload=Argv(("true",))))
    assert "`false`, exit status 1" in (refused.value.found or "")
