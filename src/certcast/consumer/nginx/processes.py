"""nginx as processes: which master is meant, and what its workers do, from /proc.

    master   1. the pid file: configured, or the one that the configuration names
             2. without it: a master of our program with our configuration file
    workers  its children that accept connections

A title (`/proc/PID/cmdline`) is "nginx: master process", then the words that nginx was
started with; anybody can give a process any title, so what the root user is to *run*
must belong to root (`program_of_a_master`).

A pid file that nginx wrote in a container has the pid that it has there: `NSpid` of
proc_pid_status(5) lists both.

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
# Where nginx is when nobody said anything to ./configure (auto/options).
_PREFIX, _CONF, _PID = "/usr/local/nginx", "conf/nginx.conf", "logs/nginx.pid"


@dataclass(frozen=True)
class Master:
    """A master process; `program` is None where this user may not know it. `words` began it."""

    pid: int
    inner_pid: int
    program: str | None
    words: tuple[str, ...]
    contained: bool

    def __str__(self) -> str:
        return f"process {self.pid}: {' '.join(self.words) or self.program}"


@dataclass(frozen=True)
class Worker:
    """A worker process; `started` (clock ticks since boot) tells it from a later one with its pid.

    `master` is set where it may belong to another nginx than the one that is meant.
    """

    pid: int
    started: int
    master: int | None = None


@dataclass(frozen=True)
class Defaults:
    """What was compiled into a program: `nginx -V`. Relative paths belong to the prefix, `-p` or this one."""

    prefix: str = _PREFIX
    conf: str = _CONF
    pid: str = _PID


# -- masters


def masters() -> list[Master]:
    """Return every nginx master that shows itself to this user."""
    return [master for pid in _all_pids() if (master := _master(pid))]


def master_of_pid_file(path: Path, contained: Iterable[Master] | None = None) -> Master | str:
    """Return the master whose pid a file has; else what there is instead, as a text.

    The pid may be the one that a master has in its container; `contained` are those that
    come into question, if not all.
    """
    try:
        pid = int(path.read_text())
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    master = _master(pid)
    if master:
        return master
    candidates = masters() if contained is None else contained
    inside = [one for one in candidates if one.contained and one.inner_pid == pid]
    if len(inside) == 1:
        return inside[0]
    if inside:
        return f"{path} says {pid}, which is the pid of several masters in containers\n{_listed(inside)}"
    return f"process {pid} of {path} is not an nginx master"


def _unreadable(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no {path}"
    # Of an nginx that doesn't run, `nginx -t` makes an empty one.
    return f"{path}: {error.strerror}" if isinstance(error, OSError) else f"no pid in {path}"


def fitting(
    candidates: Iterable[Master], conf: Path | None, programs: set[str], defaults: Defaults
) -> list[Master]:
    """Return the masters of this host that run on the configuration file `conf`, with one of `programs`.

    None, an empty set, and what this user may not know exclude nobody.
    """
    here = [one for one in candidates if not one.contained]
    same = [one for one in here if conf is None or _same(conf, conf_of(one.words, defaults, _cwd(one.pid)))]
    ours = [one for one in same if one.program is None or one.program in programs]
    return ours if programs else same


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


def program_of_a_master(words: Sequence[str]) -> str | None:
    """Return the program of the master that a command line `words` would speak to, by its configuration file.

    None if it is not one, or not safe for this user to run. For an nginx that was compiled
    into a folder of its own, which no PATH has.
    """
    plain = Defaults()  # not known without the program, but the same for both
    found = fitting(masters(), conf_of(words, plain, Path.cwd()), set(), plain)
    safe = {one.program for one in found if one.program and _trusted(one.program)}
    return safe.pop() if len(safe) == 1 else None


def compiled_in(version: str) -> Defaults:
    """Read the output of `nginx -V`."""
    found = dict(re.findall(r"--(prefix|conf-path|pid-path)=(\S+)", version))
    return Defaults(found.get("prefix", _PREFIX), found.get("conf-path", _CONF), found.get("pid-path", _PID))


# -- workers


def workers_of(master: int, *, certain: bool = True) -> tuple[Worker, ...]:
    """Return the master's workers that accept connections; `certain`: it is the one that is meant."""
    children = (_worker(pid, master) for pid in _all_pids())
    return tuple(
        worker if certain else replace(worker, master=master) for worker in children if worker is not None
    )


def accepts(worker: Worker) -> bool:
    """Whether a worker is neither gone nor shutting down."""
    try:
        return _parent_and_start(worker.pid)[1] == worker.started and _is_accepting(_title(worker.pid))
    except OSError:
        return False


def _worker(pid: int, master: int) -> Worker | None:
    try:
        parent, started = _parent_and_start(pid)
        if parent != master or not _is_accepting(_title(pid)):
            return None
    except OSError:
        return None  # ended while we looked
    return Worker(pid, started)


def _is_accepting(title: str) -> bool:
    return "worker process" in title and "shutting down" not in title


# -- /proc


def _master(pid: int) -> Master | None:
    try:
        # Tengine, OpenResty and Angie keep these words; a reused pid has others.
        _, is_master, words = _title(pid).partition(": master process")
        if not is_master:
            return None
        inner = re.search(
            r"^NSpid:\s(.*)$", Path(f"/proc/{pid}/status").read_text(errors="replace"), re.MULTILINE
        )
        pids = [int(word) for word in inner[1].split()] if inner else [pid]
        # Angie: "angie: master process v1.10.0 #1 [/usr/sbin/angie -c …]"
        words = words.partition("[")[2].rstrip("] ") if " [" in words else words
        return Master(pid, pids[-1], _program(pid), tuple(words.split()), len(pids) > 1 or _other_root(pid))
    except OSError:
        return None


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


def _other_root(pid: int) -> bool:
    try:
        return not os.path.samestat(os.stat(f"/proc/{pid}/root/."), os.stat("/"))  # noqa: PTH116  pairs of numbers
    except OSError:
        return False


def _trusted(program: str) -> bool:
    """Whether it can be run, and only root and this user can change what stands at the path."""
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


def _option(words: Sequence[str], letter: str) -> str | None:
    for index, word in enumerate(words):
        match = _OPTION.fullmatch(word)
        if match and match[1] == letter:
            return match[2] or (words[index + 1] if index + 1 < len(words) else None)
    return None


def _same(ours: Path, theirs: Path | None) -> bool:
    return theirs is None or ours.resolve() == theirs.resolve()


def _listed(found: Iterable[Master]) -> str:
    return "\n".join(str(master) for master in found)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  names, not paths


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _parent_and_start(pid: int) -> tuple[int, int]:
    # proc_pid_stat(5): the name in field 2 may hold anything, a ")" too; fields 4 and 22.
    after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(after_name[1]), int(after_name[19])
