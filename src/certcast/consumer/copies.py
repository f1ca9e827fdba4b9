"""Fixed paths that sites already name: all of them get the release, or all stay as they were.

Second best, and only for sites that cannot include the snippet: files that are exchanged
one after the other are torn for a moment (docs/adr/0003). Everything slow comes first, so
that this moment is a few system calls long:

    prepare   beside each target: the new content, and a copy of what stands there now
    replace   rename, rename, …: fullchain.pem before privkey.pem
    keep      it is proved: forget the old          put_back   it failed: rename the old back

    /etc/nginx/ssl/example.pem                    the target
    /etc/nginx/ssl/.example.pem.certcast-new      its next content, with the owner and mode it will have
    /etc/nginx/ssl/.example.pem.certcast-old      what it was, 0600 until it is put back
    certs/example.com/copies-PHASE.json           which targets, and what they were; no content

The phase is part of that file's name and changes by a rename, so a killed run leaves no
doubt, and needs no room on a full disk: `preparing` and `leaving` mean that nothing is to be
undone, `replacing` that everything is. What a killed run left is settled as the first deed
of the next one, which then begins anew.

Certificate before key, since nginx reads them in this order, some δ apart: with g between
our two renames a reload meets a mixed pair during |g - δ| then, and during g + δ in the other
order.

A link is replaced, never written through: it may lead into certbot's archive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from certcast import files
from certcast.errors import CertcastError, LocalFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from certcast.config import CopyConfig
    from certcast.consumer.install import Folder

_AS_IT_WAS = "every target of copy_to is as it was; nginx was not touched"
_OLD = ".certcast-old"
_ORDER = ("fullchain.pem", "privkey.pem", "combined.pem", "cert.pem", "chain.pem")


@dataclass(frozen=True)
class Wanted:
    """What is to stand at `path`: content, and who may read it; an owner of -1 is whoever writes."""

    path: Path
    body: bytes
    owner: int
    group: int
    mode: int


@dataclass(frozen=True)
class Before:
    """What stood at `path`: nothing, a link (`leads_to`), or a file with its rights."""

    path: Path
    kind: Literal["nothing", "link", "file"]
    leads_to: str = ""
    owner: int = -1
    group: int = -1
    mode: int = 0


def targets(entries: tuple[CopyConfig, ...]) -> tuple[Path, ...]:
    """Return every path that is written."""
    return tuple(path for entry in entries for path in entry.targets.values())


class Copies:
    """The targets of one certificate. Callers hold the lock; `after` gets the name of each step."""

    def __init__(
        self, folder: Folder, entries: tuple[CopyConfig, ...], *, after: Callable[[str], None] | None = None
    ) -> None:
        self.entries = entries
        self._folder = folder
        self._after = after or (lambda _step: None)

    def in_place(self, version: str) -> bool:
        """Return whether every target is as configured: the version's content, owner, group and mode."""
        return all(_stands(wanted) for wanted in self._wanted(version))

    @contextlib.contextmanager
    def replaced(self, version: str) -> Iterator[None]:
        """Write the version to all targets; put all back if what is inside fails, unless `keep` came first.

        Raises LocalFault if a target cannot be written, with all as they were.
        """
        self._write(version)
        try:
            yield
        except BaseException:
            # The first failure outranks this one; the next run begins by trying again.
            with contextlib.suppress(CertcastError, OSError):
                self.put_back()
            raise
        self.keep()

    def keep(self) -> None:
        """Let the new files stay, and remove the copies of the old ones. Harmless twice."""
        # One rename decides; a run that is killed during the rest has nothing to put back any more.
        self._turn("replacing", "leaving")
        self._leave()

    def put_back(self) -> None:
        """Let every target be what it was. Harmless twice; LocalFault names what could not be put back."""
        failures = []
        noted = self._noted("replacing")
        for before in noted:
            try:
                _put_back(before)
            except OSError as error:
                failures.append((before.path, error))
            self._after(f"put back {before.path.name}")
        _sync_folders(before.path for before in noted)
        if failures:
            path = failures[0][0]
            raise LocalFault(
                f"{path} could not be put back to what it was",
                found="\n".join(f"{failed}: {why.strerror}" for failed, why in failures),
                kept=f"what it was stands in {_old(path)}",
                next="mend that, then run `certcast pull`; to leave it as it is, remove "
                f"{self._note('replacing')}",
            )
        self._turn("replacing", "leaving")
        self._leave()

    def settle(self) -> None:
        """Put back what a killed run replaced, and remove what it left beside the targets."""
        self.put_back()
        self._turn("preparing", "leaving")
        self._leave()

    # -- the three phases

    def _write(self, version: str) -> None:
        changes = [wanted for wanted in self._wanted(version) if not _stands(wanted)]
        if not changes:
            return
        try:
            noted = [_before(wanted) for wanted in changes]
            self._note_down(noted)
            self._after("noted")
            for wanted, before in zip(changes, noted, strict=True):
                with _reported(wanted):
                    _prepare(wanted, before)
            _sync_folders(wanted.path for wanted in changes)
            self._after("prepared")
            self._turn("preparing", "replacing")
            for wanted in changes:
                with _reported(wanted):
                    _replace(wanted.path, _new(wanted.path))
                self._after(f"copied {wanted.path.name}")
            _sync_folders(wanted.path for wanted in changes)
        except (CertcastError, OSError):
            with contextlib.suppress(CertcastError, OSError):
                self.settle()
            raise

    def _wanted(self, version: str) -> list[Wanted]:
        if not self.entries:
            return []
        from certcast.consumer import derived

        pair = self._folder.read(version)
        found = []
        for entry in self.entries:
            owner, group = _user(entry.owner), _group(entry.group)
            bodies = derived.files_of(pair, entry.targets)
            found += [
                (file, Wanted(path, bodies[file], owner, group, entry.mode))
                for file, path in entry.targets.items()
            ]
        return [wanted for _, wanted in sorted(found, key=lambda one: _ORDER.index(one[0]))]

    # -- the note of what is under way

    def _note(self, phase: str) -> Path:
        return self._folder.root / f"copies-{phase}.json"

    def _note_down(self, noted: list[Before]) -> None:
        document = [{**vars(before), "path": str(before.path)} for before in noted]
        files.write_json(self._note("preparing"), {"targets": document})

    def _noted(self, phase: str) -> list[Before]:
        path = self._note(phase)
        document = files.read_json(
            path, advice=f"remove {path}; `.*{_OLD}` beside each target is its old file"
        )
        if document is None:
            return []
        with files.understood(path):
            return [Before(**{**entry, "path": Path(entry["path"])}) for entry in document["targets"]]

    def _turn(self, phase: str, into: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._note(phase).rename(self._note(into))
            files.sync_dir(self._folder.root)

    def _leave(self) -> None:
        noted = self._noted("leaving")
        for before in noted:
            _remove_beside(before.path)
        if noted:
            self._after("left")
            self._note("leaving").unlink()


# -- one target


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.certcast-new")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}{_OLD}")


