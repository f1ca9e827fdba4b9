"""The folder of one certificate: complete versions, and one small file that says which.

nginx reads certificate and key about a millisecond apart, and a new certificate
beside an old key stops it from starting. So a pair is one immutable directory,
and the site includes one snippet that names it:

    certs/example.com/versions/42-9c1f3ab2…/{fullchain,privkey}.pem   0700, 0600
    certs/example.com/nginx.conf      names that directory, absolutely; replaced by one rename
    certs/example.com/nginx.etc-nginx-certs.conf   the same with the paths of a container (containers.py)
    certs/example.com/current         symlink for other programs; second best (docs/adr/0003)
    certs/example.com/incoming-…/     while a release is fetched and checked; then it is gone
    certs/example.com/copies-….json   while fixed paths are exchanged (copies.py)
    certs/example.com/handshakes.json from a reload to its verdict (baseline.py)
    certs/example.com/state.json      what the host remembers (state.py)
    certs/example.com/lock            one run at a time

A directory below versions/ appears by a rename when its files are complete and on
disk, so everything that stands there is whole, also after a power cut. Files that are derived
of these two (derived.py) come in beside them, each by a rename.

`current` is the only link here that certcast makes. One that somebody else has placed is never
written through: a linked folder is refused, any other link is removed or replaced.

Not here: whether a pair may be served (gate.py), and making nginx read it (switch.py).
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.consumer.nginx import containers
from certcast.host import files, private_files
from certcast.report.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from certcast.config.model import NginxConfig

KEPT_VERSIONS = 3

_VERSION = re.compile(r"(\d{1,16})-([0-9a-f]{16})")
# Taken literally by nginx without quotes. A `$` would be a variable even inside quotes:
# https://nginx.org/en/docs/http/ngx_http_ssl_module.html#ssl_certificate
_LITERAL_PATH = re.compile(r"[A-Za-z0-9/._+@=:,~-]+")


def version_name(sequence: int, leaf_sha256: str) -> str:
    """Return the directory name of a release: its sequence, and 16 digits of its leaf's SHA-256."""
    return f"{sequence}-{leaf_sha256[:16]}"


