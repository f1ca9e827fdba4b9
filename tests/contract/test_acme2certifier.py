"""acme2certifier as the lab's second CA, spoken to by certbot, its `acme` library, and certcast."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import acme.client
import pytest
from cryptography import x509

from certcast.renewal import last_look
from certcast.report.errors import AccountUnusable
from certcast_lab.acme.acme2certifier import VALIDITY_DAYS, Acme2certifier, NoPort53
from certcast_lab.lab import Lab
from issuing import Certbot
from journey import Journey

PYTHON = Path(__file__).parents[2] / ".venv-acme2certifier/bin/python"


@pytest.fixture
def second_ca(lab: Lab, tmp_path: Path) -> Iterator[Acme2certifier]:
    """The CA, which asks the lab's DNS; the test is skipped where this user can't have port 53."""
    if not PYTHON.exists():
        pytest.fail("acme2certifier is not here: run scripts/acme2certifier (`make test` does)")
    try:
        ca = Acme2certifier(PYTHON, tmp_path / "acme2certifier", lab.authority, lab.dns)
    except NoPort53 as refused:
        pytest.skip(f"acme2certifier asks DNS at port 53 alone: {refused}")
    try:
        yield ca
    finally:
        ca.stop()


def certonly(lab: Lab, ca: Acme2certifier, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Order apex and wildcard with certbot and certcast's hooks; return its end, and where fullchain is."""
    certbot = Certbot(lab)
    folders = ("--config-dir", certbot.config_dir, "--work-dir", certbot.host.root / "work")
    argv = [
        *(certbot.executable, "certonly", "--non-interactive", "--agree-tos", *folders),
        *("--logs-dir", certbot.host.root / "logs", "--email", "admin@example.test"),
        *("--manual", "--preferred-challenges", "dns", "--server", ca.directory_url),
        *("--manual-auth-hook", certbot.hook("auth"), "--manual-cleanup-hook", certbot.hook("cleanup")),
        *("-d", "example.test", "-d", "*.example.test", *arguments),
    ]
    done = subprocess.run(argv, env=certbot.environment(), capture_output=True, text=True, check=False)
    return done, certbot.config_dir / "live/example.test/fullchain.pem"


def test_a_ca_of_another_make_issues_by_dns(lab: Lab, second_ca: Acme2certifier):
    """certbot with certcast's hooks gets apex and wildcard there by real DNS-01 and an external account."""
    external = ("--eab-kid", second_ca.kid, "--eab-hmac-key", second_ca.hmac_key)
    done, fullchain = certonly(lab, second_ca, *external)

    assert 0 == done.returncode, done.stdout + done.stderr
    leaf, *chain = x509.load_pem_x509_certificates(fullchain.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"example.test", "*.example.test"} == set(names.get_values_for_type(x509.DNSName))
    leaf.verify_directly_issued_by(chain[0])
    assert x509.load_pem_x509_certificate(second_ca.issuer.pem) == chain[0]
    assert any(query.name.startswith("_acme-challenge") for query in lab.dns.resolver.queries)
    assert [] == lab.cloud.challenge_records()

    network = acme.client.ClientNetwork(verify_ssl=str(lab.ca_file))
    with contextlib.closing(network.session):
        directory = acme.client.ClientV2.get_directory(second_ca.directory_url, network)
        renew_at, _ = acme.client.ClientV2(directory, net=network).renewal_time(fullchain.read_bytes())
    assert renew_at is not None
    left = renew_at - datetime.now(timezone.utc)
    assert timedelta(days=VALIDITY_DAYS * 0.8) < left < timedelta(days=VALIDITY_DAYS)


def test_that_ca_needs_an_external_account(lab: Lab, second_ca: Acme2certifier):
    """Without the external account, or with another key for it, no account is made and nothing is ordered."""
    wrong = ("--eab-kid", second_ca.kid, "--eab-hmac-key", "A" * 43)
    for external, said in (((), "external account binding"), (wrong, "invalid eab credentials")):
        done, fullchain = certonly(lab, second_ca, *external)
        assert 1 == done.returncode
        assert said in (done.stdout + done.stderr).lower()
        assert not fullchain.exists()


def test_certcast_orders_at_a_ca_of_another_make(lab: Lab, second_ca: Acme2certifier) -> None:
    """`certcast renew` gets apex and wildcard there, with an external account, and asks when to renew."""
    journey = Journey(lab)
    secret = journey.renewal.root / "hmac-key"
    secret.touch(mode=0o600)
    secret.write_text(f"{second_ca.hmac_key}\n")
    journey.configure(
        f'directory = "{lab.directory_url}"\n',
        f'directory = "{second_ca.directory_url}"\nemail = "it@example.test"\n',
    )
    with journey.renewal.certcast_toml.open("a") as file:
        file.write(f'\n[renewal.external_account]\nkey_id = "{second_ca.kid}"\nhmac_key_file = "{secret}"\n')
    done = journey.renew()

    assert 0 == done.returncode, done.stderr
    live = journey.live()
    assert ({"example.test", "*.example.test"}, live.leaf.sha256) == (
        set(live.leaf.names),
        journey.published(),
    )
    chain = x509.load_pem_x509_certificates(live.fullchain)
    chain[0].verify_directly_issued_by(x509.load_pem_x509_certificate(second_ca.issuer.pem))
    assert [] == lab.cloud.challenge_records()

    again = journey.renew()
    assert (0, live) == (again.returncode, journey.live()), again.stderr
    said = last_look.read(journey.renewal.certcast_folder, "example.test")
    assert said is not None
    assert said.ca_start is not None
    assert timedelta(days=VALIDITY_DAYS * 0.8) < said.ca_start - live.leaf.not_before


def test_certcast_without_the_external_account(lab: Lab, second_ca: Acme2certifier) -> None:
    """A CA for its customers only makes no account without what it has handed out; the report says so."""
    journey = Journey(lab)
    journey.configure(f'directory = "{lab.directory_url}"', f'directory = "{second_ca.directory_url}"')
    done = journey.renew()
    assert AccountUnusable.exit_status == done.returncode, done.stderr
    assert "[renewal.external_account]" in done.stderr
    assert not journey.issued().exists()
