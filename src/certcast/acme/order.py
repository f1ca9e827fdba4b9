"""One order, in protocol order (RFC 8555, 7.4), as two halves with the DNS in between.

    open       account → the order under way, or newOrder → authorizations → the challenges to fulfil
                                        (TXT records are added and seen: issuance.py, dns01/)
    complete   answer → poll until ready → finalize → poll until valid → download → check → store
    give_up    deactivate what is pending; forget key and order

An order is on disk from newOrder's answer on (pending.py), so each half may be repeated after a crash. A
pause between two polls begins at 50 ms, grows, and obeys Retry-After.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from certcast.acme import limits, pending
from certcast.acme.account import recorded_uri
from certcast.acme.ca import Ca, is_url
from certcast.acme.certified import alternates, ends_at, new_key, require_ordered
from certcast.acme.issued import Issued, OrderRecord
from certcast.acme.pending import Pending
from certcast.acme.protocol.answers import NoAnswer, Problem, Subproblem, json_object, problem_type
from certcast.acme.protocol.resources import Authorization, authorization, failed_challenges, order_state
from certcast.dns01.challenges import Challenge
from certcast.report.errors import CaRefused, CaUnreachable, CertcastError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from requests import Response

    from certcast.acme.protocol.network import Network
    from certcast.config.model import CertificateConfig
    from certcast.release.source import Release

_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 0.05, 1.5, 5.0
# For one phase (validation, issuance); then the run ends, and the next one goes on with the order.
_PATIENCE = 300.0
_LOST_AFTER = timedelta(days=1)
_LATER = "the order is kept, and the next `certcast renew` goes on with it"
_STAYS = "what is published and served stays"


class Stopped(Exception):
    """A signal ends the run; the order is kept."""


@dataclass(frozen=True)
class Request:
    """What is wanted: `replaces` is the RFC 9773 identifier of the certificate that this one follows.

    `privkey` is the key to certify again, PEM; None for a new one. An order that was begun before
    `not_before` is not gone on with: its key may be in the wrong hands, too.
    """

    wanted: CertificateConfig
    privkey: bytes | None = None
    replaces: str | None = None
    caps: limits.Caps = limits.USUAL
    not_before: datetime | None = None


class Order:
    """One order at `ca`; for one thread at a time. `note` gets remarks for an operator."""

    def __init__(
        self,
        request: Request,
        ca: Ca,
        store: Issued,
        *,
        stopped: threading.Event,
        note: Callable[[str], None],
        ca_at: Callable[[str], Ca],
    ) -> None:
        self.request = request
        self.name: str = request.wanted.name
        self.challenges: tuple[Challenge, ...] = ()
        self._ca = ca
        self._store = store
        self._stopped = stopped
        self._note = note
        self._ca_at = ca_at
        self._network: Network
        self._pending: Pending
        self._state: dict[str, Any] = {}
        self._authorizations: list[Authorization] = []

    @property
    def url(self) -> str:
        """The order's URL, once it is open."""
        return self._pending.order

    # -- the first half

    def open(self) -> None:
        """Go on with the order under way, or place one, and find out what the CA wants to see.

        Raises RenewalError, LocalFault, SecretExposed; Stopped.
        """
        from certcast.acme.protocol.problems import explained

        with explained(self.name, "placing the order"), self._waits_remembered():
            self._resume()
            if not self._state:
                self._place()
            if self._state["status"] == "pending":
                self._authorizations = [self._authorization(url) for url in self._state["authorizations"]]
            pending_ones = [one for one in self._authorizations if one.validation]
            self.challenges = tuple(Challenge(one.name, one.validation) for one in pending_ones)

    def _resume(self) -> None:
        """Take up the order under way, if it is still the one that is wanted and the CA still has it."""
        found = pending.read(self._store.place)
        if found is None:
            return
        if not self._is_wanted(found):
            self._note(
                f"{self.name}: an order of {found.placed_at:%Y-%m-%d %H:%M} is given up: another is wanted"
            )
            self._abandon(found)
            return
        limits.require_open(self._ca.folder, found.names, self._ca.clock())
        self._pending = found
        self._network = self._ca.network()
        try:
            state = order_state(json_object(self._network.read(found.order)))
        except (NoAnswer, Problem, ValueError) as error:
            if not self._is_lost(found, error):
                raise
            pending.drop(self._store.place)
            return
        if state["status"] == "invalid":
            pending.drop(self._store.place)
            return
        self._state = state

    def _is_lost(self, found: Pending, error: Exception) -> bool:
        """Whether nothing comes of an order: the CA has forgotten it, or has not shown it for a day."""
        if isinstance(error, Problem):
            if error.status == 404 or error.type in {"malformed", "accountDoesNotExist"}:
                return True
            if error.status == 429 or error.status >= 500:
                return False
        # Its directory was just read, so the CA is there: the URL may have been damaged on its way.
        return self._ca.clock() - found.placed_at > _LOST_AFTER

    def _is_wanted(self, found: Pending) -> bool:
        """Whether an order under way is what would be ordered now."""
        wanted, request = self.request.wanted, self.request
        return (
            found.directory == self._ca.url
            and found.account == recorded_uri(self._ca.folder)
            and set(found.names) == set(wanted.names)
            and (found.key_type, found.profile) == (wanted.key_type, wanted.profile)
            and (request.privkey is None or request.privkey == found.privkey)
            and (request.not_before is None or found.placed_at >= request.not_before.replace(microsecond=0))
        )

    def _place(self) -> None:
        """newOrder: counted before it is sent, and on disk as soon as it is answered."""
        wanted, request = self.request.wanted, self.request
        limits.require_allowed(self._ca.folder, wanted.names, self._ca.clock(), caps=request.caps)
        self._require_profile()
        self._network = self._ca.network()
        privkey = request.privkey or new_key(wanted.key_type)
        self._require_not_stopped()
        placed_at = self._ca.clock()
        limits.begin(self._ca.folder, wanted.names, placed_at, caps=request.caps)
        try:
            response = self._new_order()
        except Problem as problem:
            # The CA's own word that there is no order. Any other 5xx may come of a proxy before it.
            if problem.status < 500 or problem.type == "rateLimited":
                limits.take_back(self._ca.folder, wanted.names, placed_at)
            raise
        url = response.headers.get("Location")
        if not is_url(url):
            raise ValueError("newOrder was answered without the order's URL (Location)")
        self._pending = Pending(
            directory=self._ca.url,
            account=self._ca.account.uri,
            order=url,
            names=wanted.names,
            key_type=wanted.key_type,
            profile=wanted.profile,
            placed_at=placed_at,
            privkey=privkey,
        )
        pending.keep(self._store.place, self._pending)
        self._state = order_state(json_object(response))

    def _new_order(self) -> Any:
        """Send newOrder; once more without `replaces`, or with a new account, where the CA wants that."""
        from certcast.acme.protocol.messages import new_order

        wanted, replaces = self.request.wanted, self.request.replaces
        asked_anew = False
        while True:
            uri = self._ca.account.uri
            try:
                document = new_order(wanted.names, wanted.profile, replaces)
                return self._network.post(self._ca.directory["newOrder"], document)
            except Problem as problem:
                if replaces is not None and _is_about_replaces(problem):
                    replaces = None
                elif problem.type == "accountDoesNotExist" and not asked_anew:
                    asked_anew = True
                    if self._ca.forget_account(uri):
                        self._note(f"{self.name}: the CA does not know account {uri} any more")
                    self._network = self._ca.network()
                    if self._ca.account.uri != uri:
                        replaces = None  # that one is the former account's
                else:
                    raise

    def _require_profile(self) -> None:
        wanted, offered = self.request.wanted.profile, self._ca.meta.get("profiles")
        known = list(map(str, offered)) if isinstance(offered, dict) else []
        if wanted is not None and wanted not in known:
            raise CaRefused(
                f"{self.name}: the CA has no profile {wanted}",
                expected="one of " + ", ".join(known) if known else "no `profile`: this CA offers none",
                found=f"profile = {wanted!r}",
                kept=f"nothing was ordered; {_STAYS}",
                next="choose one of these, or leave `profile` out" if known else "leave `profile` out",
            )

    def _authorization(self, url: str) -> Authorization:
        """Read one authorization. Raises CaRefused if there is no DNS-01 challenge for a name."""
        names = {one.removeprefix("*.") for one in self._pending.names}
        found = authorization(url, json_object(self._network.read(url)), names, self._network.key)
        if found.status == "pending" and not found.validation:
            raise CaRefused(
                f"{self.name}: the CA offers no DNS-01 challenge for {found.name}",
                expected="dns-01",
                found=", ".join(found.offered) or "no challenge at all",
                kept=_STAYS,
                next="see the CA's documentation; certcast validates by DNS-01 alone",
            )
        return found

    # -- the second half

    def complete(self, *, validated: Callable[[], None]) -> Release:
        """Let the CA validate, and bring the certificate home.

        `validated` is called as soon as the CA needs the TXT records no longer.
        Raises RenewalError, LocalFault; Stopped.
        """
        from certcast.acme.protocol.problems import explained

        kept = f"{_LATER}; {_STAYS}"
        with explained(self.name, "validating", kept=kept), self._waits_remembered():
            for one in self._authorizations:
                if one.challenge_status == "pending":
                    self._answer(one)
            if self._state["status"] == "pending":
                self._state = self._polled({"ready", "processing", "valid", "invalid"})
            validated()
            if self._state["status"] == "invalid":
                raise self._invalid()
        with explained(self.name, "issuing", kept=kept), self._waits_remembered():
            if self._state["status"] == "ready":
                self._finalize()
            if self._state["status"] != "valid":
                self._state = self._polled({"valid", "invalid"})
            if self._state["status"] == "invalid":
                raise self._invalid()
            fullchain = self._download()
            require_ordered(fullchain, self._pending.privkey, self._pending.names, self._ca.clock())
        release = self._store.add(fullchain, self._pending.privkey, self._record())
        limits.issued(self._ca.folder, self._pending.names, self._pending.placed_at)
        pending.drop(self._store.place)
        return release

    def _answer(self, one: Authorization) -> None:
        """Tell the CA that it may look (RFC 8555, 7.5.1). Without an answer, the poll shows what it did."""
        from acme.challenges import DNS01Response

        self._require_not_stopped()
        with suppress(NoAnswer):
            self._network.post(one.challenge_url, DNS01Response())

    def _finalize(self) -> None:
        """Send the CSR (RFC 8555, 7.4); without an answer, the poll shows what came of it."""
        from acme import crypto_util, messages
        from cryptography import x509

        csr = x509.load_pem_x509_csr(crypto_util.make_csr(self._pending.privkey, list(self._pending.names)))
        self._require_not_stopped()
        try:
            response = self._network.post(self._state["finalize"], messages.CertificateRequest(csr=csr))
        except NoAnswer:
            self._state = self._polled({"processing", "valid", "invalid"})
            return
        except Problem as problem:
            if problem.type == "orderNotReady":
                raise
            self._require_still_there(problem)
            raise
        self._state = order_state(json_object(response))
        if self._state["status"] == "processing":
            self._state = self._polled({"valid", "invalid"}, said=response)

    def _require_still_there(self, problem: Problem) -> None:
        """Forget the order if the CA's refusal of finalize has ended it: another key or name is needed."""
        with suppress(Exception):
            state = order_state(json_object(self._network.read(self.url)))
            if state["status"] == "invalid" or problem.type in {"badCSR", "badPublicKey"}:
                pending.drop(self._store.place)

    def _download(self) -> bytes:
        """Return the chain that is preferred. Raises ValueError, Problem, NoAnswer."""
        response = self._network.read(self._state["certificate"])
        preferred = self.request.wanted.preferred_chain
        if preferred is None or ends_at(response.content, preferred):
            return response.content
        for url in alternates(response):
            other = self._network.read(url).content
            if ends_at(other, preferred):
                return other
        self._note(f"{self.name}: the CA offers no chain that ends at {preferred!r}: its usual one is taken")
        return response.content

    def _record(self) -> OrderRecord:
        one = self._pending
        return OrderRecord(
            directory=one.directory,
            account=one.account,
            order=one.order,
            names=one.names,
            key_type=one.key_type,
            profile=one.profile,
            placed_at=one.placed_at,
            issued_at=self._ca.clock(),
        )

    def _invalid(self) -> CertcastError:
        """Return why the CA has ended the order, name by name; the order is forgotten."""
        from certcast.acme.protocol.problems import not_validated, refused

        pending.drop(self._store.place)
        failed: list[Subproblem] = []
        for url in self._state["authorizations"]:
            document = json_object(self._network.read(url))
            failed += failed_challenges(document)
        if failed:
            return not_validated(self.name, failed, kept=f"the order is given up; {_STAYS}")
        error = self._state.get("error")
        document = error if isinstance(error, dict) else {}
        problem = Problem(200, problem_type(document) or "invalid", str(document.get("detail", ""))[:1000])
        return refused(
            self.name, "the order became invalid", problem, kept=f"the order is given up; {_STAYS}"
        )

    # -- giving up

    def give_up(self) -> None:
        """End an order before the CA was asked to validate: no challenge was answered, so it cost nothing."""
        with suppress(Exception):
            self._abandon(self._pending)

    def _abandon(self, one: Pending) -> None:
        """Deactivate the pending authorizations of an order (RFC 8555, 7.5.2), and forget it with its key."""
        ca = self._ca if one.directory == self._ca.url else self._ca_at(one.directory)
        if one.account == recorded_uri(ca.folder):
            with suppress(Exception):  # they expire by themselves; the key goes in any case
                if _end(ca, one.order):
                    limits.take_back(ca.folder, one.names, one.placed_at)
        pending.drop(self._store.place)

    # -- time

    @contextmanager
    def _waits_remembered(self) -> Iterator[None]:
        """Write down the moment before which the CA wants to hear nothing of this order."""
        try:
            yield
        except Problem as problem:
            if problem.retry_after is not None:
                limits.wait_until(self._ca.folder, self.request.wanted.names, problem.retry_after)
            raise

    def _polled(self, wanted: set[str], said: Response | None = None) -> dict[str, Any]:
        """Return the order once its status is one of `wanted`; `said` is what the CA has just said of it."""
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while True:
            self._require_not_stopped()
            response = self._network.read(self.url) if said is None else said
            said = None
            state = order_state(json_object(response))
            if state["status"] in wanted:
                return state
            seconds = max(pause, self._network.pause(response))
            if time.monotonic() + seconds > deadline:
                raise CaUnreachable(
                    f"{self.name}: the CA is still at work on the order",
                    expected=f"an end within {_PATIENCE:g} s",
                    found=f"status {state['status']!r}; the CA asks to wait {seconds:.0f} s more",
                    kept=f"{_LATER}; {_STAYS}",
                    next="run `certcast renew` again later; the timer does",
                )
            self._sleep(seconds)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped

    def _require_not_stopped(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def _end(ca: Ca, order_url: str) -> bool:
    """Deactivate what is pending in an order; return whether the CA then says that nothing comes of it."""
    from acme import messages

    network = ca.network()
    state = json_object(network.read(order_url))
    for url in state["authorizations"]:
        if json_object(network.read(url)).get("status") == "pending":
            network.post(url, messages.UpdateAuthorization(status="deactivated"))
    # "invalid" by RFC 8555, 7.1.6; pebble answers "deactivated".
    return json_object(network.read(order_url)).get("status") in {"invalid", "deactivated"}


def _is_about_replaces(problem: Problem) -> bool:
    """Whether a newOrder was refused for its `replaces` (RFC 9773, 5): the order goes without it as well."""
    return problem.status in {403, 409} or problem.type in {"alreadyReplaced", "malformed"}
