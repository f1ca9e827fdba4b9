"""One call to Alibaba Cloud DNS (API version 2015-01-09): signed, sent, repeated where that helps.

    keys → signature → the request, under a deadline → Code or body → perhaps again

- acs3.py signs and requests sends, not the official SDK: its import costs more than the call (ADR 0019), and
  its sending takes no deadline for the whole (ADR 0004).
- Each attempt is signed anew, since Alidns refuses a nonce that it has seen (SignatureNonceUsed).
- An answer's Code says what it means, not its HTTP status: the documented statuses and those on the wire
  differ.
- An attempt without an answer may have been carried out. The call's end says so (`maybe_done`), also when a
  later attempt was refused.

Not here: which calls there are, and what a refusal means (alidns.py).
"""

from __future__ import annotations

import logging
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import stamina
from requests import RequestException, Session
from urllib3.exceptions import HTTPError

from certcast import credentials
from certcast.dns01.alidns import acs3
from certcast.host import clock
from certcast.host.transport import BoundedAdapter, Cutter, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest, Response

    from certcast.config.model import DnsConfig
    from certcast.host.clock import WrongClock

logger = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = "2015-01-09"

# In seconds. For one address; the deadline can't cut a connection that isn't there yet.
_CONNECT_TIMEOUT = 5.0
_READ_TIMEOUT = 15.0  # between two octets
_DEADLINE = 30.0  # for one attempt, however its reply comes in
_PATIENCE = 90.0  # for all attempts of one call: none begins after it
_ATTEMPTS = 7

# Codes that ask to try again, and whether the work may have been done all the same.
_TRY_AGAIN = {
    "Throttling": False,
    "Throttling.User": False,
    "Throttling.Api": False,
    "LastOperationNotFinished": False,
    "InternalError": True,
    "ServiceUnavailable": True,
    "SignatureNonceUsed": True,  # something on the way sent our request twice
}


class CallFailed(Exception):
    """A call's end; `maybe_done`: this attempt, or an earlier one, may have been carried out all the same."""

    def __init__(self, why: str, *, maybe_done: bool) -> None:
        super().__init__(why)
        self.maybe_done = maybe_done


class Refused(CallFailed):
    """An answer with a Code; `clock` where its Date shows that this host's clock is wrong."""

    def __init__(self, code: str, message: str, request_id: str, wrong: WrongClock | None = None) -> None:
        super().__init__(f"{code} (request {request_id})", maybe_done=_TRY_AGAIN.get(code, False))
        self.code = code
        self.message = message
        self.request_id = request_id
        self.clock = wrong


class NoReply(CallFailed):
    """No answer, or one that isn't the API's."""


class Api:
    """The API at the endpoint of a [dns], for the keys of its source.

    Keys are asked for at each attempt, since temporary ones end while a slow zone propagates.
    """

    def __init__(self, dns: DnsConfig) -> None:
        endpoint = urlsplit(dns.endpoint)
        self._url = f"{endpoint.scheme}://{endpoint.netloc}/"
        self._source = dns.source
        self._keys = credentials.provider(dns.source)

    @property
    def account(self) -> str:
        """Which keys sign, and where, in words for an error: `profile acme of ... at alidns.aliyuncs.com`."""
        return f"{credentials.describe_keys(self._source)}, at {urlsplit(self._url).netloc}"

    def call(self, action: str, parameters: Mapping[str, str], take: Callable[[Any], T]) -> T:
        """Return what `take` finds in the reply's body; a body that lacks it counts as no reply.

        Raises Refused and NoReply when the attempts are used up or no repetition helps, and
        CredentialsMissing.
        """
        # Their own words for a retry and for a broken header, warnings, say nothing to an operator.
        for noisy in ("stamina", "urllib3.connection"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        maybe_done = False
        for attempt in stamina.retry_context(
            on=_is_worth_another, attempts=_ATTEMPTS, timeout=_PATIENCE, wait_initial=0.25, wait_jitter=0.25
        ):
            with attempt:
                try:
                    return _taken(take, _body(self._send(action, parameters)))
                except CallFailed as failure:
                    maybe_done = failure.maybe_done = maybe_done or failure.maybe_done
                    logger.info("Alidns %s: %s", action, failure)
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send(self, action: str, parameters: Mapping[str, str]) -> Response:
        try:
            keys = self._keys()
        except credentials.StsUnavailable as silence:
            raise NoReply(str(silence), maybe_done=False) from None
        try:
            with self._cutter.within(_DEADLINE):
                return self._session.post(
                    self._url,
                    params=parameters,
                    auth=partial(_sign, action=action, parameters=parameters, keys=keys),
                    timeout=(_CONNECT_TIMEOUT, _READ_TIMEOUT),
                    allow_redirects=False,
                )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            if self._cutter.has_cut:
                raise NoReply(f"no complete reply within {_DEADLINE:g} s", maybe_done=True) from None
            raise NoReply(reason(error), maybe_done=True) from None

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter()

    @cached_property
    def _session(self) -> Session:
        session = Session()
        for scheme in ("https://", "http://"):
            session.mount(scheme, BoundedAdapter(self._cutter))
        return session


def _sign(
    prepared: PreparedRequest, *, action: str, parameters: Mapping[str, str], keys: credentials.Keys
) -> PreparedRequest:
    """Sign as requests' `auth`: the last to touch a request, in the place where ~/.netrc would be used."""
    headers = {
        "host": urlsplit(prepared.url or "").netloc,
        "accept": "application/json",
        "x-acs-action": action,
        "x-acs-version": VERSION,
    }
    request = acs3.ApiRequest("POST", "/", parameters, headers)
    prepared.headers.update(acs3.sign(request, keys, clock.now(), acs3.new_nonce()))
    return prepared


def _body(reply: Response) -> Any:
    """Return the body of a success. Raises Refused and NoReply."""
    try:
        body = reply.json()
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict) and "Code" in body:
        raise Refused(
            str(body["Code"]),
            str(body.get("Message", "")),
            str(body.get("RequestId", "unknown")),
            clock.wrong_clock(reply.headers.get("Date"), clock.now()),
        )
    if reply.status_code != 200 or body is None:
        # An unreadable refusal (4xx, damaged or a proxy's) is one all the same (RFC 9110 section 15.5). If it
        # counted as "perhaps done", the next attempt's DomainRecordDuplicate would make somebody else's
        # record ours.
        raise NoReply(
            f"HTTP {reply.status_code} without "
            + ("a reply of Alidns" if reply.status_code == 200 else "an error code of Alidns"),
            maybe_done=not 400 <= reply.status_code < 500,
        )
    return body


def _taken(take: Callable[[Any], T], body: Any) -> T:
    try:
        return take(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NoReply(f"a reply in another form than documented ({error!r})", maybe_done=True) from None


def _is_worth_another(error: Exception) -> bool:
    return isinstance(error, NoReply) or (isinstance(error, Refused) and error.code in _TRY_AGAIN)
