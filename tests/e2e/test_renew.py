"""Stories of the renewal host: from "renew" to a published release that every nginx serves.

pebble, certbot with its hooks, DNS, nginx and SMTP are real; `certcast` runs as the installed command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from certcast.release.lifetime import from_utc_text, utc_text
from certcast.report.errors import SigningFailed
from certcast_lab.acme.renewal_info import Window
from certcast_lab.aliyun.cloud import publisher_policy
from certcast_lab.lab import CERTCAST, Lab
from journey import Journey

CERTONLY = (
    *("certonly", "--agree-tos", "--register-unsafely-without-email"),
    *("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test"),
)
HOOK_RENEW = ("renew", "--force-renewal", "--no-random-sleep-on-renew")


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


@pytest.fixture(scope="module")
def generous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose CA reuses every valid authorization, as Let's Encrypt does for 30 days."""
    with Lab(tmp_path_factory.mktemp("generous"), reuse_authorizations=100) as lab:
        yield lab


@pytest.mark.row(3)
@pytest.mark.row(4)
@pytest.mark.row(5)
def test_from_renew_to_every_nginx(journey: Journey) -> None:
    """
    Apex and wildcard are issued while one nameserver lags, published, taken over by two hosts, and
    seen being served; no TXT record is left.
    """
    journey.lab.dns.servers[1].lag = 1.0
    done = journey.renew()

    assert (0, "") == (done.returncode, done.stderr)
    assert journey.live().leaf.sha256 == journey.published()
    assert [] == journey.lab.cloud.challenge_records()
    for name in ("web1", "web2"):
        journey.first_pull(name)
        assert journey.live().leaf.sha256 == journey.served(name) == journey.served(name, "example.test")


def test_running_it_again_orders_and_uploads_nothing(journey: Journey) -> None:
    """A second `renew` is silent, places no order, and leaves manifest and files as they are."""
    journey.renew()
    orders, puts = journey.lab.renewal_info.orders, _puts(journey)
    done = journey.renew()

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert orders == journey.lab.renewal_info.orders
    assert puts == _puts(journey)


# What a run that asks nobody must not load: SDK, HTTP, the ACME library, X.509.
HEAVY = {
    "alibabacloud_oss_v2",
    "alibabacloud_credentials",
    "requests",
    "acme",
    "josepy",
    "cryptography",
    "dns",
}


def test_a_run_with_nothing_to_ask_loads_nothing_heavy(journey: Journey) -> None:
    """Where nothing is due, a run asks neither the CA nor the store, and imports what that needs alone."""
    for _ in range(2):  # the first publishes, the second asks the CA when to renew
        assert 0 == journey.renew().returncode
    lab = journey.lab
    asked, requests = len(lab.renewal_info.asked), len(lab.cloud.oss.requests)
    configuration = str(journey.renewal.certcast_toml)
    argv = [sys.executable, "-X", "importtime", CERTCAST, "--config", configuration, "renew"]
    environment = {**os.environ, **lab.environment("renewal")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stdout)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "certcast.renewal.reconcile" in loaded
    assert set() == HEAVY & loaded
    assert (asked, requests) == (len(lab.renewal_info.asked), len(lab.cloud.oss.requests))


@pytest.mark.parametrize("when", ["six hours later", "--now"])
def test_a_window_in_the_past_is_renewed_at_once(journey: Journey, when: str) -> None:
    """
    When the CA says that a certificate should have been replaced by yesterday (it is about to revoke
    it), the first run renews that may ask the CA again, and `renew --now` at once.
    """
    journey.renew()
    journey.renew()  # here certcast asks for renewal information, and is told to come back in six hours
    before = journey.live().leaf
    journey.want_replaced()
    assert 0 == journey.renew().returncode
    assert before == journey.live().leaf
    if when == "six hours later":
        age_the_ca_s_word(journey)
    done = journey.renew(*(["--now"] if when == "--now" else []))

    assert 0 == done.returncode, done.stderr
    assert before != journey.live().leaf
    assert journey.live().leaf.sha256 == journey.published()


