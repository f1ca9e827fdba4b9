"""The folder of one certificate: complete versions, and one small file that says which is served.

nginx reads certificate and key about a millisecond apart, and a new certificate beside an old key stops it
from starting. So a pair is one immutable directory, and the site includes one snippet that names it:

    versions/42-9c1f3ab2…/{fullchain,privkey}.pem   0700, 0600; beside them what is derived of the two
    nginx.conf                    the snippet: names that directory, absolutely; replaced by one rename
    nginx.etc-nginx-certs.conf    the same with the paths of a container (containers.py)
    current                       symlink for other programs; second best (docs/adr/0003)
    incoming-…/                   while a release is fetched and checked
    copies-….json (copies.py), handshakes.json (baseline.py), state.json (state.py), lock

A version, and each derived file, appears by a rename when complete and on disk: whatever is there is whole,
also after a power cut. `current` is the only link that certcast makes; no other link is written through.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.consumer.nginx import containers
from certcast.host import files, private_files
from certcast.release.certificate import describe, read_chain
from certcast.release.lifetime import utc_text
from certcast.report.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from certcast.config.model import NginxConfig
    from certcast.consumer.state import State
    from certcast.release.manifest import Manifest

KEPT_VERSIONS = 3

_VERSION = re.compile(r"(\d{1,16})-([0-9a-f]{16})")
# Taken literally by nginx without quotes. A `$` would be a variable even inside quotes:
# https://nginx.org/en/docs/http/ngx_http_ssl_module.html#ssl_certificate
_LITERAL_PATH = re.compile(r"[A-Za-z0-9/._+@=:,~-]+")
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


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
        self._roots = {self.snippet: self.root}  # snippet → the root as its nginx sees it
        for config in nginx:
            self._add_snippet(self.snippet_of(config), containers.path_inside(config, self.root))
        for root in self._roots.values():
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
        inside = containers.path_inside(nginx, self.root)
        if inside == self.root:
            return self.snippet
        mounted = inside.parent if inside.name == self.certificate else inside
        return self.root / f"nginx.{str(mounted).strip('/').replace('/', '-')}.conf"

    def _add_snippet(self, snippet: Path, root: Path) -> None:
        if self._roots.setdefault(snippet, root) != root:
            raise ConfigInvalid(
                f"two containers want {snippet.name} with different paths",
                expected="one of the two",
                found=f"{self._roots[snippet]} and {root}",
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

    def list_versions(self) -> dict[str, tuple[int, str]]:
        """Return the versions here, the newest first: directory name → sequence, 16 digits of the leaf."""
        names = [path.name for path in self.versions.iterdir()] if self.versions.is_dir() else []
        found = {name: (int(match[1]), match[2]) for name in names if (match := _VERSION.fullmatch(name))}
        return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))

    def other_leaves(self) -> set[str]:
        """Return 16 digits of each leaf of this host's other certificates."""
        versions = self.root.parent.glob("*/versions/*")
        others = (path for path in versions if path.parent != self.versions)
        return {match[2] for path in others if (match := _VERSION.fullmatch(path.name))}

    def find_version(self, leaf_sha256: str) -> str | None:
        """Return the version that holds the leaf, the newest if several do."""
        wanted = leaf_sha256[:16]
        return next((name for name, (_, leaf) in self.list_versions().items() if leaf == wanted), None)

    def read_files(self, version: str) -> dict[str, bytes]:
        """Return the files of a version that are there, by name."""
        return {
            path.name: path.read_bytes() for path in (self.versions / version).iterdir() if path.is_file()
        }

    def promote(self, incoming: Path, version: str) -> None:
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

    def has_files(self, version: str, bodies: Mapping[str, bytes]) -> bool:
        """Return whether the version has files of these names with these contents."""
        found = self.read_files(version)
        return all(found.get(name) == body for name, body in bodies.items())

    def add_files(self, version: str, bodies: Mapping[str, bytes]) -> None:
        """Put files beside the two of a version, where they are missing or different."""
        for name, body in bodies.items():
            if not self.has_files(version, {name: body}):
                files.write_atomically(self.versions / version / name, body)

    def prune(self, keep: Iterable[str | None]) -> None:
        """Remove all but the newest versions and those in `keep`.

        The previous version stays: nginx >= 1.27.4 knows certificate files by path, mtime and
        inode, and a deleted one's inode may come back under a new one's name.
        """
        for name in set(list(self.list_versions())[KEPT_VERSIONS:]) - set(keep):
            _remove(self.versions / name)
        self._remove_damaged()

    def _remove_damaged(self) -> None:
        for damaged in self.versions.glob(".damaged-*"):
            _remove(damaged)

    # -- what is served

    def point_snippets(self, version: str) -> None:
        """Let each snippet name `version`: one rename, and an nginx reads the old text or the new one."""
        for snippet, root in self._roots.items():
            files.write_atomically(snippet, self._snippet_text(version, root).encode())

    def point_current(self, version: str) -> None:
        """Let the symlink `current` lead to `version`."""
        beside = self.root / ".current.new"
        beside.symlink_to(Path("versions") / version)
        beside.replace(self.current)
        files.sync_dir(self.root)

    def is_pointed_at(self, version: str) -> bool:
        """Return whether each snippet names `version` and its two files are there."""
        for snippet, root in self._roots.items():
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


