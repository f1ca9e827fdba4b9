"""What an ordinary user may run through sudo, and the line that is missing.

    test = ["sudo", "-n", "nginx", "-t"]
    certcast ALL=(root) NOPASSWD: /usr/sbin/nginx -t, /usr/sbin/nginx -T

sudoers(5) wants the program's full path, allows exactly these arguments, and wants a backslash
before some characters. `sudo -n` never asks for a password: it fails, which is what shows.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How a refusal of sudo(8) begins, in any language; it also warns so ("unable to resolve host"), and then runs
# the command, so that nginx has its say.
_SUDO = re.compile(r"^sudo: |is not allowed to execute", re.MULTILINE)
# In English only: elsewhere it is taken for a missing right, where certcast itself finds the program.
_NOT_FOUND = re.compile(r"^sudo: .+: command not found$", re.MULTILINE)
_NGINX = re.compile(r"^nginx: |\[emerg\]", re.MULTILINE)


def missing(commands: Sequence[Sequence[str]], words: str, find: Callable[[str], str | None]) -> str | None:
    """Return what to add to sudoers so that `commands` may run, if `words` are sudo's refusal of the first.

    Where sudo does not find the program, no line of sudoers helps: then what to write in its place.

    `find` looks a program up. None if sudo has no part in it.
    """
    through_sudo = os.path.basename(commands[0][0]) == "sudo"  # noqa: PTH119  a word
    if not through_sudo or _NGINX.search(words) or not _SUDO.search(words):
        return None
    program = _behind_sudo(commands[0])[0]
    if "/" not in program and (_NOT_FOUND.search(words) or find(program) is None):
        return _full_path(program, find(program))
    allowed = ", ".join(dict.fromkeys(_command(_behind_sudo(argv), find) for argv in commands))
    return (
        "as root: `visudo -f /etc/sudoers.d/certcast`, and add the line\n"
        f"{_user()} ALL=(root) NOPASSWD: {allowed}\n"
        "then `certcast pull` (docs/non-root.md)"
    )


def _full_path(program: str, found: str | None) -> str:
    return (
        "sudo looks into folders of its own: in `test` and `reload` of [[consumer.nginx]] and in sudoers\n"
        f"write {program} with its full path, as in {found or f'/usr/local/nginx/sbin/{program}'}\n"
        "then `certcast pull` (docs/non-root.md)"
    )


def _behind_sudo(argv: Sequence[str]) -> list[str]:
    """Leave out sudo and its options; of those, only -u and -g are known to take a word."""
    words = list(argv[1:])
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in {"-u", "-g"} and words:
            words.pop(0)
    return words


def _command(words: Sequence[str], find: Callable[[str], str | None]) -> str:
    program, *arguments = words
    return " ".join([find(program) or program, *(re.sub(r"([,:=\\])", r"\\\1", word) for word in arguments)])


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"
