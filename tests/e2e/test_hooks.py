"""certcast called by a certbot that is already there: today's and Debian 12's, with the three hooks."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import stamina

from certcast.certbot import hooks
from certcast.config.model import Config
from certcast.config.reading import load
from certcast.dns01.challenges import Challenges
from certcast.report.errors import CertbotFailed, DnsFailed, LineageUnusable, SourceUndecided
from certcast_lab.lab import Lab
from issuing import CERTBOT_58, Certbot, certbot_21

APEX_AND_WILDCARD = ("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test")
VALUE = "V" * 43


@pytest.fixture(params=["5.8", "2.1"])
def certbot(lab: Lab, request: pytest.FixtureRequest) -> Certbot:
    return Certbot(lab, CERTBOT_58 if request.param == "5.8" else certbot_21())


@pytest.fixture
def config(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The renewal host's configuration, for hooks that run in the test's own process."""
    for name, value in lab.environment("renewal").items():
        monkeypatch.setenv(name, value)
    return load(Certbot(lab).host.certcast_toml)


def given(**variables: str) -> dict[str, str]:
    """What certbot gives to a hook, with some variables otherwise."""
    usual = {
        "CERTBOT_DOMAIN": "example.test",
        "CERTBOT_IDENTIFIER": "example.test",
        "CERTBOT_VALIDATION": VALUE,
        "CERTBOT_REMAINING_CHALLENGES": "0",
        # Left standing by another lineage of the same run.
        "CERTBOT_AUTH_OUTPUT": "1",
        "RENEWED_LINEAGE": "/etc/letsencrypt/live/another.test",
    }
    return {**usual, **variables}


# -- with certbot


@pytest.mark.row(3)
@pytest.mark.row(4)
@pytest.mark.row(5)
def test_apex_and_wildcard_are_issued_and_published(lab: Lab, certbot: Certbot) -> None:
    """
    The first line of the README issues a domain and its wildcard while a nameserver lags: two values at
    one name, waited for once, none left, and the release is in the bucket. The second one renews it.
    """
    lab.dns.servers[1].lag = 1.0

    done = certbot.hooks("certonly", *APEX_AND_WILDCARD)

    assert 0 == done.returncode, done.stderr
    assert {"example.test", "*.example.test"} == certbot.names()
    assert (2, 2) == tuple(map(lab.cloud.alidns.count, ("AddDomainRecord", "DeleteDomainRecord")))
    assert [] == lab.cloud.challenge_records()
    first = certbot.published()
    assert certbot.lineage().live().leaf.sha256 == first

    renewed = certbot.hooks("renew", "--cert-name", "example.test", "--force-renewal")

    assert 0 == renewed.returncode, renewed.stderr
    assert (4, 4) == tuple(map(lab.cloud.alidns.count, ("AddDomainRecord", "DeleteDomainRecord")))
    assert certbot.lineage().live().leaf.sha256 == certbot.published() != first
    assert [] == lab.cloud.challenge_records()
    assert [] == lab.mailbox.messages


def test_what_certbot_renews_is_never_ordered(lab: Lab, certbot: Certbot) -> None:
    """
    With `source = "certbot"`, `certcast renew` publishes what a deploy hook could not. The CA is asked for
    its renewal information at most, and certbot's files stay as they are.
    """
    rights = lab.cloud.renewal.policies
    putting = {"Effect": "Deny", "Action": "oss:PutObject", "Resource": "*"}
    lab.cloud.renewal.policies = [*rights, {"Version": "1", "Statement": [putting]}]
    assert 0 == certbot.hooks("certonly", *APEX_AND_WILDCARD).returncode
    assert certbot.published() is None
    lab.cloud.renewal.policies = rights
    asked = len(lab.renewal_info.asked)
    before = certbot.snapshot()

    done = [certbot.renew(*words) for words in ((), ("--now",))]

    assert [(0, ""), (0, "")] == [(one.returncode, one.stderr) for one in done]
    assert certbot.lineage().live().leaf.sha256 == certbot.published()
    assert {one.action for one in lab.renewal_info.asked[asked:]} <= {"directory", "renewalInfo"}
    assert before == certbot.snapshot()


