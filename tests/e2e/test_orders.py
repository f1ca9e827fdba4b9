"""certcast's own orders, by the installed command: pebble and DNS are real, Alidns is emulated.

What the CA was asked is read where it passed the lab's proxy before it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast_lab.aliyun.cloud import PROVIDER
from certcast_lab.lab import CERTCAST, Lab
from journey import Done, Journey

# Far from UTC, and whoever reads an HTTP date as local time here is eight hours off.
SHANGHAI = {"TZ": "Asia/Shanghai"}


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


@pytest.fixture(scope="module")
def generous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose CA reuses every valid authorization, as Let's Encrypt does."""
    with Lab(tmp_path_factory.mktemp("generous"), reuse_authorizations=100) as lab:
        yield lab


def apex_and_wildcard(*domains: str) -> dict[str, tuple[str, ...]]:
    """One certificate for each of these domains."""
    return {domain: (domain, f"*.{domain}") for domain in domains}


def in_zones(lab: Lab, *domains: str) -> Journey:
    """A renewal host that wants one certificate for each domain, all in zones of the account."""
    for domain in domains:
        if domain != "example.test":
            lab.cloud.add_zone(domain)
    return Journey(lab, apex_and_wildcard(*domains))


def below_the_zone(lab: Lab, count: int) -> Journey:
    """A renewal host that wants so many certificates, all of names in example.test."""
    return Journey(lab, apex_and_wildcard(*(f"n{number}.example.test" for number in range(count))))


def answered(lab: Lab) -> int:
    """How many challenges the CA was told to look at."""
    return sum(passed.action == "challenge" and passed.method == "POST" for passed in lab.renewal_info.passed)


def asked_by_the_ca(lab: Lab) -> list[str]:
    """The names that the CA's resolver was asked for: none, as long as no challenge is answered."""
    return [query.name for query in lab.dns.resolver.queries if query.name.startswith("_acme-challenge")]


def added(lab: Lab) -> set[tuple[str, str]]:
    """Zone and name of every record that was added."""
    return {
        (logged.parameters["DomainName"], logged.parameters["RR"])
        for logged in lab.cloud.alidns.log
        if logged.action == "AddDomainRecord"
    }


def deny(lab: Lab, action: str) -> None:
    """Take a right to the zones from the renewal host's AccessKey."""
    statement = {"Effect": "Deny", "Action": f"alidns:{action}", "Resource": "*"}
    lab.cloud.renewal.policies = [*lab.cloud.renewal.policies, {"Version": "1", "Statement": [statement]}]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "the condition did not come true"
        time.sleep(0.02)


