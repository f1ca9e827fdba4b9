"""nginx as processes: which master is meant, and what its workers do, from /proc.

    master   1. the pid file: configured, or the one that the configuration names
             2. without it: a master of our program with our configuration file
    workers  its children that accept connections

A master's title (`/proc/PID/cmdline`) is "nginx: master process", then the words that started nginx. Any
process can take any title: a program that root is to *run* must belong to root (`find_program_of_master`).

A pid file that nginx wrote in a container holds the pid inside; `NSpid` of proc_pid_status(5) lists both.

Not here: which container is meant (containers.py).
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# `-c FILE` and `-p FOLDER`, also after flags and without a blank (ngx_get_options in nginx.c).
_OPTION = re.compile(r"-[?hvVtTq]*([cp])(.*)")
# What ./configure takes where nothing is said (auto/options).
_PREFIX, _CONF, _PID = "/usr/local/nginx", "conf/nginx.conf", "logs/nginx.pid"


@dataclass(frozen=True)
class Master:
    """A master process; `program` is None where this user may not know it. `words` started it."""

    pid: int
    inner_pid: int
    program: str | None
    words: tuple[str, ...]
    contained: bool

    def __str__(self) -> str:
        return f"process {self.pid}: {' '.join(self.words) or self.program}"


@dataclass(frozen=True)
class Worker:
    """A worker process; `started` (clock ticks since boot) tells it from a later process with its pid.

    `master` is set where the worker may belong to another nginx than the one that is meant.
    """

    pid: int
    started: int
    master: int | None = None


@dataclass(frozen=True)
class Defaults:
    """What was compiled into a program. Relative paths belong to `-p`, or else to `prefix`."""

    prefix: str = _PREFIX
    conf: str = _CONF
    pid: str = _PID


def read_defaults(version: str) -> Defaults:
    """Return what the output of `nginx -V` says of paths."""
    found = dict(re.findall(r"--(prefix|conf-path|pid-path)=(\S+)", version))
    return Defaults(found.get("prefix", _PREFIX), found.get("conf-path", _CONF), found.get("pid-path", _PID))


# -- masters


def list_masters() -> list[Master]:
    """Return every nginx master that this user can see."""
    return [master for pid in _list_pids() if (master := _read_master(pid))]


def find_by_pid_file(path: Path, contained: Iterable[Master] | None = None) -> Master | str:
    """Return the master whose pid a file holds; else, as a text, what there is instead.

    The pid may be the one that a master has in its container: one of `contained`, or of all if that is None.
    """
    pid = _read_pid(path)
    if isinstance(pid, str):
        return pid
    if master := _read_master(pid):
        return master
    masters = list_masters() if contained is None else contained
    inside = [master for master in masters if master.contained and master.inner_pid == pid]
    if len(inside) == 1:
        return inside[0]
    if inside:
        lines = "\n".join(map(str, inside))
        return f"{path} says {pid}, which is the pid of several masters in containers\n{lines}"
    return f"process {pid} of {path} is not an nginx master"


def _read_pid(path: Path) -> int | str:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return f"no {path}"
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError:
        return f"no pid in {path}"  # `nginx -t` makes an empty file where nginx does not run


def match_masters(
    masters: Iterable[Master], conf: Path | None, programs: set[str], defaults: Defaults
) -> list[Master]:
    """Return the masters on this host itself that run the configuration file `conf` with one of `programs`.

    None, an empty set, and what this user may not know exclude no master.
    """
    return [
        master
        for master in masters
        if not master.contained
        and (conf is None or _has_conf(master, conf, defaults))
        and (not programs or master.program is None or master.program in programs)
    ]


def _has_conf(master: Master, conf: Path, defaults: Defaults) -> bool:
    found = conf_of(master.words, defaults, _cwd(master.pid))
    return found is None or conf.resolve() == found.resolve()


def conf_of(words: Sequence[str], defaults: Defaults, cwd: Path | None) -> Path | None:
    """Return the configuration file of a command line; None if it depends on an unknown folder."""
    conf = Path(_option(words, "c") or defaults.conf)
    if conf.is_absolute():
        return conf
    prefix = prefix_of(words, defaults, cwd)
    return None if prefix is None else prefix / conf


def prefix_of(words: Sequence[str], defaults: Defaults, cwd: Path | None) -> Path | None:
    """Return the folder that relative paths of a command line belong to; None if that is unknown."""
    prefix = Path(_option(words, "p") or defaults.prefix)
    if prefix.is_absolute():
        return prefix
    return None if cwd is None else cwd / prefix


def find_program_of_master(words: Sequence[str]) -> str | None:
    """Return the program of the master that a command line would speak to, by its configuration file.

    None without such a master, or if the program is not safe for this user to run. For an nginx that was
    compiled into a folder of its own, which is in no PATH.
    """
    plain = Defaults()  # the true ones are not known without the program, but are the same for both
    masters = match_masters(list_masters(), conf_of(words, plain, Path.cwd()), set(), plain)
    safe = {master.program for master in masters if master.program and _is_safe_to_run(master.program)}
    return safe.pop() if len(safe) == 1 else None


# -- workers


def list_workers(master: int, *, certain: bool = True) -> tuple[Worker, ...]:
    """Return the master's workers that accept connections; `certain`: it is the master that is meant."""
    workers = (_read_worker(pid, master) for pid in _list_pids())
    return tuple(worker if certain else replace(worker, master=master) for worker in workers if worker)


