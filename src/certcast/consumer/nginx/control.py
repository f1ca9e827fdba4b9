"""One nginx on this host: its commands, and its workers.

    examine        `nginx -T`: would it read the configuration, and what does that say?
    reload         `nginx -s reload`: exit status 0 only means that a signal was sent
    find_workers   the master's children that accept connections, from /proc

Commands are argv lists; no shell sees them. cron's short PATH does not matter: the usual folders are searched
too, and if none has an `nginx`, the program that runs is taken.

What a reload came to shows on the workers. nginx starts new ones, then tells the old ones to finish; these
say so in their title ("nginx: worker process is shutting down") just before they close their listening
sockets (ngx_process_cycle.c, ngx_worker_process_cycle).

Not here: what a configuration means (configuration.py), and what to do about it (switch.py).
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.consumer.nginx import containers, processes
from certcast.host import children
from certcast.report.errors import NginxMissing, NginxRefused, ReloadFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from certcast.config.model import NginxConfig
    from certcast.consumer.nginx.configuration import Configuration
    from certcast.consumer.nginx.processes import Defaults, Master, Worker

# 1,000 server blocks take 1.7 s of CPU; names in `upstream` are resolved and may hang.
COMMAND_SECONDS = 60.0
_TOO_LONG = 124  # as timeout(1)
# cron gives /usr/bin:/bin (crontab(5)), and nginx is in sbin.
_MORE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def examine(nginx: NginxConfig) -> Configuration | None:
    """Test the configuration, and return what it says; None if this nginx cannot tell.

    One run of `-T` does both. It takes the place of `-t` in the test command: a wrapper may have none, and
    sudo may allow `-t` alone.

    NginxRefused with nginx's words; NginxMissing without an nginx; ValueError if nginx accepts a text that
    certcast cannot read.
    """
    if "-t" in nginx.test:
        status, dump, words = _run(_instead_of_t(nginx, "-T"))
        if status == 0:
            from certcast.consumer.nginx import configuration

            return configuration.parse(dump, _own_ipv6())
        # "configuration file … test failed" is nginx's own; any other failure is about the command.
        if "test failed" in words or status == _TOO_LONG:
            raise _refused(nginx, status, words)
    test(nginx)
    return None


def test(nginx: NginxConfig) -> None:
    """Run the configuration test. NginxRefused with nginx's words; NginxMissing without an nginx."""
    status, output, words = _run(nginx.test)
    if status != 0:
        raise _refused(nginx, status, output + words)


def reload(nginx: NginxConfig) -> None:
    """Run the reload command. ReloadFailed, or NginxMissing if it cannot be run."""
    status, output, words = _run(nginx.reload)
    if status != 0:
        raise ReloadFailed(
            "nginx was not reloaded",
            found=f"`{' '.join(nginx.reload)}`, exit status {status}\n{_last_lines(output + words)}",
            next=advise_on_sudo([nginx.reload], words, _find)
            or "run that command by hand and see nginx's error log, then `certcast pull`",
        )


def find_workers(nginx: NginxConfig, configuration: Configuration | None = None) -> tuple[Worker, ...]:
    """Return the workers that accept connections. NginxMissing if no master runs, or several may be meant."""
    masters = containers.find_masters(nginx) if nginx.paths else [_find_master(nginx, configuration)]
    certain = not nginx.paths or nginx.pid_file is not None
    return tuple(
        worker for master in masters for worker in processes.list_workers(master.pid, certain=certain)
    )


def find_lingering(before: Iterable[Worker], others: int = 0) -> tuple[Worker, ...]:
    """Return the workers of `before` that are neither gone nor shutting down.

    `others` masters serve other certificates, and so were not reloaded. certcast cannot see which ones these
    are: that many masters may go on with all their workers. The count can be fooled (docs/adr/0020).
    """
    before = tuple(before)
    lingering = tuple(worker for worker in before if processes.is_accepting(worker))
    retiring = {worker.master for worker in set(before) - set(lingering)}
    untouched = {worker.master for worker in lingering} - retiring - {None}
    if len(untouched) > others:
        return lingering
    return tuple(worker for worker in lingering if worker.master not in untouched)