def test_two_certificates_are_renewed_in_one_run(lab: Lab) -> None:
    """What certbot leaves in the environment from one certificate doesn't confuse the next one's hooks."""
    lab.cloud.add_zone("two.test")
    certbot = Certbot(lab)
    certbot.certificates = {"example.test": ("*.example.test",), "two.test": ("two.test", "*.two.test")}
    certbot.configure()
    certbot.hooks("certonly", "--cert-name", "example.test", "-d", "*.example.test")
    certbot.hooks("certonly", "--cert-name", "two.test", "-d", "two.test", "-d", "*.two.test")
    before = [certbot.fullchain(name) for name in certbot.certificates]

    done = certbot.hooks("renew", "--force-renewal")

    assert 0 == done.returncode, done.stderr
    assert not set(before) & {certbot.fullchain(name) for name in certbot.certificates}
    assert [] == lab.cloud.challenge_records()
    assert [] == lab.mailbox.messages


@pytest.mark.row(3)
def test_an_auth_hook_that_fails_is_mailed(lab: Lab, certbot: Certbot) -> None:
    """certbot goes on when the auth hook fails; the IT address learns which right the AccessKey lacks."""
    adding = {"Effect": "Deny", "Action": "alidns:AddDomainRecord", "Resource": "*"}
    lab.cloud.renewal.policies = [*lab.cloud.renewal.policies, {"Version": "1", "Statement": [adding]}]

    done = certbot.hooks("certonly", *APEX_AND_WILDCARD)

    mail = lab.mailbox.wait_for(lambda received: "DNS-DENIED" in received.text)
    assert 1 == done.returncode
    assert ("it@example.test",) == mail.recipients
    assert "alidns:AddDomainRecord" in mail.text
    first, last = (
        " ".join(received.text.split()) for received in lab.mailbox.messages if "hook auth" in received.text
    )
    assert "lets the CA look at _acme-challenge.example.test" in first
    assert "the order has 1 more to add, which may fail and be mailed likewise" in first
    assert "certbot goes on" in last
    assert "more to add" not in last
    assert 2 == sum("hook auth" in received.text for received in lab.mailbox.messages)
    assert 2 == len(lab.mailbox.messages), "the cleanup hooks have nothing to fail at"


@pytest.mark.row(4)
def test_a_cleanup_hook_that_fails_is_mailed_and_made_up_for(lab: Lab, certbot: Certbot) -> None:
    """
    A record that could not be removed is mailed; the certificate is good, and a run of `renew` two
    hours later removes just that record.
    """
    lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", "somebody else's")
    rights = lab.cloud.renewal.policies
    deletion = {"Effect": "Deny", "Action": "alidns:DeleteDomainRecord", "Resource": "*"}
    lab.cloud.renewal.policies = [*rights, {"Version": "1", "Statement": [deletion]}]

    done = certbot.hooks("certonly", "--cert-name", "example.test", "-d", "*.example.test")

    mail = lab.mailbox.wait_for(lambda received: "DeleteDomainRecord" in received.text)
    assert 0 == done.returncode, done.stderr
    assert "stays until a later `certcast renew` removes it" in " ".join(mail.text.split())
    assert 2 == len(lab.cloud.challenge_records())

    age_the_ledger(load(certbot.host.certcast_toml))
    lab.cloud.renewal.policies = rights
    lab.certcast(certbot.host.certcast_toml, "renew", user="renewal")
    assert ["_acme-challenge.example.test somebody else's"] == lab.cloud.challenge_records()


