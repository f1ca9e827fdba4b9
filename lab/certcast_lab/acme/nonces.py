"""Which good nonces the CA refuses: as often as pebble would by chance, but never by chance.

A CA may refuse any nonce, and a client then tries again with a fresh one (RFC
8555 section 6.5). By default pebble refuses 5 % at random. certbot's library tries
again only once, so about 3 issuances in 100 would fail by chance. Here every 20th
POST is refused, never two in a row.

The same refusal mends a defect of pebble's. Told to reuse 0 % of the authorizations
it reuses 1 % (its wfe.go asks `rand.Intn(100) > percent`; measured: 6 of 290), and
an order without challenges calls no hook. Such an order is not handed on: the client
hears that its nonce was bad, and places another one. So that there are never two
refusals in a row, the first kind spares newOrder, and an order whose authorization
is reused twice in a row (4 in 10,000) is handed on.
"""

from __future__ import annotations

from collections.abc import Sequence

POSTS_PER_BAD_NONCE = 20


class Nonces:
    """Decides for one CA; `reuse_authorizations` lets orders come with what was validated before."""

    def __init__(self, *, reuse_authorizations: bool) -> None:
        self._reuse_authorizations = reuse_authorizations
        self._posts = 0
        self._authorizations: set[str] = set()
        self._held_back = False

    def refuses_post(self, *, is_new_order: bool) -> bool:
        """Return whether a POST that just came in is refused; every POST counts."""
        self._posts += 1
        if self._posts < POSTS_PER_BAD_NONCE or is_new_order:
            return False
        self._posts = 0
        return True

    def refused_otherwise(self) -> None:
        """A fault has refused a POST: the next try isn't refused by chance on top of it."""
        self._posts = 0

    def refuses_order(self, authorizations: Sequence[str]) -> bool:
        """Return whether the CA's answer to newOrder, with the URLs of these authorizations, is held back."""
        reused = not self._authorizations.isdisjoint(authorizations)
        self._authorizations.update(authorizations)
        self._held_back = reused and not self._reuse_authorizations and not self._held_back
        if self._held_back:
            self._posts = 0
        return self._held_back
