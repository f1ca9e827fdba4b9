"""Alibaba Cloud DNS (Alidns, API version 2015-01-09) as a DNS provider.

The official core SDK signs (ACS3-HMAC-SHA256) and sends; ADR 0004 says why it
is its generic call and not the typed package. The SDK gives up after one
attempt, so retries are here: each is a new call, hence a new nonce, because
Alidns refuses a nonce that it has seen (SignatureNonceUsed).

An Add whose reply was lost may have been carried out. Its repetition then says
DomainRecordDuplicate, and the record is looked up by its value; the same word
as the answer to a first attempt means that somebody else's record stands there.

What the answers mean is decided by their Code, not by the HTTP status: the
documented statuses and those on the wire differ.

Nothing of the SDK's exceptions is passed on but Code, Message and RequestId:
str() of them shows the whole reply, and SignatureDoesNotMatch echoes the signed
request. Credentials come from certcast.credentials, fresh for each call, since
temporary ones expire while a slow zone propagates.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from certcast import credentials
from certcast.dns01.provider import TTL, Added
from certcast.errors import DnsDenied, DnsFailed, RenewalError, ZoneMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from certcast.config import DnsConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = "2015-01-09"
_RECORDS_PER_PAGE = 500  # the most that DescribeDomainRecords gives
_ZONES_PER_PAGE = 100  # the most that DescribeDomains gives
_CONNECT_TIMEOUT = 5_000  # milliseconds, as is the next
_READ_TIMEOUT = 15_000
_ATTEMPTS = 7
_PATIENCE = 90.0  # seconds for all attempts of one call together

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
_NO_ZONE = ("InvalidDomainName.NoExist", "IncorrectDomainUser")
_KEY_REFUSED = ("InvalidAccessKeyId", "InvalidSecurityToken", "SignatureDoesNotMatch")
_CLOCK = ("InvalidTimeStamp", "IllegalTimestamp")


class Alidns:
    """The zones of one Alibaba Cloud account, by the contract of provider.py."""

    def __init__(self, dns: DnsConfig) -> None:
        self._api = _Api(dns)

    def zones(self) -> list[str]:
        """DescribeDomains, all pages."""
        with _reported("DescribeDomains", None):
            pages = self._pages(
                "DescribeDomains", {}, _ZONES_PER_PAGE, lambda body: body["Domains"]["Domain"]
            )
            return [domain["DomainName"].lower() for domain in pages]

    def nameservers(self, zone: str) -> list[str]:
        """DescribeDomainInfo: the servers that Alidns has assigned to the zone."""
        with _reported("DescribeDomainInfo", zone):
            hosts = self._api.call(
                "DescribeDomainInfo", {"DomainName": zone}, lambda body: body["DnsServers"]["DnsServer"]
            )
            return [host.rstrip(".").lower() for host in hosts]

    def add_txt(self, zone: str, rr: str, value: str, ttl: int = TTL) -> Added:
        """AddDomainRecord; after DomainRecordDuplicate, the record that is there."""
        record = {"DomainName": zone, "RR": rr, "Type": "TXT", "Value": value, "TTL": str(ttl)}
        with _reported("AddDomainRecord", zone):
            try:
                return Added(self._api.call("AddDomainRecord", record, _record_id), ours=True)
            except _Refused as refusal:
                if refusal.code != "DomainRecordDuplicate":
                    raise
                ours = refusal.maybe_done_before
        return Added(self._find_duplicate(zone, rr, value), ours=ours)

    def _find_duplicate(self, zone: str, rr: str, value: str) -> str:
        """Find the record that AddDomainRecord says is there; the list may be a moment behind."""
        import stamina

        for attempt in stamina.retry_context(on=DnsFailed, attempts=5, wait_initial=0.25):
            with attempt:
                standing = self.find_txt(zone, rr, value)
                if standing is None:
                    raise DnsFailed(
                        f"Alidns calls the TXT value at {rr} in {zone} a duplicate, but lists no such record",
                        expected=f"TXT {value}",
                        next="run again; if it repeats, look at the zone in the Alidns console",
                    )
                return standing
        raise AssertionError("unreachable: the last attempt returns or raises")

    def find_txt(self, zone: str, rr: str, value: str) -> str | None:
        """DescribeDomainRecords, all pages: the keywords narrow it down, but match any part of a text."""
        narrowed = {"DomainName": zone, "RRKeyWord": rr, "TypeKeyWord": "TXT", "ValueKeyWord": value}
        wanted = (rr.lower(), "TXT", value)
        with _reported("DescribeDomainRecords", zone):
            for record in self._pages(
                "DescribeDomainRecords",
                narrowed,
                _RECORDS_PER_PAGE,
                lambda body: body["DomainRecords"]["Record"],
            ):
                if (record["RR"].lower(), record["Type"], record["Value"]) == wanted:
                    return _record_id(record)
        return None

    def remove(self, zone: str, record_id: str) -> None:
        """DeleteDomainRecord; DomainRecordNotBelongToUser is the answer for an id that is gone."""
        with _reported("DeleteDomainRecord", zone):
            try:
                self._api.call("DeleteDomainRecord", {"RecordId": record_id}, _record_id)
            except _Refused as refusal:
                if refusal.code != "DomainRecordNotBelongToUser":
                    raise

    def _pages(
        self, action: str, parameters: Mapping[str, str], size: int, take: Callable[[Any], list[Any]]
    ) -> Iterator[Any]:
        """Yield the items of every page."""
        seen, number = 0, 1
        while True:
            paging = {"PageNumber": str(number), "PageSize": str(size)}
            items, total = self._api.call(
                action, {**parameters, **paging}, lambda body: (take(body), int(body["TotalCount"]))
            )
            yield from items
            seen, number = seen + len(items), number + 1
            if seen >= total or not items:
                return


def _record_id(body: Any) -> str:
    return str(body["RecordId"])


class _Refused(Exception):
    """An answer with a Code."""

    def __init__(self, code: str, message: str, request_id: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.request_id = request_id
        self.maybe_done_before = False  # by an earlier attempt of the same call


class _NoReply(Exception):
    """No answer, or one that isn't the API's: the work may have been done."""


class _Api:
    """Signed calls with retries; raises _Refused and _NoReply when these are used up."""

    def __init__(self, dns: DnsConfig) -> None:
        self._endpoint = urlsplit(dns.endpoint)
        self._keys = credentials.provider(dns.profile)

    def call(self, action: str, parameters: Mapping[str, str], take: Callable[[Any], T]) -> T:
        """Return what `take` finds in the reply's body; a body that lacks it counts as no reply."""
        import stamina

        # Its own words for a retry ("stamina.retry_scheduled", a warning) say nothing to an operator.
        logging.getLogger("stamina").setLevel(logging.ERROR)
        maybe_done = False
        for attempt in stamina.retry_context(
            on=_is_worth_another, attempts=_ATTEMPTS, timeout=_PATIENCE, wait_initial=0.25, wait_jitter=0.25
        ):
            with attempt:
                try:
                    return _taken(take, self._send(action, parameters))
                except _NoReply as silence:
                    maybe_done = True
                    logger.info("Alidns %s: %s", action, silence)
                    raise
                except _Refused as refusal:
                    refusal.maybe_done_before = maybe_done
                    maybe_done = maybe_done or _TRY_AGAIN.get(refusal.code, False)
                    logger.info("Alidns %s: %s (request %s)", action, refusal.code, refusal.request_id)
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send(self, action: str, parameters: Mapping[str, str]) -> Any:
        from alibabacloud_tea_openapi.client import Client
        from alibabacloud_tea_openapi.utils_models import Config, OpenApiRequest, Params
        from darabonba.exceptions import ResponseException
        from darabonba.runtime import RuntimeOptions

        try:
            keys = self._keys()
        except credentials.CredentialsMissing as missing:
            raise _no_key(missing) from None
        client = Client(
            Config(
                access_key_id=keys.access_key_id,
                access_key_secret=keys.access_key_secret,
                security_token=keys.security_token,
                endpoint=self._endpoint.netloc,
                protocol=self._endpoint.scheme,
                connect_timeout=_CONNECT_TIMEOUT,
                read_timeout=_READ_TIMEOUT,
            )
        )
        call = Params(
            action=action,
            version=VERSION,
            protocol="HTTPS",
            pathname="/",
            method="POST",
            auth_type="AK",
            style="RPC",
            req_body_type="formData",
            body_type="json",
        )
        try:
            reply = client.call_api(call, OpenApiRequest(query=dict(parameters)), RuntimeOptions())
        except ResponseException as error:
            if error.code in (None, "None"):
                raise _NoReply(f"HTTP {error.status_code} without an error code of Alidns") from None
            request_id = str((error.data or {}).get("RequestId", "unknown"))
            raise _Refused(str(error.code), str((error.data or {}).get("Message", "")), request_id) from None
        except Exception as error:
            # Whatever else it raises (time-outs, cut connections, a reply that isn't JSON, all wrapped in
            # its UnretryableException): there is no reply to go by.
            raise _NoReply(_short(error)) from None
        return reply["body"]


