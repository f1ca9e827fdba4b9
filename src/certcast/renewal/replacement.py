"""A certificate that must be replaced before its time: what was asked for, until it is finished.

    --replace → written down here → order with a new key → published, the old leaves as `revoked`
              → time for every host to take it over → revoked at the CA (revocation.py) → forgotten

Written down before anything is ordered: whatever interrupts it, each later `certcast renew` goes on. It
orders as long as the live leaf is an old one, and publishes what this host then holds. It asks the CA only
when the new certificate has been published for the time that was given.

    {state_dir}/revocations.json    {"example.com": {"reason": "keyCompromise", …, "olds": […]}}

By when: a CA must revoke within 24 hours of learning of a compromised key (CA/Browser Forum Baseline
Requirements, 4.9.1.1). Ask promptly, but not before the hosts serve the new certificate: they look every
`idle_check`, an hour unless configured otherwise.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from certcast.host import files
from certcast.release import documents
from certcast.release.documents import Check, Sha256
from certcast.release.lifetime import utc_text
from certcast.report.errors import LineageUnusable, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from certcast.publisher.publication import Published
    from certcast.publisher.releases import Releases
    from certcast.release.certificate import Leaf
    from certcast.release.source import Release, Source

# Of RFC 5280, 5.3.1, those that a holder may give. Let's Encrypt refuses affiliationChanged (Boulder,
# revocation/reasons.go, UserAllowedReasons); other CAs don't.
Reason = Literal["keyCompromise", "superseded", "cessationOfOperation", "affiliationChanged", "unspecified"]
REASONS: tuple[Reason, ...] = get_args(Reason)
REVOKE_AFTER = timedelta(hours=24)


def _seconds(value: Any) -> float:
    if type(value) not in {int, float}:
        raise ValueError(f"must be a number of seconds, not {value!r}")
    return timedelta(seconds=value).total_seconds()


@dataclass(frozen=True)
class OldLeaf:
    """A leaf to be revoked: its certificate `pem`, and the ACME directory that issued it.

    The certificate (public) is kept here, since this host's versions may be gone by then. Both are None for
    a leaf that is published and that this host does not hold.
    """

    sha256: Sha256
    serial: str
    not_after: datetime
    pem: str | None = None
    directory: str | None = None


@dataclass(frozen=True)
class Replacement:
    """What was asked for one certificate.

    `after_seconds` is how long the new certificate is to be published before the CA is asked to revoke
    `olds`; `published_at` is when it first was. `olds` are all that are still valid: a thief who took a key
    from a host found the earlier versions there, too.
    """

    reason: Reason
    after_seconds: Annotated[float, Check(_seconds)]
    asked_at: datetime
    published_at: datetime | None
    olds: tuple[OldLeaf, ...]

    @property
    def leaves(self) -> tuple[str, ...]:
        """The SHA-256 of the old leaves."""
        return tuple(old.sha256 for old in self.olds)

    @property
    def due(self) -> datetime | None:
        """When the CA is asked; None as long as the new certificate is not published."""
        after = timedelta(seconds=self.after_seconds)
        return None if self.published_at is None else self.published_at + after

    def text(self, name: str) -> str:
        """Return what a person is told once the new certificate is published."""
        assert self.due is not None
        serials = ", ".join(old.serial for old in self.olds)
        return (
            f"{name}: no host may serve serial {serials} any more ({self.reason}); "
            f"the first `certcast renew` after {utc_text(self.due)} revokes it at the CA"
        )


def ask(
    state_dir: Path, source: Source, name: str, *, reason: Reason, after: timedelta | None, now: datetime
) -> Replacement:
    """Write down that the certificate `name` is to be replaced, and which leaves are then to be revoked.

    Asked again before it is finished, it goes on with the first; only `reason` and `after` change, the
    latter unless it is None. For the first time None is REVOKE_AFTER.
    Raises LineageUnusable if there is nothing to replace, LocalFault.
    """
    with _book(state_dir) as book:
        if name in book:
            before = book[name]
            seconds = before.after_seconds if after is None else after.total_seconds()
            book[name] = replace(before, reason=reason, after_seconds=seconds)
        else:
            seconds = (REVOKE_AFTER if after is None else after).total_seconds()
            book[name] = Replacement(reason, seconds, now, None, _find_valid(source, name, now))
        return book[name]


def pending(state_dir: Path, name: str) -> Replacement | None:
    """Return what was asked for and is not finished. LocalFault if the file is damaged."""
    return everything(state_dir).get(name)


def everything(state_dir: Path) -> dict[str, Replacement]:
    """Return all that is not finished, by the certificate's name. LocalFault if the file is damaged."""
    path = _path(state_dir)
    advice = f"restore {path} from a backup, or move it away and ask for the replacement again"
    document = files.read_json(path, advice=advice) or {}
    with files.understood(path, advice=advice):
        for old in [old for fields in document.values() for old in fields["olds"]]:
            # certcast 0.1 wrote the number in certbot's archive down; the key is found by the leaf now.
            old.pop("version", None)
        return documents.structure(document, dict[str, Replacement])