@contextmanager
def running(journey: Journey, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A `certcast renew` inside the block; `before` stands before its command."""
    argv = [*before, CERTCAST, "--config", str(journey.renewal.certcast_toml), "renew"]
    environment = {**os.environ, **journey.lab.environment("renewal")}
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def waiting_for_dns(journey: Journey, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A `certcast renew` that has added its records, and waits in vain for a nameserver."""
    journey.lab.dns.servers[1].lag = 3600
    wanted = sum(map(len, journey.certificates.values()))
    with running(journey, *before) as process:
        wait_until(lambda: len(journey.lab.cloud.challenge_records()) >= wanted)
        yield process


def require_all_published(journey: Journey, done: Done) -> None:
    """Every certificate is issued and published, and no TXT record is left."""
    assert (0, "") == (done.returncode, done.stderr)
    for name, names in journey.certificates.items():
        live = journey.live(name)
        assert set(names) == set(live.leaf.names)
        assert live.leaf.sha256 == journey.published(name)
    assert [] == journey.lab.cloud.challenge_records()


# -- one order


@pytest.mark.row(3)
@pytest.mark.row(4)
def test_apex_and_wildcard_are_issued_and_renewed(journey: Journey) -> None:
    """
    One certificate for a domain and its wildcard: two values at one name, none left afterwards. The
    renewal is ordered by the same account.
    """
    lab = journey.lab
    require_all_published(journey, journey.renew())
    assert (2, 2) == tuple(map(lab.cloud.alidns.count, ("AddDomainRecord", "DeleteDomainRecord")))
    before = journey.live()
    journey.want_replaced()

    require_all_published(journey, journey.renew("--now"))

    assert before.fullchain != journey.live().fullchain
    assert before.privkey != journey.live().privkey
    assert 2 == lab.renewal_info.orders
    assert 1 == sum(passed.action == "newAccount" for passed in lab.renewal_info.passed)


@pytest.mark.row(3)
def test_waiting_is_what_makes_validation_pass(journey: Journey) -> None:
    """
    With one nameserver a second behind, the CA's look fails when nobody waits, and passes when
    certcast does.
    """
    lab = journey.lab
    lab.dns.servers[1].lag = 1.5
    journey.configure("[dns]\n", '[dns]\npropagation = "wait:1ms"\n')
    hasty = journey.renew()
    assert 49 == hasty.returncode, hasty.stderr
    assert "VALIDATION" in hasty.stderr
    assert asked_by_the_ca(lab)
    assert [] == lab.cloud.challenge_records()

    journey.configure()
    require_all_published(journey, journey.renew())


@pytest.mark.row(3)
def test_a_fixed_wait_can_be_had(journey: Journey) -> None:
    """`propagation = "wait:2s"` is the asked-for sleep: long enough for this lag, and nothing is asked."""
    journey.lab.dns.servers[1].lag = 0.5
    journey.configure("[dns]\n", '[dns]\npropagation = "wait:2s"\n')

    require_all_published(journey, journey.renew())

    assert [] == [query for server in journey.lab.dns.servers for query in server.queries]


def test_a_dns_failure_asks_nothing_of_the_ca(journey: Journey) -> None:
    """
    When the values don't reach a nameserver, the order ends before any challenge is answered: no failed
    validation counts at the CA, the report says which server lags, and no record stays. However often
    that happens, it uses up no order of the cap.
    """
    lab = journey.lab
    lab.dns.servers[1].lag = 3600
    journey.configure("[dns]\n", '[dns]\ndeadline = "1s"\n')

    for _ in range(3):
        done = journey.renew()
        assert 11 == done.returncode, done.stderr
        assert "has 0 of 2 values" in done.stderr
        assert "DNS-PROPAGATION (exit 11)" in done.stderr
        assert "no challenge was answered" in done.stderr
        assert 0 == answered(lab)
        assert [] == asked_by_the_ca(lab)
        assert [] == lab.cloud.challenge_records()

    lab.dns.servers[1].work_well()
    require_all_published(journey, journey.renew())


def test_a_refused_access_key_asks_nothing_of_the_ca(journey: Journey) -> None:
    """An AccessKey without the right to the zone ends the order with the missing right, before validation."""
    deny(journey.lab, "AddDomainRecord")

    done = journey.renew()

    assert 12 == done.returncode, done.stderr
    assert "alidns:AddDomainRecord on acs:alidns:*:*:domain/example.test" in done.stderr
    assert 0 == answered(journey.lab)
    assert [] == asked_by_the_ca(journey.lab)


def test_a_missing_configuration_is_said_plainly(journey: Journey) -> None:
    """Without certcast.toml, the error is a report with the file's name."""
    journey.renewal.certcast_toml.unlink()

    done = journey.renew()

    assert 3 == done.returncode
    assert f"there is no configuration file {journey.renewal.certcast_toml}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ca_that_refuses_twenty_nonces(journey: Journey) -> None:
    """
    A CA may call any good nonce bad (RFC 8555, 6.5): with three refusals in a row at each step, twenty and
    more in all, the certificate is issued; an order isn't placed twice for it.
    """
    lab = journey.lab
    steps = ("newAccount", "newOrder", "authz", "challenge", "order", "finalize", "certificate")
    for step in steps:
        lab.acme_faults.turn_on("refuse_nonces", action=step, times=3)

    require_all_published(journey, journey.renew())

    assert 21 == lab.acme_faults.consumed("refuse_nonces")
    assert 1 == lab.renewal_info.orders


def test_a_moment_of_the_cas_in_another_time_zone(journey: Journey) -> None:
    """
    On a host in Shanghai, a CA that has had enough says to come back in an hour, as HTTP dates do in
    GMT: no order is tried before, and the moment is told in UTC.
    """
    lab = journey.lab
    moment = (datetime.now(timezone.utc) + timedelta(hours=1)).replace(microsecond=0)
    lab.acme_faults.turn_on(
        "problem", action="newOrder", times=1, status=429, type="rateLimited", retry_after=moment
    )

    first = in_shanghai(journey)
    asked = len(lab.renewal_info.asked)
    second = in_shanghai(journey)

    assert (50, 50) == (first.returncode, second.returncode), first.stderr + second.stderr
    assert f"{moment:%Y-%m-%d %H:%M}" in second.stderr.replace("T", " ")
    assert "newOrder" not in {one.action for one in lab.renewal_info.asked[asked:]}


def in_shanghai(journey: Journey) -> Done:
    """Run `certcast renew` on a host whose clock shows China's time."""
    return journey.lab.certcast(journey.renewal.certcast_toml, "renew", user="renewal", extra=SHANGHAI)


# -- where the records go


@pytest.mark.row(1)
def test_a_delegated_challenge_is_answered_in_a_zone_of_its_own(journey: Journey) -> None:
    """
    With _acme-challenge as a CNAME into another zone, the AccessKey needs no right to the domain's own
    zone at all, and the certificate is issued.
    """
    lab = journey.lab
    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "CNAME", "example-test.acme.test")
    lab.cloud.zone.owner = PROVIDER
    lab.cloud.add_zone("acme.test")
    journey.configure()
    assert '"example.test"\nnameservers' not in journey.renewal.certcast_toml.read_text()

    require_all_published(journey, journey.renew())

    assert {"acme.test"} == {zone for zone, _ in added(lab)}