def is_accepting(worker: Worker) -> bool:
    """Whether a worker is neither gone nor shutting down."""
    try:
        _, started = _parent_and_start(worker.pid)
        return started == worker.started and _is_title_of_accepting(_title(worker.pid))
    except OSError:
        return False


def _is_title_of_accepting(title: str) -> bool:
    return "worker process" in title and "shutting down" not in title


# -- /proc


def _read_master(pid: int) -> Master | None:
    try:
        # Tengine, OpenResty and Angie keep these words; a process that reuses the pid has others.
        _, is_master, words = _title(pid).partition(": master process")
        if not is_master:
            return None
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        inner = re.search(r"^NSpid:\s(.*)$", status, re.MULTILINE)
        pids = [int(word) for word in inner[1].split()] if inner else [pid]
        # Angie: "angie: master process v1.10.0 #1 [/usr/sbin/angie -c …]"
        words = words.partition("[")[2].rstrip("] ") if " [" in words else words
        contained = len(pids) > 1 or _has_other_root(pid)
        return Master(pid, pids[-1], _program(pid), tuple(words.split()), contained)
    except OSError:
        return None


def _read_worker(pid: int, master: int) -> Worker | None:
    try:
        parent, started = _parent_and_start(pid)
        return Worker(pid, started) if parent == master and _is_title_of_accepting(_title(pid)) else None
    except OSError:
        return None  # the process has ended meanwhile


def _program(pid: int) -> str | None:
    try:
        # A package upgrade replaces the file below a running nginx.
        return str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return None


def _cwd(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def _has_other_root(pid: int) -> bool:
    try:
        return not os.path.samestat(os.stat(f"/proc/{pid}/root/."), os.stat("/"))  # noqa: PTH116  pairs of numbers
    except OSError:
        return False


def _list_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  names, not paths


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _parent_and_start(pid: int) -> tuple[int, int]:
    # proc_pid_stat(5): the name in field 2 may hold anything, a ")" too; fields 4 and 22.
    after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(after_name[1]), int(after_name[19])


# -- command lines and programs


def _option(words: Sequence[str], letter: str) -> str | None:
    for index, word in enumerate(words):
        match = _OPTION.fullmatch(word)
        if match and match[1] == letter:
            return match[2] or (words[index + 1] if index + 1 < len(words) else None)
    return None


def _is_safe_to_run(program: str) -> bool:
    """Whether the program can be run, and only root and this user can change what is at its path."""
    if not os.access(program, os.X_OK):
        return False
    for path in (Path(program), *Path(program).parents):
        try:
            status = path.stat()
        except OSError:
            return False
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or writable:
            return False
    return True
