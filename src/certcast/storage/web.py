"""The store as a host without credentials sees it: plain GET below `store.read_from`.

    [store]
    url = "oss://bucket/prefix"                   what the store is, in manifests too
    read_from = "https://relay.internal/certs"    where this host reads it: a copy, a proxy, a CDN, the bucket

    200                     the object, if its end can be told and it isn't compressed
    304                     unchanged, if that was asked
    404                     no such key, and so is a redirect to a folder of that name. A wrong address
                            answers alike: "nothing was published" is an error as well
    401, 403                not for this host; some buckets say 403 for a missing object
    a redirect              not followed: nobody has looked at that address
    429, 5xx, no answer     worth another attempt

- Nothing is believed for its source: manifests are signed, keys are sealed. The server can keep objects
  back, and `expires` shows that.
- Requests carry no Authorization, no ~/.netrc, no cookies. `Cache-Control: no-cache`: an emergency must not
  wait for a cache's lifetime.
- An ETag counts only for an object at least two seconds old. nginx makes it of size and time in whole
  seconds, so two manifests of one second may share it (RFC 9110 section 8.8.2.2 has this rule for dates).
- Trusted are the system's roots, where companies put their own, or REQUESTS_CA_BUNDLE; HTTPS_PROXY is used.

Why `requests`: docs/adr/0013. Not here: attempts and deadline (attempts.py), signature and digests.
"""

from __future__ import annotations

import re
import ssl
import time
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests import RequestException, Session
from urllib3.exceptions import HTTPError

from certcast.host import clock
from certcast.host.transport import BoundedAdapter, Cutter, reason
from certcast.report.errors import ConfigInvalid, StoreDenied, StoreError, StoreNoBucket, StoreUnreachable
from certcast.storage.attempts import CONNECT_SECONDS, SILENCE_SECONDS, Settled, repeated
from certcast.storage.store import DEADLINE_SECONDS, Object, Unchanged, checked_key, too_large

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

    from certcast.config.model import StoreConfig

# RFC 9110 section 8.8.3, without the octets that have no meaning there.
ETAG = re.compile(r'(W/)?"[!#-~]{0,200}"')
# What an error page of OSS or S3 says; only its beginning is looked at.
CODE = re.compile(rb"<Code>(\w{1,64})</Code>")
OLD_ENOUGH = timedelta(seconds=2)
_VERIFY_FAILED = "certificate verify failed"  # OpenSSL's words


