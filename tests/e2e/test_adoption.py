"""A certificate that a certbot has: taken over without a new order, or left to it.

certbot 5.8 has issued it with certcast's three hooks; pebble and DNS are real.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certcast.acme.ca import folder_of
from certcast_lab.acme.renewal_info import certificate_id
from certcast_lab.lab import Lab
from journey import Done, Journey
from overhearing import named, overheard

NAME = "example.test"
CERTONLY = (
    *("certonly", "--agree-tos", "--register-unsafely-without-email", "--cert-name", NAME),
    *("-d", NAME, "-d", f"*.{NAME}"),
)
NEW_KEY = ("renew", "--cert-name", NAME, "--force-renewal", "--new-key", "--no-random-sleep-on-renew")
COST = "the first order makes a new account: the CA then validates each name anew"


@pytest.fixture
def with_certbot(lab: Lab) -> Journey:
    """A renewal host whose certbot has issued and, by its deploy hook, published the certificate."""
    journey = Journey(lab, by_certbot=(NAME,))
    done = journey.certbot_with_hooks(*CERTONLY)
    assert 0 == done.returncode, done.stderr
    assert journey.published() == journey.live().leaf.sha256
    return journey


@pytest.fixture
def journey(with_certbot: Journey) -> Journey:
    """The same host, whose configuration says from now on that certcast orders."""
    with_certbot.by_certbot = ()
    with_certbot.configure()
    return with_certbot


def adopt(journey: Journey, *more: str) -> Done:
    """Take the lineage over; it goes well, and the CA has got no order for it."""
    orders = journey.lab.renewal_info.orders
    done = journey.renew("--adopt", NAME, *more)
    assert (0, "") == (done.returncode, done.stderr)
    assert orders == journey.lab.renewal_info.orders
    return done


def renew_again(journey: Journey) -> None:
    """Let the CA want another certificate, and get it."""
    journey.want_replaced()
    done = journey.renew("--now")
    assert (0, "") == (done.returncode, done.stderr)
    assert journey.published() == journey.live().leaf.sha256


def files(folder: Path) -> dict[str, bytes | str]:
    """Return every file below a folder with its content, and every link with where it leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def account(journey: Journey) -> Path:
    """Return certbot's only account at the lab's CA."""
    (found,) = (path.parent for path in (journey.certbot_dir() / "accounts").rglob("regr.json"))
    return found


def uri_of(journey: Journey) -> str | None:
    """Return the URL of the account that certcast has at the lab's CA."""
    path = folder_of(journey.renewal.certcast_folder, journey.lab.directory_url) / "account.json"
    return str(json.loads(path.read_text())["uri"]) if path.exists() else None


# -- taken over


def test_adopted_with_certbots_account(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The live version is certcast's from now on, without an order, and certbot's files are as they were. The
    next order is signed by certbot's own account, RS256, so that no other one is made at the CA.
    """
    lineage, before = journey.certbot_dir(), files(journey.certbot_dir())
    leaf, uri = journey.published(), json.loads((account(journey) / "regr.json").read_text())["uri"]
    done = adopt(journey)
    adopted = journey.live()

    assert leaf == adopted.leaf.sha256 == journey.published()
    assert (lineage / f"live/{NAME}/privkey.pem").read_bytes() == adopted.privkey
    assert f"adopted serial {adopted.leaf.serial} as version {adopted.version}" in done.stdout
    assert f"certbot's account is used from now on: {uri}" in done.stdout
    assert f"`mv {lineage}/renewal/{NAME}.conf {lineage}/renewal/{NAME}.conf.adopted`" in done.stdout
    assert before == files(lineage)

    said = overheard(journey.lab.renewal_info, monkeypatch)
    renew_again(journey)
    (order,) = named(said, "newOrder")
    assert ("RS256", uri) == (order.header["alg"], order.header["kid"])
    assert certificate_id(adopted.fullchain) == order.payload["replaces"]
    assert [] == named(said, "newAccount")
    assert before == files(lineage)


def test_adopted_with_a_new_account(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --new-account certbot's stays its own: the cost is said, and the first order makes another one."""
    uri = json.loads((account(journey) / "regr.json").read_text())["uri"]
    done = adopt(journey, "--new-account")
    assert f"certbot's account stays certbot's; {COST}" in done.stdout
    assert uri_of(journey) is None

    said = overheard(journey.lab.renewal_info, monkeypatch)
    renew_again(journey)
    (made,), (order,) = named(said, "newAccount"), named(said, "newOrder")
    assert ("ES256", "ES256") == (made.header["alg"], order.header["alg"])
    assert "replaces" not in order.payload
    assert uri_of(journey) == order.header["kid"] != uri


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "was not found"),
        (lambda folder: (folder / "regr.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "private_key.json").write_text('{"kty": "RSA"}'), "cannot be read"),
        (lambda folder: (folder / "private_key.json").unlink(), "cannot be read"),
    ],
    ids=["gone", "no URL", "garbled key", "no key"],
)
def test_adopted_without_certbots_account(
    journey: Journey, damage: Callable[[Path], object], said: str
) -> None:
    """Where certbot's account is missing or garbled, the cost is said; the certificate is taken over."""
    damage(account(journey))
    done = adopt(journey)
    assert f"{said}; {COST}" in done.stdout
    assert (None, journey.published()) == (uri_of(journey), journey.live().leaf.sha256)
    renew_again(journey)
    assert uri_of(journey) is not None


