"""One CA, by the URL of its ACME directory: what it offers, and our account there.

    {state_dir}/acme/{host}-{8 digits of the URL's SHA-256}/
        account.json    the account's URL (account.py)
        account.key     its private key
        limits.json     orders placed, and moments before which the CA takes none (limits.py)

The directory (RFC 8555, 7.1.1) is read once in a run, and only when it is needed. Each order has a Network
of its own, since one Network is for one thread.
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

    from certcast.acme.account import Account
    from certcast.acme.protocol.network import Network
    from certcast.acme.protocol.unsigned import Reader
    from certcast.config.model import RenewalConfig

_NEEDED = ("newNonce", "newAccount", "newOrder", "revokeCert")


def folder_of(state_dir: Path, directory_url: str) -> Path:
    """Return where this host keeps what belongs to the CA at `directory_url`."""
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

    @property
    def directory(self) -> dict[str, Any]:
        """The directory object. Raises NoAnswer, Problem, ValueError if it is none."""
        with self._lock:
            return self._directory

    @cached_property
    def _directory(self) -> dict[str, Any]:
        found = self.reader.read(self.url)[0]
        missing = [field for field in _NEEDED if not is_url(found.get(field))]
        if missing:
            raise ValueError(f"{self.url} has no {', '.join(missing)}: it is not an ACME directory")
        return found

    @cached_property
    def reader(self) -> Reader:
        """Unsigned requests to this CA, over one connection."""
        from certcast.acme.protocol.unsigned import Reader

        return Reader(self.clock)

    @property
    def meta(self) -> dict[str, Any]:
        """The directory's `meta`: terms of service, profiles, whether an external account is needed."""
        found = self.directory.get("meta")
        return found if isinstance(found, dict) else {}

    @property
    def account(self) -> Account:
        """Our account there; found or made at its first use. Raises as `account.open_account` does."""
        with self._lock:
            return self._account

    @cached_property
    def _account(self) -> Account:
        from certcast.acme.account import open_account

        return open_account(self, self._renewal)

    def forget_account(self, uri: str) -> bool:
        """Let the next use of `account` look for it anew: the CA has said that it does not know this one.

        Return whether there was anything to forget: another order may have done so. LocalFault.
        """
        from certcast.acme.account import drop_record

        with self._lock:
            if self.account.uri != uri:
                return False
            drop_record(self.folder)
            self.__dict__.pop("_account", None)
            return True

    def network(self, *, signed_by: Any = None, uri: str | None = None) -> Network:
        """Return a conversation that is signed by the account, or by the key `signed_by`."""
        from certcast.acme.protocol.network import Network

        if signed_by is None:
            signed_by, uri = self.account.key, self.account.uri
        return Network(signed_by, uri, self.directory["newNonce"], self.clock)


def is_url(found: object) -> bool:
    """Whether a field of an answer is an address that can be asked."""
    return isinstance(found, str) and bool(re.fullmatch(r"https?://[^\s/]+(/\S*)?", found))