# -- derived files, for programs that want a release in another shape; nginx needs none of them


def derive(pair: Mapping[str, bytes], names: Iterable[str]) -> dict[str, bytes]:
    """Return the files called `names` of a release, made of its two (docs/adr/0002), byte for byte.

    cert.pem        the leaf: the first block of fullchain.pem, as certbot wrote it
    chain.pem       the intermediates: its other blocks (empty if there is none)
    combined.pem    the private key, then fullchain.pem (HAProxy, lighttpd, stunnel). The key comes first
                    because stunnel asks for that order (stunnel(8), "cert"); the others take any
    """
    chain, key = pair["fullchain.pem"], pair["privkey.pem"]
    blocks: list[bytes] = _BLOCK.findall(chain)
    bodies = {
        "fullchain.pem": chain,
        "privkey.pem": key,
        "cert.pem": b"".join(blocks[:1]),
        "chain.pem": b"".join(blocks[1:]),
        "combined.pem": key + (b"" if key.endswith(b"\n") else b"\n") + chain,
    }
    return {name: bodies[name] for name in names}


# -- rollback


@dataclass(frozen=True)
class Rollback:
    """The version to serve again; `flaw` says in words why clients should not get it, None if they may."""

    version: str
    flaw: str | None


def choose_rollback(
    folder: Folder, state: State, manifest: Manifest, now: datetime, *, instead_of: str, copies: bool
) -> Rollback | None:
    """Return the version to go back to from `instead_of`; None if this host has served nothing yet. OSError.

    The candidates, in this order; the first that is neither revoked nor expired is taken:

    1. the version that nginx was reloaded with last and that broke nothing, if the snippet still names it
    2. the version that handshakes showed last
    3. others that are here and were proved once, the newest first

    If all are revoked or expired, the first is taken with its flaw: a certificate that browsers warn of still
    serves some clients. With `copies`, 1 or 2 is taken, flawed or not: copies go back to what they were, and
    nginx should not get another certificate by the snippet than by them.
    """
    here = folder.list_versions()
    reloaded = state.reloaded_version
    served = [reloaded] if reloaded and folder.is_pointed_at(reloaded) else []
    if state.proved is not None and state.proved.version in here:
        served.append(state.proved.version)
    if not any(name != instead_of for name in served):
        return None
    proved_once = {leaf[:16] for leaf in state.once_proved}
    others = [] if copies else [name for name, (_, leaf) in here.items() if leaf in proved_once]
    candidates = [
        Rollback(name, _flaw(folder, name, manifest, now))
        for name in dict.fromkeys([*served, *others])
        if name != instead_of
    ]
    return candidates[0] if copies else next((c for c in candidates if c.flaw is None), candidates[0])


def _flaw(folder: Folder, version: str, manifest: Manifest, now: datetime) -> str | None:
    try:
        chain = read_chain(folder.read_files(version)["fullchain.pem"])
        leaf = describe(chain.leaf)
    except (KeyError, ValueError):
        return "which cannot be read"
    if leaf.sha256 in manifest.revoked:
        return "which is REVOKED"
    if leaf.not_after < now:
        return f"which EXPIRED {utc_text(leaf.not_after)}"
    return None
