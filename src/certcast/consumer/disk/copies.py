"""Fixed paths that sites already name: all of them get the release, or all stay as they were.

Second best, for sites that cannot include the snippet: files that are exchanged in turn do not fit together
for a moment (docs/adr/0003). Everything slow comes first, so this moment is a few system calls long:

    prepare    beside each target: the new content, and a copy of the old one
    replace    rename, rename, …: fullchain.pem before privkey.pem
    keep       the release is proved: forget the old         put_back   it failed: rename the old back

`copies-PHASE.json` in the certificate's folder notes which targets there are, and what they were; no content.
Its phase changes by a rename, which needs no room on a full disk: `preparing` and `leaving` mean that nothing
is to be undone, `replacing` that everything is. What a killed run left, the next one settles first.

Certificate before key, since nginx reads them in this order, a time δ apart: with g between our two renames a
reload meets a mixed pair during |g - δ|; in the other order during g + δ.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.consumer.disk import fixed_path
from certcast.consumer.disk.fixed_path import Before, Wanted
from certcast.consumer.disk.versions import derive
from certcast.host import files
from certcast.release import documents
from certcast.report.errors import CertcastError, LocalFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certcast.config.model import CopyConfig
    from certcast.consumer.disk.versions import Folder

_ORDER = ("fullchain.pem", "privkey.pem", "combined.pem", "cert.pem", "chain.pem")


def targets(entries: tuple[CopyConfig, ...]) -> tuple[Path, ...]:
    """Return every path that is written."""
    return tuple(path for entry in entries for path in entry.targets.values())


@dataclass(frozen=True)
class Note:
    """What the targets under way were before."""

    targets: tuple[Before, ...]


class Copies:
    """The targets of one certificate. Callers hold the lock; `after` gets the name of each step."""

    def __init__(
        self, folder: Folder, entries: tuple[CopyConfig, ...], *, after: Callable[[str], None] | None = None
    ) -> None:
        self.entries = entries
        self._folder = folder
        self._after = after or (lambda _step: None)

    def is_in_place(self, version: str) -> bool:
        """Return whether every target is as configured: the version's content, owner, group and mode."""
        return all(fixed_path.is_in_place(wanted) for wanted in self._wanted(version))

    @contextlib.contextmanager
    def replaced(self, version: str) -> Iterator[None]:
        """Write the version to all targets; put all back if the block fails, unless `keep` came first.

        LocalFault if a target cannot be written, with all as they were.
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
        self._finish("replacing")

    def put_back(self) -> None:
        """Let every target be what it was. Harmless twice; LocalFault names what could not be put back."""
        failures = []
        noted = self._read_note("replacing")
        for before in noted:
            try:
                fixed_path.put_back(before)
            except OSError as error:
                failures.append((before.path, error))
            self._after(f"put back {before.path.name}")
        fixed_path.sync_folders(before.path for before in noted)
        if failures:
            path = failures[0][0]
            raise LocalFault(
                f"{path} could not be put back to what it was",
                found="\n".join(f"{failed}: {why.strerror}" for failed, why in failures),
                kept=f"its old content is in {fixed_path.beside_old(path)}",
                next="mend that, then run `certcast pull`; to leave it as it is, remove "
                f"{self._note('replacing')}",
            )
        self._finish("replacing")

    def settle(self) -> None:
        """Put back what a killed run replaced, and remove what it left beside the targets."""
        self.put_back()
        self._finish("preparing")

    # -- the three phases

    def _write(self, version: str) -> None:
        changes = [wanted for wanted in self._wanted(version) if not fixed_path.is_in_place(wanted)]
        if not changes:
            return
        try:
            noted = tuple(fixed_path.inspect(wanted) for wanted in changes)
            documents.write(self._note("preparing"), Note(noted))
            self._after("noted")
            for wanted, before in zip(changes, noted, strict=True):
                with fixed_path.explain_errors(wanted):
                    fixed_path.prepare(wanted, before)
            fixed_path.sync_folders(wanted.path for wanted in changes)
            self._after("prepared")
            self._change_phase("preparing", "replacing")
            for wanted in changes:
                with fixed_path.explain_errors(wanted):
                    fixed_path.replace(wanted.path, fixed_path.beside_new(wanted.path))
                self._after(f"copied {wanted.path.name}")
            fixed_path.sync_folders(wanted.path for wanted in changes)
        except BaseException:  # a Ctrl-C between two renames, too
            with contextlib.suppress(CertcastError, OSError):
                self.settle()
            raise

    def _wanted(self, version: str) -> list[Wanted]:
        if not self.entries:
            return []
        pair = self._folder.read_files(version)
        found = []
        for entry in self.entries:
            owner, group = fixed_path.find_owner(entry)
            for file, body in derive(pair, entry.targets).items():
                found.append((file, Wanted(entry.targets[file], body, owner, group, entry.mode)))
        _require_different(targets(self.entries))
        return [wanted for _, wanted in sorted(found, key=lambda item: _ORDER.index(item[0]))]

    # -- the note of what is under way

    def _note(self, phase: str) -> Path:
        return self._folder.root / f"copies-{phase}.json"

    def _read_note(self, phase: str) -> tuple[Before, ...]:
        path = self._note(phase)
        advice = f"remove {path}; `.*{fixed_path.OLD}` beside each target is its old file"
        note = documents.read(path, Note, advice=advice)
        return note.targets if note else ()

    def _change_phase(self, phase: str, into: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._note(phase).rename(self._note(into))
            files.sync_dir(self._folder.root)

    def _finish(self, phase: str) -> None:
        # One rename decides: a run that is killed during the rest has nothing to put back any more.
        self._change_phase(phase, "leaving")
        noted = self._read_note("leaving")
        for before in noted:
            fixed_path.remove_beside(before.path)
        if noted:
            self._after("left")
            self._note("leaving").unlink()


def _require_different(paths: tuple[Path, ...]) -> None:
    """Raise LocalFault if links make one file of two targets: neither could stay what it should be."""
    seen: dict[Path, Path] = {}
    for path in paths:
        other = seen.setdefault(path.parent.resolve() / path.name, path)
        if other is not path:
            raise LocalFault(
                "two targets of copy_to are the same file",
                found=f"{other}\n{path}",
                kept=fixed_path.AS_IT_WAS,
                next="leave one of them in consumer.copy_to; then `certcast pull`",
            )