def publish(
    releases: Callable[[], Releases], live: Release, *, now: datetime, note: Callable[[str], None]
) -> Published:
    """Publish a release if it is newer, and as revoked what it replaces; `note` gets the change, in words.

    Raises as `Releases.publish` does.
    """
    with within(kept="what is published and served stays"):  # a store knows only of requests
        place = releases()
        state_dir, name = place.signer.state_dir, place.wanted.name
        replacement = pending(state_dir, name)
        if replacement is None or live.leaf.sha256 in replacement.leaves:
            return place.publish(live, now=now)
        is_first = replacement.published_at is None
        current = place.current() if is_first else None
        if current is not None and current.leaf.sha256 != live.leaf.sha256:
            replacement = add(state_dir, name, current.leaf)
        done = place.publish(live, now=now, revoke=replacement.leaves)
        replacement = mark_published(state_dir, name, now)
        if is_first:
            note(replacement.text(name))
        return done


def add(state_dir: Path, name: str, leaf: Leaf) -> Replacement:
    """Add a leaf to be revoked that is published, and that this host does not hold: after a restore, say."""
    with _book(state_dir) as book:
        if leaf.sha256 not in book[name].leaves:
            old = OldLeaf(leaf.sha256, leaf.serial, leaf.not_after)
            book[name] = replace(book[name], olds=(*book[name].olds, old))
        return book[name]


def mark_published(state_dir: Path, name: str, now: datetime) -> Replacement:
    """Write down that the new certificate is published, and the old ones as revoked."""
    with _book(state_dir) as book:
        if book[name].published_at is None:
            book[name] = replace(book[name], published_at=now)
        return book[name]


def forget(state_dir: Path, name: str, old: OldLeaf) -> None:
    """Take away a leaf that the CA has revoked; with the last one the replacement is finished."""
    with _book(state_dir) as book:
        if name not in book:
            return
        left = tuple(other for other in book[name].olds if other.sha256 != old.sha256)
        if left:
            book[name] = replace(book[name], olds=left)
        else:
            del book[name]


def _find_valid(source: Source, name: str, now: datetime) -> tuple[OldLeaf, ...]:
    """Return all versions on this host that are still valid. LineageUnusable if none is."""
    found = []
    for version in source.all():
        leaf = version.leaf
        if now < leaf.not_after:
            pem = version.fullchain.decode("ascii")
            found.append(OldLeaf(leaf.sha256, leaf.serial, leaf.not_after, pem, version.directory))
    if not found:
        raise LineageUnusable(
            f"{name}: there is no certificate to replace",
            expected=f"a valid one in {source.place}",
            found="none",
            kept="nothing was ordered or revoked",
            next=f"`certcast renew {name}` gets the first one",
        )
    return tuple(found)


# -- the file


def _path(state_dir: Path) -> Path:
    return state_dir / "revocations.json"


@contextmanager
def _book(state_dir: Path) -> Iterator[dict[str, Replacement]]:
    """Hold the lock with the list read; write what the caller makes of it, unless an exception ends it."""
    with files.lock(state_dir / "revocations.lock", wait=10.0):
        book = everything(state_dir)
        yield book
        path = _path(state_dir)
        with files.reported(f"write {path}", kept="what is published and served stays"):
            documents.write(path, book)
