"""One CA, by the URL of its ACME directory: its offers, and this host's account.

{state_dir}/acme/{host}-{8 digits of the URL's SHA-256}/
    account.json    the account's URL (account.py)
    account.key     its private key
    limits.json     orders placed, and moments before which the CA takes none (limits.py)

directory   RFC 8555, 7.1.1: read once in a run, and only when it is needed
read        unsigned requests, over one connection: the directory, renewal information (RFC 9773)
network     signed requests (protocol/network.py): one Network for each thread
revoke      RFC 8555, 7.6
"""

from __future__ import annotations

import hashlib
import re
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from requests import Response, Session

    from certcast.acme.account import Account
    from certcast.acme.protocol.answers import NoAnswer
    from certcast.acme.protocol.network import Network
    from certcast.config.model import RenewalConfig
    from certcast.host.transport import Cutter

_SECONDS = 10.0  # for each unsigned answer, whole
# RFC 5280, 5.3.1.
_REASON_CODES = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
_NEEDED = ("newNonce", "newAccount", "newOrder", "revokeCert")


def folder_of(state_dir: Path, directory_url: str) -> Path:
    """Return the folder of the CA at `directory_url` on this host."""
    host = re.sub(r"[^a-z0-9.-]", "-", (urlsplit(directory_url).hostname or "").lower())[:60]
    return state_dir / "acme" / f"{host}-{hashlib.sha256(directory_url.encode()).hexdigest()[:8]}"


class Ca:
    """The CA at `url`; `clock` gives the time, `note` gets what an operator should know of the account."""

    def __init__(
        self,
        url: str,
        state_dir: Path,
        renewal: RenewalConfig,
        *,
        clock: Callable[[], datetime],
        note: Callable[[str], None],
    ) -> None:
        self.url = url
        self.folder = folder_of(state_dir, url)
        self.clock = clock
        self.note = note
        self._renewal = renewal
        self._lock = threading.RLock()
        self._directory: dict[str, Any] | None = None
        self._account: Account | None = None
        self._silence: NoAnswer | None = None

    # -- unsigned

    @property
    def directory(self) -> dict[str, Any]:
        """The directory object. Raises NoAnswer, Problem, ValueError if it is none."""
        with self._lock:
            if self._directory is None:
                directory = self.read(self.url)[0]
                missing = [field for field in _NEEDED if not is_url(directory.get(field))]
                if missing:
                    raise ValueError(f"{self.url} has no {', '.join(missing)}: it is not an ACME directory")
                self._directory = directory
            return self._directory

    @property
    def meta(self) -> dict[str, Any]:
        """The directory's `meta`: terms of service, profiles, whether an external account is needed."""
        meta = self.directory.get("meta")
        return meta if isinstance(meta, dict) else {}

    def read(self, url: str) -> tuple[dict[str, Any], Response]:
        """Return the JSON object at `url`, and its answer. Raises Problem, NoAnswer, ValueError.

        For one thread at a time. After NoAnswer this run sends no further request: a slow CA must not hold up
        work that needs no CA.
        """
        from certcast.acme.protocol.answers import NoAnswer, ask_patiently, json_object, require_success

        if self._silence is not None:
            raise self._silence
        try:
            response = ask_patiently(lambda: require_success(self._get(url), self.clock()))
        except NoAnswer as silence:
            self._silence = silence
            raise
        return json_object(response), response

    def _get(self, url: str) -> Response:
        from certcast.acme.protocol.answers import whole_answer

        session, cutter = self._connection
        with whole_answer(cutter, url, _SECONDS):
            return session.get(url, timeout=_SECONDS)

    @cached_property
    def _connection(self) -> tuple[Session, Cutter]:
        from requests import Session

        from certcast.host.transport import BoundedAdapter, Cutter

        session, cutter = Session(), Cutter()
        for scheme in ("https://", "http://"):
            session.mount(scheme, BoundedAdapter(cutter))
        return session, cutter

    # -- signed

    @property
    def account(self) -> Account:
        """This host's account, found or made at its first use. Raises as `account.open_account` does."""
        from certcast.acme.account import open_account

        with self._lock:
            if self._account is None:
                self._account = open_account(self, self._renewal)
            return self._account

    def forget_account(self, uri: str) -> bool:
        """Forget an account that the CA does not know any more; the next use of `account` looks for another.

        Return whether there was anything to forget: another order may have been faster. LocalFault.
        """
        from certcast.acme.account import drop_record

        with self._lock:
            if self.account.uri != uri:
                return False
            drop_record(self.folder)
            self._account = None
            return True

    def network(self, *, signed_by: Any = None, uri: str | None = None) -> Network:
        """Return the network for requests that the account signs, or the key `signed_by`."""
        from certcast.acme.protocol.network import Network

        if signed_by is None:
            signed_by, uri = self.account.key, self.account.uri
        return Network(signed_by, uri, self.directory["newNonce"], self.clock)

    def revoke(self, pem: bytes, *, privkey: bytes | None, reason: str) -> None:
        """Revoke the first certificate of `pem`; "already revoked" is no failure (RFC 8555, 7.6).

        Signed by `privkey`, PEM, which needs no account and proves that the key is at hand; without it by the
        account. `reason` is a word of RFC 5280, 5.3.1.
        Raises Problem, NoAnswer, ValueError, and what opening the account raises.
        """
        from acme import messages

        from certcast.acme.protocol.answers import Problem
        from certcast.release import certificate

        network = self.network() if privkey is None else self.network(signed_by=certificate.read_key(privkey))
        leaf = certificate.read_chain(pem).leaf
        revocation = messages.Revocation(certificate=leaf, reason=_REASON_CODES[reason])
        try:
            network.post(self.directory["revokeCert"], revocation)
        except Problem as problem:
            if problem.type != "alreadyRevoked":
                raise


def is_url(value: object) -> bool:
    """Whether a field of an answer is an address that can be asked."""
    return isinstance(value, str) and bool(re.fullmatch(r"https?://[^\s/]+(/\S*)?", value))
