"""A certificate that must be replaced before its time: what was asked for, until it is finished.

    --replace → written down here → order with a new key → published, the old leaves as `revoked`
              → time for every host to take it over → revoked at the CA (revocation.py) → forgotten

Written down before anything is ordered, so that whatever interrupts it, each later `certcast renew`
goes on: it orders as long as the live leaf is an old one, publishes what this host then holds, and
asks the CA only when the new one has been published for the time that was given.

    {state_dir}/revocations.json    {"example.com": {"reason": "keyCompromise", …, "olds": […]}}

The old ones are all that are still valid: whoever took a key from a host found the versions there
that certcast keeps, too. Their certificates (public) are in the file, since the versions on this host may
be gone by then.

By when: a CA must revoke within 24 hours of learning of a compromised key (CA/Browser Forum Baseline
Requirements, 4.9.1.1). Whoever holds the certificate has to ask promptly, but not before the hosts serve
the new one: they look every `idle_check`, an hour unless configured otherwise.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from certcast.host import files
from certcast.release.lifetime import from_utc_text, utc_text
from certcast.report.errors import LineageUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from certcast.release.certificate import Leaf
    from certcast.release.source import Source

# Of RFC 5280, 5.3.1, those that a holder may give. Let's Encrypt refuses affiliationChanged (Boulder,
# revocation/reasons.go, UserAllowedReasons); other CAs don't.
Reason = Literal["keyCompromise", "superseded", "cessationOfOperation", "affiliationChanged", "unspecified"]
REASONS: tuple[Reason, ...] = get_args(Reason)
REVOKE_AFTER = timedelta(hours=24)


@dataclass(frozen=True)
class Old:
    """A leaf to be revoked: its certificate `pem`, and the ACME directory that issued it.

    Both are None for one that is published and that this host does not hold.
    """

    sha256: str
    serial: str
    not_after: datetime
    pem: str | None = None
    directory: str | None = None


@dataclass(frozen=True)
class Replacement:
    """What was asked for one certificate.

    `after` is how long the new one is to be published before the CA is asked to revoke `olds`;
    `published_at` is when it first was.
    """

    name: str
    reason: Reason
    after: timedelta
    asked_at: datetime
    olds: tuple[Old, ...]
    published_at: datetime | None = None

    @property
    def leaves(self) -> tuple[str, ...]:
        """The SHA-256 of the old leaves."""
        return tuple(old.sha256 for old in self.olds)

    @property
    def due(self) -> datetime | None:
        """When the CA is asked; None as long as the new one is not published."""
        return None if self.published_at is None else self.published_at + self.after

    @property
    def command(self) -> str:
        """The command that goes on with it at once."""
        return f"`certcast renew --replace {self.name} --reason {self.reason}`"

    def text(self) -> str:
        """What a person is told once the new one is published."""
        assert self.due is not None
        serials = ", ".join(old.serial for old in self.olds)
        return (
            f"{self.name}: no host may serve serial {serials} any more ({self.reason}); "
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
            after = book[name].after if after is None else after
            book[name] = replace(book[name], reason=reason, after=after)
        else:
            after = REVOKE_AFTER if after is None else after
            book[name] = Replacement(name, reason, after, now, _valid(source, name, now))
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
        return {name: _from_document(name, fields) for name, fields in document.items()}


def add(state_dir: Path, name: str, leaf: Leaf) -> Replacement:
    """Add a leaf to be revoked that is published, and that this host does not hold: after a restore, say."""
    with _book(state_dir) as book:
        if leaf.sha256 not in book[name].leaves:
            old = Old(leaf.sha256, leaf.serial, leaf.not_after)
            book[name] = replace(book[name], olds=(*book[name].olds, old))
        return book[name]


def mark_published(state_dir: Path, name: str, now: datetime) -> Replacement:
    """Write down that the new certificate is published, and the old ones as revoked."""
    with _book(state_dir) as book:
        if book[name].published_at is None:
            book[name] = replace(book[name], published_at=now)
        return book[name]


def forget(state_dir: Path, name: str, old: Old) -> None:
    """Take away a leaf that the CA has revoked; with the last one the replacement is finished."""
    with _book(state_dir) as book:
        if name not in book:
            return
        left = tuple(one for one in book[name].olds if one.sha256 != old.sha256)
        if left:
            book[name] = replace(book[name], olds=left)
        else:
            del book[name]


def _valid(source: Source, name: str, now: datetime) -> tuple[Old, ...]:
    """Return all versions on this host that are still valid. LineageUnusable if none is."""
    found = [
        Old(
            one.leaf.sha256, one.leaf.serial, one.leaf.not_after, one.fullchain.decode("ascii"), one.directory
        )
        for one in source.all()
        if now < one.leaf.not_after
    ]
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
            files.write_json(path, {name: _to_document(asked) for name, asked in book.items()})


def _to_document(asked: Replacement) -> dict[str, Any]:
    return {
        "reason": asked.reason,
        "after_seconds": asked.after.total_seconds(),
        "asked_at": utc_text(asked.asked_at),
        "published_at": asked.published_at and utc_text(asked.published_at),
        "olds": [{**asdict(old), "not_after": utc_text(old.not_after)} for old in asked.olds],
    }


def _from_document(name: str, fields: dict[str, Any]) -> Replacement:
    if fields["reason"] not in REASONS:
        raise ValueError(f"{fields['reason']} is not a reason")
    return Replacement(
        name=name,
        reason=fields["reason"],
        after=timedelta(seconds=fields["after_seconds"]),
        asked_at=from_utc_text(fields["asked_at"]),
        olds=tuple(_old(old) for old in fields["olds"]),
        published_at=fields["published_at"] and from_utc_text(fields["published_at"]),
    )


def _old(fields: dict[str, Any]) -> Old:
    # certcast 0.1 wrote the number in certbot's archive down; the key is found by the leaf now.
    kept = {key: value for key, value in fields.items() if key != "version"}
    return Old(**{**kept, "not_after": from_utc_text(fields["not_after"])})
