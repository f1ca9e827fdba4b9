"""Order what is due: alone, counted, and only what could be published.

    lock → decide again → store and signing key looked at → all orders together (acme/issuance.py)

Not here: what is due (due.py), how an order goes (acme/order.py).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release.lifetime import utc_text
from certcast.report.errors import Busy, CertcastError, SourceUndecided, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certcast.acme.issued import OrderRecord
    from certcast.acme.order import OrderRequest
    from certcast.renewal.candidate import Candidate
    from certcast.renewal.reconcile import Renewal

_PATIENCE = 600.0  # for another run that orders
_STAYS = "what is published and served stays"


class Ordering:
    """The orders of one run."""

    def __init__(self, renewal: Renewal) -> None:
        self._renewal = renewal

    def order(self, candidates: Sequence[Candidate]) -> None:
        """Order what is due; decided again under the lock, since another run may have ordered meanwhile."""
        try:
            with self._one_at_a_time():
                for candidate in _due(candidates):
                    if candidate.source.exists() and candidate.source.mark() != candidate.mark:
                        self._renewal.attempt(candidate, self._renewal.look)
                for candidate in _due(candidates):
                    self._renewal.attempt(candidate, self._require_publishable)
                self._issue(_due(candidates))
        except Busy as failure:
            for candidate in _due(candidates):
                candidate.fail(failure)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Decide and order alone: a second run waits, and then finds what the first one has got.

        Publishing has a lock of its own, so that a deploy hook of certbot's waits for nothing.
        """
        path = self._renewal.config.state_dir / "renewing.lock"
        with ExitStack() as held:
            try:
                held.enter_context(files.lock(path))
            except Busy:
                self._renewal.progress("another `certcast renew` is at work; waiting for it")
                held.enter_context(files.lock(path, wait=_PATIENCE))
            yield

    def _require_publishable(self, candidate: Candidate) -> None:
        """Order nothing that this host could not publish, or that another one publishes."""
        wanted, due = candidate.wanted, candidate.due
        candidate.due = None  # unless all of this goes well
        try:
            with within(kept=f"nothing was ordered; {_STAYS}"):
                releases = self._renewal.releases(wanted)
                other = releases.published_by_another()
        except CertcastError as failure:
            raise _not_replaced(candidate, failure) from None
        if other is not None and not self._renewal.urgent and not self._renewal.emergency:
            raise SourceUndecided(
                f"{wanted.name}: another renewal host publishes this certificate, so none is ordered here",
                expected=f"what {releases.signer.publisher} has published, or nothing",
                found=f"serial {other.leaf.serial}, published by {other.publisher} "
                f"at {utc_text(other.published_at)}",
                next=f"let one host renew it: take it out of {self._renewal.config.path} here; "
                f"or, if {other.publisher} is gone, `certcast renew --now {wanted.name}`",
            )
        candidate.due = due

    def _issue(self, candidates: Sequence[Candidate]) -> None:
        if not candidates:
            return
        from certcast.acme.issuance import Issuance
        from certcast.acme.issued import Issued
        from certcast.dns01.challenges import Challenges

        renewal = self._renewal
        issuance = Issuance(
            renewal.ca(),
            Challenges(renewal.config, progress=renewal.progress, warn=renewal.warn),
            store_of=lambda name: Issued(renewal.config.state_dir, name),
            ca_at=renewal.ca,
            note=renewal.note,
        )
        outcome = issuance.issue([self._request(candidate) for candidate in candidates])
        renewal.left = list({failure.what: failure for failure in reversed(issuance.left)}.values())
        for candidate in candidates:
            _take_outcome(candidate, outcome.get(candidate.wanted.name))

    def _request(self, candidate: Candidate) -> OrderRequest:
        from certcast.acme import limits
        from certcast.acme.order import OrderRequest

        wanted, live, replacement, due = (
            candidate.wanted,
            candidate.live,
            candidate.replacement,
            candidate.due,
        )
        assert due is not None
        reuses = wanted.reuse_key and not due.new_key and self._is_of_key_type(candidate)
        caps = limits.USUAL
        if due.new_key:
            caps = limits.EMERGENCY if self._renewal.emergency else limits.REPLACING
        return OrderRequest(
            wanted,
            privkey=live.privkey if live is not None and reuses else None,
            replaces=self._replaces(candidate),
            caps=caps,
            not_before=replacement.asked_at if replacement is not None and due.new_key else None,
        )

    def _is_of_key_type(self, candidate: Candidate) -> bool:
        """Whether the live key is of the configured type, as far as that is written down."""
        if candidate.live is None:
            return False
        made = self._order_record(candidate)
        return made is None or made.key_type == candidate.wanted.key_type

    def _replaces(self, candidate: Candidate) -> str | None:
        """Return the identifier of the live certificate if this account has it from this CA (RFC 9773, 5)."""
        from certcast.acme.account import key_file, recorded_uri

        live, ca = candidate.live, self._renewal.ca()
        if not key_file(ca.folder).exists():
            return None  # another account is going to order
        if live is None or "renewalInfo" not in self._directory_or_nothing():
            return None
        if not set(live.leaf.names) & set(candidate.wanted.names):
            return None
        made = self._order_record(candidate)
        try:
            if made is None or (made.directory, made.account) != (ca.url, recorded_uri(ca.folder)):
                return None
        except CertcastError:
            return None
        return candidate.ca_id or None

    def _order_record(self, candidate: Candidate) -> OrderRecord | None:
        """Return how the live release was ordered; None where that is not written down."""
        from certcast.acme.issued import Issued

        assert candidate.live is not None
        store = Issued(self._renewal.config.state_dir, candidate.wanted.name)
        try:
            return store.record(candidate.live.version)
        except CertcastError:
            return None

    def _directory_or_nothing(self) -> dict[str, object]:
        from certcast.acme.protocol.answers import NoAnswer, Problem

        try:
            return self._renewal.ca().directory
        except (NoAnswer, Problem, ValueError):
            return {}  # the order itself tells of it


def _due(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.is_due]


def _take_outcome(candidate: Candidate, outcome: object) -> None:
    """Note what became of an order, with the reason where it is not this host's own."""
    remark = candidate.due.remark if candidate.due is not None else None
    if isinstance(outcome, CertcastError):
        if remark:
            outcome = outcome.but(found=f"{outcome.found or ''}\nordered because {remark}".strip())
        candidate.fail(_not_replaced(candidate, outcome))
    elif outcome is not None and remark:
        candidate.notes.append(f"{candidate.wanted.name}: ordered because {remark}")


def _not_replaced(candidate: Candidate, failure: CertcastError) -> CertcastError:
    """Add to a failure before publication what it means for a replacement."""
    if candidate.replacement is None or not candidate.is_to_be_replaced:
        return failure
    at_once = f"`certcast renew --replace {candidate.wanted.name} --reason {candidate.replacement.reason}`"
    more = f"the next `certcast renew` goes on with the replacement; {at_once} does so at once"
    return failure.but(
        kept=f"nothing was revoked; {failure.kept or _STAYS}",
        next=f"{failure.next}\n{more}" if failure.next else more,
    )