# -- the master on this host


def _find_master(nginx: NginxConfig, configuration: Configuration | None) -> Master:
    if nginx.pid_file:
        found = processes.find_by_pid_file(nginx.pid_file)
        if isinstance(found, str):
            raise _missing(f"a running master process whose pid is in {nginx.pid_file}", found)
        return found
    defaults = _compiled_in(nginx)
    prefix = processes.prefix_of(nginx.test, defaults, Path.cwd()) or Path("/")
    pid_file = (configuration.pid if configuration else None) or defaults.pid
    found = processes.find_by_pid_file(prefix / pid_file)
    if not isinstance(found, str):
        return found
    if configuration:
        conf: Path | None = Path(configuration.files[0])
    else:
        conf = processes.conf_of(nginx.test, defaults, Path.cwd())
    masters = processes.match_masters(processes.list_masters(), conf, _programs(nginx), defaults)
    if len(masters) == 1:
        return masters[0]
    expected = f"one running master process with the configuration {conf}"
    if masters:
        raise _missing(expected, "\n".join([found, *map(str, masters)]))
    raise _missing(expected, f"{found}, and no such process")


def _missing(expected: str, found: str) -> NginxMissing:
    return NginxMissing(
        "nginx is not running" if "\n" not in found else "it is not clear which nginx is meant",
        expected=expected,
        found=found,
        next="start nginx, or set consumer.nginx.pid_file as its configuration does (in a container: "
        "consumer.nginx.paths); then `certcast pull`",
    )


def _programs(nginx: NginxConfig) -> set[str]:
    """Return the programs that the test command may come to, `sudo` and the like included."""
    programs = (_find(word) for word in nginx.test if not word.startswith("-"))
    return {os.path.realpath(program) for program in programs if program}


def _compiled_in(nginx: NginxConfig) -> Defaults:
    """Return the paths that `nginx -V` shows; those of a plain ./configure if it cannot be run."""
    status, _, words = _run(_instead_of_t(nginx, "-V")) if "-t" in nginx.test else (1, "", "")
    return processes.read_defaults(words) if status == 0 else processes.Defaults(pid="/run/nginx.pid")


def _own_ipv6() -> list[str]:
    """Return this host's IPv6 addresses, ::1 first, without those that hold on one link only."""
    try:
        rows = Path("/proc/net/if_inet6").read_text().split("\n")
    except OSError:
        return ["::1"]  # a kernel without IPv6
    # Address, index of the interface, length of the prefix, scope (0x20: link), flags, interface.
    found = [words[0] for row in rows if len(words := row.split()) == 6 and words[3] != "20"]
    return ["::1", *(str(ipaddress.IPv6Address(int(digits, 16))) for digits in found)]


# -- commands


def _instead_of_t(nginx: NginxConfig, option: str) -> list[str]:
    """Return the test command with another option: the last `-t` is nginx's, one before may be docker's."""
    last = max(index for index, word in enumerate(nginx.test) if word == "-t")
    return [*nginx.test[:last], option, *nginx.test[last + 1 :]]


def _find(word: str) -> str | None:
    return shutil.which(word, path=_path())


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{_MORE_PATH}".lstrip(":")


