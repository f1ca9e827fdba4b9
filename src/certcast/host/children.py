"""What the programs that certcast starts see of its environment, and what a crash shows of ours.

    environment()            nginx, docker, ssh-keygen: everything but the keys
    bare_environment()       our own clients, which need nothing
    dump_no_core()           this process and its children

A process's environment is readable in /proc, in core dumps and in debug output: the keys stay in certcast. A
test walks the source: each child gets one of these, no shell is started, no argument list holds a secret.
"""

from __future__ import annotations

import os

from certcast.report.redaction import SECRET_VARIABLES


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without keys and certcast's own variables, and with `more`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(SECRET_VARIABLES)},
        **more,
    }


def bare_environment(**more: str) -> dict[str, str]:
    """Return `more`, and the variable by which this Python may find its libraries."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ} | more


def dump_no_core() -> None:
    """Let no crash write keys to the disk.

    The soft limit alone: an nginx that a reload command starts anew may raise it (worker_rlimit_core).
    A program that takes dumps through a pipe sees it as %c, core(5); systemd-coredump respects it.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
