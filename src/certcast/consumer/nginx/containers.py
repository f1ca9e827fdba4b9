"""An nginx in a container: which paths it sees, and whether it can see a new version at all.

    [[consumer.nginx]]
    test  = ["docker", "exec", "web", "nginx", "-t"]
    paths = {"/var/lib/certcast/certs" = "/etc/nginx/certs"}      docker run -v … : … :ro

A container's mount of a directory shows every rename in it. One of a single file goes on
showing the file that was there when the container began, whatever is renamed onto its
name (moby#15793); that is refused before anything is switched.

The container is found without asking any engine: /proc shows its master like every other
process, and `/proc/PID/root` what it sees. To look there takes root.

Not here: processes in general (processes.py), and the snippet's text (versions.py), for which
this module is imported by every run: what only an installation needs comes late.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.report.errors import FileMounted, NginxMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from certcast.config.model import NginxConfig
    from certcast.consumer.nginx.processes import Master


def as_seen(nginx: NginxConfig, path: Path) -> Path:
    """Return the path under which this nginx sees a path of this host."""
    fitting = [host for host in nginx.paths if path.is_relative_to(host)]
    if not fitting:
        return path
    host = max(fitting, key=lambda one: len(one.parts))
    return nginx.paths[host] / path.relative_to(host)


def masters(nginx: NginxConfig) -> list[Master]:
    """Return the masters of an nginx with `paths`: each that sees the directories, or that of its pid file.

    Several containers may share them; one that is not reloaded goes on serving the old
    certificate, and so it counts. NginxMissing, or FileMounted if there are some and none
    sees the directories.
    """
    from certcast.consumer.nginx import processes

    inside = [one for one in processes.masters() if one.contained]
    seeing = [one for one in inside if not list(_unseen(one, nginx))]
    if nginx.pid_file:
        found = processes.master_of_pid_file(nginx.pid_file, seeing)
        if isinstance(found, str):
            raise _missing(nginx, found)
        return [found]
    if not inside:
        raise _missing(nginx, "no nginx master runs in any container of this host")
    if not seeing:
        raise _not_mounted(nginx, inside)
    return seeing


def require_mounted(nginx: NginxConfig, files: Iterable[Path], *, folder: Path) -> None:
    """Raise FileMounted if the container would not see these files of this host change.

    Nor may it have any file below `folder` mounted by itself: one of a version goes on being that version's.
    Says nothing about an nginx without `paths`. NginxRefused if the container does not run.
    """
    if not nginx.paths:
        return
    from certcast.consumer.nginx import control as commands
    from certcast.consumer.nginx import processes

    inside = [one for one in processes.masters() if one.contained]
    seeing = [one for one in inside if not list(_unseen(one, nginx))]
    if not seeing:
        commands.test(nginx)  # the others on this host may be anybody's, and this one be stopped
    sources = {_source(file): file for file in files}
    device, root = _source(folder)
    for one in seeing or inside:
        for source, target in _mounts(one.pid):
            file = sources.get(source)
            inner = Path(source[1])
            if source[0] == device and inner.is_relative_to(root) and _is_file(one, target):
                file = file or folder / inner.relative_to(root)
            if file is not None:
                raise _file_mounted(nginx, file, target)
    if inside and not seeing:
        raise _not_mounted(nginx, inside)


def _is_file(one: Master, target: str) -> bool:
    return Path(f"/proc/{one.pid}/root{target}").is_file()


def _unseen(one: Master, nginx: NginxConfig) -> Iterator[str]:
    """Give what the container has in the place of each mapped directory, where it is another one."""
    for host, seen in nginx.paths.items():
        try:
            there = Path(f"/proc/{one.pid}/root{seen}").stat()
            if not os.path.samestat(there, host.stat()):
                yield f"{seen} is not {host} of this host"
        except OSError as error:
            yield f"{seen}: {error.strerror}"


# -- mounts


def _mounts(pid: int | str) -> Iterator[tuple[tuple[str, str], str]]:
    """Give each mount of a process: its source (device, path on its file system), and where it is.

    proc_pid_mountinfo(5), fields 3 to 5. A source that was renamed over ends in "//deleted".
    """
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        device, root, target = (re.sub(r"\\([0-7]{3})", _unescaped, word) for word in line.split(" ")[2:5])
        yield (device, root.removesuffix("//deleted")), target


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


def _source(path: Path) -> tuple[str, str]:
    """Return where a path of this host is: device, and path on its file system."""
    absolute = path.parent.resolve() / path.name
    found = ("", "")
    longest = -1
    for (device, root), target in _mounts("self"):
        if absolute.is_relative_to(target) and len(Path(target).parts) >= longest:
            longest = len(Path(target).parts)
            found = (device, str(Path(root) / absolute.relative_to(target)))
    return found


# -- what is said


def _missing(nginx: NginxConfig, found: str) -> NginxMissing:
    wanted = " and ".join(f"{host} as {seen}" for host, seen in nginx.paths.items())
    return NginxMissing(
        "nginx is not running in its container",
        expected=f"a container in which an nginx master runs, and that has {wanted}",
        found=found,
        next="start it (if it runs: certcast must be root to see that); then `certcast pull`",
    )


def _not_mounted(nginx: NginxConfig, inside: Iterable[Master]) -> FileMounted:
    (host, seen), *_ = nginx.paths.items()
    return FileMounted(
        "the container of nginx does not have the directory of certificates",
        expected="\n".join(f"{host} of this host as {seen}" for host, seen in nginx.paths.items()),
        found="\n".join(f"process {one.pid}: {why}" for one in inside for why in _unseen(one, nginx)),
        next=f"start the container with `-v {host}:{seen}:ro`, or mend consumer.nginx.paths; "
        "then `certcast pull`",
    )


def _file_mounted(nginx: NginxConfig, file: Path, target: str) -> FileMounted:
    host, seen = file.parent, Path(target).parent
    for one, there in nginx.paths.items():
        if file.is_relative_to(one):
            host, seen = one, there
    line = f'paths = {{"{host}" = "{seen}"}}'
    return FileMounted(
        "the container of nginx has a single file mounted, and will never see a new one",
        expected=f"the directory {host} mounted, in which a rename is seen",
        found=f"{file} mounted as {target}",
        next=f"start the container with `-v {host}:{seen}:ro` in place of that mount, and set\n"
        f"{line}\nin its [[consumer.nginx]]; then `certcast pull`",
    )
