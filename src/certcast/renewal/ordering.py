"""Order what is due: alone, counted, and only what could be published.

    lock → decide again → store and signing key looked at → all orders together (acme/issuance.py)

Not here: what is due (due.py), how an order goes (acme/order.py).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release.lifetime import utc_text
from certcast.renewal.candidate import certificate_id_of, due
from certcast.report.errors import Busy, CertcastError, SourceUndecided

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from certcast.acme.order import OrderRequest
    from certcast.renewal.candidate import Look
    from certcast.renewal.reconcile import Renewal

_PATIENCE = 600.0  # for another run that orders
_STAYS = "what is published and served stays"


class Ordering:
    """The orders of one run."""

    def __init__(self, renewal: Renewal) -> None:
        self._renewal = renewal

    def order(self, looks: Sequence[Look]) -> None:
        """Order what is due; decided again under the lock, since another run may have ordered meanwhile."""
        try:
            with self._one_at_a_time():
                for look in due(looks):
                    if look.source.exists() and look.source.mark() != look.mark:
                        self._renewal.collected(look, self._renewal.look)
                for look in due(looks):
                    self._renewal.collected(look, self._require_publishable)
                self._issue(due(looks))
        except Busy as failure:
            for look in due(looks):
                look.fail(failure)

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

    def _require_publishable(self, look: Look) -> None:
        """Order nothing that this host could not publish, or that another one publishes."""
        from certcast.publisher.releases import published_by_another

        wanted, decided = look.wanted, look.decided
        look.decided = None  # unless all of this goes well
        try:
            other = published_by_another(wanted, self._renewal.open_store(), self._renewal.signer())
        except CertcastError as failure:
            failure.kept = failure.kept or f"nothing was ordered; {_STAYS}"
            raise self._not_replaced(look, failure) from None
        if other is not None and not self._renewal.urgent and not self._renewal.emergency:
            raise SourceUndecided(
                f"{wanted.name}: another renewal host publishes this certificate, so none is ordered here",
                expected=f"what {self._renewal.signer().publisher} has published, or nothing",
                found=f"serial {other.leaf.serial}, published by {other.publisher} "
                f"at {utc_text(other.published_at)}",
                kept=_STAYS,
                next=f"let one host renew it: take it out of {self._renewal.config.path} here; "
                f"or, if {other.publisher} is gone, `certcast renew --now {wanted.name}`",
            )
        look.decided = decided

    def _issue(self, looks: Sequence[Look]) -> None:
        if not looks:
            return
        from certcast.acme.issuance import Issuance
        from certcast.acme.issued import Issued
        from certcast.dns01.challenges import Challenges

        issuance = Issuance(
            self._renewal.ca(),
            Challenges(self._renewal.config, progress=self._renewal.progress, warn=self._renewal.warn),
            store_of=lambda name: Issued(self._renewal.config.state_dir, name),
            ca_at=self._renewal.ca,
            note=self._renewal.note,
        )
        outcome = issuance.issue([self._request(look) for look in looks])
        self._renewal.left = list({failure.what: failure for failure in reversed(issuance.left)}.values())
        for look in looks:
            found = outcome.get(look.wanted.name)
            assert look.decided is not None
            remark = look.decided.remark
            if isinstance(found, CertcastError):
                if remark:
                    found.found = f"{found.found or ''}\nordered because {remark}".strip()
                look.fail(self._not_replaced(look, found))
            elif found is not None and remark:
                look.done.notes.append(f"{look.wanted.name}: ordered because {remark}")

    def _request(self, look: Look) -> OrderRequest:
        from certcast.acme import limits
        from certcast.acme.order import OrderRequest

        wanted, live, decided = look.wanted, look.live, look.decided
        assert decided is not None
        reused = wanted.reuse_key and not decided.new_key and self._is_of_key_type(look)
        caps = limits.USUAL
        if decided.new_key:
            caps = limits.EMERGENCY if self._renewal.emergency else limits.REPLACING
        return OrderRequest(
            wanted,
            privkey=live.privkey if live is not None and reused else None,
            replaces=self._replaces(look),
            caps=caps,
            not_before=look.asked.asked_at if look.asked is not None and decided.new_key else None,
        )

    def _is_of_key_type(self, look: Look) -> bool:
        """Whether the live key is of the configured type, as far as that is written down."""
        from certcast.acme.issued import Issued

        if look.live is None:
            return False
        try:
            made = Issued(self._renewal.config.state_dir, look.wanted.name).record(look.live.version)
        except CertcastError:
            return True
        return made.key_type == look.wanted.key_type

    def _replaces(self, look: Look) -> str | None:
        """Return the identifier of the live certificate if this account has it from this CA (RFC 9773, 5)."""
        from certcast.acme.account import key_file, recorded_uri
        from certcast.acme.issued import Issued

        live = look.live
        if not key_file(self._renewal.ca().folder).exists():
            return None  # another account is going to order
        if live is None or "renewalInfo" not in self._directory_or_nothing():
            return None
        if not set(live.leaf.names) & set(look.wanted.names):
            return None
        try:
            made = Issued(self._renewal.config.state_dir, look.wanted.name).record(live.version)
            if (made.directory, made.account) != (
                self._renewal.ca().url,
                recorded_uri(self._renewal.ca().folder),
            ):
                return None
            return certificate_id_of(live) or None
        except CertcastError:
            return None

    def _directory_or_nothing(self) -> dict[str, object]:
        from certcast.acme.protocol.answers import NoAnswer, Problem

        try:
            return self._renewal.ca().directory
        except (NoAnswer, Problem, ValueError):
            return {}  # the order itself tells of it

    def _not_replaced(self, look: Look, failure: CertcastError) -> CertcastError:
        """Add to a failure before publication what it means for a replacement."""
        if not look.is_old:
            return failure
        assert look.asked is not None
        failure.kept = f"nothing was revoked; {failure.kept or _STAYS}"
        more = f"the next `certcast renew` goes on with the replacement; {look.asked.command} does so at once"
        failure.next = f"{failure.next}\n{more}" if failure.next else more
        return failure
