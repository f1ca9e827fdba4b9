"""certcast inside certbot 5.8: the authenticator plugin, with pebble, real DNS and the emulated Alidns."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certcast_lab.cloud import PROVIDER
from certcast_lab.lab import Lab
from issuing import Certbot

APEX_AND_WILDCARD = ("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test")


@pytest.fixture
def certbot(lab: Lab) -> Certbot:
    return Certbot(lab)


def asked_by_the_ca(lab: Lab) -> list[str]:
    """The names that the CA's resolver was asked for: none, as long as no challenge is answered."""
    return [query.name for query in lab.dns.resolver.queries if query.name.startswith("_acme-challenge")]


@pytest.mark.row(3)
@pytest.mark.row(4)
def test_apex_and_wildcard_are_issued_and_renewed(lab: Lab, certbot: Certbot) -> None:
    """
    One certificate for a domain and its wildcard: two values at one name, none left afterwards. The
    renewal needs no option again, since certbot remembers the plugin and its configuration.
    """
    first = certbot.plugin("certonly", *APEX_AND_WILDCARD)
    assert 0 == first.returncode, first.stderr
    assert {"example.test", "*.example.test"} == certbot.names()
    assert (2, 2) == tuple(map(lab.cloud.alidns.count, ("AddDomainRecord", "DeleteDomainRecord")))
    before = certbot.fullchain()

    second = certbot.plugin("renew", "--force-renewal")

    assert 0 == second.returncode, second.stderr
    assert before != certbot.fullchain()
    assert [] == lab.cloud.challenge_records()


@pytest.mark.row(3)
def test_waiting_is_what_makes_validation_pass(lab: Lab, certbot: Certbot) -> None:
    """
    With one nameserver a second behind, the CA's look fails when nobody waits, and passes when
    certcast does.
    """
    lab.dns.servers[1].lag = 1.5
    certbot.configure("[dns]\n", '[dns]\npropagation = "wait:1ms"\n')
    hasty = certbot.plugin("certonly", *APEX_AND_WILDCARD)
    assert 1 == hasty.returncode
    assert asked_by_the_ca(lab)

    certbot.configure()
    patient = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 0 == patient.returncode, patient.stderr
    assert [] == lab.cloud.challenge_records()


@pytest.mark.row(3)
def test_a_fixed_wait_can_be_had(lab: Lab, certbot: Certbot) -> None:
    """`propagation = "wait:2s"` is the asked-for sleep: long enough for this lag, and nothing is asked."""
    lab.dns.servers[1].lag = 0.5
    certbot.configure("[dns]\n", '[dns]\npropagation = "wait:2s"\n')

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 0 == done.returncode, done.stderr
    assert [] == [query for server in lab.dns.servers for query in server.queries]


def test_a_dns_failure_asks_nothing_of_the_ca(lab: Lab, certbot: Certbot) -> None:
    """
    When the values don't reach a nameserver, certbot ends before any challenge is answered: no failed
    validation counts at the CA, the report says which server lags, and no record stays.
    """
    lab.dns.servers[1].lag = 3600
    certbot.configure("[dns]\n", '[dns]\ndeadline = "1s"\n')

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 1 == done.returncode
    assert "has 0 of 2 values" in done.stdout + done.stderr
    assert "DNS-PROPAGATION (exit 11)" in done.stdout + done.stderr
    assert [] == asked_by_the_ca(lab)
    assert [] == lab.cloud.challenge_records()


def test_a_refused_access_key_asks_nothing_of_the_ca(lab: Lab, certbot: Certbot) -> None:
    """An AccessKey without the right to the zone ends certbot with the missing right, before validation."""
    adding = {"Effect": "Deny", "Action": "alidns:AddDomainRecord", "Resource": "*"}
    lab.cloud.renewal.policies = [*lab.cloud.renewal.policies, {"Version": "1", "Statement": [adding]}]

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 1 == done.returncode
    assert "alidns:AddDomainRecord on acs:alidns:*:*:domain/example.test" in done.stdout + done.stderr
    assert [] == asked_by_the_ca(lab)


def test_a_missing_configuration_is_said_plainly(certbot: Certbot) -> None:
    """Without certcast.toml, certbot's error is certcast's report, with the file's name."""
    certbot.host.certcast_toml.unlink()

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 1 == done.returncode
    assert f"there is no configuration file {certbot.host.certcast_toml}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.row(1)
