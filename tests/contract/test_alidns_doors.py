"""Whom the Alidns emulator lets in, and how it fails on demand."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from asking_alidns import Cloud, one_server
from certcast_lab.aliyun.ram import User


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    with one_server() as served:
        yield served


@pytest.fixture
def cloud(served: dict[str, Any]) -> Cloud:
    cloud = Cloud(served["address"])
    served["app"] = cloud.api.app
    return cloud


# -- the doors


def test_a_wrong_secret_opens_nothing(cloud):
    """A signature made with another secret is refused, in both schemes, and has no effect."""
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "v"}
    assert (400, "SignatureDoesNotMatch") == cloud.refused("AddDomainRecord", secret="wrong", **wanted)
    status, body = cloud.rpc("AddDomainRecord", secret="wrong", Format="JSON", **wanted)
    fields = json.loads(body)
    assert (400, "SignatureDoesNotMatch") == (status, fields["Code"])
    assert "server string to sign is:GET&%2F&AccessKeyId" in fields["Message"]
    assert [] == cloud.values()


def test_a_request_changed_on_the_way_is_refused(cloud):
    """What was signed is what counts: another value under the old signature isn't stored."""
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "v", "Format": "JSON"}
    status, body = cloud.rpc("AddDomainRecord", changed={"Value": "forged"}, **wanted)
    assert (400, "SignatureDoesNotMatch") == (status, json.loads(body)["Code"])
    assert [] == cloud.values()


@pytest.mark.parametrize("in_form", [False, True])
def test_rpc_parameters_may_come_in_the_query_or_in_a_form(cloud, in_form):
    """The older scheme works as acme.sh (query) and its relatives (form) use it, odd characters included."""
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "a b+c*~/=&é"}
    assert 200 == cloud.rpc("AddDomainRecord", in_form=in_form, **wanted)[0]
    assert ["a b+c*~/=&é"] == cloud.values()


