"""DNS-01 when the API, the nameservers or certcast itself fail: no record is lost, none is left.

The emulated Alidns with its switches, two real nameservers with theirs, the
real ledger on disk; a crash is a process that ends between two steps.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
import stamina

from certcast.config.model import Address, Resolver, ZoneConfig
from certcast.dns01.alidns import acs3, alidns, alidns_api
from certcast.dns01.challenges import Challenge, Challenges
from certcast.dns01.ledger import Process
from certcast.dns01.visibility import exchange
from certcast.report.errors import DnsDenied, DnsFailed, LocalFault, NotPropagated, ZoneMissing
from certcast_lab.aliyun.cloud import ACCOUNT, NAMESERVERS, PROVIDER
from certcast_lab.dns.doh import DohDoor
from certcast_lab.dns.zones import Zones
from certcast_lab.serving.asgi import Server
from certcast_lab.serving.authority import Authority
from certcast_lab.serving.blocked import Blocked
from presenting import ENDED, NOW, URL, Services, end_the_process, present, values

LATER = NOW + timedelta(hours=2, minutes=1)
APEX = Challenge("example.test", "A" * 43)
WILDCARD = Challenge("example.test", "W" * 43)
ORDER = [APEX, WILDCARD]


@pytest.fixture(scope="module")
def services():
    """One API server and two nameservers for the module; the cloud behind them is new for each test."""
    services = Services()
    try:
        yield services
    finally:
        services.stop()


@pytest.fixture
def cloud(services):
    return services.renew()


@pytest.fixture
def dns(services, cloud):
    return services.dns


@pytest.fixture
def configured(services, cloud, tmp_path, monkeypatch):
    """A renewal host's configuration; keyword arguments go into [dns]."""
    for name, value in services.keys.items():
        monkeypatch.setenv(name, value)

    def make(zones=("example.test",), **dns):
        if not zones:
            cloud.let_find(zones=True, nameservers=True)
        return services.config(dict.fromkeys(zones, services.addresses), tmp_path / "state", **dns)

    return make


@pytest.fixture
def desk(configured):
    return Challenges(configured())


@pytest.fixture
def quick_retries():
    """Retries without their pauses, and three at most."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


BOTH = sorted([APEX.validation, WILDCARD.validation])


# -- the API


@pytest.mark.parametrize("fault", ["throttle", "server_error"])
def test_a_throttled_or_failing_api_is_asked_again(cloud, desk, quick_retries, fault):
    """Throttling and 5xx answers pass; the order goes on with exactly its two records."""
    cloud.alidns.faults.turn_on(fault, action="AddDomainRecord", times=2)

    present(desk, ORDER)

    assert BOTH == values(cloud)
    assert 2 == cloud.alidns.faults.consumed(fault)
    assert 4 == cloud.alidns.count("AddDomainRecord")


@pytest.mark.parametrize("fault", ["lost_reply", "truncated"])
def test_a_reply_lost_after_success_is_not_added_twice(cloud, desk, quick_retries, fault):
    """The work was done, the answer never came: the record is found by its value, is ours, and goes."""
    cloud.alidns.faults.turn_on(fault, action="AddDomainRecord", times=1)

    present(desk, ORDER)
    assert BOTH == values(cloud)

    desk.cleanup(ORDER)
    assert [] == values(cloud)


def test_a_reply_that_comes_too_late_is_a_lost_one(cloud, desk, quick_retries, monkeypatch):
    """An API that hangs is given up after the time-out, and what it did meanwhile is found."""
    monkeypatch.setattr(alidns_api, "_READ_TIMEOUT", 0.3)
    cloud.alidns.faults.turn_on("delay", action="AddDomainRecord", times=1, seconds=30)

    present(desk, [APEX])

    assert [APEX.validation] == values(cloud)
    desk.cleanup([APEX])
    assert [] == values(cloud)


@pytest.fixture
def short_deadline(monkeypatch):
    """An attempt's deadline that a test can wait for; the time-outs between two octets stay as they are."""
    monkeypatch.setattr(alidns_api, "_DEADLINE", 0.4)


@pytest.mark.usefixtures("short_deadline", "quick_retries")
@pytest.mark.parametrize("action", ["AddDomainRecord", "DescribeDomainRecords", "DeleteDomainRecord"])
def test_a_reply_that_drips_is_cut_off_and_asked_for_again(cloud, desk, action):
    """A reply that comes octet by octet costs the deadline, not minutes, and leaves nothing behind."""
    cloud.alidns.faults.turn_on("drip", action=action, times=1, seconds=0.2)
    begun = time.monotonic()

    present(desk, [APEX])
    assert [APEX.validation] == values(cloud)
    desk.cleanup([APEX])

    assert 0.4 <= time.monotonic() - begun < 3
    assert 1 == cloud.alidns.faults.consumed("drip")
    assert [] == values(cloud)
    assert [] == desk.ledger.entries()