def test_a_killed_certbot_is_swept_up_after(lab: Lab, certbot: Certbot, config: Config) -> None:
    """
    certbot and its hook, killed while the hook waits, leave records that the ledger knows; a later sweep
    removes them, and none does while that certbot lives.
    """
    lab.dns.servers[1].lag = 3600
    argv = [
        *certbot._argv("certonly"),
        *("--manual", "--preferred-challenges", "dns", "--manual-auth-hook", certbot.hook("auth")),
        *APEX_AND_WILDCARD,
    ]
    with subprocess.Popen(
        argv,
        env=certbot.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until = time.monotonic() + 60
            while len(lab.cloud.challenge_records()) < 2:
                assert time.monotonic() < until, "no records were added"
                time.sleep(0.05)
            desk = Challenges(config)
            assert {process.pid} == {entry.run.pid for entry in desk.ledger.entries()}
            age_the_ledger(config)
            assert [] == desk.sweep(datetime.now(timezone.utc))
        finally:
            os.killpg(process.pid, signal.SIGKILL)

    assert 2 == len(desk.sweep(datetime.now(timezone.utc)))
    assert [] == lab.cloud.challenge_records()


def age_the_ledger(config: Config) -> None:
    """Make every entry three hours old."""
    ledger = Challenges(config).ledger
    ledger.put([replace(entry, created=entry.created - timedelta(hours=3)) for entry in ledger.entries()])


# -- a lineage that certbot itself could not use


def links_became_files(certbot: Certbot) -> None:
    """A backup that follows links brought live/ back: rsync -L, zip."""
    for link in certbot.live.glob("*.pem"):
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)


def conf_emptied(certbot: Certbot) -> None:
    """What a full disk has left."""
    certbot.conf.write_text("")


def conf_garbled(certbot: Certbot) -> None:
    """A merge that was not finished."""
    certbot.conf.write_text("<<<<<<< HEAD\n" + certbot.conf.read_text())


def conf_moved(certbot: Certbot) -> None:
    """/etc/letsencrypt of another place: its paths are absolute."""
    certbot.conf.write_text(certbot.conf.read_text().replace(str(certbot.config_dir), "/srv/old/letsencrypt"))


def conf_lost(certbot: Certbot) -> None:
    """A backup of live/ and archive/ alone."""
    certbot.conf.unlink()


def conf_without_chain(certbot: Certbot) -> None:
    """One line of the file is gone."""
    certbot.conf.write_text(re.sub(r"(?m)^chain = .*\n", "", certbot.conf.read_text()))


def archive_renamed(certbot: Certbot) -> None:
    """The links lead into the archive of another lineage."""
    other = certbot.archive.with_name("example.test-0001")
    certbot.archive.rename(other)
    for link in certbot.live.glob("*.pem"):
        target = other / link.readlink().name
        link.unlink()
        link.symlink_to(target)


def key_emptied(certbot: Certbot) -> None:
    """A power cut before the key's content was on the disk."""
    (certbot.live / "privkey.pem").write_bytes(b"")


SPOILED = [
    links_became_files,
    conf_emptied,
    conf_garbled,
    conf_moved,
    conf_lost,
    conf_without_chain,
    archive_renamed,
    key_emptied,
]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_lineage_that_certbot_cannot_use(
    lab: Lab, certbot: Certbot, spoil: Callable[[Certbot], None]
) -> None:
    """
    Each run says LINEAGE, with commands that mend it; nothing is ordered, under no other name either, and
    what is published stays. After these commands certbot has its lineage again, and it is published.
    """
    assert 0 == certbot.hooks("certonly", *APEX_AND_WILDCARD).returncode
    before, orders = certbot.published(), lab.renewal_info.orders
    spoil(certbot)

    for words in ((), (), ("--now",)):
        done = certbot.renew(*words)
        assert 16 == done.returncode, done.stderr
        assert "LINEAGE (exit 16)" in done.stderr
        assert "certbot would not renew it" in done.stderr
        assert orders == lab.renewal_info.orders
        assert before == certbot.published()

    (mending,) = re.findall(r"`(cd [^`]*; done)`, then `certbot certonly", " ".join(done.stderr.split()))
    subprocess.run(mending, shell=True, check=False, capture_output=True)
    assert 0 == certbot.hooks("certonly", *APEX_AND_WILDCARD).returncode
    assert ["example.test"] == [path.stem for path in certbot.config_dir.glob("renewal/*.conf")]
    assert before != certbot.published()
    assert 0 == certbot.renew().returncode


