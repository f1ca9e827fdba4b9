"""What a consumer remembers of one certificate between runs, and when it looks again.

    last_downloaded   when a release was last taken into service
    last_checked      when the store last answered
    store, sequence   the highest sequence that was accepted, and where
    seen, expires     that manifest as it was signed, and until when it counts
    seen_by           the fingerprint of the key that signed it
    former            the versions that were here when that key was another one, which is pinned no more
    sealed_etag       the ETag of what is sealed to this host, of the release of sealed_leaf
    sealed_to         the fingerprint of the identity that it opened with
    etag              its ETag, only once the release is proved
    unfinished        the leaf that was accepted and is not proved yet
    broke             the leaf whose handshakes broke, so that it was taken back
    standing          the version that nginx was reloaded with and broke nothing, while it is not proved
    standing_with     the SHA-256 of nginx's configuration then; None as soon as a run takes anything up
    proved            the release that handshakes last showed
    once_proved       the leaves that they have shown, the last ten: what may be served again
    leaves            those that were accepted here, the last hundred: who still shows one is stale

One file, replaced by one rename: what is proved and what is unfinished cannot
disagree. `unfinished` is written before anything is fetched and cleared with the
proof, so no crash can hide behind a window, an idle check or a 304.

Imported by every run, also the one with nothing to do: no X.509 library here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from certcast.host import files
from certcast.release.certificate import Leaf
from certcast.release.lifetime import from_utc_text, remaining_text, utc_text

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Proved:
    """A release that was seen served: its leaf, its directory, the MD5 (hex) of its files, its key's type.

    `key_type` is None where certcast 0.1 wrote the state.
    """

    leaf: Leaf
    version: str
    md5: dict[str, str]
    key_type: str | None = None


@dataclass(frozen=True)
class State:
    """The memory of one certificate; the fields are explained above."""

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
    standing: str | None = None
    standing_with: str | None = None
    proved: Proved | None = None
    once_proved: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    sealed_etag: str | None = None
    sealed_leaf: str | None = None
    sealed_to: str | None = None

    def at(self, store: str) -> State:
        """Return what still holds for `store`: after a move the sequence does, the old manifest doesn't."""
        if self.store == store:
            return self
        return replace(
            self, store=store, seen=None, expires=None, etag=None, sealed_etag=None, last_checked=None
        )

    def proving(self, proved: Proved) -> State:
        """Return the state with which a release has been seen served: nothing is unfinished any more."""
        leaf = proved.leaf.sha256
        once = (*(one for one in self.once_proved if one != leaf), leaf)[-10:]
        return replace(
            self,
            proved=proved,
            once_proved=once,
            unfinished=None,
            broke=None,
            standing=None,
            standing_with=None,
        )

    def accepting(self, leaf_sha256: str) -> State:
        """Return the state with which a release is taken up: every run is due until its proof."""
        leaves = (*(leaf for leaf in self.leaves if leaf != leaf_sha256), leaf_sha256)
        return replace(self, unfinished=leaf_sha256, etag=None, standing_with=None, leaves=leaves[-100:])


def due(state: State, now: datetime, idle_check: float) -> str | None:
    """Return why the store is to be asked at `now`, in words, or None.

    `idle_check` is the number of seconds between two looks outside the window;
    infinity for none at all.
    """
    if state.proved is None:
        return "nothing is installed yet"
    if state.unfinished is not None:
        return "an installation is unfinished"
    if state.proved.leaf.life.in_window(now):
        return f"in the window, {remaining_text(state.proved.leaf.not_after, now)} left"
    if idle_check == float("inf"):
        return None
    if state.expires is not None and state.expires < now:
        return "the manifest has expired"  # an alarm must not pause until the next idle check
    return "idle check" if _long_ago(state.last_checked, now, idle_check) else None


def _long_ago(last_checked: datetime | None, now: datetime, idle_check: float) -> bool:
    if last_checked is None:
        return True
    # A look in the future means that the clock was set back; waiting for that day could take years.
    return not timedelta(0) <= now - last_checked < timedelta(seconds=idle_check)


def load(path: Path) -> State:
    """Read the state; an empty one if there is no file. LocalFault if it cannot be understood."""
    document = files.read_json(path)
    if document is None:
        return State()
    with files.understood(path):
        return _from_document(document)


def save(path: Path, state: State) -> None:
    """Replace the state file, durably. OSError if the disk refuses."""
    files.write_json(path, _to_document(state))


_MOMENTS = ("last_downloaded", "last_checked", "expires")


def _to_document(state: State) -> dict[str, Any]:
    document = asdict(state)
    for name in _MOMENTS:
        document[name] = document[name] and utc_text(document[name])
    if state.proved is not None:
        leaf = document["proved"]["leaf"]
        for name in ("not_before", "not_after"):
            leaf[name] = utc_text(leaf[name])
    return document


def _from_document(document: dict[str, Any]) -> State:
    proved = document["proved"]
    if proved is not None:
        leaf = proved["leaf"]
        dates = {name: from_utc_text(leaf[name]) for name in ("not_before", "not_after")}
        facts = Leaf(**{**leaf, **dates, "names": tuple(leaf["names"])})
        proved = Proved(**{**proved, "leaf": facts})
    return State(
        **{
            **document,
            **{name: document[name] and from_utc_text(document[name]) for name in _MOMENTS},
            "sequence": int(document["sequence"]),
            "proved": proved,
            "leaves": tuple(document.get("leaves", ())),
            "former": tuple(document.get("former", ())),
            "once_proved": tuple(document.get("once_proved", ())),
        }
    )