class WebStore:
    """A store that is read by HTTP: a `Reader`. See store.py for what it promises."""

    def __init__(self, url: str, read_from: str, *, deadline: float = DEADLINE_SECONDS) -> None:
        """`url` is the store's identity, `read_from` the address below which its keys are."""
        self.url = url
        self._base = read_from.rstrip("/")
        self._deadline = deadline
        self._cutter = Cutter()
        self._session = Session()
        self._session.auth = _nobody
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self._session.verify = _system_roots()
        self._session.headers.update(
            {"Accept-Encoding": "identity", "Cache-Control": "no-cache", "User-Agent": "certcast"}
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, BoundedAdapter(self._cutter))

    @classmethod
    def from_config(cls, config: StoreConfig) -> WebStore:
        """Return the store of `[store] read_from`. ConfigInvalid for an address with more than a place."""
        address = config.read_from or ""
        parts = urlsplit(address)
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigInvalid(
                "store.read_from is more than an address",
                expected="https://host/path: no user and password, no ? and no #",
                next="let the relay admit this host by its network; releases are sealed and signed anyway",
            )
        if parts.scheme == "http" and config.encryption == "none":
            raise ConfigInvalid(
                'store.read_from: http:// with encryption = "none" would send private keys in plain text',
                expected='https://, or encryption = "age"',
                next="correct [store] in the configuration file",
            )
        return cls(config.url, address)

    def get(self, key: str, *, limit: int, unless: str | None = None) -> Object | Unchanged | None:
        """See `Reader.get`."""
        checked_key(key)
        end = time.monotonic() + self._deadline
        return repeated(lambda _number: self._once(key, limit, unless or None), self._cutter, end=end)

    def _once(self, key: str, limit: int, unless: str | None) -> Object | Unchanged | None:
        """Ask once. Every failure on the way becomes a StoreError."""
        try:
            response = self._session.get(
                f"{self._base}/{key}",
                headers={"If-None-Match": unless} if unless else {},
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
                allow_redirects=False,
                stream=True,
            )
            with response:
                # A header that was cut in the middle of a line looks like a whole one.
                self._require_in_time(key)
                return self._answer(response, key, limit, unless)
        except StoreError:
            raise
        except (RequestException, HTTPError, OSError, ValueError) as error:
            self._require_in_time(key)
            raise self._not_reached(key, reason(error)) from None

    def _answer(
        self, response: Response, key: str, limit: int, unless: str | None
    ) -> Object | Unchanged | None:
        if response.status_code == 200:
            self._require_plain_and_bounded(response.headers, key)
            return Object(_body(response, key, limit), _reliable_etag(response.headers))
        if response.status_code == 304 and unless is not None:
            return Unchanged.UNCHANGED
        # The adapter has read it, and not without a limit.
        match = CODE.search(response.content[:4096]) if response.status_code >= 400 else None
        code = match[1].decode() if match else None
        if (response.status_code == 404 and code != "NoSuchBucket") or _is_folder(response):
            return None
        raise self._refusal(response, key, code)

    def _require_in_time(self, key: str) -> None:
        if self._cutter.has_cut:
            raise StoreUnreachable(
                f"{self._base}: no complete answer within {self._deadline:g} s",
                found=f"GET {key}: the answer came too slowly",
                next="look at the network between this host and store.read_from, then run it again",
            )

    def _require_plain_and_bounded(self, headers: Mapping[str, str], key: str) -> None:
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        if coding != "identity":
            raise Settled(
                f"{self._base} gives no usable answer",
                expected="the object as it was published: `Accept-Encoding: identity` was sent",
                found=f"GET {key}: Content-Encoding: {coding[:40]}",
                next="switch compression off there (nginx: `gzip off;`)",
            )
        chunked = headers.get("Transfer-Encoding", "").strip().lower() == "chunked"
        if not chunked and not headers.get("Content-Length", "").isdecimal():
            raise StoreUnreachable(
                f"{self._base} gives no usable answer",
                expected="Content-Length, or chunks: otherwise a broken connection looks like the end",
                found=f"GET {key}: neither of them, or only the beginning of an answer",
                next="run it again; if it repeats, look at the server behind store.read_from",
            )

    def _refusal(self, response: Response, key: str, code: str | None) -> StoreError:
        """Return the error for an answer that is neither the object nor its absence."""
        status = response.status_code
        found = f"GET {key}: {status}" + (f" {code}" if code else "")
        if code == "NoSuchBucket":
            return StoreNoBucket(
                f"{self._base}: the bucket behind it does not exist",
                found=found,
                next="correct store.read_from in the configuration file, or the server that it names",
            )
        if status in {401, 403}:
            return StoreDenied(
                f"{self._base} refused the request",
                expected="200, or 404 for what is not there",
                found=found,
                next="let the server admit this host by its network (certcast sends no password), "
                "or correct store.read_from. A bucket may say this of what was not published yet",
            )
        if 300 <= status < 400:
            where = urlsplit(response.headers.get("Location", ""))
            return Settled(
                f"{self._base} leads elsewhere",
                expected="the object itself: redirects are not followed",
                found=f"{found} to {where.scheme}://{where.hostname}" if where.netloc else found,
                next="if that place is meant, name it in store.read_from",
            )
        if status in {408, 429} or status >= 500:
            return StoreUnreachable(
                f"{self._base} gives no usable answer",
                found=found,
                next="look at the server behind store.read_from; the next timer tries again",
            )
        return Settled(
            f"{self._base} gives no usable answer",
            expected="200, 304 where it was asked for, or 404",
            found=found,
            next="is a web server behind store.read_from that gives out plain files?",
        )

    def _not_reached(self, key: str, why: str) -> StoreError:
        kind = Settled if _VERIFY_FAILED in why else StoreUnreachable
        hint = clock.tls_hint(why)
        if kind is Settled and hint is None:
            hint = (
                "correct store.read_from, or let this system trust the server's authority "
                "(Debian: a .crt file in /usr/local/share/ca-certificates, then `update-ca-certificates`)"
            )
        return kind(
            f"{self._base} cannot be reached",
            found=f"GET {key}: {why}",
            next=hint or "look at store.read_from and the network of this host",
        )


def _is_folder(response: Response) -> bool:
    """Whether this is a web server's way of saying that it has a folder of that name, hence no object."""
    where = urlsplit(response.headers.get("Location", "")).path
    return response.status_code == 301 and where == urlsplit(response.url).path + "/"


def _body(response: Response, key: str, limit: int) -> bytes:
    """Return the whole body, as it came over the wire. StoreTooLarge, and no more reading, beyond `limit`."""
    length = response.headers.get("Content-Length", "")
    if length and int(length) > limit:
        raise too_large(key, limit)
    octets = bytearray()
    # urllib3 raises for a body that ends before its length, or without its last chunk.
    while chunk := response.raw.read(limit + 1 - len(octets), decode_content=False):
        octets += chunk
        if len(octets) > limit:
            raise too_large(key, limit)
    return bytes(octets)


def _reliable_etag(headers: Mapping[str, str]) -> str:
    """Return the ETag if two different bodies can't share it; else "", with which nothing is conditional."""
    etag = headers.get("ETag", "").strip()
    if not ETAG.fullmatch(etag):
        return ""
    modified, date = _moment(headers.get("Last-Modified")), _moment(headers.get("Date"))
    if modified is not None and (date is None or date - modified < OLD_ENOUGH):
        return ""
    return etag


def _moment(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text or "").replace(tzinfo=None)  # HTTP's dates are all GMT
    except ValueError:
        return None


def _system_roots() -> str | bool:
    """Return the file or folder of the system's trusted roots; True (those of requests) if it has none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


def _nobody(prepared: PreparedRequest) -> PreparedRequest:
    """As requests' `auth`, so that ~/.netrc isn't used."""
    return prepared