def test_a_lineage_that_leads_to_an_older_version(lab: Lab, certbot: Certbot) -> None:
    """
    live/ leads to the version before (a backup of live/ alone): the older certificate isn't published and
    nothing is ordered, run for run; the command of the error mends it.
    """
    assert 0 == certbot.hooks("certonly", *APEX_AND_WILDCARD).returncode
    renewing = ("renew", "--cert-name", "example.test", "--force-renewal")
    assert 0 == certbot.hooks(*renewing).returncode
    before, orders = certbot.published(), lab.renewal_info.orders
    for link in certbot.live.glob("*.pem"):
        older = link.readlink().with_name(link.name.replace(".pem", "1.pem"))
        link.unlink()
        link.symlink_to(older)

    for words in ((), ("--now",)):
        done = certbot.renew(*words)
        assert 16 == done.returncode, done.stderr
        assert "the certificate is older than the published one" in done.stderr
        assert f"`certbot {' '.join(renewing)}`" in " ".join(done.stderr.split())
        assert orders == lab.renewal_info.orders
        assert before == certbot.published()

    assert 0 == certbot.hooks(*renewing).returncode
    assert certbot.lineage().live().leaf.sha256 == certbot.published() != before
    assert 0 == certbot.renew().returncode


def test_a_lineage_under_another_name(lab: Lab, certbot: Certbot) -> None:
    """
    certbot has issued it as example.test-0001, without --cert-name: its deploy hook says which names are
    configured, `certcast renew` that there is no example.test; nothing is ordered or published.
    """
    named = certbot.hooks("certonly", "--cert-name", "example.test-0001", *APEX_AND_WILDCARD[2:])
    assert 0 == named.returncode, named.stderr
    mail = lab.mailbox.wait_for(lambda received: "hook deploy" in received.text)
    assert "NAME one of example.test" in " ".join(mail.text.split())
    assert "live/example.test-0001" in "".join(mail.text.split())
    orders = lab.renewal_info.orders

    for _ in range(2):
        done = certbot.renew()
        assert 16 == done.returncode, done.stderr
        assert "certbot has no such lineage yet" in done.stderr
    assert orders == lab.renewal_info.orders
    assert certbot.published() is None

    assert 0 == certbot.hooks("certonly", *APEX_AND_WILDCARD).returncode
    assert certbot.lineage().live().leaf.sha256 == certbot.published()


# -- what certbot may hand over, and what it may not


def test_the_auth_hook_prints_the_record_id_and_nothing_else(lab: Lab, config: Config) -> None:
    """certbot hands the hook's output to the cleanup hook: it is the id of the record that stands there."""
    out = io.StringIO()

    hooks.auth(config, given(), out=out)

    (record,) = lab.cloud.zones.records(lab.cloud.zone)
    assert (f"{record.id}\n", VALUE) == (out.getvalue(), record.value)


def test_cleanup_works_from_the_ledger_alone(lab: Lab, config: Config) -> None:
    """The id that certbot hands over may be another lineage's: the ledger's is the one that counts."""
    hooks.auth(config, given(), out=io.StringIO())
    other = lab.cloud.zones.add(lab.cloud.zone, "www", "TXT", "not ours")

    hooks.cleanup(config, given(CERTBOT_AUTH_OUTPUT=other.id))

    assert ["www.example.test not ours"] == lab.cloud.challenge_records()


def test_cleanup_works_without_the_ledger(lab: Lab, config: Config) -> None:
    """With the ledger lost between the two hooks, the id that certbot kept finds the record."""
    out = io.StringIO()
    hooks.auth(config, given(), out=out)
    Challenges(config).ledger.path.unlink()

    hooks.cleanup(config, given(CERTBOT_AUTH_OUTPUT=out.getvalue().strip()))

    assert [] == lab.cloud.challenge_records()


@pytest.mark.parametrize("output", ["{other}", "", "1\n2", "$(id)", "none"])
def test_cleanup_without_the_ledger_removes_nothing_else(lab: Lab, config: Config, output: str) -> None:
    """An id that doesn't hold this very value, or no id at all, removes nothing."""
    standing = lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", VALUE)
    other = lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", "another order's")

    hooks.cleanup(config, given(CERTBOT_AUTH_OUTPUT=output.format(other=other.id)))

    assert {standing.id, other.id} == {record.id for record in lab.cloud.zones.records(lab.cloud.zone)}