def test_a_window_of_tomorrow_is_not_renewed(journey: Journey) -> None:
    """A suggestion for later is left to later, also by a person who asks now."""
    journey.renew()
    before = journey.live().leaf
    now = datetime.now(timezone.utc)
    journey.lab.renewal_info.suggest(
        journey.live().fullchain, Window(now + timedelta(days=1), now + timedelta(days=2))
    )
    assert 0 == journey.renew().returncode
    assert 0 == journey.renew("--now").returncode
    assert before == journey.live().leaf


def test_unchanged_chain_is_installed(journey: Journey) -> None:
    """
    After a renewal under the same intermediate, the chain is byte for byte the old one; the new
    certificate is installed all the same.
    """
    journey.renew()
    journey.first_pull("web1")
    before, chain = journey.live().leaf, chain_of(journey)
    journey.want_replaced()
    journey.renew()

    assert before != journey.live().leaf
    assert chain == chain_of(journey)
    assert 0 == journey.pull("web1", "--now").returncode
    assert journey.live().leaf.sha256 == journey.served("web1")


def test_two_certificates_in_one_run(lab: Lab) -> None:
    """Two certificates of two zones are issued, published and served by one run each."""
    lab.cloud.add_zone("example-two.test")
    journey = Journey(
        lab,
        {
            "example.test": ("example.test", "*.example.test"),
            "example-two.test": ("example-two.test", "*.example-two.test"),
        },
    )
    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert {journey.live(name).leaf.sha256 for name in journey.certificates} == {
        journey.published(name) for name in journey.certificates
    }
    assert [] == lab.cloud.challenge_records()


def test_one_certificate_s_failure_does_not_stop_the_other(lab: Lab) -> None:
    """A zone that is not in the account fails one certificate; the other is issued and published."""
    journey = Journey(
        lab, {"foreign.invalid": ("foreign.invalid",), "example.test": ("example.test", "*.example.test")}
    )
    done = journey.renew()

    assert 14 == done.returncode
    assert "DNS-ZONE" in done.stderr
    assert journey.live().leaf.sha256 == journey.published()


def test_reused_authorizations_need_no_challenge(generous: Lab) -> None:
    """When the CA remembers the last validation, no TXT record is made, and the renewal is published."""
    journey = Journey(generous)
    journey.renew()
    before = journey.live().leaf
    calls = [logged.action for logged in generous.cloud.alidns.log]
    journey.want_replaced()
    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert before != journey.live().leaf
    assert journey.live().leaf.sha256 == journey.published()
    assert calls == [logged.action for logged in generous.cloud.alidns.log]


def test_a_failed_publish_leads_to_no_new_order(journey: Journey) -> None:
    """
    When the bucket cannot be reached, the certificate is kept; the next run publishes that very
    certificate without asking the CA for another.
    """
    journey.lab.cloud.oss.faults.turn_on("server_error", action="PutObject")
    failed = journey.renew()
    issued = journey.live().leaf
    orders = journey.lab.renewal_info.orders
    journey.lab.cloud.oss.faults.turn_off()
    done = journey.renew()

    assert 20 == failed.returncode
    assert "STORE-UNREACHABLE" in failed.stderr
    assert 0 == done.returncode, done.stderr
    assert orders == journey.lab.renewal_info.orders == 1
    assert issued.sha256 == journey.published()


@pytest.mark.row(5)
def test_deploy_hook_failed_then_renew(lab: Lab) -> None:
    """
    certbot exits with 0 although its deploy hook could not publish; the failure is mailed, and the
    next `certcast renew` publishes what certbot holds, without an order.
    """
    journey = Journey(lab, by_certbot=("example.test",))
    journey.lab.cloud.oss.faults.turn_on("server_error", action="PutObject")
    certbot = journey.certbot_with_hooks(*CERTONLY)
    mail = journey.lab.mailbox.wait_for(lambda received: "STORE-UNREACHABLE" in received.text)
    assert (0, None) == (certbot.returncode, journey.published())
    assert ("it@example.test",) == mail.recipients
    assert "hook deploy" in mail.text

    journey.lab.cloud.oss.faults.turn_off()
    orders = journey.lab.renewal_info.orders
    assert 0 == journey.renew().returncode
    assert journey.live().leaf.sha256 == journey.published()
    assert orders == journey.lab.renewal_info.orders