def _stands(wanted: Wanted) -> bool:
    try:
        found = wanted.path.lstat()
        return (
            stat.S_ISREG(found.st_mode)
            and wanted.mode == stat.S_IMODE(found.st_mode)
            and wanted.owner in {-1, found.st_uid}
            and wanted.group in {-1, found.st_gid}
            and wanted.body == wanted.path.read_bytes()
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def _before(wanted: Wanted) -> Before:
    path = wanted.path
    with _reported(wanted):
        path.parent.stat()  # a missing directory is not the same as a missing file
        try:
            found = path.lstat()
        except FileNotFoundError:
            return Before(path, "nothing")
        if stat.S_ISLNK(found.st_mode):
            return Before(path, "link", leads_to=os.readlink(path))  # noqa: PTH115  its text, to the letter
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a file", str(path))
        return Before(path, "file", owner=found.st_uid, group=found.st_gid, mode=stat.S_IMODE(found.st_mode))


def _prepare(wanted: Wanted, before: Before) -> None:
    path = wanted.path
    _remove_beside(path)  # a file of that name is what a certcast without its state_dir once left
    if before.kind == "link":
        _old(path).symlink_to(before.leads_to)
    elif before.kind == "file":
        # To its owner at once, so that a right that is missing shows now; its mode comes with the name.
        files.write_new(_old(path), path.read_bytes(), owner=before.owner, group=before.group)
    files.write_new(_new(path), wanted.body, owner=wanted.owner, group=wanted.group, mode=wanted.mode)


def _replace(path: Path, by: Path) -> None:
    """Rename, with a modification time that no file of this path had before.

    nginx >= 1.27.4 takes a file for the one that it has loaded if path, inode and the second of its
    mtime are the same; inodes are used again, and two changes may fall into one second.
    """
    moment = time.time_ns()
    with contextlib.suppress(FileNotFoundError):
        moment = max(moment, path.stat().st_mtime_ns + 1_000_000_000)
    os.utime(by, ns=(moment, moment), follow_symlinks=False)
    by.replace(path)


def _put_back(before: Before) -> None:
    path, old = before.path, _old(before.path)
    if os.path.lexists(_new(path)):
        return  # its turn never came
    if before.kind == "nothing":
        path.unlink(missing_ok=True)
    elif os.path.lexists(old):  # else it was put back before this run was killed
        if before.kind == "file":
            old.chmod(before.mode)
        _replace(path, old)


def _remove_beside(path: Path) -> None:
    for beside in (_new(path), _old(path)):
        if os.path.lexists(beside):  # a read-only file system refuses to remove also what isn't there
            beside.unlink()


def _sync_folders(paths: Iterable[Path]) -> None:
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            files.sync_dir(folder)


# -- users, and what may be wrong with a target


def _user(name: str | None) -> int:
    import pwd

    return _number(name, "owner", lambda known: pwd.getpwnam(known).pw_uid)


def _group(name: str | None) -> int:
    import grp

    return _number(name, "group", lambda known: grp.getgrnam(known).gr_gid)


def _number(name: str | None, word: str, look_up: Callable[[str], int]) -> int:
    if name is None:
        return -1
    if name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise LocalFault(
            f"this host has no {'user' if word == 'owner' else 'group'} {name}",
            expected=f"the {word} of an entry of copy_to",
            kept=_AS_IT_WAS,
            next=f"correct consumer.copy_to.{word}, or make {name}",
        ) from None


def _reported(wanted: Wanted) -> contextlib.AbstractContextManager[None]:
    path = wanted.path
    advice = {
        errno.ENOENT: f"make its directory (`install -d {path.parent}`), or correct consumer.copy_to",
        errno.EISDIR: "name a file in consumer.copy_to: each path is one file of the release",
        errno.EBUSY: "something is mounted on this very file: mount its directory instead",
    }
    if wanted.owner != -1 or wanted.group != -1:
        advice[errno.EPERM] = (
            "only root may give a file to another user, or to a group that it is not in: "
            "run as root, or leave owner and group out of consumer.copy_to"
        )
    return files.reported(f"write {path}", kept=_AS_IT_WAS, advice=advice)
