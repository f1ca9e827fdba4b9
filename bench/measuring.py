"""Whole processes, timed from outside: wall by the clock, CPU and peak memory as the kernel accounts them.

Every figure is the median of its runs. Programs that are compared run in turn, A B A B, since machines
drift. So a ratio within one run can be trusted; an absolute time holds for this machine and this minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Started anew for each run, because Linux counts into a child's peak memory what its parent
# held at the fork: this parent holds 9 MiB, the lab's process 70.
_LAUNCHER = """
import os, sys, time
begun = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - begun
print(os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


@dataclass(frozen=True)
class Cost:
    """One run, or the medians of several: seconds, seconds, MiB of the largest process."""

    wall: float
    cpu: float
    memory: float


class Command:
    """Something to run; `before` prepares each run and is not timed."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        environment: dict[str, str],
        before: Callable[[], object] | None = None,
    ) -> None:
        # With it, our modules would be compiled anew at each start, and the installed peers' would not.
        kept = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.name, self.argv, self.environment, self.before = name, argv, kept, before

    def run(self) -> Cost:
        """Run it once; it must exit with 0."""
        if self.before:
            self.before()
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", _LAUNCHER, *self.argv],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        *words, figures = done.stdout.splitlines()
        status, wall, cpu, kibibytes = (float(figure) for figure in figures.split())
        if status:
            sys.exit(f"{' '.join(self.argv)} failed:\n{done.stderr}" + "\n".join(words))
        return Cost(wall, cpu, kibibytes / 1024)


def measure(*commands: Command, runs: int) -> list[Cost]:
    """Return the medians of each command, run in turn `runs` times after one warm-up."""
    found: dict[str, list[Cost]] = defaultdict(list)
    for number in range(runs + 1):
        for command in commands:
            cost = command.run()
            if number:
                found[command.name].append(cost)
    return [
        Cost(
            median(cost.wall for cost in found[command.name]),
            median(cost.cpu for cost in found[command.name]),
            median(cost.memory for cost in found[command.name]),
        )
        for command in commands
    ]


def row(what: str, figure: str, target: str) -> None:
    """Print a line of the table."""
    print(f"  {what:<58} {figure:<44} {target}", flush=True)


def environment_of(variables: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with `variables`."""
    return {**os.environ, **variables}