@pytest.mark.usefixtures("short_deadline", "quick_retries")
def test_an_api_that_drips_to_the_end_is_reported_in_time(cloud, desk):
    """When every reply to an Add drips, the order ends soon, and what the Adds did is undone."""
    cloud.alidns.faults.turn_on("drip", action="AddDomainRecord", seconds=0.2)
    begun = time.monotonic()

    with pytest.raises(DnsFailed, match="did not answer AddDomainRecord") as failed:
        present(desk, ORDER)

    assert time.monotonic() - begun < 5
    assert "no complete reply within 0.4 s" == failed.value.found
    assert "no challenge was answered, and no TXT record is left" == failed.value.kept
    assert [] == values(cloud)
    assert [] == desk.ledger.entries()


@pytest.mark.usefixtures("short_deadline", "quick_retries")
def test_api_that_drips_everywhere(cloud, configured):
    """When removal drips as well, the record that stays is known, and the next sweep takes it."""
    for action in ("AddDomainRecord", "DeleteDomainRecord"):
        cloud.alidns.faults.turn_on("drip", action=action, seconds=0.2)
    begun = time.monotonic()
    with pytest.raises(DnsFailed) as failed:
        present(Challenges(configured()), [APEX])
    assert time.monotonic() - begun < 5
    assert "a TXT record may stay until a later `certcast renew` removes it" in failed.value.kept

    cloud.alidns.faults.turn_off()
    end_the_process(configured())
    Challenges(configured()).sweep(NOW)

    assert [] == values(cloud)
    assert [] == Challenges(configured()).ledger.entries()


