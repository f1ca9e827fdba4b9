"""One nginx on this host: its commands, its configuration, its workers.

    examine   `nginx -T`: would it read the configuration, and what does that say?
    reload    `nginx -s reload`: exit status 0 only means that a signal was sent
    workers   the master's children that accept connections, from /proc

Commands are argv lists and no shell sees them. cron's short PATH does not matter: the usual
folders are searched too, and where `nginx` is in none of them, the program that runs is
taken. What the reload came to is seen on the workers: nginx starts new ones, then tells the old
ones to finish, and these say so in their title ("nginx: worker process is shutting down") just
before they close their listening sockets (ngx_process_cycle.c, ngx_worker_process_cycle).

Not here: what a configuration means (configuration.py), /proc (processes.py), containers
(containers.py), what is served (verdict.py), and what to do about it (switch.py).
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.consumer.nginx import containers, processes, sudoers
from certcast.consumer.nginx.processes import Defaults, Worker
from certcast.host import children
from certcast.report.errors import NginxMissing, NginxRefused, ReloadFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from certcast.config.model import NginxConfig
    from certcast.consumer.nginx.configuration import Configuration
    from certcast.consumer.nginx.processes import Master

# 1,000 server blocks take 1.7 s of CPU; names in `upstream` are resolved and may hang.
COMMAND_SECONDS = 60.0
_TOO_LONG = 124  # as timeout(1)
# cron gives /usr/bin:/bin (crontab(5)), and nginx is in sbin.
_MORE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def examine(nginx: NginxConfig) -> Configuration | None:
    """Test the configuration, and return what it says; None if this nginx cannot tell.

    One run of `-T` does both. It cannot if the test command has no `-t` to make a `-T` of
    (a wrapper), or if only that exact command is allowed (sudo).

    Raises NginxRefused with what nginx said; NginxMissing if there is none; ValueError if
    nginx accepts what we cannot read.
    """
    if "-t" in nginx.test:
        status, dump, words = _run(_instead_of_t(nginx, "-T"))
        if status == 0:
            from certcast.consumer.nginx import configuration

            return configuration.parse(dump, _own_ipv6())
        # "configuration file … test failed" is nginx's own; anything else is about the command.
        if "test failed" in words or status == _TOO_LONG:
            raise _refused(nginx, status, words)
    test(nginx)
    return None


def test(nginx: NginxConfig) -> None:
    """Run the configuration test. NginxRefused with what nginx said; NginxMissing if there is none."""
    status, said, words = _run(nginx.test)
    if status != 0:
        raise _refused(nginx, status, said + words)


def reload(nginx: NginxConfig) -> None:
    """Run the reload command. ReloadFailed, or NginxMissing if it cannot be run."""
    status, said, words = _run(nginx.reload)
    if status != 0:
        raise ReloadFailed(
            "nginx was not reloaded",
            found=f"`{' '.join(nginx.reload)}`, exit status {status}\n{_last_lines(said + words)}",
            next=sudoers.missing([nginx.reload], words, _find)
            or "run that command by hand and see nginx's error log, then `certcast pull`",
        )


def workers(nginx: NginxConfig, configuration: Configuration | None = None) -> tuple[Worker, ...]:
    """Return the workers that accept connections. NginxMissing if no master runs, or nobody knows which."""
    masters = containers.masters(nginx) if nginx.paths else [_master(nginx, configuration)]
    certain = not nginx.paths or nginx.pid_file is not None
    return tuple(worker for master in masters for worker in processes.workers_of(master.pid, certain=certain))


def still_serving(before: Iterable[Worker], others: int = 0) -> tuple[Worker, ...]:
    """Return those of `before` that are neither gone nor shutting down.

    `others` is how many masters serve other certificates, and so were not reloaded. Which ones those
    are cannot be seen from here, so that many may go on with all their workers. Where one of ours has taken
    no reload at all while one of theirs was reloaded by somebody, it passes for theirs; handshakes still show
    what is served where a listener of it is known.
    """
    before = tuple(before)
    serving = tuple(worker for worker in before if processes.accepts(worker))
    retiring = {one.master for one in set(before) - set(serving)}
    untouched = {one.master for one in serving} - retiring - {None}
    return (
        serving if len(untouched) > others else tuple(one for one in serving if one.master not in untouched)
    )


# -- the master on this host


def _master(nginx: NginxConfig, configuration: Configuration | None) -> Master:
    if nginx.pid_file:
        found = processes.master_of_pid_file(nginx.pid_file)
        if isinstance(found, str):
            raise _missing(f"a running master process whose pid is in {nginx.pid_file}", found)
        return found
    defaults = _compiled_in(nginx)
    prefix = processes.prefix_of(nginx.test, defaults, Path.cwd()) or Path("/")
    found = processes.master_of_pid_file(prefix / ((configuration and configuration.pid) or defaults.pid))
    if not isinstance(found, str):
        return found
    conf = (
        Path(configuration.files[0]) if configuration else processes.conf_of(nginx.test, defaults, Path.cwd())
    )
    fitting = processes.fitting(processes.masters(), conf, _programs(nginx), defaults)
    if len(fitting) == 1:
        return fitting[0]
    expected = f"one running master process with the configuration {conf}"
    if fitting:
        raise _missing(expected, f"{found}\n" + "\n".join(map(str, fitting)))
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
    found = (_find(word) for word in nginx.test if not word.startswith("-"))
    return {os.path.realpath(program) for program in found if program}


def _compiled_in(nginx: NginxConfig) -> Defaults:
    """Return the paths that `nginx -V` shows; those of a plain ./configure if it cannot be asked."""
    status, _, words = _run(_instead_of_t(nginx, "-V")) if "-t" in nginx.test else (1, "", "")
    return processes.compiled_in(words) if status == 0 else Defaults(pid="/run/nginx.pid")


# -- commands


def _refused(nginx: NginxConfig, status: int, words: str) -> NginxRefused:
    # nginx words every refusal of the kernel like this (ngx_errlog.c, ngx_log_errno).
    no_right = os.geteuid() != 0 and "(13: Permission denied)" in words
    what = "nginx refuses its configuration"
    asked = "nginx could not be asked to test its configuration"
    if denied := sudoers.missing([nginx.test, _instead_of_t(nginx, "-T")], words, _find):
        what, advice = asked, denied
    elif no_right:
        advice = (
            "run as root, or let sudo do it (docs/non-root.md): the test reads every file that "
            "nginx does, private keys included"
        )
    elif "nginx" not in os.path.basename(nginx.test[0]) and "test failed" not in words:  # noqa: PTH119  a word
        # Not nginx's words: docker's, for example, whose container does not run.
        what, advice = asked, "make that command pass; the next `certcast pull` goes on"
    else:
        advice = "mend the configuration until that command passes; the next `certcast pull` goes on"
    return NginxRefused(
        what,
        found=f"`{' '.join(nginx.test)}`, exit status {status}\n{_last_lines(words)}",
        next=advice,
    )


def _instead_of_t(nginx: NginxConfig, option: str) -> list[str]:
    """Return the test command with another option: the last `-t` is nginx's, one before may be docker's."""
    last = max(index for index, word in enumerate(nginx.test) if word == "-t")
    return [*nginx.test[:last], option, *nginx.test[last + 1 :]]


def _own_ipv6() -> list[str]:
    """Return this host's IPv6 addresses, ::1 first, without those that mean nothing but on one link."""
    try:
        rows = Path("/proc/net/if_inet6").read_text().split("\n")
    except OSError:
        return ["::1"]  # a kernel without IPv6
    # Address, index of the interface, length of the prefix, scope (0x20: link), flags, interface.
    found = [words[0] for row in rows if len(words := row.split()) == 6 and words[3] != "20"]
    return ["::1", *(str(ipaddress.IPv6Address(int(digits, 16))) for digits in found)]


def _find(word: str) -> str | None:
    return shutil.which(word, path=_path())


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{_MORE_PATH}".lstrip(":")


def _run(argv: Sequence[str]) -> tuple[int, str, str]:
    """Run a command; return its exit status, what it said, and what it complained of."""
    program = _find(argv[0])
    if program is None and argv[0] == "nginx":
        program = processes.program_of_a_master(argv)
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


def _last_lines(output: str) -> str:
    lines = [line.strip()[:300] for line in output.splitlines() if line.strip()]
    return "\n".join("".join(c for c in line if c.isprintable()) for line in lines[-3:]) or "no output"