def test_a_delegated_challenge_is_answered_in_a_zone_of_its_own(lab: Lab, certbot: Certbot) -> None:
    """
    With _acme-challenge as a CNAME into another zone, the AccessKey needs no right to the domain's own
    zone at all, and the certificate is issued.
    """
    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "CNAME", "example-test.acme.test")
    lab.cloud.zone.owner = PROVIDER
    lab.cloud.add_zone("acme.test")
    certbot.configure()
    assert '"example.test"\nnameservers' not in certbot.host.certcast_toml.read_text()

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 0 == done.returncode, done.stderr
    assert {"acme.test"} == {
        logged.parameters["DomainName"]
        for logged in lab.cloud.alidns.log
        if logged.action == "AddDomainRecord"
    }
    assert [] == lab.cloud.challenge_records()


def test_names_below_a_delegated_sub_zone_are_validated_there(lab: Lab, certbot: Certbot) -> None:
    """Names of a domain and of a sub-zone with its own zone data: each value goes where it is seen."""
    lab.cloud.add_zone("sub.example.test")
    certbot.configure()

    done = certbot.plugin(
        "certonly", "--cert-name", "example.test", "-d", "example.test", "-d", "*.deep.sub.example.test"
    )

    assert 0 == done.returncode, done.stderr
    assert {("example.test", "_acme-challenge"), ("sub.example.test", "_acme-challenge.deep")} == {
        (logged.parameters["DomainName"], logged.parameters["RR"])
        for logged in lab.cloud.alidns.log
        if logged.action == "AddDomainRecord"
    }
    assert [] == lab.cloud.challenge_records()


def test_without_configured_zones_the_account_is_asked(lab: Lab, certbot: Certbot) -> None:
    """A configuration without [[zone]] finds the zone among all that the account has."""
    lab.cloud.let_find(zones=True)
    text = certbot.host.certcast_toml.read_text()
    certbot.host.certcast_toml.write_text(text.partition("[[zone]]")[0])
    certbot.host.certcast_toml.write_text(
        certbot.host.certcast_toml.read_text().replace("[dns]\n", '[dns]\npropagation = "wait:10ms"\n')
    )

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)

    assert 0 == done.returncode, done.stderr
    assert lab.cloud.alidns.count("DescribeDomains")


@pytest.mark.row(4)
def test_a_cleanup_that_fails_keeps_the_certificate_and_the_knowledge(lab: Lab, certbot: Certbot) -> None:
    """
    When the records cannot be removed, the certificate is issued all the same; certbot's output says
    what stays, and the next `certcast renew` mails it.
    """
    deletion = {"Effect": "Deny", "Action": "alidns:DeleteDomainRecord", "Resource": "*"}
    lab.cloud.renewal.policies = [*lab.cloud.renewal.policies, {"Version": "1", "Statement": [deletion]}]

    done = certbot.plugin("certonly", *APEX_AND_WILDCARD)
    assert 0 == done.returncode, done.stderr
    assert 2 == len(lab.cloud.challenge_records())
    assert "may not do DeleteDomainRecord" in done.stdout + done.stderr

    renewed = lab.certcast(certbot.host.certcast_toml, "renew", user="renewal")

    mail = lab.mailbox.wait_for(lambda received: "were not removed" in received.text)
    assert 13 == renewed.returncode, renewed.stderr
    assert ("it@example.test",) == mail.recipients


@contextmanager
def waiting(lab: Lab, certbot: Certbot, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A certbot that has added its records and waits for a nameserver; `before` stands before its command."""
    lab.dns.servers[1].lag = 3600
    argv = [*before, *certbot.plugin_argv("certonly", *APEX_AND_WILDCARD)]
    with subprocess.Popen(
        argv, env=certbot.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            until = time.monotonic() + 20
            while len(lab.cloud.challenge_records()) < 2:
                assert time.monotonic() < until, "no records were added"
                time.sleep(0.05)
            yield process
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        finally:
            process.kill()


def test_an_interrupted_certbot_leaves_nothing(lab: Lab, certbot: Certbot) -> None:
    """Stopped by SIGTERM while it waits for the nameservers, certbot removes what certcast had added."""
    with waiting(lab, certbot):
        pass

    assert [] == lab.cloud.challenge_records()
    assert [] == asked_by_the_ca(lab)


def test_a_crash_of_certbot_leaves_no_core(lab: Lab, certbot: Certbot) -> None:
    """A certbot that an administrator runs, where cores are allowed, dumps none: it has the DNS keys."""
    with waiting(lab, certbot, "prlimit", "--core=unlimited") as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +unlimited ", limits)