def _run(argv: Sequence[str]) -> tuple[int, str, str]:
    """Run a command; return its exit status, standard output and standard error."""
    program = _find(argv[0])
    if program is None and argv[0] == "nginx":
        program = processes.find_program_of_master(argv)
    try:
        done = subprocess.run(
            argv,
            executable=program,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            env=children.environment(PATH=_path()),
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        words = (expired.stdout or b"") + (expired.stderr or b"")
        return _TOO_LONG, "", f"{words.decode(errors='replace')}\nended after {COMMAND_SECONDS:g} s"
    except OSError as error:
        raise NginxMissing(
            f"`{argv[0]}` cannot be run",
            expected=" ".join(argv),
            found=error.strerror,
            next="install nginx, or set the commands of [[consumer.nginx]]; then `certcast pull`",
        ) from None
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def _refused(nginx: NginxConfig, status: int, words: str) -> NginxRefused:
    what = "nginx could not be asked to test its configuration"
    # nginx words every refusal of the kernel like this (ngx_errlog.c, ngx_log_errno).
    no_right = os.geteuid() != 0 and "(13: Permission denied)" in words
    commands = [nginx.test, *([_instead_of_t(nginx, "-T")] if "-t" in nginx.test else [])]
    denied = advise_on_sudo(commands, words, _find)
    if denied:
        advice = denied
    elif no_right:
        what = "nginx refuses its configuration"
        advice = (
            "run as root, or let sudo do it (docs/non-root.md): the test reads every file that "
            "nginx does, private keys included"
        )
    elif "nginx" not in _base_name(nginx.test[0]) and "test failed" not in words:
        # Not nginx's words: docker's, for example, whose container does not run.
        advice = "make that command pass; the next `certcast pull` goes on"
    else:
        what = "nginx refuses its configuration"
        advice = "mend the configuration until that command passes; the next `certcast pull` goes on"
    return NginxRefused(
        what,
        found=f"`{' '.join(nginx.test)}`, exit status {status}\n{_last_lines(words)}",
        next=advice,
    )


def _base_name(word: str) -> str:
    return word.rpartition("/")[2]


def _last_lines(output: str) -> str:
    lines = [line.strip()[:300] for line in output.splitlines() if line.strip()]
    return "\n".join("".join(c for c in line if c.isprintable()) for line in lines[-3:]) or "no output"


# -- sudo

# How a refusal of sudo(8) begins, in any language. A mere warning ("unable to resolve host") begins like it,
# but then sudo runs the command, and nginx's words follow.
_SUDO = re.compile(r"^sudo: |is not allowed to execute", re.MULTILINE)
# In English only: in another language it passes for a missing right, if certcast itself finds the program.
_NOT_FOUND = re.compile(r"^sudo: .+: command not found$", re.MULTILINE)
_NGINX = re.compile(r"^nginx: |\[emerg\]", re.MULTILINE)


def advise_on_sudo(
    commands: Sequence[Sequence[str]], words: str, find: Callable[[str], str | None]
) -> str | None:
    """Return the line of sudoers that allows `commands`, if `words` are sudo's refusal of the first.

    Where sudo does not find the program, no line helps: then the advice is to write its full path. None if
    sudo has no part in it. `find` looks a program up. Why this is worth its lines: docs/adr/0021.
    """
    if _base_name(commands[0][0]) != "sudo" or _NGINX.search(words) or not _SUDO.search(words):
        return None
    program = _behind_sudo(commands[0])[0]
    found = find(program)
    if "/" not in program and (_NOT_FOUND.search(words) or found is None):
        return (
            "sudo looks into folders of its own: in `test` and `reload` of [[consumer.nginx]] and in "
            f"sudoers\nwrite {program} with its full path, as in "
            f"{found or f'/usr/local/nginx/sbin/{program}'}\nthen `certcast pull` (docs/non-root.md)"
        )
    allowed = ", ".join(dict.fromkeys(_as_sudoers_wants(_behind_sudo(argv), find) for argv in commands))
    return (
        "as root: `visudo -f /etc/sudoers.d/certcast`, and add the line\n"
        f"{_user()} ALL=(root) NOPASSWD: {allowed}\n"
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


def _as_sudoers_wants(words: Sequence[str], find: Callable[[str], str | None]) -> str:
    """Write a command as sudoers(5) wants it: full path, and a backslash before some characters."""
    program, *arguments = words
    return " ".join([find(program) or program, *(re.sub(r"([,:=\\])", r"\\\1", word) for word in arguments)])


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"
