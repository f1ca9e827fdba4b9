"""Alibaba Cloud DNS (Alidns, API version 2015-01-09) as a DNS provider.

An Add whose reply was lost may have been carried out. Its repetition then says DomainRecordDuplicate, and the
record is looked up by its value. The same Code as the answer to a first attempt means that somebody else's
record is there.

A reply can be damaged where TLS doesn't reach, in whatever ends TLS on the way, and still be JSON. A RecordId
that is off by one bit may be somebody else's record, and DeleteDomainRecord takes nothing but the id. So a
removal begins with `find_txt` (records.py), whose result counts once a second answer has said the same.

An internationalised zone has two names there: DomainName as it is written (中文.com) and PunyCode
(https://help.aliyun.com/document_detail/29751.html). Requests carry the first, which is seen to work
(github.com/acmesh-official/acme.sh/issues/1822; lego sends it, too); the rest of certcast knows the second.
How labels below such a zone are listed isn't documented: either form is understood.

Not here: signature, deadline and repetition of one call (alidns_api.py).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

import stamina

from certcast.credentials import CredentialsMissing, RoleRefused, StsClock
from certcast.dns01.alidns.alidns_api import Api, CallFailed, NoReply, Refused
from certcast.dns01.provider import TTL, Added, MaybeAdded
from certcast.host import clock
from certcast.report.errors import DnsDenied, DnsFailed, RenewalError, ZoneMissing
from certcast.report.names import to_ascii, to_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from certcast.config.model import DnsConfig
    from certcast.host.clock import WrongClock

T = TypeVar("T")

_RECORDS_PER_PAGE = 500  # the most that DescribeDomainRecords gives
_ZONES_PER_PAGE = 100  # the most that DescribeDomains gives
_MOST_ANSWERS = 5  # until two in a row agree

_NO_ZONE = ("InvalidDomainName.NoExist", "IncorrectDomainUser")
_KEY_REFUSED = ("InvalidAccessKeyId", "InvalidSecurityToken", "SignatureDoesNotMatch")
_CLOCK = ("InvalidTimeStamp", "IllegalTimestamp")


class Alidns:
    """The zones of one Alibaba Cloud account, by the contract of provider.py."""

    def __init__(self, dns: DnsConfig) -> None:
        self._opened = Api(dns)
        self._of_thread = threading.local()
        self._domain_names: dict[str, str] = {}  # each zone's DomainName, by its PunyCode

    @property
    def _api(self) -> Api:
        """This thread's copy of the API as it was opened, which itself calls nothing.

        A copy makes its own connection and deadline at its first call, since both serve one caller at a
        time. The source of keys is shared: it is looked for, and STS asked, once for all threads.
        """
        if not hasattr(self._of_thread, "api"):
            self._of_thread.api = copy(self._opened)
        api: Api = self._of_thread.api
        return api

    def zones(self) -> list[str]:
        """DescribeDomains, all pages."""
        with self._reported("DescribeDomains", None):
            self._domain_names = dict(self._pages("DescribeDomains", {}, _ZONES_PER_PAGE, _zone_names))
        return list(self._domain_names)

    def nameservers(self, zone: str) -> list[str]:
        """DescribeDomainInfo: the servers that Alidns has assigned to the zone."""
        with self._reported("DescribeDomainInfo", zone):
            return self._api.call("DescribeDomainInfo", self._in(zone), _host_names)

    def cnames(self, zone: str, label: str) -> dict[str, list[str]]:
        """DescribeDomainRecords, all pages of CNAMEs that have `label` in their names."""
        targets: dict[str, list[str]] = {}
        for rr, target in self._enabled(zone, "CNAME", _keyword(label)):
            if target not in targets.setdefault(rr, []):
                targets[rr].append(target)
        return targets

    def subzones(self, zone: str) -> list[str]:
        """DescribeDomainRecords, all pages of NS records but the zone's own."""
        return sorted({rr for rr, _ in self._enabled(zone, "NS", {}) if rr != "@"})

    def _enabled(self, zone: str, rtype: str, narrowed: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return names and values of the enabled records of this type, which nameservers serve."""
        wanted = {**self._in(zone), "TypeKeyWord": rtype, **narrowed}
        with self._reported("DescribeDomainRecords", zone):
            found = list(self._record_pages(wanted, _enabled_records))
        return [(rr, value) for rr, listed, value in found if listed == rtype]

    def add_txt(self, zone: str, rr: str, value: str, ttl: int = TTL) -> Added:
        """AddDomainRecord; after DomainRecordDuplicate, the record that is there."""
        record = {**self._in(zone), "RR": rr, "Type": "TXT", "Value": value, "TTL": str(ttl)}
        maybe_added = False
        try:
            with self._reported("AddDomainRecord", zone):
                try:
                    return Added(self._api.call("AddDomainRecord", record, _record_id), ours=True)
                except CallFailed as failure:
                    maybe_added = failure.maybe_done
                    if not (isinstance(failure, Refused) and failure.code == "DomainRecordDuplicate"):
                        raise
            return Added(self._find_duplicate(zone, rr, value), ours=maybe_added)
        except RenewalError as failure:
            if maybe_added:
                raise MaybeAdded.after(failure) from None
            raise

    @stamina.retry(on=DnsFailed, attempts=5, wait_initial=0.25)
    def _find_duplicate(self, zone: str, rr: str, value: str) -> str:
        """Find the record that AddDomainRecord says is there; the list may be a moment behind."""
        record_id = self.find_txt(zone, rr, value)
        if record_id is None:
            raise DnsFailed(
                f"Alidns calls the TXT value at {rr} in {zone} a duplicate, but lists no such record",
                expected=f"TXT {value}",
                next="run again; if it repeats, look at the zone in the Alidns console",
            )
        return record_id

    def txts(self, zone: str, label: str) -> dict[tuple[str, str], str]:
        """DescribeDomainRecords, all pages of TXT records that have `label` in their names."""
        narrowed = {**self._in(zone), "TypeKeyWord": "TXT", **_keyword(label)}
        with self._reported("DescribeDomainRecords", zone):
            found = list(self._record_pages(narrowed, _records))
        return {(rr, value): record_id for rr, listed, value, record_id in found if listed == "TXT"}

    def find_txt(self, zone: str, rr: str, value: str, expected: str | None = None) -> str | None:
        """DescribeDomainRecords, until an answer is `expected` or the same as the one before it."""
        with self._reported("DescribeDomainRecords", zone):
            before: tuple[str | None, ...] = (expected,) if expected else ()
            for _ in range(_MOST_ANSWERS):
                found = self._find_once(zone, rr, value)
                if found in before:
                    return found
                before = (found,)
        raise DnsFailed(
            f"Alidns says something else about the TXT value at {rr} in {zone} each time",
            expected="twice the same RecordId, or twice none",
            found=f"another answer each of {_MOST_ANSWERS} times",
            next="look at what is between this host and the endpoint in [dns], then run again",
        )

    def _find_once(self, zone: str, rr: str, value: str) -> str | None:
        """DescribeDomainRecords, all pages: the keywords narrow it down, but match any part of a text."""
        narrowed = {**self._in(zone), **_keyword(rr), "TypeKeyWord": "TXT", "ValueKeyWord": value}
        for *described, record_id in self._record_pages(narrowed, _records):
            if described == [rr.lower(), "TXT", value]:
                return record_id
        return None

    def remove(self, zone: str, record_id: str) -> None:
        """DeleteDomainRecord; DomainRecordNotBelongToUser is the answer for an id that is gone."""
        with self._reported("DeleteDomainRecord", zone):
            try:
                self._api.call("DeleteDomainRecord", {"RecordId": record_id}, _record_id)
            except Refused as refusal:
                if refusal.code != "DomainRecordNotBelongToUser":
                    raise

    @contextmanager
    def _reported(self, action: str, zone: str | None) -> Iterator[None]:
        """Turn what ended a call for good into an operator's error."""
        try:
            yield
        except CredentialsMissing as missing:
            raise _no_key(missing) from None
        except Refused as refusal:
            raise _explained(refusal, self._opened.account, action, zone) from None
        except NoReply as silence:
            raise DnsFailed(
                f"Alidns did not answer {action}" + (f" for {zone}" if zone else ""),
                found=str(silence),
                next=clock.tls_hint(str(silence))
                or "see whether this host reaches the endpoint in [dns], then run again",
            ) from None

    def _in(self, zone: str) -> dict[str, str]:
        return {"DomainName": self._domain_names.get(zone) or to_unicode(zone)}

    def _record_pages(self, narrowed: Mapping[str, str], take: Callable[[Any], list[T]]) -> Iterator[T]:
        return self._pages("DescribeDomainRecords", narrowed, _RECORDS_PER_PAGE, take)

    def _pages(
        self, action: str, parameters: Mapping[str, str], size: int, take: Callable[[Any], list[T]]
    ) -> Iterator[T]:
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


def _keyword(rr: str) -> dict[str, str]:
    """Narrow a list down to names that contain `rr`, where these are written in one way only."""
    return {} if not rr or "xn--" in rr else {"RRKeyWord": rr}


def _record_id(body: Any) -> str:
    return str(body["RecordId"])


def _records(body: Any) -> list[tuple[str, str, str, str]]:
    return [
        (to_ascii(record["RR"]), record["Type"], record["Value"], _record_id(record))
        for record in body["DomainRecords"]["Record"]
    ]


def _enabled_records(body: Any) -> list[tuple[str, str, str]]:
    """Return names, types and host names of what isn't switched off in the console (Status)."""
    return [
        (to_ascii(record["RR"]), record["Type"], to_ascii(record["Value"].rstrip(".")))
        for record in body["DomainRecords"]["Record"]
        if record["Status"].upper() == "ENABLE"
    ]


def _zone_names(body: Any) -> list[tuple[str, str]]:
    """Return each zone's PunyCode and DomainName; PunyCode may be missing where the two are one."""
    return [
        (to_ascii(domain.get("PunyCode") or domain["DomainName"]), domain["DomainName"])
        for domain in body["Domains"]["Domain"]
    ]


def _host_names(body: Any) -> list[str]:
    return [host.rstrip(".").lower() for host in body["DnsServers"]["DnsServer"]]


def _explained(refusal: Refused, account: str, action: str, zone: str | None) -> RenewalError:
    code = refusal.code
    said = f"{code}: {refusal.message} (request {refusal.request_id})"
    if code.startswith(_CLOCK) or (refusal.clock and code.startswith(_KEY_REFUSED)):
        return _wrong_clock(str(refusal), refusal.clock)
    if code.startswith(_KEY_REFUSED):
        return DnsDenied(
            f"Alidns refused the AccessKey in {action}",
            # The message of a wrong signature shows the signed request: it stays out.
            found=f"{refusal}\nwith {account}",
            next="see whether the AccessKey is active and of this endpoint's site, and its secret is the "
            "right one, then run again",
        )
    if code.startswith("Forbidden"):
        return DnsDenied(
            f"the AccessKey may not do {action}" + (f" in {zone}" if zone else ""),
            expected=f"a RAM policy that allows alidns:{action} on acs:alidns:*:*:"
            + (f"domain/{zone}" if zone else "*"),
            found=f"{said}\nwith {account}",
            next="add that to the RAM user's policy"
            + ("" if zone else ", or name the zones as [[zone]]: certcast then lists none"),
        )
    if code in _NO_ZONE:
        return ZoneMissing(
            f"the zone {zone} is not in this Alibaba Cloud account",
            found=f"{said}\nwith {account}",
            next="see which account has the zone; its [[zone]] can name a profile, a role_arn, an endpoint",
        )
    return DnsFailed(
        f"Alidns refused {action}" + (f" in {zone}" if zone else ""),
        found=said,
        next=f"look the code up at https://api.aliyun.com/troubleshoot?q={code}&product=Alidns",
    )


def _wrong_clock(found: str, wrong: WrongClock | None) -> DnsFailed:
    return DnsFailed(
        "Alidns says that this host's clock is wrong",
        expected=wrong.expected if wrong else "a clock within 15 minutes of the right time",
        found=f"{wrong.found}; {found}" if wrong else found,
        next=clock.NEXT,
    )


def _no_key(missing: CredentialsMissing) -> RenewalError:
    if isinstance(missing, StsClock):
        return _wrong_clock(str(missing), missing.wrong)
    if isinstance(missing, RoleRefused):
        return DnsDenied(
            "the RAM role for Alidns cannot be assumed",
            expected="sts:AssumeRole in the caller's RAM policy, and the caller in the role's trust policy",
            found=f"{missing}\nwith {missing.source}",
            next="mend these two policies or role_arn, then run again",
        )
    return DnsDenied(
        "no AccessKey for Alidns was found",
        found=f"none in {missing.source}: {str(missing)[:200]}",
        next=f"{missing.remedy}, then run again",
    )