class Folder:
    """Where one certificate's files are on this host. Callers hold the lock, and expect OSError.

    Each of `nginx` that sees the folder under another path has a snippet of its own.
    """

    def __init__(self, state_dir: Path, certificate: str, nginx: Iterable[NginxConfig] = ()) -> None:
        self.certificate = certificate
        self.root = state_dir / "certs" / certificate
        self.versions = self.root / "versions"
        self.snippet = self.root / "nginx.conf"
        self.current = self.root / "current"
        self.state = self.root / "state.json"
        self.handshakes = self.root / "handshakes.json"
        self.lock = self.root / "lock"
        self._seen_at = {self.snippet: self.root}
        for one in nginx:
            self._add_snippet(self.snippet_of(one), containers.as_seen(one, self.root))
        for root in self._seen_at.values():
            if not _LITERAL_PATH.fullmatch(str(root)):
                raise ConfigInvalid(
                    f"{root} cannot stand in an nginx configuration",
                    expected="a path of letters, digits and /._+@=:,~-",
                    kept="nothing was changed",
                    next="choose another state_dir" if root == self.root else "mend consumer.nginx.paths",
                )
        private_files.require_no_link(self.root.parent, self.root, self.versions)

    def snippet_of(self, nginx: NginxConfig) -> Path:
        """Return the snippet that an nginx is to include, as this host sees it."""
        seen = containers.as_seen(nginx, self.root)
        if seen == self.root:
            return self.snippet
        where = seen.parent if seen.name == self.certificate else seen
        return self.root / f"nginx.{str(where).strip('/').replace('/', '-')}.conf"

    def _add_snippet(self, snippet: Path, seen: Path) -> None:
        if self._seen_at.setdefault(snippet, seen) != seen:
            raise ConfigInvalid(
                f"two containers want {snippet.name} with different paths",
                expected="one of the two",
                found=f"{self._seen_at[snippet]} and {seen}",
                kept="nothing was changed",
                next="choose another path inside for one of them in consumer.nginx.paths",
            )

    def sweep(self) -> None:
        """Remove what a crash may have left: staging folders hold keys, and must not stay."""
        for incoming in self.root.glob("incoming-*"):
            _remove(incoming)
        for version in self.versions.glob("*"):
            if version.is_symlink():  # derived files would be written where it leads
                version.unlink()
        for half_written in (*self.root.glob(".*.new"), *self.versions.glob("*/.*.new")):
            half_written.unlink()
        self._remove_damaged()

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a new folder (0700) on the same file system; it is gone afterwards, whatever happens."""
        incoming = self.root / f"incoming-{os.urandom(4).hex()}"
        incoming.mkdir(mode=0o700)
        try:
            yield incoming
        finally:
            _remove(incoming)

    # -- versions

    def held(self) -> dict[str, tuple[int, str]]:
        """Return the versions that are here: directory name → sequence, 16 digits of the leaf."""
        if not self.versions.is_dir():
            return {}
        found = {}
        for path in self.versions.iterdir():
            match = _VERSION.fullmatch(path.name)
            if match:
                found[path.name] = (int(match[1]), match[2])
        return found

    def leaves_of_others(self) -> set[str]:
        """Return 16 digits of each leaf of this host's other certificates."""
        versions = self.root.parent.glob("*/versions/*")
        others = (path for path in versions if path.parent != self.versions)
        return {match[2] for path in others if (match := _VERSION.fullmatch(path.name))}

    def version_of(self, leaf_sha256: str) -> str | None:
        """Return the version that holds the leaf, the newest if several do."""
        fitting = [
            (sequence, name) for name, (sequence, leaf) in self.held().items() if leaf == leaf_sha256[:16]
        ]
        return max(fitting)[1] if fitting else None

    def read(self, version: str) -> dict[str, bytes]:
        """Return the files of a version by name; a missing one is missing here too."""
        return {
            path.name: path.read_bytes() for path in (self.versions / version).iterdir() if path.is_file()
        }

    def take_over(self, incoming: Path, version: str) -> None:
        """Make a staged folder the version of that name, durably."""
        target = self.versions / version
        files.make_private_dir(self.versions)
        files.sync_dir(incoming)
        if target.exists():
            # Only a version that fails its digests is fetched again. It is moved aside rather than
            # mended in place, so that the name never stands for a half-written pair.
            target.rename(self.versions / f".damaged-{os.urandom(4).hex()}")
        incoming.rename(target)
        files.sync_dir(self.versions)
        files.sync_dir(self.root)

    def holds(self, version: str, others: Mapping[str, bytes]) -> bool:
        """Return whether the files stand in the version as they should be."""
        found = self.read(version)
        return all(found.get(name) == body for name, body in others.items())

    def add(self, version: str, others: Mapping[str, bytes]) -> None:
        """Put files beside the two of a version, where they are not there or not like this."""
        for name, body in others.items():
            if not self.holds(version, {name: body}):
                files.write_atomically(self.versions / version / name, body)

    def prune(self, keep: Iterable[str | None]) -> None:
        """Remove all but the newest versions and those in `keep`.

        The previous version stays: nginx >= 1.27.4 knows certificate files by path, mtime and
        inode, and a deleted one's inode may come back under a new one's name.
        """
        newest = sorted(self.held().items(), key=lambda item: item[1], reverse=True)[:KEPT_VERSIONS]
        for name in self.held().keys() - {name for name, _ in newest} - set(keep):
            _remove(self.versions / name)
        self._remove_damaged()

    def _remove_damaged(self) -> None:
        for damaged in self.versions.glob(".damaged-*"):
            _remove(damaged)

    # -- the switch

    def switch(self, version: str) -> None:
        """Let each snippet name `version`: one rename, and an nginx reads the one or the other."""
        for snippet, root in self._seen_at.items():
            files.write_atomically(snippet, self._snippet_text(version, root).encode())

    def point_current(self, version: str) -> None:
        """Let the symlink `current` lead to `version`."""
        beside = self.root / ".current.new"
        beside.symlink_to(Path("versions") / version)
        beside.replace(self.current)
        files.sync_dir(self.root)

    def serves(self, version: str) -> bool:
        """Return whether each snippet names `version` and its files are there."""
        for snippet, root in self._seen_at.items():
            try:
                text = snippet.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return False
            if text != self._snippet_text(version, root):
                return False
        pair = (self.versions / version / name for name in ("fullchain.pem", "privkey.pem"))
        return all(path.is_file() for path in pair)

    def _snippet_text(self, version: str, root: Path) -> str:
        folder = root / "versions" / version
        return (
            f"# {self.certificate}, version {version}. certcast replaces this file; edit the site instead.\n"
            f"ssl_certificate {folder}/fullchain.pem;\n"
            f"ssl_certificate_key {folder}/privkey.pem;\n"
        )


def _remove(folder: Path) -> None:
    import shutil

    if folder.is_symlink():
        folder.unlink()
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