@pytest.mark.row(5)
def test_deploy_hook_on_the_renewal_host(lab: Lab) -> None:
    """Where the renewal host serves too, certbot's deploy hook publishes, reloads and proves there."""
    journey = Journey(lab, serves=True, by_certbot=("example.test",))
    first = journey.certbot_with_hooks(*CERTONLY)
    assert 0 == first.returncode, first.stderr
    journey.renewal.include(journey.renewal.certcast_folder / "certs/example.test/nginx.conf")
    again = journey.certbot_with_hooks(*HOOK_RENEW)

    assert 0 == again.returncode, again.stderr
    assert journey.live().leaf.sha256 == journey.published() == journey.served("renewal")


def test_lineage_of_another_certbot(lab: Lab) -> None:
    """
    Where a certbot renews through hooks, `certcast renew` leaves its lineage as it is, so that
    certbot goes on working; when the CA wants it replaced at once, a person is told the command.
    """
    journey = Journey(lab, by_certbot=("example.test",))
    journey.certbot_with_hooks(*CERTONLY)
    conf = journey.certbot_dir() / "renewal/example.test.conf"
    before, orders = conf.read_text(), journey.lab.renewal_info.orders
    journey.want_replaced()
    done = journey.renew()

    assert 41 == done.returncode
    assert "certbot renew --cert-name example.test --force-renewal" in done.stderr
    assert "authenticator = manual" in conf.read_text()
    assert (before, orders) == (conf.read_text(), journey.lab.renewal_info.orders)
    assert journey.live().leaf.sha256 == journey.published()


@pytest.mark.row(5)
def test_renew_installs_where_the_renewal_host_serves(lab: Lab) -> None:
    """`certcast renew` installs through the same code as every consumer: staged first, then proved."""
    journey = Journey(lab, serves=True)
    first = journey.renew()
    journey.renewal.include(journey.renewal.certcast_folder / "certs/example.test/nginx.conf")
    second = journey.renew()

    assert (39, 0) == (first.returncode, second.returncode), second.stderr
    assert journey.live().leaf.sha256 == journey.served("renewal")


@pytest.mark.row(8)
def test_a_reused_key_is_refused_unless_it_is_allowed(journey: Journey) -> None:
    """
    With `reuse_key` the private key stays the same: a consumer refuses it and says which file, until
    its own configuration allows it.
    """
    journey.configure("[[certificate]]\n", "[[certificate]]\nreuse_key = true\n")
    journey.renew()
    host = journey.first_pull("web1")
    before = journey.served("web1")
    key = journey.live().privkey
    journey.want_replaced()
    journey.renew()
    refused = journey.pull("web1", "--now")

    assert key == journey.live().privkey
    assert 31 == refused.returncode
    assert "privkey.pem" in refused.stderr
    assert before == journey.served("web1")
    journey.consumer("web1", "[consumer]", "[consumer]\nallow_reused_key = true")
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    assert 0 == journey.pull("web1", "--now").returncode
    assert journey.live().leaf.sha256 == journey.served("web1")


