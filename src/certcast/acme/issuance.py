"""Several certificates ordered together: as many as are due, in about the time of one.

    open all orders (8 at a time)             account → newOrder → authorizations
      → all TXT records, one watch            dns01/, 10 calls in flight
      → each order whose records are seen     answer → … → stored; its records go meanwhile
      → an order whose records are not seen   is given up before the CA is asked to validate

Certificates that share a name are ordered one after the other (`rounds`): the CA hands the same pending
authorization to both, and the end of one would take the other's record away. One failing order never
stops the others.

A signal ends the run between two steps, in this order: no new step begins, TXT records are removed, then
KeyboardInterrupt. Orders are kept, and the next run goes on with them.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING

from certcast.acme.order import Interruption, Order, OrderRequest
from certcast.host.interrupts import hold_interrupts
from certcast.report.errors import CertcastError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from certcast.acme.ca import Ca
    from certcast.acme.issued import Issued
    from certcast.dns01.challenges import Challenges
    from certcast.release.source import Release

AT_ONCE = 8  # orders that talk to the CA


class Issuance:
    """One run's orders at `ca`; `store_of` gives the store of a certificate by its name."""

    def __init__(
        self,
        ca: Ca,
        challenges: Challenges,
        *,
        store_of: Callable[[str], Issued],
        ca_at: Callable[[str], Ca],
        note: Callable[[str], None],
    ) -> None:
        self._ca = ca
        self._challenges = challenges
        self._store_of = store_of
        self._ca_at = ca_at
        self._note = note
        self.left: list[CertcastError] = []
        """Why TXT records of these orders could not be removed; the ledger has them, for the next run."""
        self._stopped = threading.Event()
        self._ended: dict[str, Release | CertcastError] = {}
        self._defect: BaseException | None = None

    def issue(self, requests: Sequence[OrderRequest]) -> Mapping[str, Release | CertcastError]:
        """Order all of them; return, by the certificate's name, what was stored or what failed.

        KeyboardInterrupt after a signal, with no TXT record left.
        """
        with hold_interrupts(self._stopped.set):
            for together in rounds(requests):
                if not self._stopped.is_set():
                    self._round(together)
        if self._defect is not None:
            raise self._defect
        return self._ended

    def _round(self, together: Sequence[OrderRequest]) -> None:
        orders: dict[str, Order] = {}
        with ThreadPoolExecutor(AT_ONCE) as ca_pool, ThreadPoolExecutor(1) as beside:
            opening = [
                ca_pool.submit(self._guarded, request, partial(self._open, request)) for request in together
            ]
            for opened in opening:
                order = opened.result()
                if order is not None:
                    orders[order.url] = order
            ending: list[Future[object]] = []

            def finish(url: str) -> None:
                order = orders[url]
                complete = partial(self._complete, order, beside)
                ending.append(ca_pool.submit(self._guarded, order.request, complete))

            def give_up(url: str, failure: CertcastError) -> None:
                self._ended[orders[url].name] = failure
                ending.append(ca_pool.submit(orders[url].give_up))

            try:
                self._present(orders, finish, give_up)
            finally:
                wait(ending)
                beside.submit(self._clean, list(orders)).result()

    def _open(self, request: OrderRequest) -> Order:
        order = Order(
            request,
            self._ca,
            self._store_of(request.wanted.name),
            stopped=self._stopped,
            note=self._note,
            ca_at=self._ca_at,
        )
        order.open()
        return order

    def _present(
        self,
        orders: Mapping[str, Order],
        finish: Callable[[str], None],
        give_up: Callable[[str, CertcastError], None],
    ) -> None:
        """Show the CA what it wants to see, for all orders; one without a challenge is finished at once."""
        wanted = {}
        for url, order in orders.items():
            if order.challenges:
                wanted[url] = order.challenges
            else:
                finish(url)
        if wanted:
            self._challenges.present_orders(
                wanted, self._ca.clock(), seen=finish, failed=give_up, stopped=self._stopped.is_set
            )

    def _complete(self, order: Order, beside: ThreadPoolExecutor) -> None:
        def validated() -> None:
            # What cannot be removed now is tried again, and told, at the end of the round.
            beside.submit(self._challenges.cleanup_orders, [order.url])

        self._ended[order.name] = order.complete(validated=validated)

    def _clean(self, urls: Sequence[str]) -> None:
        """Remove the records that are left of these orders; what could not be removed stays in the ledger."""
        self.left += self._challenges.cleanup_orders(urls)

    def _guarded(self, request: OrderRequest, work: Callable[[], Order | None]) -> Order | None:
        """Do one order's step; a failure is this order's alone, a signal and a defect are the run's."""
        try:
            return work()
        except Interruption:
            return None
        except CertcastError as failure:
            self._ended[request.wanted.name] = failure
        except BaseException as defect:
            self._defect = self._defect or defect
        return None


def rounds(requests: Sequence[OrderRequest]) -> list[list[OrderRequest]]:
    """Return the requests in rounds, so that no two of a round share a name."""
    found: list[list[OrderRequest]] = []
    for request in requests:
        names = set(request.wanted.names)
        # After the last round that shares a name, so that the order of the configuration is kept.
        place = 0
        for index, together in enumerate(found):
            if any(names & set(other.wanted.names) for other in together):
                place = index + 1
        if place == len(found):
            found.append([])
        found[place].append(request)
    return found
