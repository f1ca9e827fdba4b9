"""One order, in protocol order (RFC 8555, 7.4), as two halves with the DNS in between.

    open       account → newOrder, or the order under way → authorizations → challenges
                                        (issuance.py adds the TXT records and waits for them)
    complete   answer → poll → finalize → poll → download → check → store
    give_up    deactivate what is pending; forget key and order

An order is on disk from newOrder's answer on (pending.py), so each half may be repeated after a crash. The
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
from certcast.acme.ca import Ca
from certcast.acme.issued import Issued, OrderRecord, PlacedOrder
from certcast.acme.pending import Pending
from certcast.acme.protocol.answers import (
    NoAnswer,
    Problem,
    explain,
    explain_failures,
    explained,
    json_object,
    problem_type,
)
from certcast.acme.protocol.resources import (
    Authorization,
    alternate_urls,
    is_issued_under,
    read_authorization,
    read_failures,
    read_location,
    read_order,
    require_ordered,
)
from certcast.dns01.challenges import Challenge
from certcast.report.errors import CaRefused, CaUnreachable

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
_STAYS = "what is published and served stays"
_GIVEN_UP = f"the order is given up; {_STAYS}"
_LATER = f"the order is kept, and the next `certcast renew` goes on with it; {_STAYS}"


class Interruption(Exception):
    """A signal ends the run; the order is kept."""


@dataclass(frozen=True)
class OrderRequest:
    """The wanted certificate. `replaces` is the RFC 9773 identifier of the certificate before it.

    `privkey` is the key to certify again, PEM; None for a new one. An order under way that was placed before
    `not_before` is given up: its key may be in the wrong hands, too.
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
        request: OrderRequest,
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
        return self._pending.placed.order

    @property
    def _status(self) -> str:
        return str(self._state["status"])

    # -- the first half

    def open(self) -> None:
        """Go on with the order under way, or place one; then learn the challenges.

        Raises RenewalError, LocalFault, SecretExposed; Interruption.
        """
        with self._phase("placing the order"):
            self._resume()
            if not self._state:
                self._place()
            if self._status == "pending":
                self._authorizations = [self._authorization(url) for url in self._state["authorizations"]]
            self.challenges = tuple(
                Challenge(each.name, each.validation) for each in self._authorizations if each.validation
            )

    def _resume(self) -> None:
        """Take up the order under way, if it is still the wanted one and the CA still has it."""
        under_way = pending.read(self._store.place)
        if under_way is None:
            return
        placed = under_way.placed
        if not self._is_wanted(under_way):
            self._note(
                f"{self.name}: an order of {placed.placed_at:%Y-%m-%d %H:%M} is given up: another is wanted"
            )
            self._abandon(placed)
            return
        limits.require_open(self._ca.folder, placed.names, self._ca.clock())
        self._pending = under_way
        self._network = self._ca.network()
        try:
            state = read_order(self._network.read(self.url))
        except (NoAnswer, Problem, ValueError) as error:
            if not self._is_lost(placed, error):
                raise
            state = {"status": "lost"}
        if state["status"] in {"lost", "invalid"}:
            pending.remove(self._store.place)
        else:
            self._state = state

    def _is_wanted(self, under_way: Pending) -> bool:
        """Whether an order under way is what would be ordered now."""
        wanted, request, placed = self.request.wanted, self.request, under_way.placed
        return (
            placed.directory == self._ca.url
            and placed.account == recorded_uri(self._ca.folder)
            and set(placed.names) == set(wanted.names)
            and (placed.key_type, placed.profile) == (wanted.key_type, wanted.profile)
            and (request.privkey is None or request.privkey == under_way.privkey)
            and (request.not_before is None or placed.placed_at >= request.not_before.replace(microsecond=0))
        )

    def _is_lost(self, placed: PlacedOrder, error: Exception) -> bool:
        """Whether nothing comes of an order: the CA has forgotten it, or has not shown it for a day."""
        if isinstance(error, Problem):
            if error.status == 404 or error.type in {"malformed", "accountDoesNotExist"}:
                return True
            if error.status == 429 or error.status >= 500:
                return False
        # Its directory was just read, so the CA is there: the URL may have been damaged on its way.
        return self._ca.clock() - placed.placed_at > _LOST_AFTER

    def _place(self) -> None:
        """newOrder: counted before it is sent, and on disk as soon as it is answered."""
        wanted, request, ca = self.request.wanted, self.request, self._ca
        limits.require_allowed(ca.folder, wanted.names, ca.clock(), caps=request.caps)
        self._require_profile()
        self._network = ca.network()
        privkey = request.privkey or pending.new_key(wanted.key_type)
        self._require_not_stopped()
        placed_at = ca.clock()
        limits.count_order(ca.folder, wanted.names, placed_at, caps=request.caps)
        try:
            response = self._new_order()
        except Problem as problem:
            # The CA's own word that there is no order. Any other 5xx may come of a proxy before it.
            if problem.status < 500 or problem.type == "rateLimited":
                limits.take_back(ca.folder, wanted.names, placed_at)
            raise
        placed = PlacedOrder(
            directory=ca.url,
            account=ca.account.uri,
            order=read_location(response, "newOrder"),
            names=wanted.names,
            key_type=wanted.key_type,
            profile=wanted.profile,
            placed_at=placed_at,
        )
        self._pending = Pending(placed, privkey)
        pending.write(self._store.place, self._pending)
        self._state = read_order(response)

    def _require_profile(self) -> None:
        wanted, offered = self.request.wanted.profile, self._ca.meta.get("profiles")
        profiles = list(map(str, offered)) if isinstance(offered, dict) else []
        if wanted is not None and wanted not in profiles:
            raise CaRefused(
                f"{self.name}: the CA has no profile {wanted}",
                expected="one of " + ", ".join(profiles) if profiles else "no `profile`: this CA offers none",
                found=f"profile = {wanted!r}",
                kept=f"nothing was ordered; {_STAYS}",
                next="choose one of these, or leave `profile` out" if profiles else "leave `profile` out",
            )

    def _new_order(self) -> Response:
        """Send newOrder; once more without `replaces`, or with a new account, where the CA wants that."""
        from certcast.acme.protocol.network import new_order

        wanted, replaces = self.request.wanted, self.request.replaces
        has_forgotten = False
        while True:
            uri = self._ca.account.uri
            try:
                payload = new_order(wanted.names, wanted.profile, replaces)
                return self._network.post(self._ca.directory["newOrder"], payload)
            except Problem as problem:
                if replaces is not None and _is_about_replaces(problem):
                    replaces = None
                elif problem.type == "accountDoesNotExist" and not has_forgotten:
                    has_forgotten = True
                    if self._ca.forget_account(uri):
                        self._note(f"{self.name}: the CA does not know account {uri} any more")
                    self._network = self._ca.network()
                    if self._ca.account.uri != uri:
                        replaces = None  # it names the former account's certificate
                else:
                    raise

    def _authorization(self, url: str) -> Authorization:
        """Read one authorization. Raises CaRefused if there is no DNS-01 challenge for a name."""
        names = {name.removeprefix("*.") for name in self._pending.placed.names}
        authorization = read_authorization(url, self._network.read(url), names, self._network.key)
        if authorization.status == "pending" and not authorization.validation:
            raise CaRefused(
                f"{self.name}: the CA offers no DNS-01 challenge for {authorization.name}",
                expected="dns-01",
                found=", ".join(authorization.offered) or "no challenge at all",
                kept=_STAYS,
                next="see the CA's documentation; certcast validates by DNS-01 alone",
            )
        return authorization

    # -- the second half

    def complete(self, *, validated: Callable[[], None]) -> Release:
        """Let the CA validate, and bring the certificate home.

        `validated` is called as soon as the CA needs the TXT records no longer.
        Raises RenewalError, LocalFault; Interruption.
        """
        with self._phase("validating", kept=_LATER):
            for authorization in self._authorizations:
                if authorization.challenge_status == "pending":
                    self._answer(authorization)
            if self._status == "pending":
                self._poll("ready", "processing", "valid", "invalid")
            validated()
            self._require_valid()
        with self._phase("issuing", kept=_LATER):
            if self._status == "ready":
                self._finalize()
            if self._status != "valid":
                self._poll("valid", "invalid")
            self._require_valid()
            fullchain = self._download()
            require_ordered(fullchain, self._pending.privkey, self._pending.placed.names, self._ca.clock())
        return self._stored(fullchain)

    def _answer(self, authorization: Authorization) -> None:
        """Tell the CA that it may look (RFC 8555, 7.5.1). Without an answer, the poll shows what it did."""
        from acme.challenges import DNS01Response

        self._require_not_stopped()
        with suppress(NoAnswer):
            self._network.post(authorization.challenge_url, DNS01Response())

    def _finalize(self) -> None:
        """Send the CSR (RFC 8555, 7.4); without an answer, the poll shows what came of it."""
        from acme import crypto_util, messages
        from cryptography import x509

        pem = crypto_util.make_csr(self._pending.privkey, list(self._pending.placed.names))
        request = messages.CertificateRequest(csr=x509.load_pem_x509_csr(pem))
        self._require_not_stopped()
        try:
            response = self._network.post(self._state["finalize"], request)
        except NoAnswer:
            self._poll("processing", "valid", "invalid")
            return
        except Problem as problem:
            if problem.type != "orderNotReady":
                self._forget_if_ended(problem)
            raise
        self._state = read_order(response)
        if self._status == "processing":
            self._poll("valid", "invalid", last=response)

    def _forget_if_ended(self, problem: Problem) -> None:
        """Forget the order if the CA's refusal of finalize has ended it: another key or name is needed."""
        with suppress(Exception):
            state = read_order(self._network.read(self.url))
            if state["status"] == "invalid" or problem.type in {"badCSR", "badPublicKey"}:
                pending.remove(self._store.place)

    def _download(self) -> bytes:
        """Return the preferred chain. Raises ValueError, Problem, NoAnswer."""
        response = self._network.read(self._state["certificate"])
        preferred = self.request.wanted.preferred_chain
        if preferred is None or is_issued_under(response.content, preferred):
            return response.content
        for url in alternate_urls(response):
            alternate = self._network.read(url).content
            if is_issued_under(alternate, preferred):
                return alternate
        self._note(f"{self.name}: the CA offers no chain that ends at {preferred!r}: its usual one is taken")
        return response.content

    def _stored(self, fullchain: bytes) -> Release:
        """Store the certificate, and forget that its order is under way."""
        placed = self._pending.placed
        record = OrderRecord(**vars(placed), issued_at=self._ca.clock())
        release = self._store.add(fullchain, self._pending.privkey, record)
        limits.mark_issued(self._ca.folder, placed.names, placed.placed_at)
        pending.remove(self._store.place)
        return release

    def _require_valid(self) -> None:
        """Raise why the CA has ended the order, name by name; such an order is forgotten."""
        if self._status != "invalid":
            return
        pending.remove(self._store.place)
        failures = [
            failure
            for url in self._state["authorizations"]
            for failure in read_failures(self._network.read(url))
        ]
        if failures:
            raise explain_failures(self.name, failures, kept=_GIVEN_UP)
        error = self._state.get("error")
        document = error if isinstance(error, dict) else {}
        problem = Problem(200, problem_type(document) or "invalid", str(document.get("detail", ""))[:1000])
        raise explain(self.name, "the order became invalid", problem, kept=_GIVEN_UP)

    # -- giving up

    def give_up(self) -> None:
        """End an order before the CA was asked to validate: no challenge was answered, so it cost nothing."""
        with suppress(Exception):
            self._abandon(self._pending.placed)

    def _abandon(self, placed: PlacedOrder) -> None:
        """Deactivate the pending authorizations of an order (RFC 8555, 7.5.2); forget it with its key."""
        ca = self._ca if placed.directory == self._ca.url else self._ca_at(placed.directory)
        if placed.account == recorded_uri(ca.folder):
            with suppress(Exception):  # they expire by themselves; the key goes in any case
                if _deactivate(ca, placed.order):
                    limits.take_back(ca.folder, placed.names, placed.placed_at)
        pending.remove(self._store.place)

    # -- time

    @contextmanager
    def _phase(self, doing: str, *, kept: str = _STAYS) -> Iterator[None]:
        """Explain what the CA answers; write down the moment before which it takes no such order."""
        with explained(self.name, doing, kept=kept):
            try:
                yield
            except Problem as problem:
                if problem.retry_after is not None:
                    limits.close_until(self._ca.folder, self.request.wanted.names, problem.retry_after)
                raise

    def _poll(self, *statuses: str, last: Response | None = None) -> None:
        """Read the order until its status is one of these; `last` is the CA's latest answer about it."""
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while True:
            self._require_not_stopped()
            response = self._network.read(self.url) if last is None else last
            last = None
            state = read_order(response)
            if state["status"] in statuses:
                self._state = state
                return
            seconds = max(pause, self._network.pause(response))
            if time.monotonic() + seconds > deadline:
                raise CaUnreachable(
                    f"{self.name}: the CA is still at work on the order",
                    expected=f"an end within {_PATIENCE:g} s",
                    found=f"status {state['status']!r}; the CA asks to wait {seconds:.0f} s more",
                    kept=_LATER,
                    next="run `certcast renew` again later; the timer does",
                )
            if self._stopped.wait(seconds):
                raise Interruption
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)

    def _require_not_stopped(self) -> None:
        if self._stopped.is_set():
            raise Interruption


def _deactivate(ca: Ca, order_url: str) -> bool:
    """Deactivate what is pending in an order; return whether the CA then says that nothing comes of it."""
    from acme import messages

    network = ca.network()
    order = json_object(network.read(order_url))
    for url in order["authorizations"]:
        if json_object(network.read(url)).get("status") == "pending":
            network.post(url, messages.UpdateAuthorization(status="deactivated"))
    # "invalid" by RFC 8555, 7.1.6; pebble answers "deactivated".
    return json_object(network.read(order_url)).get("status") in {"invalid", "deactivated"}


def _is_about_replaces(problem: Problem) -> bool:
    """Whether a newOrder was refused for its `replaces` (RFC 9773, 5): the order goes without it as well."""
    return problem.status in {403, 409} or problem.type in {"alreadyReplaced", "malformed"}
