"""Web hosts whose nginx is not the distribution's: compiled into a folder, or in a container.

    CompiledHost    web1/usr/local/nginx/{sbin/nginx,conf,logs}, and no pid file in its configuration
    ContainerHost   nginx in a mount and a pid namespace of its own, with other paths; there is no
                    engine: a script named `docker` stands in for `docker exec`

What a container is to certcast is just this: other paths behind the same names, mounts
of single files or of directories, other pids. The namespaces and the mounts are the
kernel's, as with any engine (namespaces(7)); they take root, and end with their nginx.

Not here: an image, a network of its own, cgroups, user namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from certcast_lab.serving.children import Child
from certcast_lab.web.hosts import WebHost


def namespaces_available() -> bool:
    """Return whether this user may make the namespaces that a container is."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


class CompiledHost(WebHost):
    """A machine with nginx in /usr/local/nginx; `program` is copied there."""

    conf_at = "usr/local/nginx/conf"
    logs_at = "usr/local/nginx/logs"
    pid_at = "usr/local/nginx/nginx.pid"  # below -p, as it was compiled into the lab's current nginx

    def command(self, program: str | Path) -> list[str]:
        """Return how nginx is started: by its path."""
        prefix = self.root / "usr/local/nginx"
        copy = prefix / "sbin/nginx"
        copy.parent.mkdir(parents=True)
        shutil.copy(program, copy)
        return [str(copy), "-p", str(prefix), "-c", "conf/nginx.conf"]

    def pid_line(self) -> str:
        """Return no line: the default holds."""
        return ""


# Mounts are private to the namespace, and end with it.
_CONTAINER = """\
set -e
{mounts}
exec {program}
"""

_DOCKER = """\
#!/bin/sh
# docker exec NAME COMMAND…: into the mount and pid namespaces of the nginx that the lab has started
[ "$1 $2" = "exec {name}" ] || {{ echo "docker: this one knows only: docker exec {name}" >&2; exit 125; }}
shift 2
pid=$(cat {pid} 2>/dev/null) && [ -d "/proc/$pid" ] || {{
    echo "Error response from daemon: container {name} is not running" >&2
    exit 1
}}
exec nsenter --target "$pid" --mount --pid -- "$@"
"""


class ContainerHost(WebHost):
    """A machine whose nginx runs in a container called like the machine.

    `mounts` are host path → path inside, read-only: directories, or single files that
    exist by then. They can be changed between stop() and start().
    """

    def __init__(self, folder: Path, name: str, *, mounts: Mapping[Path, str], **options: Any) -> None:
        self.mounts = dict(mounts)
        super().__init__(folder, name, **options)
        self.docker = self.root / "usr/bin/docker"
        self.docker.parent.mkdir(parents=True)
        self._pid_outside = self.root / "var/container.pid"
        self.docker.write_text(_DOCKER.format(name=name, pid=shlex.quote(str(self._pid_outside))))
        self.docker.chmod(0o755)
        docker = [str(self.docker), "exec", name, *self._argv]
        self.test_command = [*docker, "-t"]
        self.reload_command = [*docker, "-s", "reload"]

    def command(self, program: str | Path) -> list[str]:
        """Return how nginx is called inside: as in its official image, without any argument.

        Another program than the distribution's has the wrong paths compiled in.
        """
        return (
            [str(program)]
            if program == "nginx"
            else [str(program), "-p", "/", "-c", f"/{self.conf_at}/nginx.conf"]
        )

    def seen(self, path: Path) -> Path:
        """Return a path of this machine as its nginx sees it."""
        return Path("/") / path.relative_to(self.root)

    def run_nginx(self, output: Path) -> Child:
        """Start the container."""
        for outside, inside in self.mounts.items():
            if not outside.exists():
                outside.mkdir(parents=True)  # as docker does
            point = self.root / inside.lstrip("/")
            if outside.is_dir():
                point.mkdir(parents=True, exist_ok=True)
            else:
                point.parent.mkdir(parents=True, exist_ok=True)
                point.touch()
        # unshare (util-linux) is deaf to TERM while it waits; --kill-child ends what it has forked.
        container = Child(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                self._script(),
            ],
            output=output,
            death_signal="KILL",
        )
        self._unshare = container.pid
        return container

    def _script(self) -> str:
        own = [self.conf_at, "var/log/nginx", "var/tmp", "run"]
        binds = [f"mount --bind {shlex.quote(str(self.root / path))} /{path}" for path in own]
        for outside, inside in self.mounts.items():
            words = shlex.join([str(outside), inside])
            binds += [f"mount --bind {words}", f"mount -o remount,bind,ro {shlex.quote(inside)}"]
        return _CONTAINER.format(mounts="\n".join(binds), program=shlex.join(self._argv))

    def is_ready(self) -> bool:
        """Return whether nginx serves; from then on `docker exec` finds it."""
        if not super().is_ready():
            return False
        self._pid_outside.write_text(str(self.pid))
        return True

    @property
    def pid(self) -> int:
        """The master process, by the pid that it has outside."""
        children = Path(f"/proc/{self._unshare}/task/{self._unshare}/children").read_text().split()
        return int(children[0])

    def reload(self) -> None:
        """SIGHUP to the master."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        """End nginx, and with it the container and its mounts; harmless twice."""
        if self._pid_outside.exists():
            self._pid_outside.unlink()
            with contextlib.suppress(OSError, IndexError):  # it has ended by itself
                os.kill(self.pid, signal.SIGTERM)
        super().stop()
