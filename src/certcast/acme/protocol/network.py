"""Signed requests to a CA: the network of certbot's `acme` library, with what it lacks.

    read, post ──> the response, whole, within one deadline
               └─> Problem, NoAnswer (answers.py)

- The library drops the document of a 409, the Retry-After of a 429, and a 201 that has no nonce. Here
  every response is kept.
- A bad nonce is tried again three times (RFC 8555, 6.5); the library tries once.
- Requests that change nothing at the CA are repeated after NoAnswer and after a 5xx.
- Retry-After is read as UTC; the library reads an HTTP date as local time.
- The library has no newOrder with `replaces`, and none before a CSR is made.

docs/adr/0018 names each reason. Not here: what is said (order.py), unsigned requests (ca.py).
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import josepy as jose
import stamina
from acme import messages
from acme.client import ClientNetwork

from certcast.acme.protocol.answers import (
    NoAnswer,
    Problem,
    ask_patiently,
    require_success,
    retry_after,
    whole_answer,
)
from certcast.host.transport import BoundedAdapter, Cutter

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from requests import Response

# Boulder answers within seconds; finalize may take longer where the CA signs at once.
_SECONDS = 45.0
_BAD_NONCES = 3

# Its "retry_scheduled" would reach cron's mail from a run that went well.
logging.getLogger("stamina").setLevel(logging.ERROR)


class NewOrder(messages.NewOrder):
    """newOrder's payload (RFC 8555, 7.4); `replaces` is the identifier of RFC 9773, 5."""

    replaces: str | None = jose.field("replaces", omitempty=True)


def new_order(names: tuple[str, ...], profile: str | None, replaces: str | None) -> NewOrder:
    """Return the payload for these DNS names; None leaves a field out."""
    identifiers = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in names]
    return NewOrder(identifiers=identifiers, profile=profile, replaces=replaces)


class Network(ClientNetwork):
    """Signed requests to one CA, over connections that are kept; for one thread at a time.

    `key` signs, with the account's URL `uri`, or without one by the key itself (newAccount, revocation by
    the certificate's key).
    """

    def __init__(
        self, key: PrivateKeyTypes, uri: str | None, new_nonce: str, now: Callable[[], datetime]
    ) -> None:
        jwk, algorithm = _signer(key)
        super().__init__(
            key=jwk,
            account={"uri": uri} if uri else None,  # type: ignore[arg-type]  # of it the library reads "uri" alone
            alg=algorithm,
            user_agent=f"certcast/{version('certcast')} acme-python",
        )
        self._cutter = Cutter()
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, BoundedAdapter(self._cutter))
        self._new_nonce = new_nonce
        self._now = now

    def read(self, url: str) -> Response:
        """Return the resource at `url` by POST-as-GET (RFC 8555, 6.3). Raises Problem, NoAnswer."""
        return ask_patiently(lambda: self.post(url, None))

    def post(self, url: str, obj: jose.JSONDeSerializable | None, **_kwargs: Any) -> Response:
        """Return the answer to a signed POST; without one it is not repeated. Raises Problem, NoAnswer."""
        for attempt in stamina.retry_context(
            on=_is_bad_nonce, attempts=1 + _BAD_NONCES, wait_initial=0.0, wait_jitter=0.0
        ):
            with attempt:
                data = self._wrap_in_jws(obj, self._get_nonce(url, self._new_nonce), url)  # type: ignore[arg-type]  # None is POST-as-GET
                headers = {"Content-Type": self.JOSE_CONTENT_TYPE}
                response = self._send_request("POST", url, data=data, headers=headers)
                self._add_nonce(response)
                return require_success(response, self._now())
        raise AssertionError("unreachable: the last attempt returns or raises")

    def pause(self, response: Response) -> float:
        """Return the seconds that an answer's Retry-After asks for, 0 without one (RFC 9110, 10.2.3)."""
        until = retry_after(response, self._now())
        return max(0.0, (until - self._now()).total_seconds()) if until else 0.0

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        kwargs["allow_redirects"] = False  # a signed request is for the URL that it names
        with whole_answer(self._cutter, url, _SECONDS):
            return super()._send_request(method, url, *args, **kwargs)

    def _get_nonce(self, url: str, new_nonce_url: str) -> str:
        while not self._nonces:
            # Without a nonce nothing can be sent: here an answer without one is no answer.
            answer = ask_patiently(
                lambda: require_success(self._send_request("HEAD", new_nonce_url), self._now())
            )
            self._add_nonce(answer)
            if not self._nonces:
                raise NoAnswer(new_nonce_url, "an answer without a Replay-Nonce")
        return self._nonces.pop()

    def _add_nonce(self, response: Response) -> None:
        """Keep the nonce of an answer; without one, the next request asks for it."""
        from acme import jws

        nonce = response.headers.get(self.REPLAY_NONCE_HEADER)
        if nonce is not None:
            try:
                self._nonces.add(jws.Header._fields["nonce"].decode(nonce))
            except (jose.DeserializationError, ValueError):
                return


def _signer(key: PrivateKeyTypes) -> tuple[jose.JWK, jose.JWASignature]:
    """Return an account's or certificate's key as the library signs with it, and the algorithm."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, rsa.RSAPrivateKey):
        return jose.JWKRSA(key=key), jose.RS256
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return jose.JWKEC(key=key), {256: jose.ES256, 384: jose.ES384, 521: jose.ES512}[key.curve.key_size]
    raise ValueError(f"{type(key).__name__} is neither an RSA nor an ECDSA key")


def _is_bad_nonce(error: Exception) -> bool:
    return isinstance(error, Problem) and error.type == "badNonce"