@pytest.mark.row(2)
def test_keys_may_stay_in_the_company_s_own_place(journey: Journey) -> None:
    """
    With the AccessKey in ~/.aliyun/config.json alone, renew works; and the secret appears in no
    output, mail, log or file that certcast wrote.
    """
    secret = journey.lab.cloud.renewal.access_key_secret
    home = journey.renewal.root / "home"
    (home / ".aliyun").mkdir(parents=True)
    profile = {
        "name": "certcast",
        "mode": "AK",
        "access_key_id": journey.lab.cloud.renewal.access_key_id,
        "access_key_secret": secret,
    }
    (home / ".aliyun/config.json").write_text(json.dumps({"current": "certcast", "profiles": [profile]}))
    (home / ".aliyun/config.json").chmod(0o600)
    done = journey.renew_with({"HOME": str(home)}, without="ALIBABA_CLOUD_ACCESS_KEY")

    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published()
    assert secret not in done.stdout + done.stderr
    written = [
        path for path in journey.renewal.root.rglob("*") if path.is_file() and home not in path.parents
    ]
    assert [] == [path for path in written if secret.encode() in path.read_bytes()]


@pytest.mark.row(9)
@pytest.mark.parametrize(
    ("refused", "code", "status"), [("by DNS", "DNS-DENIED", 12), ("altogether", "STORE-DENIED", 21)]
)
def test_every_failure_is_mailed(journey: Journey, refused: str, code: str, status: int) -> None:
    """A refused AccessKey ends in one mail to the IT address that says what to do; hosts serve on."""
    journey.renew()
    journey.first_pull("web1")
    served = journey.served("web1")
    journey.lab.mailbox.clear()
    journey.want_replaced()
    refuse(journey.lab, refused)
    done = journey.renew()
    mail = journey.lab.mailbox.wait_for(lambda received: code in received.text)

    assert status == done.returncode
    assert [mail] == list(journey.lab.mailbox.messages)
    assert ("it@example.test",) == mail.recipients
    assert "certcast renew" in mail.text
    assert served == journey.served("web1")


@pytest.mark.row(9)
def test_installations_are_mailed_to_the_administrator(journey: Journey) -> None:
    """After each installation the administrator gets one mail with the serial and the end of validity."""
    journey.renew()
    journey.first_pull("web1")
    mail = journey.lab.mailbox.wait_for(lambda received: "administrator@example.test" in received.recipients)
    assert journey.live().leaf.serial in mail.text
    assert f"{journey.live().leaf.not_after:%Y-%m-%d}" in mail.text


def test_mail_that_cannot_be_sent(journey: Journey) -> None:
    """An installation that nobody could be told of is an installation, with exit status 40."""
    journey.renew()
    host = journey.consumer("web1")
    journey.pull("web1")
    host.include(host.certcast_folder / "certs/example.test/nginx.conf")
    journey.lab.mailbox.fault = "refuse"
    done = journey.pull("web1")

    assert 40 == done.returncode
    assert "MAIL-NOT-SENT" in done.stderr
    assert journey.live().leaf.sha256 == journey.served("web1")


def test_an_unsent_mail_does_not_hide_what_it_was_about(journey: Journey) -> None:
    """With a dead mail server, the exit status and the first lines are still the failure's own."""
    journey.lab.mailbox.fault = "refuse"
    refuse(journey.lab, "by DNS")
    done = journey.renew()

    assert 12 == done.returncode
    assert done.stderr.index("DNS-DENIED") < done.stderr.index("MAIL-NOT-SENT")


def test_the_first_order_waits_for_a_signing_key(journey: Journey) -> None:
    """Before `certcast publisher init`, `renew` says so at once and orders nothing."""
    toml = journey.renewal.certcast_toml
    (toml.parent / "nothing").mkdir()
    toml.write_text(
        re.sub(r'signing_key = ".*"', f'signing_key = "{toml.parent}/nothing/key"', toml.read_text())
    )
    done = journey.renew()
    assert SigningFailed.exit_status == done.returncode, done.stderr
    assert "`certcast publisher init` makes one" in done.stderr
    assert 0 == journey.lab.renewal_info.orders