@pytest.mark.parametrize(("offset", "works"), [(15, True), (-15, True), (15.1, False), (-15.1, False)])
def test_acs3_requests_are_good_for_15_minutes(cloud, offset, works):
    """A request that was signed too long ago, or by a clock too far ahead, is refused."""
    date = (cloud.time + timedelta(minutes=offset)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status, fields = cloud.acs3("DescribeDomains", date=date)
    assert (None if works else "InvalidTimeStamp.Expired") == fields.get("Code")
    assert (200 if works else 400) == status


@pytest.mark.parametrize(("offset", "works"), [(-31, True), (-31.1, False)])
def test_rpc_requests_are_good_for_31_minutes(cloud, offset, works):
    """The older scheme has the longer window."""
    date = (cloud.time + timedelta(minutes=offset)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status, body = cloud.rpc("DescribeDomains", Timestamp=date, Format="json")
    assert (None if works else "InvalidTimeStamp.Expired") == json.loads(body).get("Code")
    assert (200 if works else 400) == status


@pytest.mark.parametrize(
    "date", ["2026-11-23T12:00:00", "2026-11-23T12:00:00+00:00Z", "2026-13-23T12:00:00Z", "now"]
)
def test_a_time_in_another_form_is_refused(cloud, date):
    """Only yyyy-MM-ddTHH:mm:ssZ is a time here."""
    assert (400, "InvalidTimeStamp.Format") == cloud.refused("DescribeDomains", date=date)


def test_a_nonce_works_once_in_15_minutes(cloud):
    """A request that is sent again as it was is refused; a client that repeats has to sign anew."""
    cloud.ok("DescribeDomains", nonce="n")
    assert (400, "SignatureNonceUsed") == cloud.refused("DescribeDomains", nonce="n")
    status, body = cloud.rpc("DescribeDomains", SignatureNonce="n", Format="JSON")
    assert (400, "SignatureNonceUsed") == (status, json.loads(body)["Code"])
    cloud.ok("DescribeDomains", nonce="n", user=cloud.stranger)
    cloud.time += timedelta(minutes=15)
    cloud.ok("DescribeDomains", nonce="n")


def test_a_wrong_signature_does_not_use_up_a_nonce(cloud):
    """Nobody without the secret can make somebody's next request fail."""
    cloud.refused("DescribeDomains", nonce="n", secret="wrong")
    cloud.ok("DescribeDomains", nonce="n")


def test_headers_that_matter_have_to_be_signed(cloud):
    """A signature that leaves the action or the time open is none."""
    names = {"host", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"}
    assert (400, "IncompleteSignature") == cloud.refused("DescribeDomains", signed=names)


def test_an_unknown_or_disabled_key_is_told_so(cloud):
    """An operator with the wrong key reads that it is the key."""
    nobody = User("100", "nobody", "LTAI-nobody", "secret")
    assert (404, "InvalidAccessKeyId") == cloud.refused("DescribeDomains", user=nobody)
    cloud.user.active = False
    assert (400, "InvalidAccessKeyId.Inactive") == cloud.refused("DescribeDomains")


def test_a_temporary_key_needs_its_token(cloud):
    """STS keys work with their security token, in both schemes, and not without it."""
    cloud.user.security_token = "token"
    mismatch = (400, "InvalidSecurityToken.MismatchWithAccessKey")
    cloud.ok("DescribeDomains", token="token")
    assert mismatch == cloud.refused("DescribeDomains", token="another")
    assert mismatch == cloud.refused("DescribeDomains")
    assert 200 == cloud.rpc("DescribeDomains", SecurityToken="token")[0]
    assert mismatch[0] == cloud.rpc("DescribeDomains")[0]


def test_what_is_missing_is_named(cloud):
    """A request without a mandatory parameter is told which one."""
    assert (400, "MissingDomainName") == cloud.refused("DescribeDomainRecords")
    assert (400, "MissingRecordId") == cloud.refused("DeleteDomainRecord", RecordId="")
    status, body = cloud.send("GET", "Action=DescribeDomains&Version=2015-01-09&Format=JSON", {})
    assert (400, "MissingAccessKeyId") == (status, json.loads(body)["Code"])


def test_other_apis_and_methods_are_refused(cloud):
    """What the lab doesn't emulate fails loudly instead of seeming to work."""
    assert (404, "InvalidApi.NotFound") == cloud.refused("AddDomain", DomainName="new.test")
    assert (400, "InvalidVersion") == cloud.refused("DescribeDomains", version="2014-05-26")
    status, body = cloud.send("PUT", "Format=JSON", {})
    assert (400, "UnsupportedHTTPMethod") == (status, json.loads(body)["Code"])


def test_rpc_clients_get_xml_unless_they_ask_for_json(cloud):
    """The older scheme's default format is XML, for replies and for errors."""
    cloud.add(value="a")
    cloud.add(value="b")
    status, body = cloud.rpc("DescribeDomainRecords", DomainName="example.test")
    reply = ElementTree.fromstring(body)
    assert (200, "DescribeDomainRecordsResponse", "2") == (status, reply.tag, reply.findtext("TotalCount"))
    assert ["b", "a"] == [value.text for value in reply.iterfind("DomainRecords/Record/Value")]
    status, body = cloud.rpc("DescribeDomainRecords", DomainName="nowhere.test", Format="XML")
    error = ElementTree.fromstring(body)
    assert (400, "Error", "InvalidDomainName.NoExist") == (status, error.tag, error.findtext("Code"))


# -- permissions


def allow(action: str | list[str], resource: str, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **more}
    return {"Version": "1", "Statement": [statement]}


def test_a_key_for_one_zone_works_in_that_zone_only(cloud):
    """The least privilege that RAM knows, one domain, is kept: for names, record ids and listings."""
    other = cloud.zones.create("other.test", "100", ("ns1.lab.test",))
    elsewhere = cloud.zones.add(other, "a", "TXT", "v")
    cloud.user.policies = [allow("alidns:*", "acs:alidns:*:100:domain/example.test")]
    here = cloud.add()
    cloud.ok("DescribeSubDomainRecords", SubDomain="_acme-challenge.example.test")
    cloud.ok("DeleteDomainRecord", RecordId=here)
    forbidden = (400, "Forbidden.RAM")
    assert forbidden == cloud.refused("DescribeDomainRecords", DomainName="other.test")
    assert forbidden == cloud.refused("DeleteDomainRecord", RecordId=elsewhere.id)
    assert forbidden == cloud.refused("DescribeSubDomainRecords", SubDomain="a.other.test")
    assert forbidden == cloud.refused("DescribeDomains")  # needs domain/*, as clients have found out


def test_a_key_may_only_do_what_it_was_given(cloud):
    """A key for adding can't delete, and the refusal names whom it concerns."""
    cloud.user.policies = [allow(["alidns:AddDomainRecord", "alidns:Describe*"], "acs:alidns:*:*:domain/*")]
    record_id = cloud.add()
    status, fields = cloud.acs3("DeleteDomainRecord", RecordId=record_id)
    assert (400, "Forbidden.RAM") == (status, fields["Code"])
    detail = fields["AccessDeniedDetail"]
    assert ("100", "SubUser", "dns") == (
        detail["AuthPrincipalOwnerId"],
        detail["AuthPrincipalType"],
        detail["AuthPrincipalDisplayName"],
    )
    assert ["v"] == cloud.values()


@pytest.mark.parametrize(("network", "works"), [("127.0.0.0/8", True), ("203.0.113.7/32", False)])
def test_a_key_can_be_bound_to_an_address(cloud, network, works):
    """A stolen key is of no use from elsewhere when its policy names the renewal host's address."""
    condition = {"IpAddress": {"acs:SourceIp": [network]}}
    cloud.user.policies = [allow("alidns:*", "*", Condition=condition)]
    assert (200 if works else 400) == cloud.acs3("DescribeDomains")[0]


# -- faults


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [("throttle", (400, "Throttling.User")), ("server_error", (503, "ServiceUnavailable"))],
)
def test_a_throttled_or_failing_request_has_no_effect(cloud, kind, refusal):
    """The next n matching requests fail and change nothing, other requests and later ones pass."""
    cloud.api.faults.turn_on(kind, action="AddDomainRecord", times=2)
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "v"}
    assert refusal == cloud.refused("AddDomainRecord", **wanted)
    assert [] == cloud.values()
    assert refusal == cloud.refused("AddDomainRecord", **wanted)
    cloud.ok("AddDomainRecord", **wanted)
    assert 2 == cloud.api.faults.consumed(kind)
    assert 3 == cloud.api.count("AddDomainRecord")


def test_a_lost_reply_leaves_its_effect(cloud):
    """The record stands although the client never heard of it; trying again finds a duplicate."""
    cloud.api.faults.turn_on("lost_reply", action="AddDomainRecord", times=1)
    wanted = {"DomainName": "example.test", "RR": "a", "Type": "TXT", "Value": "v"}
    with pytest.raises(ConnectionError):
        cloud.acs3("AddDomainRecord", **wanted)
    assert ["v"] == cloud.values()
    assert (400, "DomainRecordDuplicate") == cloud.refused("AddDomainRecord", **wanted)


def test_a_truncated_reply_ends_early(cloud):
    """A reply cut in the middle is seen by the client as incomplete, not as a short answer."""
    cloud.api.faults.turn_on("truncated", times=1)
    with pytest.raises(http.client.IncompleteRead):
        cloud.acs3("DescribeDomains")
    cloud.ok("DescribeDomains")


def test_a_flipped_reply_differs_in_one_byte(cloud):
    """A damaged reply has its full length and one wrong byte."""
    cloud.add()
    whole = cloud.rpc("DescribeDomainNs", DomainName="example.test")[1]
    cloud.api.faults.turn_on("flipped", target="example.test", times=1)
    damaged = cloud.rpc("DescribeDomainNs", DomainName="example.test")[1]
    assert 1 == sum(a != b for a, b in zip(whole, damaged, strict=True))


def test_delayed_and_dripping_replies(cloud):
    """Slow replies are complete: a client with patience reads them."""
    cloud.api.faults.turn_on("delay", seconds=0.2, times=1)
    begun = time.monotonic()
    cloud.ok("DescribeDomains")
    assert time.monotonic() - begun >= 0.2
    cloud.api.faults.turn_on("drip", seconds=0.001, times=1)
    assert 1 == cloud.ok("DescribeDomains")["TotalCount"]
    assert (1, 1) == (cloud.api.faults.consumed("delay"), cloud.api.faults.consumed("drip"))


def test_a_stale_read_shows_the_zone_as_it_was(cloud):
    """Reads can lag behind writes, as they may at a distributed service."""
    cloud.add(value="old")
    cloud.api.faults.turn_on("stale", action="DescribeDomainRecords", seconds=3600, times=1)
    assert [] == cloud.values()
    assert ["old"] == cloud.values()


def test_a_fault_can_be_turned_off(cloud):
    """What was switched on for ever ends when it is switched off."""
    cloud.api.faults.turn_on("throttle")
    cloud.refused("DescribeDomains")
    cloud.api.faults.turn_off("throttle")
    cloud.ok("DescribeDomains")
    with pytest.raises(ValueError, match="no such fault"):
        cloud.api.faults.turn_on("slow")


def test_the_log_tells_what_was_asked_and_no_secret(cloud):
    """Tests can count calls and see their parameters; keys, tokens and signatures are not kept."""
    cloud.user.security_token = "the-token"
    cloud.acs3("DescribeDomains", token="the-token", KeyWord="example")
    cloud.rpc("DescribeDomainRecords", DomainName="nowhere.test", SecurityToken="the-token")
    first, second = cloud.api.log
    assert ("ACS3", "DescribeDomains", "dns", {"KeyWord": "example"}, None) == (
        first.scheme,
        first.action,
        first.user,
        first.parameters,
        first.code,
    )
    assert ("RPC-SHA1", "InvalidDomainName.NoExist") == (second.scheme, second.code)
    assert {"DomainName": "nowhere.test"} == second.parameters
    assert "the-token" not in repr(cloud.api.log)