def test_adopted_twice(journey: Journey) -> None:
    """Adopting again changes no version and no account, also when certcast has renewed meanwhile."""
    adopt(journey)
    place = journey.renewal.certcast_folder
    before = files(place / "issued") | files(place / "acme")
    adopt(journey)
    assert before == files(place / "issued") | files(place / "acme")

    renew_again(journey)
    live, before = journey.live(), files(place / "issued") | files(place / "acme")
    adopt(journey)
    assert (live, live.leaf.sha256) == (journey.live(), journey.published())
    assert before == files(place / "issued") | files(place / "acme")


@pytest.mark.parametrize(
    "conf", ["", "version = 5.8.0\nserver = [[[", "\0\xff"], ids=["empty", "cut", "binary"]
)
def test_a_garbled_conf_can_be_adopted(journey: Journey, conf: str) -> None:
    """A lineage that certbot could not renew any more is taken over all the same: its files are good."""
    (journey.certbot_dir() / f"renewal/{NAME}.conf").write_bytes(conf.encode("latin-1"))
    done = adopt(journey)
    assert f"don't say which CA issued it; taken to be {journey.lab.directory_url}" in done.stdout
    assert f"was not found; {COST}" in done.stdout
    assert journey.published() == journey.live().leaf.sha256
    renew_again(journey)


def test_files_that_do_not_belong_together_are_not_adopted(journey: Journey) -> None:
    """A key that is another one's is never taken over: an error, and nothing is in certcast's own store."""
    archive = journey.certbot_dir() / f"archive/{NAME}"
    (archive / "privkey1.pem").write_bytes(journey.lab.authority.issue(NAME).key_pem)
    done = journey.renew("--adopt", NAME)
    assert 16 == done.returncode, done.stderr
    assert "does not belong to its certificate" in done.stderr
    assert not journey.issued().exists()


def test_nothing_to_adopt(lab: Lab) -> None:
    """A name that certbot does not have is said to be that, and nothing is ordered in its place."""
    journey = Journey(lab)
    done = journey.renew("--adopt", "example.test")
    assert 16 == done.returncode, done.stderr
    assert "certbot has no lineage of this name" in done.stderr
    assert "`certcast renew example.test` orders a certificate" in done.stderr
    assert 0 == lab.renewal_info.orders


def test_wrong_use_of_adopt(with_certbot: Journey) -> None:
    """
    What cannot be meant changes nothing: a certificate that the configuration leaves to certbot, one that is
    not configured, two names, --new-account alone.
    """
    wrong = {
        ("--adopt", NAME): 52,
        ("--adopt", "another.test"): 3,
        ("--adopt", NAME, "another.test"): 2,
        ("--new-account",): 2,
    }
    assert wrong == {arguments: with_certbot.renew(*arguments).returncode for arguments in wrong}
    assert not with_certbot.issued().exists()


# -- neither taken over nor left to certbot


