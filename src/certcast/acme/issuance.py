"""Several certificates ordered together: as many as are due, in about the time of one.

    open all orders (8 at a time)             account → newOrder → authorizations
      → all TXT records, one watch            dns01/, 10 calls in flight
      → each order whose records are seen     answer → … → stored; its records go meanwhile
      → an order whose records are not seen   is given up before the CA is asked to validate

- Certificates that share a name are ordered one after the other (`rounds`): the CA gives the same pending
  authorization to both, and the end of one order would take the other's record away.
- One failing order never stops the others.
- A signal ends the run between two steps: no new step begins, TXT records are removed, then KeyboardInterrupt
  is raised. Orders are kept, and the next run goes on with them.
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
        self._results: dict[str, Release | CertcastError] = {}
        self._defect: BaseException | None = None

    def issue(self, requests: Sequence[OrderRequest]) -> Mapping[str, Release | CertcastError]:
        """Order all of them; return, by the certificate's name, what was stored or what failed.

        KeyboardInterrupt after a signal, with no TXT record left.
        """
        with hold_interrupts(self._stopped.set):
            for together in rounds(requests):
                if not self._stopped.is_set():
                    self._order_together(together)
        if self._defect is not None:
            raise self._defect
        return self._results

    def _order_together(self, requests: Sequence[OrderRequest]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as ca_pool, ThreadPoolExecutor(1) as cleaner:
            opening = [
                ca_pool.submit(self._guard, request, partial(self._open, request)) for request in requests
            ]
            opened = [future.result() for future in opening]
            orders = {order.url: order for order in opened if order is not None}
            ending: list[Future[object]] = []

            def complete(url: str) -> None:
                step = partial(self._complete, orders[url], cleaner)
                ending.append(ca_pool.submit(self._guard, orders[url].request, step))

            def give_up(url: str, failure: CertcastError) -> None:
                self._results[orders[url].name] = failure
                ending.append(ca_pool.submit(orders[url].give_up))

            try:
                self._present(orders, complete, give_up)
            finally:
                wait(ending)
                self.left += cleaner.submit(self._challenges.cleanup_orders, list(orders)).result()

    def _guard(self, request: OrderRequest, step: Callable[[], Order | None]) -> Order | None:
        """Do one order's step; a failure is this order's alone, a signal and a defect are the run's."""
        try:
            return step()
        except Interruption:
            return None
        except CertcastError as failure:
            self._results[request.wanted.name] = failure
        except BaseException as defect:
            self._defect = self._defect or defect
        return None

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
        complete: Callable[[str], None],
        give_up: Callable[[str, CertcastError], None],
    ) -> None:
        """Show the CA the TXT records of all orders; an order without a challenge is completed at once."""
        challenges = {url: order.challenges for url, order in orders.items() if order.challenges}
        for url in orders:
            if url not in challenges:
                complete(url)
        if challenges:
            self._challenges.present_orders(
                challenges, self._ca.clock(), seen=complete, failed=give_up, stopped=self._stopped.is_set
            )

    def _complete(self, order: Order, cleaner: ThreadPoolExecutor) -> None:
        def remove_records() -> None:
            # A record that cannot be removed now is tried again, and told, at the end of the round.
            cleaner.submit(self._challenges.cleanup_orders, [order.url])

        self._results[order.name] = order.complete(validated=remove_records)


def rounds(requests: Sequence[OrderRequest]) -> list[list[OrderRequest]]:
    """Return the requests in rounds, so that no two of a round share a name."""
    sequence: list[list[OrderRequest]] = []
    for request in requests:
        names = set(request.wanted.names)
        # After the last round that shares a name, so that the order of the configuration is kept.
        place = 0
        for index, together in enumerate(sequence):
            if any(names & set(other.wanted.names) for other in together):
                place = index + 1
        if place == len(sequence):
            sequence.append([])
        sequence[place].append(request)
    return sequence