def test_names_below_a_delegated_sub_zone_are_validated_there(lab: Lab) -> None:
    """Names of a domain and of a sub-zone with its own zone data: each value goes where it is seen."""
    lab.cloud.add_zone("sub.example.test")
    journey = Journey(lab, {"example.test": ("example.test", "*.deep.sub.example.test")})

    require_all_published(journey, journey.renew())

    assert {("example.test", "_acme-challenge"), ("sub.example.test", "_acme-challenge.deep")} == added(lab)


def test_without_configured_zones_the_account_is_asked(journey: Journey) -> None:
    """A configuration without [[zone]] finds the zone among all that the account has."""
    journey.lab.cloud.let_find(zones=True)
    text = journey.renewal.certcast_toml.read_text().partition("[[zone]]")[0]
    text = text.replace("[dns]\n", '[dns]\npropagation = "wait:10ms"\n')
    journey.renewal.certcast_toml.write_text(text)

    require_all_published(journey, journey.renew())

    assert journey.lab.cloud.alidns.count("DescribeDomains")


def test_what_the_ca_still_knows_is_not_proved_again(generous: Lab) -> None:
    """
    Where the CA reuses the authorizations of an earlier order, only the names that are new get a TXT
    record; with no new name, Alidns is not asked at all.
    """
    journey = Journey(generous)
    require_all_published(journey, journey.renew())
    generous.cloud.alidns.log.clear()
    journey.certificates = {"example.test": ("example.test", "*.example.test", "a.www.example.test")}
    journey.configure()

    require_all_published(journey, journey.renew())

    assert {("example.test", "_acme-challenge.a.www")} == added(generous)
    generous.cloud.alidns.log.clear()
    journey.want_replaced()
    require_all_published(journey, journey.renew("--now"))
    assert [] == generous.cloud.alidns.log


@pytest.mark.row(4)
def test_cleanup_that_fails(journey: Journey) -> None:
    """
    When the records cannot be removed, the certificate is issued and published all the same; the run's
    error and a mail say what stays, and the next run removes it.
    """
    lab = journey.lab
    rights = lab.cloud.renewal.policies
    deny(lab, "DeleteDomainRecord")

    done = journey.renew()

    assert journey.live().leaf.sha256 == journey.published()
    assert 2 == len(lab.cloud.challenge_records())
    assert 12 == done.returncode, done.stderr
    assert "DeleteDomainRecord" in done.stderr
    mail = lab.mailbox.wait_for(lambda received: "DeleteDomainRecord" in received.text)
    assert ("it@example.test",) == mail.recipients

    lab.cloud.renewal.policies = rights
    require_all_published(journey, journey.renew())


# -- several orders


def test_several_certificates_wait_for_dns_together(lab: Lab) -> None:
    """
    Six certificates are due at once, and a nameserver lags: the records of all six are added before the
    first is seen, so that together they take about as long as one.
    """
    journey = below_the_zone(lab, 6)
    with waiting_for_dns(journey) as process:
        assert 12 == len(lab.cloud.challenge_records())
        assert 6 == lab.renewal_info.orders
        assert 0 == answered(lab)
        lab.dns.servers[1].work_well()
        output, errors = process.communicate(timeout=60)

    require_all_published(journey, subprocess.CompletedProcess([], process.returncode, output, errors))