def test_a_value_of_somebody_else_gets_no_id(lab: Lab, config: Config) -> None:
    """A value that stood there before is used, but no id is printed that a cleanup could go by."""
    standing = lab.cloud.zones.add(lab.cloud.zone, "_acme-challenge", "TXT", VALUE)
    out = io.StringIO()

    hooks.auth(config, given(), out=out)
    hooks.cleanup(config, given(CERTBOT_AUTH_OUTPUT=out.getvalue()))

    assert "" == out.getvalue()
    assert [standing.id] == [record.id for record in lab.cloud.zones.records(lab.cloud.zone)]


def test_only_the_last_hook_of_an_order_waits(lab: Lab, config: Config) -> None:
    """The first hook returns at once; the last one waits until both values are seen."""
    hooks.auth(
        config, given(CERTBOT_REMAINING_CHALLENGES="1", CERTBOT_VALIDATION="F" * 43), out=io.StringIO()
    )
    assert [] == [query for query in lab.dns.queries if query.type == "TXT"]

    lab.dns.servers[0].lag = lab.dns.servers[1].lag = 0.5
    begun = time.monotonic()
    hooks.auth(config, given(), out=io.StringIO())

    assert 0.5 <= time.monotonic() - begun
    assert [query for query in lab.dns.queries if query.type == "TXT"]


def test_nobody_waits_for_a_value_that_could_not_be_added(lab: Lab, config: Config) -> None:
    """When the first hook of an order fails, the last one waits for its own value and doesn't time out."""
    lab.cloud.alidns.faults.turn_on("server_error", action="AddDomainRecord")
    with stamina.set_testing(True, attempts=2), pytest.raises(DnsFailed):
        hooks.auth(config, given(CERTBOT_REMAINING_CHALLENGES="1", CERTBOT_VALIDATION="F" * 43))
    lab.cloud.alidns.faults.turn_off()

    hooks.auth(replace(config, dns=replace(config.dns, deadline=2.0)), given(), out=io.StringIO())

    assert [f"_acme-challenge.example.test {VALUE}"] == lab.cloud.challenge_records()


@pytest.mark.parametrize(
    "variables",
    [
        {"CERTBOT_IDENTIFIER": "", "CERTBOT_DOMAIN": "example.test"},
        {"CERTBOT_IDENTIFIER": "example.test; touch /tmp/certcast-was-here"},
        {"CERTBOT_IDENTIFIER": "$(touch /tmp/certcast-was-here).example.test"},
        {"CERTBOT_IDENTIFIER": "*.example.test"},
        {"CERTBOT_IDENTIFIER": "example.test\n"},
        {"CERTBOT_IDENTIFIER": "a" * 64 + ".example.test"},
        {"CERTBOT_IDENTIFIER": "192.0.2.1"},
        {"CERTBOT_IDENTIFIER": "../../etc"},
        {"CERTBOT_VALIDATION": "V" * 42},
        {"CERTBOT_VALIDATION": "V" * 42 + '"'},
        {"CERTBOT_REMAINING_CHALLENGES": "-1"},
        {"CERTBOT_REMAINING_CHALLENGES": "one"},
    ],
)
def test_variables_that_certbot_would_not_set_are_refused(
    lab: Lab, config: Config, variables: dict[str, str]
) -> None:
    """Whatever is not a domain, a validation value or a count is refused by name, before any API call."""
    with pytest.raises(CertbotFailed, match=next(iter(variables))):
        hooks.auth(config, given(**variables), out=io.StringIO())

    assert [] == lab.cloud.alidns.log
    assert not Path("/tmp/certcast-was-here").exists()