def test_nothing_is_ordered_where_certbot_has_it(journey: Journey) -> None:
    """
    certbot has the certificate, and certcast's own store is empty: nothing is ordered, and the error names
    both ways, so that no two clients use up the CA's five a week together.
    """
    orders, published = journey.lab.renewal_info.orders, journey.published()
    for arguments in ((), ("--now",)):
        done = journey.renew(*arguments)
        assert 52 == done.returncode, done.stderr
        assert f"`certcast renew --adopt {NAME}`" in done.stderr
        assert 'source = "certbot"' in done.stderr
    assert (orders, published) == (journey.lab.renewal_info.orders, journey.published())
    mail = journey.lab.mailbox.wait_for(lambda received: "SOURCE" in received.text)
    assert ("it@example.test",) == mail.recipients


def test_the_deploy_hook_of_a_certificate_that_certcast_orders(lab: Lab) -> None:
    """
    A certbot still renews what certcast orders: its deploy hook publishes nothing, and says, by mail as well,
    what to switch off.
    """
    journey = Journey(lab)
    assert 0 == journey.certbot_with_hooks(*CERTONLY).returncode
    mail = lab.mailbox.wait_for(lambda received: "SOURCE" in received.text)
    assert "hook deploy" in mail.text
    extra = {"RENEWED_LINEAGE": str(journey.certbot_dir() / "live" / NAME), "RENEWED_DOMAINS": NAME}
    done = lab.certcast(journey.renewal.certcast_toml, "hook", "deploy", user="renewal", extra=extra)

    assert 52 == done.returncode, done.stderr
    assert f"move {journey.certbot_dir()}/renewal/{NAME}.conf away" in done.stderr
    assert 'source = "certbot"' in done.stderr
    assert journey.published() is None


# -- left to certbot


def test_a_certbot_that_does_not_renew_is_an_alarm(with_certbot: Journey) -> None:
    """
    What a certbot renews is overdue: `renew` orders nothing, publishes what there is, and mails which command
    shows the reason.
    """
    journey = with_certbot
    aged = journey.lab.authority.issue(
        NAME, f"*.{NAME}", not_before=datetime.now(timezone.utc) - timedelta(days=70)
    )
    archive = journey.certbot_dir() / f"archive/{NAME}"
    (archive / "fullchain1.pem").write_bytes(aged.fullchain_pem)
    (archive / "privkey1.pem").write_bytes(aged.key_pem)
    journey.lab.cloud.bucket.delete(f"certcast/certs/{NAME}/manifest")
    (journey.renewal.certcast_folder / f"publisher/{NAME}.json").unlink()
    orders = journey.lab.renewal_info.orders
    done = journey.renew()

    assert 41 == done.returncode, done.stderr
    assert "its own certbot did not renew it" in done.stderr
    assert f"`certbot renew --cert-name {NAME} --dry-run`" in done.stderr
    assert (orders, journey.live().leaf.sha256) == (journey.lab.renewal_info.orders, journey.published())
    mail = journey.lab.mailbox.wait_for(lambda received: "OVERDUE" in received.text)
    assert ("it@example.test",) == mail.recipients


@pytest.mark.parametrize("reason", ["keyCompromise", "superseded"])
def test_replace_is_certbots_to_do(
    with_certbot: Journey, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """
    `renew --replace` never orders what a certbot renews, and is no success before another leaf is published.
    Then the old one is revoked, signed by its own key: there is no account of certcast's.
    """
    journey, lab = with_certbot, with_certbot.lab
    old, orders = journey.live().leaf, lab.renewal_info.orders
    replace = ("--replace", NAME, "--reason", reason, "--revoke-after", "0s")
    for arguments in (replace, (), replace):
        told = journey.renew(*arguments)
        assert 41 == told.returncode, told.stderr
        assert f"`certbot renew --cert-name {NAME} --force-renewal --new-key`" in told.stderr
    assert (orders, old.sha256) == (lab.renewal_info.orders, journey.published())

    lab.cloud.oss.faults.turn_on("server_error", action="PutObject")
    assert 0 == journey.certbot_with_hooks(*NEW_KEY).returncode
    said = overheard(lab.renewal_info, monkeypatch)
    assert 20 == journey.renew(*replace).returncode
    assert ([], old.sha256) == (named(said, "revokeCert"), journey.published())

    lab.cloud.oss.faults.turn_off()
    done = journey.renew(*replace)
    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published() != old.sha256
    (revoking,) = named(said, "revokeCert")
    assert ("jwk" in revoking.header, "kid" in revoking.header) == (True, False)
    status = lab.pebble.certificate_status(int(old.serial, 16))
    assert status is not None
    assert status.revoked
    assert [] == named(said, "newOrder") + named(said, "newAccount")
