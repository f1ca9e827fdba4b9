"""Unsigned GETs to a CA: its directory (RFC 8555, 7.1.1), and renewal information (RFC 9773).

One session for all, so a hundred certificates cost one connection. Each answer has one deadline, and a CA
that gave none is not asked again by this run: a slow CA must not hold up what needs no CA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certcast.acme.protocol.answers import NoAnswer, checked, json_object, patiently

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from requests import Response

_SECONDS = 10.0  # for each answer, whole


class Reader:
    """For one thread at a time."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        from requests import Session

        from certcast.host.transport import BoundedAdapter, Cutter

        self._now = now
        self._silence: NoAnswer | None = None
        self._cutter = Cutter()
        self._session = Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, BoundedAdapter(self._cutter))

    def read(self, url: str) -> tuple[dict[str, Any], Response]:
        """Return the JSON object at `url`, and its answer. Raises Problem, NoAnswer, ValueError."""
        if self._silence is not None:
            raise self._silence
        try:
            response = patiently(lambda: checked(self._get(url), self._now()))
        except NoAnswer as silence:
            self._silence = silence
            raise
        return json_object(response), response

    def _get(self, url: str) -> Response:
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        from certcast.host.transport import reason

        try:
            with self._cutter.within(_SECONDS):
                response = self._session.get(url, timeout=_SECONDS)
        except (RequestException, HTTPError, OSError, ValueError) as error:
            if not self._cutter.has_cut:
                raise NoAnswer(url, reason(error)) from None
        # A connection that was cut looks broken, and may look like a complete answer.
        if self._cutter.has_cut:
            raise NoAnswer(url, f"no complete answer within {_SECONDS:g} s")
        return response