def test_two_runs_at_once_order_once(journey: Journey) -> None:
    """While one run orders what is due at once, a second one waits, and then has nothing to order."""
    journey.renew()
    journey.want_replaced()
    with ThreadPoolExecutor() as pool:
        both = [future.result() for future in [pool.submit(journey.renew), pool.submit(journey.renew)]]

    assert [0, 0] == [done.returncode for done in both], [done.stderr for done in both]
    assert 2 == journey.lab.renewal_info.orders
    assert journey.live().leaf.sha256 == journey.published()


def test_a_ca_that_cannot_be_reached_costs_no_order(journey: Journey) -> None:
    """Before there is a certificate, a wrong address of the CA is said each time, and uses up no cap."""
    usual = journey.lab.directory_url
    journey.configure(usual, "https://127.0.0.1:9/dir")
    for _ in range(3):
        done = journey.renew()
        assert 46 == done.returncode, done.stderr
        assert "the CA cannot be reached" in done.stderr
    journey.configure()
    assert 0 == journey.renew().returncode


def test_no_order_beyond_the_cap(journey: Journey) -> None:
    """A third order within a day is not placed, whatever the CA's window says; what is published stays."""
    journey.renew()
    journey.want_replaced()
    journey.renew()
    published = journey.published()
    orders = journey.lab.renewal_info.orders
    journey.want_replaced()
    done = journey.renew()

    assert 15 == done.returncode
    assert orders == journey.lab.renewal_info.orders == 2
    assert published == journey.published()


def test_changed_names_are_ordered(lab: Lab) -> None:
    """A name added to the configuration is in the next certificate, without any other step."""
    journey = Journey(lab)
    journey.renew()
    journey.certificates["example.test"] = ("example.test", "*.example.test", "*.deep.example.test")
    journey.configure()
    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    assert "*.deep.example.test" in journey.live().leaf.names
    assert journey.live().leaf.sha256 == journey.published()


def test_a_dns_failure_costs_no_order_of_the_cap(journey: Journey) -> None:
    """
    Nameservers that never answer end the order before the CA is asked to validate; the CA is told that it is
    given up, and such runs don't use up the cap.
    """
    for server in journey.lab.dns.servers:
        server.servfail = True
    journey.configure("[dns]\n", '[dns]\ndeadline = "500ms"\n')
    for _ in range(3):
        done = journey.renew()
        assert 11 == done.returncode, done.stderr
    assert "ns1.lab-dns.test" in done.stderr or "127.0.0.1" in done.stderr
    for server in journey.lab.dns.servers:
        server.work_well()
    assert 0 == journey.renew().returncode
    assert [] == journey.lab.cloud.challenge_records()


def test_an_unreachable_ca_is_said_in_one_error(journey: Journey) -> None:
    """A wrong directory address ends in one error that names it, and nothing is published."""
    journey.configure(journey.lab.directory_url, "https://127.0.0.1:9/dir")
    done = journey.renew()
    assert 46 == done.returncode
    assert ["error"] == [line[:5] for line in done.stderr.splitlines() if not line.startswith(" ")]
    assert "https://127.0.0.1:9/dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert journey.published() is None


def refuse(lab: Lab, how: str) -> None:
    """From now on, DNS refuses the renewal host's AccessKey; or everything does."""
    if how == "by DNS":
        lab.cloud.renewal.policies = [publisher_policy()]
    else:
        lab.cloud.renewal.active = False


def age_the_ca_s_word(journey: Journey) -> None:
    """Let the CA's Retry-After be over, as it is six hours later."""
    path = journey.renewal.certcast_folder / "renewing/example.test.json"
    remembered = json.loads(path.read_text())
    later = from_utc_text(remembered["ca_again"]) - timedelta(hours=6)
    path.write_text(json.dumps({**remembered, "ca_again": utc_text(later)}))


def chain_of(journey: Journey) -> bytes:
    """Return what follows the leaf in the live fullchain.pem."""
    _leaf, end, chain = journey.live().fullchain.partition(b"-----END CERTIFICATE-----\n")
    assert end
    return chain.strip()


def _puts(journey: Journey) -> int:
    return sum(request.method == "PUT" for request in journey.lab.cloud.oss.requests)