def _taken(take: Callable[[Any], T], body: Any) -> T:
    try:
        return take(body)
    except (KeyError, TypeError, ValueError) as error:
        raise _NoReply(f"a reply in another form than documented ({error!r})") from None


def _is_worth_another(error: Exception) -> bool:
    return isinstance(error, _NoReply) or (isinstance(error, _Refused) and error.code in _TRY_AGAIN)


def _short(error: Exception) -> str:
    """The end of urllib3's long sentences, where the reason is; the rest is the request's address."""
    text = re.sub(r"<[^>]*>: |.*Caused by \w+\(|Max retries exceeded with url: \S+|['\")]+$", "", str(error))
    return text[:200] or type(error).__name__


@contextmanager
def _reported(action: str, zone: str | None) -> Iterator[None]:
    """Say as an operator's error what ended a call for good."""
    try:
        yield
    except _Refused as refusal:
        raise _explained(refusal, action, zone) from None
    except _NoReply as silence:
        raise DnsFailed(
            f"Alidns did not answer {action}" + (f" for {zone}" if zone else ""),
            found=str(silence),
            next="see whether this host reaches the endpoint in [dns], then run again",
        ) from None


def _explained(refusal: _Refused, action: str, zone: str | None) -> RenewalError:
    code = refusal.code
    said = f"{code}: {refusal.message} (request {refusal.request_id})"
    if code.startswith(_CLOCK):
        return DnsFailed(
            "Alidns says that this host's clock is wrong",
            expected="a clock within 15 minutes of the right time",
            found=said,
            next="`timedatectl`, mend the time, then run again",
        )
    if code.startswith(_KEY_REFUSED):
        return DnsDenied(
            f"Alidns refused the AccessKey in {action}",
            # The message of a wrong signature shows the signed request: it stays out.
            found=f"{code} (request {refusal.request_id})",
            next="see whether the AccessKey is active and its secret is the right one, then run again",
        )
    if code.startswith("Forbidden"):
        return DnsDenied(
            f"the AccessKey may not do {action}" + (f" in {zone}" if zone else ""),
            expected=f"a RAM policy that allows alidns:{action} on acs:alidns:*:*:"
            + (f"domain/{zone}" if zone else "*"),
            found=said,
            next="add that to the RAM user's policy"
            + ("" if zone else ", or name the zones as [[zone]], so that nobody needs to list them"),
        )
    if code in _NO_ZONE:
        return ZoneMissing(
            f"the zone {zone} is not in this Alibaba Cloud account",
            found=said,
            next="see whether the AccessKey belongs to the account that has the zone",
        )
    return DnsFailed(
        f"Alidns refused {action}" + (f" in {zone}" if zone else ""),
        found=said,
        next=f"look the code up at https://api.aliyun.com/troubleshoot?q={code}&product=Alidns",
    )


def _no_key(missing: credentials.CredentialsMissing) -> DnsDenied:
    return DnsDenied(
        "no AccessKey for Alidns was found",
        expected="ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET, a profile, or an instance's RAM role",
        found=str(missing)[:200],
        next="give the renewal host its AccessKey, then run again",
    )
