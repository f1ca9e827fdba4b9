"""`certcast check`: what an administrator is told before anything runs, and what is not right yet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from certcast.release.ssh_keys import PublicKey
from certcast_lab.lab import Lab
from journey import Done, Journey


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


def check(journey: Journey, toml: Path) -> Done:
    return journey.lab.certcast(toml, "check", user="consumer")


def replaced(toml: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, lambda _: new, toml.read_text())
    assert 1 == count
    toml.write_text(text)


def test_a_host_that_serves(journey: Journey) -> None:
    """It shows whom the host believes, and its name and identity, to be compared with the other side."""
    host = journey.consumer("web1")
    done = check(journey, host.certcast_toml)
    trust = journey.lab.trust
    pins = ", ".join(PublicKey.parse(line).fingerprint for line in trust.publishers)
    identity = PublicKey.parse(trust.public("web1")).fingerprint
    assert (0, "") == (done.returncode, done.stderr)
    assert f"\n  takes what is signed by {pins}\n" in done.stdout
    assert f"\n  is called web1; identity {identity} in {trust.identity_file('web1')}\n" in done.stdout


def test_a_host_that_is_new(journey: Journey, tmp_path: Path) -> None:
    """Without an identity the file is good all the same, and the next command is named; none is made."""
    toml, path = journey.consumer("web1").certcast_toml, tmp_path / "identity"
    replaced(toml, "(?m)^identity = .*$", f'identity = "{path}"')
    done = check(journey, toml)
    assert 0 == done.returncode, done.stderr
    assert f"no identity in {path} yet: `certcast identity` makes one" in done.stdout
    assert not path.exists()


@pytest.mark.parametrize(("mode", "status", "said"), [(0o644, 6, "chmod 600"), (None, 4, "install -m 600")])
def test_a_mail_password_that_would_tell_nobody(
    journey: Journey, tmp_path: Path, mode: int | None, status: int, said: str
) -> None:
    """A password that is missing or refused is found here, not by the first failure that nobody hears of."""
    toml, path = journey.consumer("web1").certcast_toml, tmp_path / "smtp-password"
    replaced(toml, "(?m)^sender = .*$", f'sender = "a@b.test"\nusername = "a"\npassword_file = "{path}"')
    if mode is not None:
        path.write_text("correct horse")
        path.chmod(mode)
    done = check(journey, toml)
    assert status == done.returncode, done.stderr
    assert f"{toml}: not good, as said below. This host serves." in done.stdout
    assert "failures are mailed" not in done.stdout
    assert str(path) in done.stderr
    assert said in done.stderr


def test_a_configuration_that_anybody_may_change(journey: Journey) -> None:
    """It names commands that root runs, and whom to believe: refused by every command until it is closed."""
    toml = journey.consumer("web1").certcast_toml
    toml.chmod(0o666)
    for done in (check(journey, toml), journey.pull("web1")):
        assert 3 == done.returncode
        assert f"chmod o-w {toml}" in done.stderr
    toml.chmod(0o664)
    assert 0 == check(journey, toml).returncode


def test_an_identity_that_others_can_read(journey: Journey, tmp_path: Path) -> None:
    """What each later run would refuse is refused here, with that error; the rest is still shown."""
    toml, path = journey.consumer("web1").certcast_toml, tmp_path / "identity"
    path.write_bytes(journey.lab.trust.identity("web1").read_bytes())
    path.chmod(0o644)
    replaced(toml, "(?m)^identity = .*$", f'identity = "{path}"')
    done = check(journey, toml)
    assert 6 == done.returncode
    assert "SECRET-FILE" in done.stderr
    assert "failures are mailed to it@example.test" in done.stdout


def test_one_pin_only(journey: Journey) -> None:
    """Whoever has pinned the working key alone is told what the spare one is for."""
    toml = journey.consumer("web1").certcast_toml
    replaced(toml, "(?m)^publishers = .*$", f'publishers = ["{journey.lab.trust.publishers[0]}"]')
    done = check(journey, toml)
    assert 0 == done.returncode
    assert "warning: store.publishers names one key, not the spare one" in done.stderr


def test_a_renewal_host(journey: Journey) -> None:
    """It shows who signs and how many are enrolled; without keys, what makes them."""
    done = check(journey, journey.renewal.certcast_toml)
    working = PublicKey.parse(journey.lab.trust.publishers[0]).fingerprint
    assert (0, "") == (done.returncode, done.stderr)
    assert f"\n  signs with {working} in {journey.lab.trust.signing_key}\n" in done.stdout
    enrolled = len(journey.lab.trust.hosts_file.read_text().splitlines())
    assert f"\n  {enrolled} enrolled in {journey.lab.trust.hosts_file}: " in done.stdout

    journey.configure(str(journey.lab.trust.signing_key), "/nonexistent/publisher")
    done = check(journey, journey.renewal.certcast_toml)
    assert 0 == done.returncode
    assert "no signing key in /nonexistent/publisher yet: `certcast publisher init` makes one" in done.stdout


def test_the_account_at_the_ca(journey: Journey) -> None:
    """
    It shows the CA, and the account's URL as a CAA record takes it; before there is one, whether the terms
    are agreed to. Nobody is asked for that.
    """
    toml, directory = journey.renewal.certcast_toml, journey.lab.directory_url
    orders = f"\n  orders at {directory}; no account there yet; the terms of service are "
    assert f"{orders}agreed to\n" in check(journey, toml).stdout
    journey.configure("terms_of_service_agreed = true", "terms_of_service_agreed = false")
    done = check(journey, toml)
    assert 0 == done.returncode, done.stderr
    assert f"{orders}not agreed to: read them, then `terms_of_service_agreed = true`\n" in done.stdout
    assert [] == journey.lab.renewal_info.asked

    journey.configure()
    journey.renew()
    order = journey.issued().record(journey.live().version)
    asked = len(journey.lab.renewal_info.asked)
    done = check(journey, toml)
    assert (0, "") == (done.returncode, done.stderr)
    assert f"\n  orders at {directory} with the account {order.account}\n" in done.stdout
    assert asked == len(journey.lab.renewal_info.asked)


@pytest.mark.parametrize(
    ("file", "said"), [("account.key", "is lost; the terms"), ("account.json", "found again by its key")]
)
def test_half_of_the_account_is_lost(journey: Journey, file: str, said: str) -> None:
    """With the account's key or its record lost, it says so; the run after that orders again."""
    journey.renew()
    (lost,) = journey.renewal.certcast_folder.glob(f"acme/*/{file}")
    lost.unlink()
    done = check(journey, journey.renewal.certcast_toml)
    assert 0 == done.returncode, done.stderr
    assert said in done.stdout
    before = journey.live()
    journey.want_replaced()
    assert 0 == journey.renew("--now").returncode
    assert before.version != journey.live().version


