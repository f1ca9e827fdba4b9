"""What a consumer remembers of one certificate between runs, and when it asks the store again.

One file, replaced by one rename: what is proved and what is unfinished cannot disagree. `unfinished` is
written before anything is fetched and cleared with the proof, so no crash can hide behind a window, an idle
check or a 304.

Imported by every run, also the one with nothing to do: no X.509 library here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import documents
from certcast.release.certificate import Leaf
from certcast.release.lifetime import remaining_text

if TYPE_CHECKING:
    from pathlib import Path

# What the file has always called two of the fields.
_KEYS = {"reloaded_version": "standing", "reloaded_config": "standing_with"}
_FIELDS = {key: name for name, key in _KEYS.items()}
# Every version has written these. A file without them is damaged, and must not pass for a fresh host's state.
_ALWAYS_WRITTEN = ("sequence", "proved", "expires", "last_checked", "last_downloaded")


@dataclass(frozen=True)
class ProvedRelease:
    """A release that was seen served: its leaf, its directory, the MD5 (hex) of its files, its key's type.

    `key_type` is None where certcast 0.1 wrote the state.
    """

    leaf: Leaf
    version: str
    md5: dict[str, str]
    key_type: str | None = None


@dataclass(frozen=True)
class State:
    """The memory of one certificate.

    last_downloaded   when a release was last taken into service
    last_checked      when the store last answered
    store, sequence   the highest sequence that was accepted, and where
    seen, expires     that manifest as it was signed, and until when it counts
    seen_by           the fingerprint of the key that signed it
    former            the versions that were here when that key was another one, which is pinned no more
    etag              the manifest's ETag, only once the release is proved
    unfinished        the leaf that was accepted and is not proved yet
    broke             the leaf that lost handshakes, so that it was taken back
    reloaded_version  the version that nginx was reloaded with and that broke nothing, while it is not proved
    reloaded_config   the SHA-256 of nginx's configuration then; None as soon as a run takes anything up
    proved            the release that handshakes last showed
    once_proved       the leaves that they have shown, the last ten: what may be served again
    leaves            the last hundred leaves that were accepted here: a handshake that shows one is outdated
    sealed_etag       the ETag of what is sealed to this host, of the release of `sealed_leaf`
    sealed_to         the fingerprint of the identity that it opened with
    """

    last_downloaded: datetime | None = None
    last_checked: datetime | None = None
    store: str = ""
    sequence: int = 0
    seen: str | None = None
    seen_by: str | None = None
    former: tuple[str, ...] = ()
    expires: datetime | None = None
    etag: str | None = None
    unfinished: str | None = None
    broke: str | None = None
    reloaded_version: str | None = None
    reloaded_config: str | None = None
    proved: ProvedRelease | None = None
    once_proved: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    sealed_etag: str | None = None
    sealed_leaf: str | None = None
    sealed_to: str | None = None

    @staticmethod
    def read(path: Path) -> State:
        """Return the state in `path`; an empty one if there is no file. LocalFault if it is damaged."""
        document = files.read_json(path)
        if document is None:
            return State()
        with files.understood(path):
            if missing := [name for name in _ALWAYS_WRITTEN if name not in document]:
                raise ValueError(f"{', '.join(missing)} missing")
            return documents.structure(
                {_FIELDS.get(key, key): value for key, value in document.items()}, State
            )

    def write(self, path: Path) -> None:
        """Replace the state in `path`, durably. OSError if the disk refuses."""
        document = documents.unstructure(self)
        files.write_json(path, {_KEYS.get(name, name): value for name, value in document.items()})

    def at(self, store: str) -> State:
        """Return what still holds for `store`: after a move the sequence does, the old manifest doesn't."""
        if self.store == store:
            return self
        return replace(
            self, store=store, seen=None, expires=None, etag=None, sealed_etag=None, last_checked=None
        )

    def proving(self, proved: ProvedRelease) -> State:
        """Return the state with which a release has been seen served: nothing is unfinished any more."""
        return replace(
            self,
            proved=proved,
            once_proved=_with_last(self.once_proved, proved.leaf.sha256, 10),
            unfinished=None,
            broke=None,
            reloaded_version=None,
            reloaded_config=None,
        )

    def accepting(self, leaf_sha256: str) -> State:
        """Return the state with which a release is taken up: every run is due until its proof."""
        leaves = _with_last(self.leaves, leaf_sha256, 100)
        return replace(self, unfinished=leaf_sha256, etag=None, reloaded_config=None, leaves=leaves)

    def why_due(self, now: datetime, idle_check: float) -> str | None:
        """Return why the store is to be asked at `now`, in words, or None.

        `idle_check` is the number of seconds between two requests outside the window; infinity for none.
        """
        if self.proved is None:
            return "nothing is installed yet"
        if self.unfinished is not None:
            return "an installation is unfinished"
        if self.proved.leaf.life.in_window(now):
            return f"in the window, {remaining_text(self.proved.leaf.not_after, now)} left"
        if idle_check == float("inf"):
            return None
        if self.expires is not None and self.expires < now:
            return "the manifest has expired"  # an alarm must not pause until the next idle check
        return "idle check" if _is_long_ago(self.last_checked, now, idle_check) else None


def _is_long_ago(moment: datetime | None, now: datetime, seconds: float) -> bool:
    # A moment in the future: the clock was set back, and waiting for that day could take years.
    return moment is None or not timedelta(0) <= now - moment < timedelta(seconds=seconds)


def _with_last(leaves: tuple[str, ...], last: str, most: int) -> tuple[str, ...]:
    return (*(leaf for leaf in leaves if leaf != last), last)[-most:]
