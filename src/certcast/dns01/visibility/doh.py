"""A resolver asked by HTTPS (DNS over HTTPS, RFC 8484), as dnspython's resolver takes one.

dnspython's own needs eight packages that nothing else here does; `requests` is there for
the cloud's APIs, with the adapter that bounds time and size (transport.py). It
takes its trust from REQUESTS_CA_BUNDLE and its proxy from HTTPS_PROXY, so that a
host which only gets out through a proxy can still resolve (ADR 0007).

By POST: a GET may be answered from an HTTP cache on the way.

Imported where DoH is configured: dnspython and requests both cost their share.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dns.exception
import dns.message
import dns.nameserver
from requests import RequestException, Session
from urllib3.exceptions import HTTPError

from certcast.host.transport import BoundedAdapter, Cutter, reason

if TYPE_CHECKING:
    from requests import PreparedRequest

_MESSAGE = "application/dns-message"  # RFC 8484 section 6


class DohServer(dns.nameserver.Nameserver):
    """The DoH server at a URL; one connection, kept, and one question at a time."""

    def __init__(self, url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # dnspython's, as below
        self.url = url
        self._lock = threading.Lock()
        self._cutter = Cutter()
        self._session = Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, BoundedAdapter(self._cutter))

    def __str__(self) -> str:
        return self.url

    def kind(self) -> str:
        """Say what dnspython calls it."""
        return "DoH"

    def is_always_max_size(self) -> bool:
        """No answer is truncated for want of room."""
        return True

    def answer_nameserver(self) -> str:
        """Say where an answer came from."""
        return self.url

    def answer_port(self) -> int:
        """Say at which port."""
        return urlsplit(self.url).port or 443

    def query(
        self, request: dns.message.QueryMessage, timeout: float, *_args: Any, **_options: Any
    ) -> dns.message.Message:
        """Return the reply to `request`, within `timeout` seconds altogether.

        Raises what dnspython's resolver expects: dns.exception.Timeout; OSError where no DNS message
        came; another DNSException for one that is no reply.
        """
        with self._lock:
            body = self._post(request.to_wire(), timeout)
        reply = dns.message.from_wire(body)
        if not request.is_response(reply):
            raise dns.exception.FormError("a reply to another question")  # type: ignore[no-untyped-call]
        return reply

    def _post(self, wire: bytes, timeout: float) -> bytes:
        try:
            with self._cutter.within(timeout):
                response = self._session.post(
                    self.url,
                    data=wire,
                    headers={"Content-Type": _MESSAGE, "Accept": _MESSAGE},
                    timeout=timeout,
                    allow_redirects=False,
                    auth=_nobody,
                )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            if self._cutter.has_cut:
                raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]
            raise OSError(reason(error)) from None
        if self._cutter.has_cut:
            # http.client takes a header that ends in mid-line for a whole one.
            raise dns.exception.Timeout(timeout=timeout)  # type: ignore[no-untyped-call]
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.status_code != 200 or kind != _MESSAGE:
            raise OSError(f"HTTP {response.status_code} without a DNS message")
        return response.content


def _nobody(prepared: PreparedRequest) -> PreparedRequest:
    """As requests' `auth`, so that ~/.netrc isn't used."""
    return prepared