def test_an_account_key_that_others_can_read(journey: Journey) -> None:
    """What the next order would refuse is refused here, with that error; the rest is still shown."""
    journey.renew()
    (key,) = journey.renewal.certcast_folder.glob("acme/*/account.key")
    key.chmod(0o644)
    done = check(journey, journey.renewal.certcast_toml)
    assert 6 == done.returncode
    assert f"chmod 600 {key}" in done.stderr
    assert "\n  signs with " in done.stdout


def test_who_renews_each_certificate(lab: Lab) -> None:
    """It names the source of each certificate; where certbot renews them all, there is no account to show."""
    journey = Journey(
        lab, {"example.test": ("example.test",), "two.test": ("two.test",)}, by_certbot=("two.test",)
    )
    shown = check(journey, journey.renewal.certcast_toml).stdout
    assert "\n  example.test: example.test; certcast orders it\n" in shown
    by_certbot = f"\n  two.test: two.test; the certbot of {journey.certbot_dir()} renews it\n"
    assert by_certbot in shown
    assert "\n  orders at " in shown
    journey.by_certbot = ("example.test", "two.test")
    journey.configure()
    shown = check(journey, journey.renewal.certcast_toml).stdout
    assert by_certbot in shown
    assert "orders" not in shown


def test_the_public_half_is_lost(journey: Journey) -> None:
    """
    A signing key without its .pub file: `check` and `renew` show the command that writes it anew, and
    after that command both work.
    """
    public = journey.lab.trust.signing_key.with_name("publisher.pub")
    line = public.read_text()
    public.unlink()
    try:
        done, renewed = check(journey, journey.renewal.certcast_toml), journey.renew()
        assert (17, 17) == (done.returncode, renewed.returncode)
        (command,) = re.findall(r"`([^`]*ssh-keygen -y[^`]*)`", done.stderr)
        assert f"`{command}`" in renewed.stderr
        subprocess.run(command, shell=True, check=True)
        assert line.split()[:2] == public.read_text().split()[:2]
        assert 0 == check(journey, journey.renewal.certcast_toml).returncode
        assert 0 == journey.renew().returncode
    finally:
        public.write_text(line)


def test_an_address_that_each_run_would_refuse(journey: Journey) -> None:
    """A password in `read_from`, or plain HTTP with keys that lie open, is refused here, and not shown."""
    toml = journey.consumer("web1").certcast_toml
    text = toml.read_text()
    for lines in (
        'read_from = "https://me:hush-hush@relay.test"',
        'read_from = "http://relay.test"\nencryption = "none"',
    ):
        toml.write_text(text.replace("[store]\n", f"[store]\n{lines}\n"))
        done = check(journey, toml)
        assert 3 == done.returncode
        assert "store.read_from" in done.stderr
        assert "hush" not in done.stdout + done.stderr
    toml.write_text(text.replace("[store]\n", '[store]\nread_from = "https://relay.test/x"\n'))
    assert "\n  store oss://certs/certcast, read by https://relay.test/x\n" in check(journey, toml).stdout


def test_names_outside_of_the_zones(journey: Journey) -> None:
    """Whoever adds a [[zone]] sees which names are in none: the account is not asked for its others then."""
    toml = journey.renewal.certcast_toml
    assert "[[zone]]" in toml.read_text()
    assert "[[zone]]s" not in check(journey, toml).stdout
    replaced(toml, '(?m)^(?<=\\[\\[zone\\]\\]\n)name = "example.test"$', 'name = "another.test"')
    done = check(journey, toml)
    assert 0 == done.returncode, done.stderr
    assert (
        "in none of the [[zone]]s, so by a CNAME at _acme-challenge into one: example.test\n" in done.stdout
    )
    toml.write_text(toml.read_text().partition("[[zone]]")[0])
    assert "[[zone]]s" not in check(journey, toml).stdout