@pytest.mark.parametrize(
    ("missing", "meant"),
    [
        ("CERTBOT_DOMAIN", "the domain to be validated, like example.com"),
        ("CERTBOT_VALIDATION", "the TXT value: 43 letters, digits, - and _"),
        ("CERTBOT_REMAINING_CHALLENGES", "how many challenges of the order are still to come"),
    ],
)
def test_a_hook_started_by_hand_says_what_is_missing(config: Config, missing: str, meant: str) -> None:
    """Run without certbot, the hook names the variable that certbot would have set, and says what it is."""
    environ = given()
    del environ["CERTBOT_IDENTIFIER"]
    del environ[missing]

    with pytest.raises(CertbotFailed, match=missing) as failed:
        hooks.auth(config, environ, out=io.StringIO())

    assert f"{missing} is not set" == failed.value.found
    assert failed.value.expected is not None
    assert failed.value.expected.startswith(meant)
    assert failed.value.expected.endswith(", as certbot sets it")
    assert not set("[]{}()?+\\") & set(failed.value.expected), "words, not a pattern"


def test_older_certbots_name_the_domain_otherwise(lab: Lab, config: Config) -> None:
    """certbot 2.1 says CERTBOT_DOMAIN only, and that is enough."""
    environ = given()
    del environ["CERTBOT_IDENTIFIER"]

    hooks.auth(config, environ, out=io.StringIO())

    assert [f"_acme-challenge.example.test {VALUE}"] == lab.cloud.challenge_records()


@pytest.mark.parametrize(
    "lineage",
    [None, "", "live/example.test", "/etc/letsencrypt/live/foreign.test", "/nowhere/live/example.test", "/"],
)
def test_a_lineage_that_is_not_configured_is_not_published(config: Config, lineage: str | None) -> None:
    """The deploy hook publishes what the configuration names, and says what certbot gave it otherwise."""
    environ = given() if lineage is None else given(RENEWED_LINEAGE=lineage)
    published: list[str] = []

    with pytest.raises(LineageUnusable, match="not given a lineage that is configured here"):
        hooks.deploy(config, environ, published.append)

    assert [] == published


def test_a_deploy_hook_for_what_certcast_orders_is_refused(lab: Lab, config: Config) -> None:
    """
    A certbot that still renews what certcast orders by itself is told of: nothing is published by its
    hook, and the error says what to switch off.
    """
    lineage = lab.host("renewal").root / "etc/letsencrypt/live/example.test"
    lineage.mkdir(parents=True)
    (lineage / "fullchain.pem").touch()
    ordering = replace(config, certificates=(replace(config.certificates[0], source="acme"),))
    published: list[str] = []

    with pytest.raises(SourceUndecided) as refused:
        hooks.deploy(ordering, given(RENEWED_LINEAGE=str(lineage)), published.append)

    assert [] == published
    assert f"move {lineage.parents[1]}/renewal/example.test.conf away" in str(refused.value.next)


def test_certbot_is_found_behind_shells_and_wrappers(tmp_path: Path) -> None:
    """A wrapper script around the hook doesn't change whose records they are: certbot's."""
    ask = f"from certcast.certbot import hooks; print('run', hooks._certbot('{VALUE}').pid)"
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{sys.executable} -c "{ask}"\nexit 0\n')
    wrapper.chmod(0o700)
    certbot = (
        "import os, subprocess\n"
        f"os.environ['CERTBOT_VALIDATION'] = '{VALUE}'\n"
        "print('certbot', os.getpid(), flush=True)\n"
        f"subprocess.run('{wrapper}; true', shell=True)\n"
    )

    told = subprocess.run([sys.executable, "-c", certbot], capture_output=True, text=True, check=True).stdout

    assert re.search(r"certbot (\d+)", told)[1] == re.search(r"run (\d+)", told)[1]  # type: ignore[index]


def test_a_record_is_dated_by_this_hosts_clock(config: Config) -> None:
    """The ledger says when a record was added, in UTC, so that a sweep can tell how old it is."""
    before = datetime.now(timezone.utc).replace(microsecond=0)

    hooks.auth(config, given(), out=io.StringIO())

    (entry,) = Challenges(config).ledger.entries()
    assert before <= entry.created <= datetime.now(timezone.utc)