def test_certificates_that_share_a_name_take_turns(lab: Lab) -> None:
    """
    Two certificates with a name in common are ordered one after the other, since the CA looks for both
    values at that name; a third one has no part in that. All are issued.
    """
    journey = Journey(
        lab,
        {
            "example.test": ("example.test", "*.example.test"),
            "also.example.test": ("also.example.test", "example.test"),
            "other.example.test": ("other.example.test",),
        },
    )

    require_all_published(journey, journey.renew())

    steps = [passed.action for passed in lab.renewal_info.passed if passed.status < 400]
    placed = [at for at, step in enumerate(steps) if step == "newOrder"]
    finalized = [at for at, step in enumerate(steps) if step == "finalize"]
    assert [2, 1] == [sum(at < finalized[0] for at in placed), sum(at > finalized[1] for at in placed)]


def test_a_failing_certificate_stops_no_other(lab: Lab) -> None:
    """
    A name in no zone and an order that the CA refuses cost the other certificates of the run nothing; the
    run ends with the first failure's exit status, and both are told.
    """
    journey = Journey(lab, apex_and_wildcard("foreign.invalid", "example.test", "a.example.test"))
    lab.acme_faults.turn_on(
        "problem", action="finalize", times=1, status=403, type="rejectedIdentifier", detail="not today"
    )

    done = journey.renew()

    assert 14 == done.returncode, done.stderr
    assert "DNS-ZONE" in done.stderr
    assert "not today" in done.stderr
    issued = [name for name in journey.certificates if journey.issued(name).exists()]
    assert 1 == len(issued)
    assert journey.live(issued[0]).leaf.sha256 == journey.published(issued[0])
    assert [] == lab.cloud.challenge_records()

    journey.certificates = apex_and_wildcard("example.test", "a.example.test")
    journey.configure()
    require_all_published(journey, journey.renew())


def test_at_most_eight_orders_talk_to_the_ca(lab: Lab) -> None:
    """Of twelve certificates that are due at once, no more than eight talk to the CA at any moment."""
    journey = below_the_zone(lab, 12)
    seconds, slow = 2.0, {"newOrder", "finalize"}
    for action in slow:
        lab.acme_faults.turn_on("delay", action=action, seconds=seconds)

    require_all_published(journey, journey.renew())

    # A nonce that is refused by chance is answered at once.
    begun = [asked.at for asked in lab.renewal_info.asked if asked.action in slow and asked.status < 400]
    # Each of these requests lasts at least so long, so all of a span that begins with one overlap.
    at_once = [sum(first <= at < first + seconds for at in begun) for first in begun]
    assert 1 < max(at_once) <= 8


# -- ended before its time


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    """
    Ctrl-C and SIGTERM while the nameservers are waited for: the records go, no challenge is answered, and
    the next run goes on with the very orders that were placed.
    """
    journey = in_zones(lab, "example.test", "two.test")
    with waiting_for_dns(journey) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)

    assert 130 == process.returncode, errors
    assert [] == lab.cloud.challenge_records()
    assert 0 == answered(lab)
    assert 2 == lab.renewal_info.orders
    lab.dns.servers[1].work_well()
    require_all_published(journey, journey.renew())
    assert 2 == lab.renewal_info.orders


def test_a_killed_run_is_cleaned_up_by_the_next_one(journey: Journey) -> None:
    """
    SIGKILL leaves two TXT records. The very next run removes them, even if it fails itself; the one after
    goes on with the order that was placed.
    """
    lab = journey.lab
    with waiting_for_dns(journey) as process:
        process.kill()
        process.communicate(timeout=60)
    left = lab.cloud.challenge_records()
    assert 2 == len(left)

    lab.acme_faults.turn_on("problem", action="*", status=503)
    assert 46 == journey.renew().returncode
    assert [] == lab.cloud.challenge_records()

    lab.acme_faults.turn_off()
    lab.dns.servers[1].work_well()
    require_all_published(journey, journey.renew())
    assert 1 == lab.renewal_info.orders


def test_a_crash_of_a_run_leaves_no_core(journey: Journey) -> None:
    """A run where an administrator allows cores dumps none: it has the DNS keys."""
    with waiting_for_dns(journey, "prlimit", "--core=unlimited") as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert re.search(r"Max core file size +0 +unlimited ", limits)