def test_an_endless_reply_does_not_fill_the_memory(configured, quick_retries):
    """A server that answers with megabytes is cut off after four of them."""

    async def flood(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(8):
            await send({"type": "http.response.body", "body": b" " * 1024 * 1024, "more_body": True})
        await send({"type": "http.response.body", "body": b"{}"})

    with Server(flood) as server, pytest.raises(DnsFailed) as failed:
        present(Challenges(configured(endpoint=server.url)), [APEX])

    assert "an answer of over 4,194,304 octets" == failed.value.found


def test_a_list_that_lags_behind_does_not_hide_a_duplicate(cloud, desk):
    """The reply is lost, and the list of records is a moment behind: the record is found all the same."""
    cloud.alidns.faults.turn_on("lost_reply", action="AddDomainRecord", times=1)
    cloud.alidns.faults.turn_on("stale", action="DescribeDomainRecords", times=1, seconds=60)

    present(desk, [APEX])
    desk.cleanup([APEX])

    assert 1 == cloud.alidns.faults.consumed("stale")
    assert [] == values(cloud)


def test_a_nonce_that_was_seen_before_is_replaced(cloud, desk, monkeypatch):
    """If something on the way replays a request, the next attempt is signed anew and passes."""
    fresh = acs3.new_nonce
    nonces = ["seen", "seen"]
    monkeypatch.setattr(acs3, "new_nonce", lambda: nonces.pop() if nonces else fresh())

    present(desk, ORDER)

    assert ["SignatureNonceUsed"] == [logged.code for logged in cloud.alidns.log if logged.code]
    assert BOTH == values(cloud)


def test_api_that_stays_down(cloud, desk, quick_retries):
    """When Alidns fails to the end, the error says so, no record and no ledger entry remains."""
    cloud.alidns.faults.turn_on("server_error", action="AddDomainRecord")

    with pytest.raises(DnsFailed, match="AddDomainRecord") as failed:
        present(desk, ORDER)

    assert "no challenge was answered, and no TXT record is left" == failed.value.kept
    assert [] == values(cloud)
    assert [] == desk.ledger.entries()


def test_the_second_value_failing_takes_the_first_one_back(cloud, desk, monkeypatch):
    """An order is whole or not at all: when its second record is refused, its first is removed."""
    refused = Challenge("example.test", "not a value that Alidns takes \N{SNOWMAN}" * 200)

    class Refusing(alidns.Alidns):
        def add_txt(self, zone, rr, value, ttl=600):
            if value == refused.validation:
                raise DnsFailed("Alidns refused AddDomainRecord in example.test")
            return super().add_txt(zone, rr, value, ttl)

    monkeypatch.setattr(alidns, "Alidns", Refusing)

    with pytest.raises(DnsFailed):
        present(desk, [APEX, refused])

    assert 1 == cloud.alidns.count("AddDomainRecord")
    assert [] == values(cloud)
    assert [] == desk.ledger.entries()


def test_a_policy_that_forbids_adding_stops_the_order_by_name(cloud, desk):
    """An AccessKey without the right to the zone ends the order before the CA is asked anything."""
    adding = {"Effect": "Deny", "Action": "alidns:AddDomainRecord", "Resource": "*"}
    cloud.renewal.policies = [*cloud.renewal.policies, {"Version": "1", "Statement": [adding]}]

    with pytest.raises(DnsDenied, match="may not do AddDomainRecord in example.test") as denied:  # noqa: RUF043
        present(desk, ORDER)

    assert "no challenge was answered, and no TXT record is left" == denied.value.kept
    assert [] == values(cloud)
    assert [] == desk.ledger.entries()


def test_an_endpoint_that_nobody_listens_at_is_reported(configured, quick_retries):
    """A wrong endpoint, or no network, is an error about the API with the reason, not a traceback."""
    desk = Challenges(configured(endpoint="http://127.0.0.1:1"))

    with pytest.raises(DnsFailed, match="did not answer DescribeDomainRecords") as failed:
        present(desk, [APEX])

    assert "Connection refused" in failed.value.found


def test_a_proxy_that_answers_in_the_apis_place_is_reported(configured, quick_retries):
    """A captive page with status 200 or 502 instead of Alidns' JSON is no success and no traceback."""

    async def page(scope, receive, send):
        status = 502 if b"Delete" in scope["query_string"] else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>Please log in</html>"})

    with Server(page) as server, pytest.raises(DnsFailed, match="did not answer DescribeDomainRecords"):
        present(Challenges(configured(endpoint=server.url)), [APEX])


# -- damaged replies


def test_a_record_that_a_damaged_list_hides_is_removed(cloud, desk):
    """The list of records comes with a wrong bit in the middle: it is asked for again, and ours goes."""
    cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", "another order's")
    present(desk, [APEX])
    cloud.alidns.faults.turn_on("flipped", action="DescribeDomainRecords", times=1)

    desk.cleanup([APEX])

    assert 1 == cloud.alidns.faults.consumed("flipped")
    assert ["another order's"] == values(cloud)
    assert [] == desk.ledger.entries()


class Flipping:
    """The API, but one bit of the first reply to `action` is wrong: at `position` of its body."""

    def __init__(self, app, action, position):
        self.app = app
        self.action = action.encode()
        self.position = position
        self.seen = None  # the body as it was, once the reply has come

    async def __call__(self, scope, receive, send):
        struck = (
            self.seen is None
            and dict(scope["headers"]).get(b"x-acs-action") == self.action
            # The list that a removal begins with, not the one that says where a record belongs.
            and (self.action != b"DescribeDomainRecords" or b"ValueKeyWord" in scope["query_string"])
        )

        async def damaged(message):
            if struck and message.get("body"):
                body = bytearray(message["body"])
                self.seen = bytes(body)
                if self.position < len(body):
                    body[self.position] ^= 0x01
                message = {**message, "body": bytes(body)}
            await send(message)

        await self.app(scope, receive, damaged)


def every_position(cloud, action, order):
    """Run `order` with one bit flipped in the first reply to `action`, at each place of its body in turn."""
    whole, position, length = cloud.alidns.app, 0, 1
    while position < length:
        flipping = cloud.alidns.app = Flipping(whole, action, position)
        order(f"with a bit flipped at {position} of the reply to {action}")
        length = len(flipping.seen)
        position += 1
    cloud.alidns.app = whole
    assert position > 50


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("action", ["AddDomainRecord", "DescribeDomainRecords", "DeleteDomainRecord"])
def test_no_flipped_bit_ever_removes_somebody_elses_record(cloud, configured, action):
    """
    Wherever a reply is damaged, a RecordId included, the neighbours' records survive; and either ours
    is gone, or the error says that it isn't and the ledger knows it.
    """
    # The list of records is asked for with nothing to compare it with, as after a crash.
    forget = action == "DescribeDomainRecords"
    desk = Challenges(configured(propagation=0.0))

    def order(damage):
        before = cloud.zones.add(cloud.zone, "www", "TXT", "a neighbour's")
        present(desk, [APEX])
        after = cloud.zones.add(cloud.zone, "www", "TXT", "the other neighbour's")
        if forget:
            desk.ledger.put([replace(entry, record_id=None) for entry in desk.ledger.entries()])
        said = None
        try:
            desk.cleanup([APEX])
        except DnsFailed as failed:
            said = failed.what
        ours = [value for value in values(cloud) if value == APEX.validation]
        assert ours == [entry.value for entry in desk.ledger.entries()], damage
        assert bool(ours) == ("another RecordId" in (said or "")), damage
        assert {before.id, after.id} <= {record.id for record in cloud.zones.records(cloud.zone)}, damage
        for record in cloud.zones.records(cloud.zone):
            cloud.zones.delete(record)
        desk.cleanup([APEX])
        assert [] == desk.ledger.entries(), damage

    every_position(cloud, action, order)


@pytest.mark.usefixtures("quick_retries")
def test_a_damaged_refusal_does_not_make_a_record_ours(cloud, configured):
    """Somebody else's value stands there, and Alidns' saying so is damaged: theirs stays all the same."""
    desk = Challenges(configured(propagation=0.0))
    theirs = cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", APEX.validation)

    def order(damage):
        with suppress(DnsFailed):
            present(desk, [APEX])
        desk.cleanup([APEX])
        assert [theirs] == cloud.zones.records(cloud.zone), damage
        assert [] == desk.ledger.entries(), damage

    every_position(cloud, "AddDomainRecord", order)


# -- somebody else's records


def test_value_already_there_is_used_and_left(cloud, desk):
    """A first Add that says "duplicate" means that the record isn't ours: it serves, and it stays."""
    cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", APEX.validation)

    present(desk, ORDER)
    desk.cleanup(ORDER)

    assert [APEX.validation] == values(cloud)
    assert [] == desk.ledger.entries()
    assert 1 == cloud.alidns.count("DeleteDomainRecord")


@pytest.mark.parametrize("waiting", [{"propagation": 1.0}, {"settle": 1.0}])
def test_value_removed_at_the_last_moment(cloud, configured, waiting):
    """All nameservers have shown it, and then it goes: the CA isn't asked, whichever way we waited."""
    desk = Challenges(configured(**waiting))

    def remove_what_was_added():
        while not cloud.zones.records(cloud.zone):
            time.sleep(0.01)
        time.sleep(0.5)
        for record in cloud.zones.records(cloud.zone):
            cloud.zones.delete(record)

    with ThreadPoolExecutor(1) as beside:
        beside.submit(remove_what_was_added)
        with pytest.raises(NotPropagated, match="is gone from the zone"):
            present(desk, [APEX])

    assert [] == desk.ledger.entries()


def test_other_values_at_the_same_name_survive(cloud, desk):
    """Another client's order for the same name keeps its record through ours."""
    cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", "another order's")

    present(desk, ORDER)
    desk.cleanup(ORDER)

    assert ["another order's"] == values(cloud)


# -- crashes


class Crash(BaseException):
    """kill -9: nothing of the process's own clean-up runs."""


def crash_in(monkeypatch, when, method):
    """From now on, Alidns' method ends the process `when` the call is made: before it or after it."""
    original = getattr(alidns.Alidns, method)

    def dying(self, *arguments, **options):
        if when == "after":
            original(self, *arguments, **options)
        raise Crash

    monkeypatch.setattr(alidns.Alidns, method, dying)
    return lambda: monkeypatch.setattr(alidns.Alidns, method, original)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_adding_is_swept_by_a_later_run(cloud, configured, monkeypatch, when):
    """Killed right before or right after the API call, certcast leaves a record that the next run removes."""
    cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", "another order's")
    revive = crash_in(monkeypatch, when, "add_txt")
    with pytest.raises(Crash):
        present(Challenges(configured()), ORDER)
    revive()
    end_the_process(configured())

    swept = Challenges(configured()).sweep(NOW)

    assert swept
    assert ["another order's"] == values(cloud)
    assert [] == Challenges(configured()).ledger.entries()


def test_a_crash_after_removal_is_swept_without_harm(cloud, configured, monkeypatch):
    """Killed between the removal and the ledger, the entry goes; the removal isn't asked for again."""
    desk = Challenges(configured())
    present(desk, [APEX])
    revive = crash_in(monkeypatch, "after", "remove")
    with pytest.raises(Crash):
        desk.cleanup([APEX])
    revive()
    end_the_process(configured())

    Challenges(configured()).sweep(NOW)

    assert 1 == cloud.alidns.count("DeleteDomainRecord")
    assert [] == Challenges(configured()).ledger.entries()


def test_a_value_that_comes_back_after_a_crash_is_still_ours(cloud, configured, monkeypatch):
    """The CA reuses a pending challenge: the new run takes the crashed one's record over and removes it."""
    revive = crash_in(monkeypatch, "after", "add_txt")
    with pytest.raises(Crash):
        present(Challenges(configured()), [APEX])
    revive()
    end_the_process(configured())

    desk = Challenges(configured())
    present(desk, [APEX])
    assert [APEX.validation] == values(cloud)
    desk.cleanup([APEX])

    assert [] == values(cloud)


def test_the_sweep_spares_what_is_in_use(cloud, configured):
    """What a living process has added is left alone, however old it is."""
    present(Challenges(configured()), [APEX])

    assert [] == Challenges(configured()).sweep(NOW + timedelta(days=30))

    assert [APEX.validation] == values(cloud)


def test_a_killed_runs_records_go_at_the_next_one(cloud, configured):
    """Once the process is seen to be dead, its orders are over: no record waits for a later run."""
    present(Challenges(configured()), ORDER)
    end_the_process(configured())

    assert 2 == len(Challenges(configured()).sweep(NOW))

    assert [] == values(cloud)
    assert [] == Challenges(configured()).ledger.entries()


def test_a_hooks_record_is_spared_for_two_hours(cloud, configured):
    """Behind sudo, the ledger may know another process than certbot's: no sweep before two hours."""
    Challenges(configured()).add(WILDCARD, ENDED, NOW)

    assert [] == Challenges(configured()).sweep(NOW + timedelta(hours=2))
    with pytest.raises(DnsFailed, match="were not removed"):
        Challenges(configured()).require_nothing_left(NOW + timedelta(hours=2))
    assert [WILDCARD.validation] == [entry.value for entry in Challenges(configured()).sweep(LATER)]

    assert [] == values(cloud)


def test_the_sweep_spares_a_record_that_somebody_made_anew(cloud, configured):
    """Same name, same value, another id: theirs stays, and the error says so until it is gone."""
    desk = Challenges(configured())
    present(desk, [APEX])
    end_the_process(configured())
    (ours,) = cloud.zones.records(cloud.zone)
    cloud.zones.delete(ours)
    theirs = cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", APEX.validation)

    with pytest.raises(DnsFailed, match="another RecordId than the one certcast added") as failed:
        Challenges(configured()).sweep(NOW)

    assert (f"RecordId {ours.id}", f"RecordId {theirs.id}, TXT {APEX.validation}") == (
        failed.value.expected,
        failed.value.found,
    )
    assert [APEX.validation] == values(cloud)
    cloud.zones.delete(theirs)
    Challenges(configured()).sweep(NOW)
    assert [] == desk.ledger.entries()


def test_one_removal_that_fails_does_not_stop_the_others(cloud, configured, quick_retries):
    """A failed removal is reported and kept in the ledger; the other records go, and a later run ends it."""
    other = cloud.add_zone("other.test")
    elsewhere = Challenge("other.test", "E" * 43)
    config = configured(zones=("example.test", "other.test"))
    desk = Challenges(config)
    present(desk, [APEX, elsewhere])
    cloud.alidns.faults.turn_on("server_error", action="DescribeDomainRecords", target="example.test")

    (failure,) = desk.cleanup_orders([URL])

    assert "stays until a later `certcast renew` removes it" in failure.kept
    assert ([APEX.validation], []) == (values(cloud), values(cloud, other))
    cloud.alidns.faults.turn_off()
    end_the_process(config)
    Challenges(config).sweep(NOW)
    assert [] == values(cloud)


def test_records_that_nothing_has_tried_to_remove_are_told_of(cloud, desk):
    """A run that ends with records of its own says so, instead of leaving them to the next one in silence."""
    present(desk, [APEX])
    with pytest.raises(DnsFailed, match="were not removed") as failed:
        desk.require_nothing_left(NOW)
    assert APEX.validation in failed.value.found

    assert [] == desk.cleanup_orders([URL])
    desk.require_nothing_left(NOW)


def test_a_zone_that_left_the_account_does_not_haunt_the_ledger(cloud, configured):
    """An entry in a zone that is gone is forgotten: there is nothing left to remove."""
    desk = Challenges(configured())
    present(desk, [APEX])
    end_the_process(configured())
    everything = {"Effect": "Allow", "Action": "alidns:*", "Resource": "*"}
    cloud.renewal.policies = [{"Version": "1", "Statement": [everything]}]
    desk.ledger.put([replace(entry, zone="gone.test") for entry in desk.ledger.entries()])

    Challenges(configured(zones=("example.test", "gone.test"))).sweep(NOW)

    assert [] == desk.ledger.entries()


def test_record_of_an_account_no_longer_known(cloud, configured):
    """
    Without its [[zone]] nobody knows in which account a record of a crashed run stands: a person is told
    where, once, and the sweep goes on to the others.
    """
    desk = Challenges(configured())
    present(desk, ORDER)
    end_the_process(configured())
    everything = {"Effect": "Allow", "Action": "alidns:*", "Resource": "*"}
    cloud.renewal.policies = [{"Version": "1", "Statement": [everything]}]
    desk.ledger.put([replace(desk.ledger.entries()[0], zone="others.test")])

    with pytest.raises(DnsFailed, match=r"_acme-challenge\.others\.test may be there still"):
        Challenges(configured()).sweep(NOW)

    assert [] == desk.ledger.entries()
    assert 1 == len(values(cloud))
    assert [] == Challenges(configured()).sweep(NOW)


def test_a_ledger_that_cannot_be_written_adds_nothing(cloud, configured):
    """Without a ledger no record is added: nobody would know of it after a crash."""
    config = configured()
    config.state_dir.mkdir()
    (config.state_dir / "dns01").write_text("a file where the folder should be")

    with pytest.raises(LocalFault):
        present(Challenges(config), ORDER)

    assert 0 == cloud.alidns.count("AddDomainRecord")


# -- the nameservers


def test_waiting_lasts_as_long_as_the_slowest_nameserver_lags(desk, dns):
    """With one nameserver a second behind, the order waits that second, and hardly longer."""
    dns.servers[1].lag = 1.0
    begun = time.monotonic()

    present(desk, ORDER)

    assert 1.0 <= time.monotonic() - begun < 3.0


def test_waiting_costs_next_to_nothing_when_nothing_lags(desk, dns):
    """With quick nameservers there is no fixed wait: each is asked for the values once."""
    present(desk, ORDER)

    txt = [query for query in dns.queries if query.type == "TXT"]
    assert {"ns1.lab-dns.test", "ns2.lab-dns.test"} == {query.server for query in txt}
    assert 2 == len(txt)


def test_servfail_passes(desk, dns):
    """A nameserver that answers SERVFAIL for a while is asked again, and doesn't hold up the others."""
    dns.servers[0].servfail = True
    dns.servers[1].lag = 0.5

    present(desk, ORDER)


def test_one_dead_nameserver_does_not_stop_the_order(desk, dns):
    """One of two nameservers is silent: half of them answer, and that is enough."""
    dns.servers[0].silent = True

    present(desk, ORDER)


def test_dead_nameservers_are_named(cloud, configured, dns):
    """When no nameserver answers, nothing stays, and the error says of each what it did."""
    dns.servers[0].silent = True
    dns.servers[1].servfail = True

    with pytest.raises(NotPropagated) as failed:
        present(Challenges(configured(deadline=5.0)), ORDER)

    first, second = ("{}:{}".format(*server.address) for server in dns.servers)
    assert f"{first}: no answer, neither by UDP nor by TCP\n{second}: SERVFAIL" == failed.value.found
    assert [] == values(cloud)


def test_a_resolver_is_no_nameserver(services, cloud, configured):
    """A cache configured as a zone's nameserver is refused: what it says may be as old as its TTL."""
    config = configured(deadline=1.0)
    cache = ZoneConfig("example.test", (Address(*services.dns.resolver.address),))

    with pytest.raises(NotPropagated) as failed:
        present(Challenges(replace(config, zones=(cache,))), ORDER)

    assert "not authoritative" in failed.value.found
    assert [] == values(cloud)


def test_a_server_that_is_not_authoritative_has_no_say(services, dns, configured):
    """A nameserver that only repeats from a cache counts as one that doesn't answer, whatever it says."""
    dns.servers[1].lag = 3600
    config = configured()
    addresses = (Address(*dns.servers[0].address), Address(*dns.resolver.address))

    present(Challenges(replace(config, zones=(ZoneConfig("example.test", addresses),))), ORDER)

    assert [query for query in dns.resolver.queries if query.type == "TXT"]


def test_a_deadline_that_passes_says_which_server_shows_what(cloud, configured, dns):
    """A nameserver that never gets the values is named with what it has, and the records go again."""
    dns.servers[1].lag = 3600

    with pytest.raises(NotPropagated, match="did not show 2 values") as failed:
        present(Challenges(configured(deadline=1.0)), ORDER)

    first, second = ("{}:{}".format(*server.address) for server in dns.servers)
    assert f"{first}: has 2 of 2 values\n{second}: has 0 of 2 values" == failed.value.found
    assert "no challenge was answered, and no TXT record is left" == failed.value.kept
    assert [] == values(cloud)


@pytest.mark.parametrize(("others", "transports"), [(12, {"udp"}), (30, {"udp", "tcp"})])
def test_an_answer_over_512_octets_is_read(cloud, desk, dns, others, transports):
    """A name with many TXT values: a larger datagram (EDNS) holds a dozen, TCP as many as there are."""
    for number in range(others):
        cloud.zones.add(cloud.zone, "_acme-challenge", "TXT", f"another-order-{number:02}-".ljust(43, "x"))

    present(desk, ORDER)

    assert transports == {query.transport for query in dns.queries if query.type == "TXT"}


def test_a_fixed_wait_asks_no_nameserver(configured, dns):
    """`propagation = "wait:…"` waits just that, and works where nameservers can't be reached."""
    for server in dns.servers:
        server.lag = 3600
    begun = time.monotonic()

    present(Challenges(configured(propagation=0.3)), ORDER)

    assert 0.3 <= time.monotonic() - begun < 3
    assert [] == dns.queries


def test_nameservers_are_found_through_the_provider(cloud, configured, dns, monkeypatch):
    """A zone without configured nameservers is asked at those that Alidns names, at their addresses."""
    from certcast.dns01.visibility import nameservers

    # Real nameservers listen on port 53; the lab's cannot.
    monkeypatch.setattr(nameservers, "_PORT", dns.servers[0].port)

    present(Challenges(configured(zones=())), ORDER)

    assert BOTH == values(cloud)
    assert 1 == cloud.alidns.count("DescribeDomainInfo")
    assert {"A", "AAAA"} <= {query.type for query in dns.queries if query.server == "resolver"}


def test_an_address_family_that_leads_nowhere_is_no_lost_server(cloud, configured, dns, monkeypatch):
    """
    Nameservers with IPv6 addresses that cannot be reached, on a host where IPv4 works: nothing is
    lost, no time either, and no resolver stands in.
    """
    from certcast.dns01.visibility import nameservers

    monkeypatch.setattr(nameservers, "_PORT", dns.servers[0].port)
    provider = cloud.zones.get("lab-dns.test")
    for host in NAMESERVERS:
        cloud.zones.add(provider, host.partition(".")[0], "AAAA", "::1")  # where nobody listens
    warnings = []
    begun = time.monotonic()

    present(Challenges(configured(zones=()), warn=warnings.append), ORDER)

    assert time.monotonic() - begun < 2.0
    assert [] == warnings
    assert set() == {query.name for query in dns.resolver.queries} - {*NAMESERVERS}


def test_nameservers_are_found_by_doh_alone(services, cloud, configured, dns, monkeypatch, tmp_path):
    """With a DoH server as the only resolver, the addresses of nameservers come by HTTPS."""
    from certcast.dns01.visibility import nameservers

    monkeypatch.setattr(nameservers, "_PORT", dns.servers[0].port)
    authority = Authority("lab")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    warnings = []

    with DohDoor(dns.resolver, authority) as doh:
        config = configured(zones=(), resolvers=(Resolver(doh.url),))
        present(Challenges(config, warn=warnings.append), ORDER)

    assert [] == warnings
    assert {"https"} == {query.transport for query in dns.resolver.queries}
    assert {*NAMESERVERS} == {query.name for query in dns.resolver.queries}


def test_no_resolver_answers(cloud, configured, monkeypatch):
    """
    A host that reaches nothing but HTTPS: not even the nameservers' addresses are found. That costs
    seconds once, not once for each server, and the warning says what was tried.
    """
    monkeypatch.setattr(exchange, "RESOLVER_UDP_TIMEOUT", 0.3)
    monkeypatch.setattr(exchange, "TCP_TIMEOUT", 0.3)
    warnings = []
    with Blocked("drop") as filtered:
        config = configured(zones=(), resolvers=(Resolver(Address(*filtered.address)),), fallback_wait=0.3)
        begun = time.monotonic()
        present(Challenges(config, warn=warnings.append), ORDER)

    assert BOTH == values(cloud)
    assert time.monotonic() - begun < 9.5
    (warning,) = warnings
    for host in NAMESERVERS:
        assert f"{host}: its address was not found" in warning
    assert f"resolver ({filtered}): no answer, neither by UDP nor by TCP" in warning


def test_a_record_that_is_gone_from_the_zone_is_not_waited_for(cloud, configured):
    """Where nobody can be asked, the API is: a record that another program has removed ends the order."""
    with Blocked("refuse") as filtered:
        address = Address(*filtered.address)
        config = replace(
            configured(resolvers=(Resolver(address),), fallback_wait=6.0),
            zones=(ZoneConfig("example.test", (address,)),),
        )
        desk = Challenges(config)
        entries = [desk.add(challenge, Process.current(), NOW) for challenge in ORDER]
        cloud.zones.delete(cloud.zones.by_id(entries[1].record_id))

        begun = time.monotonic()
        with pytest.raises(NotPropagated, match="is gone from the zone") as failed:
            desk.wait(entries)

    assert WILDCARD.validation in failed.value.expected
    assert time.monotonic() - begun < 5.0


def test_private_zone_hides_the_nameservers_names(services, cloud, configured, dns, monkeypatch):
    """
    The zone's nameservers have names in the zone itself, which a private zone hides from this host, like
    the values: that is no answer from a nameserver, the API's word and a wait stand in, with a warning.
    """
    from certcast.dns01.visibility import nameservers

    monkeypatch.setattr(nameservers, "_PORT", dns.servers[0].port)
    cloud.zone.nameservers = ("ns1.example.test",)
    cloud.zones.add(cloud.zone, "ns1", "A", "127.0.0.1")
    monkeypatch.setattr(dns, "private", Zones())
    dns.private.create("example.test", ACCOUNT, NAMESERVERS)
    inside = (Resolver(Address(*dns.vpc.address)),)
    warnings = []

    config = configured(zones=(), resolvers=inside, fallback_wait=1.0, deadline=4.0)
    present(Challenges(config, warn=warnings.append), ORDER)

    assert BOTH == values(cloud)
    assert "after the API had shown the TXT values" in warnings[0]
    assert "vpc" in {query.server for query in dns.queries if query.type == "TXT"}


# -- where the record belongs


def test_delegated_challenge(cloud, configured):
    """A CNAME from _acme-challenge into a zone of its own: the values stand there, and go from there."""
    validation = cloud.add_zone("acme.test")
    cloud.zones.add(cloud.zone, "_acme-challenge", "CNAME", "example-test.acme.test")
    desk = Challenges(configured(zones=("example.test", "acme.test")))

    present(desk, ORDER)
    assert (BOTH, []) == (values(cloud, validation), values(cloud))

    desk.cleanup(ORDER)
    assert [] == values(cloud, validation)


def test_listed_sub_zone_is_refused_without_dns(cloud, configured, dns):
    """NS records in the zone's own listing are enough, where no nameserver can be reached."""
    cloud.zones.add(cloud.zone, "sub", "NS", "ns.elsewhere.test")
    order = [APEX, Challenge("deep.sub.example.test", "S" * 43)]

    with pytest.raises(ZoneMissing, match="lies in sub.example.test, which example.test delegates"):  # noqa: RUF043
        present(Challenges(configured(propagation=0.0)), order)

    assert 0 == cloud.alidns.count("AddDomainRecord")
    assert [] == dns.queries


def test_a_cname_that_depends_on_who_asks_is_refused(cloud, configured):
    """The CA asks from several places: a CNAME with another target on another line leads nowhere."""
    cloud.zones.add(cloud.zone, "_acme-challenge", "CNAME", "a.acme.test")
    cloud.zones.add(cloud.zone, "_acme-challenge", "CNAME", "b.acme.test", line="oversea")

    with pytest.raises(DnsFailed, match="a CNAME to several names") as failed:
        present(Challenges(configured()), [APEX])

    assert "b.acme.test, a.acme.test" == failed.value.found


def test_cnames_are_not_followed_where_that_is_switched_off(cloud, configured):
    """With `follow_cname = false` a record belongs where the name itself is, and nowhere else."""
    cloud.add_zone("acme.test")
    cloud.zones.add(cloud.zone, "_acme-challenge.www", "CNAME", "www.acme.test")
    zones = ("example.test", "acme.test")
    desk = Challenges(configured(zones, follow_cname=False))

    present(desk, [APEX])
    assert [APEX.validation] == values(cloud)

    # Alidns lets no TXT stand beside a CNAME.
    with pytest.raises(DnsFailed, match="refused AddDomainRecord") as failed:
        present(desk, [Challenge("www.example.test", "W" * 43)])
    assert "DomainRecordConflict" in failed.value.found

    with pytest.raises(ZoneMissing, match="no managed zone holds _acme-challenge.other.test") as homeless:  # noqa: RUF043
        present(desk, [Challenge("other.test", "O" * 43)])
    assert "follow_cname = false" in homeless.value.expected


def test_silent_nameservers_delay_the_placing_of_records_once(cloud, configured, dns):
    """Where nobody answers, the question for a sub-zone costs a second and a half, not one for each name."""
    for server in dns.servers:
        server.silent = True
    desk = Challenges(configured())
    begun = time.monotonic()

    for number in range(4):
        desk.add(Challenge(f"n{number}.example.test", f"{number}" * 43), Process.current(), NOW)

    assert time.monotonic() - begun < 3
    assert 4 == len(values(cloud))


def test_sub_zone_in_other_hands(cloud, configured):
    """A record in the parent would never be seen below a delegation: refused at once, by the zone's name."""
    cloud.zones.create("sub.example.test", PROVIDER, NAMESERVERS)

    with pytest.raises(ZoneMissing, match="lies in sub.example.test, which example.test delegates"):  # noqa: RUF043
        present(Challenges(configured()), [APEX, Challenge("sub.example.test", "S" * 43)])

    assert 0 == cloud.alidns.count("AddDomainRecord")
