"""One nginx on this host: its two commands, its master, its workers.

    test      `nginx -t`: would it read the configuration?
    includes  `nginx -T` prints every file that it read: is the snippet one of them?
    reload    `nginx -s reload`: exit status 0 only means that a signal was sent
    workers   the master's children that accept connections, from /proc

Commands are argv lists and no shell sees them. What the reload came to is seen
on the workers: nginx starts new ones, then tells the old ones to finish, and
these say so in their title ("nginx: worker process is shutting down") just before
they close their listening sockets (ngx_process_cycle.c, ngx_worker_process_cycle).

Not here: what is served (proof.py), and what to do about it (service.py).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.errors import NginxMissing, NginxRefused, ReloadFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from certcast.config import NginxConfig
    from certcast.consumer.sites import Configuration

# 1,000 server blocks take 1.7 s of CPU; names in `upstream` are resolved and may hang.
COMMAND_SECONDS = 60.0
# Neither command needs the bucket's or the DNS API's keys. Not a list of what is let through:
# `docker exec` and `systemctl` live on variables that nobody can foresee.
_SECRET_VARIABLES = ("ALIBABA_CLOUD_", "ALICLOUD_", "OSS_", "AWS_")


@dataclass(frozen=True)
class Worker:
    """A worker process; `started` (clock ticks since boot) tells it from a later one with its pid."""

    pid: int
    started: int


def test(nginx: NginxConfig) -> None:
    """Run the configuration test. NginxRefused with what nginx said; NginxMissing if there is none."""
    status, output = _run(nginx.test)
    if status != 0:
        # nginx words every refusal of the kernel like this (ngx_errlog.c, ngx_log_errno).
        no_right = os.geteuid() != 0 and "(13: Permission denied)" in output
        raise NginxRefused(
            "nginx refuses its configuration",
            found=f"`{' '.join(nginx.test)}`, exit status {status}\n{_last_lines(output)}",
            next="run as root: the test reads every file that nginx does, private keys included"
            if no_right
            else "mend the configuration until that command passes; the next `certcast pull` goes on",
        )


def includes(nginx: NginxConfig, snippet: Path) -> bool | None:
    """Return whether the configuration includes `snippet`; None if this nginx cannot tell.

    It cannot if the test command has no `-t` to make a `-T` of, or if that fails: a wrapper, or
    sudo rules for the exact command.
    """
    output = _dump(nginx)
    if output is None:
        return None
    # nginx prints paths as `include` names them; a link may lead to the same file.
    listed = [line[21:-1] for line in output.splitlines() if line.startswith("# configuration file ")]
    return snippet.resolve() in {Path(path).resolve() for path in listed}


def examine(nginx: NginxConfig) -> Configuration | None:
    """Return what the configuration says; None if this nginx cannot tell, ValueError if we cannot read it."""
    from certcast.consumer import sites

    output = _dump(nginx)
    return None if output is None else sites.parse(output)


def _dump(nginx: NginxConfig) -> str | None:
    if "-t" not in nginx.test:
        return None
    status, output = _run(["-T" if word == "-t" else word for word in nginx.test])
    return output if status == 0 else None


def reload(nginx: NginxConfig) -> None:
    """Run the reload command. ReloadFailed, or NginxMissing if it cannot be run."""
    status, output = _run(nginx.reload)
    if status != 0:
        raise ReloadFailed(
            "nginx was not reloaded",
            found=f"`{' '.join(nginx.reload)}`, exit status {status}\n{_last_lines(output)}",
            next="run that command by hand and see nginx's error log, then `certcast pull`",
        )


def workers(nginx: NginxConfig) -> tuple[Worker, ...]:
    """Return the workers that accept connections. NginxMissing if no master runs."""
    master = _master(nginx)
    children = (_worker(pid, master) for pid in _all_pids())
    return tuple(worker for worker in children if worker is not None)


def still_serving(before: Iterable[Worker]) -> tuple[Worker, ...]:
    """Return those of `before` that are neither gone nor shutting down."""
    return tuple(worker for worker in before if _accepts(worker))


def _master(nginx: NginxConfig) -> int:
    pid_file = nginx.pid_file or Path("/run/nginx.pid")
    found = f"no {pid_file}"
    try:
        pid = int(pid_file.read_text())
        # Tengine, OpenResty and Angie keep these words; a reused pid has others.
        if ": master process" in _title(pid):
            return pid
        found = f"process {pid} of {pid_file} is not an nginx master"
    except (FileNotFoundError, ProcessLookupError):
        pass
    except (OSError, ValueError) as error:
        found = f"{pid_file}: {error}"
    raise NginxMissing(
        "nginx is not running",
        expected=f"a running master process whose pid is in {pid_file}",
        found=found,
        next="start nginx, or set consumer.nginx.pid_file as its configuration does; then `certcast pull`",
    )


def _worker(pid: int, master: int) -> Worker | None:
    try:
        parent, started = _parent_and_start(pid)
        if parent != master or not _is_accepting(_title(pid)):
            return None
    except OSError:
        return None  # ended while we looked
    return Worker(pid, started)


def _accepts(worker: Worker) -> bool:
    try:
        return _parent_and_start(worker.pid)[1] == worker.started and _is_accepting(_title(worker.pid))
    except OSError:
        return False


def _is_accepting(title: str) -> bool:
    return "worker process" in title and "shutting down" not in title


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  names, not paths


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _parent_and_start(pid: int) -> tuple[int, int]:
    # proc_pid_stat(5): the name in field 2 may hold anything, a ")" too; fields 4 and 22.
    after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(after_name[1]), int(after_name[19])


def _run(argv: Sequence[str]) -> tuple[int, str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_SECRET_VARIABLES)
    }
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return 124, f"{(expired.stdout or b'').decode(errors='replace')}\nended after {COMMAND_SECONDS:g} s"
    except OSError as error:
        raise NginxMissing(
            f"`{argv[0]}` cannot be run",
            expected=" ".join(argv),
            found=error.strerror,
            next="install nginx, or set the commands of [[consumer.nginx]]; then `certcast pull`",
        ) from None
    return done.returncode, done.stdout.decode(errors="replace")


def _last_lines(output: str) -> str:
    lines = [line.strip()[:300] for line in output.splitlines() if line.strip()]
    return "\n".join("".join(c for c in line if c.isprintable()) for line in lines[-3:]) or "no output"
