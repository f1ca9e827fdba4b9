"""An nginx in a container: which paths it sees, and whether it can see a new version at all.

    [[consumer.nginx]]
    test  = ["docker", "exec", "web", "nginx", "-t"]
    paths = {"/var/lib/certcast/certs" = "/etc/nginx/certs"}      docker run -v … : … :ro

A mounted directory shows every rename in it. A mounted file goes on showing what it was when the container
began, whatever is renamed onto its name (moby#15793); such a mount is refused before anything is switched.

No engine is asked: /proc shows the container's master like every other process, and `/proc/PID/root` what
that master sees. Looking there takes root.

Not here: processes in general (processes.py), and the snippet's text (versions.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.report.errors import FileMounted, NginxMissing

# Every run imports this module for `path_inside`: what only an installation needs is imported late.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from certcast.config.model import NginxConfig
    from certcast.consumer.nginx.processes import Master


def path_inside(nginx: NginxConfig, path: Path) -> Path:
    """Return the path under which this nginx sees a path of this host."""
    mapped = [host for host in nginx.paths if path.is_relative_to(host)]
    if not mapped:
        return path
    host = max(mapped, key=lambda host: len(host.parts))
    return nginx.paths[host] / path.relative_to(host)


def find_masters(nginx: NginxConfig) -> list[Master]:
    """Return the masters of an nginx with `paths`: each that sees the directories, or that of its pid file.

    Several containers may share the directories. All of them count, since one that is not reloaded goes on
    serving the old certificate. NginxMissing, or FileMounted if containers run and none sees the directories.
    """
    from certcast.consumer.nginx import processes

    contained, seeing = _contained_masters(nginx)
    if nginx.pid_file:
        found = processes.find_by_pid_file(nginx.pid_file, seeing)
        if isinstance(found, str):
            raise _missing(nginx, found)
        return [found]
    if not contained:
        raise _missing(nginx, "no nginx master runs in any container of this host")
    if not seeing:
        raise _not_mounted(nginx, contained)
    return seeing


def require_mounted(
    nginx: NginxConfig, files: Iterable[Path], *, folder: Path, test: Callable[[NginxConfig], None]
) -> None:
    """Raise FileMounted if the container would not see these files of this host change.

    No file below `folder` may be mounted by itself either: it would stay the file of one version. An nginx
    without `paths` passes. `test` runs the configuration test; NginxRefused if the container does not run.
    """
    if not nginx.paths:
        return
    contained, seeing = _contained_masters(nginx)
    if not seeing:
        test(nginx)  # this container may be stopped, and those that run may be other people's
    sources = {_source(file): file for file in files}
    for master in seeing or contained:
        for file, target in _mounted_files(master, sources, folder):
            raise _file_mounted(nginx, file, target)
    if contained and not seeing:
        raise _not_mounted(nginx, contained)


def _contained_masters(nginx: NginxConfig) -> tuple[list[Master], list[Master]]:
    """Return all masters in containers, and those of them that see the mapped directories."""
    from certcast.consumer.nginx import processes

    contained = [master for master in processes.list_masters() if master.contained]
    return contained, [master for master in contained if not list(_unseen(master, nginx))]


def _unseen(master: Master, nginx: NginxConfig) -> Iterator[str]:
    """Give what the container has in the place of each mapped directory, where that is another one."""
    for host, inside in nginx.paths.items():
        try:
            found = Path(f"/proc/{master.pid}/root{inside}").stat()
            if not os.path.samestat(found, host.stat()):
                yield f"{inside} is not {host} of this host"
        except OSError as error:
            yield f"{inside}: {error.strerror}"


# -- mounts


def _mounted_files(
    master: Master, sources: dict[tuple[str, str], Path], folder: Path
) -> Iterator[tuple[Path, str]]:
    """Give each file of `sources`, and each below `folder`, that is mounted by itself, and where that is."""
    device, root = _source(folder)
    for source, target in _mounts(master.pid):
        if source in sources:
            yield sources[source], target
        elif (
            source[0] == device
            and Path(source[1]).is_relative_to(root)
            and Path(f"/proc/{master.pid}/root{target}").is_file()
        ):
            yield folder / Path(source[1]).relative_to(root), target


def _mounts(pid: int | str) -> Iterator[tuple[tuple[str, str], str]]:
    """Give each mount of a process: its source (device, path on its file system), and where it is mounted.

    proc_pid_mountinfo(5), fields 3 to 5. A source that was renamed over ends in "//deleted".
    """
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        device, root, target = (
            re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)
            for word in line.split(" ")[2:5]
        )
        yield (device, root.removesuffix("//deleted")), target


def _source(path: Path) -> tuple[str, str]:
    """Return where a path of this host is: device, and path on its file system."""
    absolute = path.parent.resolve() / path.name
    source, longest = ("", ""), -1
    for (device, root), target in _mounts("self"):
        if absolute.is_relative_to(target) and len(Path(target).parts) >= longest:
            longest = len(Path(target).parts)
            source = (device, str(Path(root) / absolute.relative_to(target)))
    return source


# -- errors


def _missing(nginx: NginxConfig, found: str) -> NginxMissing:
    wanted = " and ".join(f"{host} as {inside}" for host, inside in nginx.paths.items())
    return NginxMissing(
        "nginx is not running in its container",
        expected=f"a container in which an nginx master runs, and that has {wanted}",
        found=found,
        next="start it (if it runs: certcast must be root to see that); then `certcast pull`",
    )


def _not_mounted(nginx: NginxConfig, contained: Iterable[Master]) -> FileMounted:
    (host, inside), *_ = nginx.paths.items()
    return FileMounted(
        "the container of nginx does not have the directory of certificates",
        expected="\n".join(f"{host} of this host as {inside}" for host, inside in nginx.paths.items()),
        found="\n".join(f"process {m.pid}: {why}" for m in contained for why in _unseen(m, nginx)),
        next=f"start the container with `-v {host}:{inside}:ro`, or mend consumer.nginx.paths; "
        "then `certcast pull`",
    )


def _file_mounted(nginx: NginxConfig, file: Path, target: str) -> FileMounted:
    mappings = [(host, inside) for host, inside in nginx.paths.items() if file.is_relative_to(host)]
    host, inside = [(file.parent, Path(target).parent), *mappings][-1]
    return FileMounted(
        "the container of nginx has a single file mounted, and will never see a new one",
        expected=f"the directory {host} mounted, in which a rename is seen",
        found=f"{file} mounted as {target}",
        next=f"start the container with `-v {host}:{inside}:ro` in place of that mount, and set\n"
        f'paths = {{"{host}" = "{inside}"}}\nin its [[consumer.nginx]]; then `certcast pull`',
    )
