"""Settings of certcast's own orders, and what becomes of its account, against pebble.

Every setting is in certcast.toml. What the CA was told is read where it passes the lab's proxy.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certcast.acme.ca import folder_of
from certcast.release import certificate
from certcast_lab.acme.pebble import PROFILES, Pebble
from certcast_lab.acme.renewal_info import RenewalInfo, certificate_id
from certcast_lab.configuration import renewal_toml
from certcast_lab.lab import Lab
from journey import Done, Journey
from overhearing import Said, named, overheard

NAME = "example.test"
CERTIFICATE = "[[certificate]]\n"
RENEWAL = "[renewal]\n"
AGREED = "terms_of_service_agreed = true\n"
SUPERSEDED = ("--replace", NAME, "--reason", "superseded", "--revoke-after", "0s")
MAC_KEY = base64.urlsafe_b64encode(b"the lab's external account, 32 o").decode().rstrip("=")


@pytest.fixture
def journey(lab: Lab) -> Journey:
    return Journey(lab)


@pytest.fixture
def said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[Said]:
    """What the CA is told by signed requests in this test."""
    return overheard(lab.renewal_info, monkeypatch)


def renewed(journey: Journey, *arguments: str) -> Done:
    """Run `certcast renew`: it goes well, and what this host holds is published."""
    done = journey.renew(*arguments)
    assert 0 == done.returncode, done.stderr
    assert journey.live().leaf.sha256 == journey.published()
    return done


def renew_again(journey: Journey) -> Done:
    """Let the CA want another certificate, and get it."""
    before = journey.live().leaf
    journey.want_replaced()
    done = renewed(journey, "--now")
    assert before != journey.live().leaf
    return done


def set_up(journey: Journey, section: str, line: str) -> None:
    """Write the configuration anew, with a line more in a section."""
    journey.configure(section, f"{section}{line}\n")


def account_folder(journey: Journey) -> Path:
    return folder_of(journey.renewal.certcast_folder, journey.lab.directory_url)


def uri_of(journey: Journey) -> str:
    """Return the URL of the account at the lab's CA, as this host has written it down."""
    return str(json.loads((account_folder(journey) / "account.json").read_text())["uri"])


def is_revoked(pebble: Pebble, serial: str) -> bool:
    status = pebble.certificate_status(int(serial, 16))
    assert status is not None
    return status.revoked


# -- the key


@pytest.mark.parametrize("key_type", ["p384", "rsa2048"])
def test_key_types(journey: Journey, key_type: str) -> None:
    """With `key_type` each certificate has a new key of that type, and a host serves it."""
    set_up(journey, CERTIFICATE, f'key_type = "{key_type}"')
    renewed(journey)
    journey.first_pull("web1")
    key = certificate.read_key(journey.live().privkey)
    if key_type == "p384":
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert "secp384r1" == key.curve.name
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        assert 2048 == key.key_size
    assert journey.live().leaf.sha256 == journey.served("web1")

    renew_again(journey)
    assert key.public_key() != certificate.read_key(journey.live().privkey).public_key()


def test_a_reused_key(journey: Journey) -> None:
    """
    With `reuse_key` renewals keep the key, until its type is to be another one, or the certificate is
    replaced; then the new key is kept.
    """
    set_up(journey, CERTIFICATE, "reuse_key = true")
    renewed(journey)
    first = journey.live().privkey
    renew_again(journey)
    assert first == journey.live().privkey

    limits(journey).unlink()
    set_up(journey, CERTIFICATE, 'reuse_key = true\nkey_type = "p384"')
    renew_again(journey)
    second = certificate.read_key(journey.live().privkey)
    assert isinstance(second, ec.EllipticCurvePrivateKey)
    assert "secp384r1" == second.curve.name

    renewed(journey, *SUPERSEDED)
    third = journey.live().privkey
    assert second.public_key() != certificate.read_key(third).public_key()
    limits(journey).unlink()
    renew_again(journey)
    assert third == journey.live().privkey


def limits(journey: Journey) -> Path:
    """Return where the orders at the lab's CA are counted."""
    return account_folder(journey) / "limits.json"


# -- the directory


@pytest.fixture
def second(lab: Lab, tmp_path: Path) -> Iterator[RenewalInfo]:
    """A second CA, as production is beside staging."""
    pebble = Pebble(tmp_path / "second", lab.authority, resolver=lab.dns.resolver.address)
    try:
        proxy = RenewalInfo(pebble, lab.authority)
        try:
            yield proxy
        finally:
            proxy.stop()
    finally:
        pebble.stop()


def test_the_directory_is_another_one(
    journey: Journey, second: RenewalInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    From staging to production: `renew` says why, orders anew there, with an account of its own and nothing
    of the first CA, and then has nothing to do. A replacement revokes each certificate at its own CA.
    """
    lab = journey.lab
    renewed(journey)
    first, uri = journey.live(), uri_of(journey)
    journey.configure(lab.directory_url, second.directory_url)
    said = overheard(second, monkeypatch)
    done = renewed(journey)
    assert (
        f"issued by {lab.directory_url}, and renewal.directory is {second.directory_url} now" in done.stdout
    )
    new = journey.live()
    assert (lab.directory_url, second.directory_url) == (first.directory, new.directory)
    assert (1, 1) == (lab.renewal_info.orders, second.orders)
    (order,) = named(said, "newOrder")
    assert "replaces" not in order.payload
    assert uri == uri_of(journey) != order.header["kid"]

    silent = renewed(journey, "--now")
    assert ("", "", 1) == (silent.stdout, silent.stderr, second.orders)

    renewed(journey, *SUPERSEDED)
    assert (1, 2) == (lab.renewal_info.orders, second.orders)
    assert [True, True, False] == [
        is_revoked(lab.pebble, first.leaf.serial),
        is_revoked(second._pebble, new.leaf.serial),
        is_revoked(second._pebble, journey.live().leaf.serial),
    ]


# -- the account


def test_terms_that_were_not_agreed_to(journey: Journey, said: list[Said]) -> None:
    """
    Without the operator's agreement no account is asked for: ACCOUNT, with the terms and the line to add. No
    key is made, no order counted; with the line it goes on.
    """
    journey.configure(AGREED, "")
    refused = journey.renew()
    assert 51 == refused.returncode, refused.stderr
    assert "terms_of_service_agreed = true in [renewal]" in refused.stderr
    assert "the terms: data:text/plain" in refused.stderr
    assert ([], False) == (said, account_folder(journey).joinpath("account.key").exists())

    journey.configure()
    renewed(journey)
    (made,) = named(said, "newAccount")
    assert made.payload["termsOfServiceAgreed"] is True
    assert not made.payload.get("contact")


def test_an_account_with_an_email_contact(journey: Journey, said: list[Said]) -> None:
    """`email` is the account's contact at the CA."""
    set_up(journey, RENEWAL, 'email = "it@example.test"')
    done = renewed(journey)
    (made,) = named(said, "newAccount")
    assert ["mailto:it@example.test"] == made.payload["contact"]
    assert f"a new account was made at {journey.lab.directory_url}: {uri_of(journey)}" in done.stdout


def test_the_accounts_key_is_lost(journey: Journey, said: list[Said]) -> None:
    """
    The next order makes a new account, and says so; it doesn't say that it follows what the lost one has
    ordered. A certificate of the lost account is revoked all the same, by its own key.
    """
    renewed(journey)
    old, lost = journey.live().leaf, uri_of(journey)
    (account_folder(journey) / "account.key").unlink()
    done = renew_again(journey)
    assert f"the key of account {lost} is lost: a new account is made" in done.stdout
    assert lost != uri_of(journey) == named(said, "newOrder")[1].header["kid"]
    assert "replaces" not in named(said, "newOrder")[1].payload
    new = journey.live().leaf

    renewed(journey, *SUPERSEDED)
    assert [True, True, False] == [
        is_revoked(journey.lab.pebble, leaf.serial) for leaf in (old, new, journey.live().leaf)
    ]


def test_the_accounts_record_is_lost(journey: Journey, said: list[Said]) -> None:
    """The account is found again by its key; no second one is made, and nothing is to be agreed to anew."""
    renewed(journey)
    uri = uri_of(journey)
    (account_folder(journey) / "account.json").unlink()
    journey.configure(AGREED, "")
    renew_again(journey)
    assert uri == uri_of(journey)
    (_, found) = named(said, "newAccount")
    assert ({"onlyReturnExisting": True}, 200) == (found.payload, found.status)


def test_the_ca_has_forgotten_the_account(
    journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CA knows the account no more: said, and made again with the same key, and the order goes on."""
    lab = journey.lab
    renewed(journey)
    key, uri = (account_folder(journey) / "account.key").read_bytes(), uri_of(journey)
    with_no_memory = Pebble(tmp_path / "new", lab.authority, resolver=lab.dns.resolver.address)
    try:
        monkeypatch.setattr(lab.renewal_info, "_pebble", with_no_memory)
        done = renew_again(journey)
    finally:
        with_no_memory.stop()
    assert f"the CA does not know account {uri} any more" in done.stdout
    assert key == (account_folder(journey) / "account.key").read_bytes()
    assert uri != uri_of(journey)


def test_a_ca_that_never_knows_the_account(journey: Journey) -> None:
    """A CA that denies the account, and again after it has confirmed it, is an error, not an endless loop."""
    journey.lab.acme_faults.turn_on("problem", action="newOrder", status=400, type="accountDoesNotExist")
    done = journey.renew()
    assert 51 == done.returncode, done.stderr
    assert "the CA does not know this account" in done.stderr
    assert 2 == journey.lab.acme_faults.consumed("problem")


def test_an_external_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A CA for its customers only: without the table nothing is asked for; with a MAC key that is missing or no
    key, the file is named; with the right one the account is bound. The key is in no file of ours.
    """
    with Lab(tmp_path / "lab", external_accounts={"customer-1": MAC_KEY}) as lab:
        journey = Journey(lab)
        said = overheard(lab.renewal_info, monkeypatch)
        refused = journey.renew()
        assert 51 == refused.returncode, refused.stderr
        assert "[renewal.external_account] with key_id and hmac_key_file" in refused.stderr
        assert [] == named(said, "newAccount")

        secret = tmp_path / "mac"
        table = f'[renewal.external_account]\nkey_id = "customer-1"\nhmac_key_file = "{secret}"\n\n[dns]\n'
        journey.configure("[dns]\n", table)
        missing = journey.renew()
        assert (51, True) == (missing.returncode, f"install -m 600 /dev/null {secret}" in missing.stderr)
        secret.touch(mode=0o600)
        secret.write_text("not base64url!\n")
        wrong = journey.renew()
        assert (51, True) == (wrong.returncode, f"{secret} does not hold a MAC key" in wrong.stderr)
        assert [] == made_by(said)

        secret.write_text(f"{MAC_KEY}\n")
        done = renewed(journey)
        (made,) = made_by(said)
        bound = made.payload["externalAccountBinding"]
        assert {"alg": "HS256", "kid": "customer-1"}.items() <= _opened(bound["protected"]).items()
        assert made.header["jwk"] == _opened(bound["payload"])
        assert MAC_KEY not in done.stdout + done.stderr
        written = [path for path in journey.renewal.root.rglob("*") if path.is_file()]
        assert [] == [path for path in written if MAC_KEY.encode() in path.read_bytes()]


def made_by(said: list[Said]) -> list[Said]:
    """Return the requests that make an account; others only look for it by its key."""
    return [one for one in named(said, "newAccount") if "onlyReturnExisting" not in one.payload]


def _opened(part: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return document


# -- another renewal host


def test_another_host_publishes_the_certificate(journey: Journey) -> None:
    """
    A second renewal host has an order book of its own, so it orders nothing where another one publishes:
    SOURCE. `renew --now` takes the certificate over, and then the first one orders no more.
    """
    lab = journey.lab
    renewed(journey)
    standby = lab.host("standby")
    standby.certcast_toml.write_text(renewal_toml(lab, standby, journey.certificates, serves=False))

    def renew(*arguments: str) -> Done:
        return lab.certcast(standby.certcast_toml, "renew", *arguments, user="renewal")

    published = journey.published()
    refused = renew()
    assert 52 == refused.returncode, refused.stderr
    assert "another renewal host publishes this certificate" in refused.stderr
    assert f"`certcast renew --now {NAME}`" in refused.stderr
    assert (1, published) == (lab.renewal_info.orders, journey.published())

    done = renew("--now", NAME)
    assert 0 == done.returncode, done.stderr
    assert 2 == lab.renewal_info.orders
    assert published != journey.published()

    journey.want_replaced()
    refused = journey.renew()
    assert 52 == refused.returncode, refused.stderr
    assert "published by standby" in refused.stderr
    assert 2 == lab.renewal_info.orders


# -- chains and profiles


def test_the_preferred_chain(tmp_path: Path) -> None:
    """
    The chain whose root is `preferred_chain` is taken of those that the CA offers. One that it doesn't offer
    is said, and its usual chain is taken.
    """
    with Lab(tmp_path / "lab", alternate_chains=2) as lab:
        journey = Journey(lab)
        wanted = common_name(lab.pebble.root_pem(2))
        set_up(journey, CERTIFICATE, f'preferred_chain = "{wanted}"')
        done = renewed(journey)
        assert (wanted, "") == (topmost_issuer(journey), done.stderr)
        assert wanted != common_name(lab.pebble.root_pem())

        set_up(journey, CERTIFICATE, 'preferred_chain = "No Such Root"')
        done = renew_again(journey)
        assert "the CA offers no chain that ends at 'No Such Root': its usual one is taken" in done.stdout
        assert common_name(lab.pebble.root_pem()) == topmost_issuer(journey)


def common_name(pem: bytes) -> str:
    (found,) = x509.load_pem_x509_certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found.value)


def topmost_issuer(journey: Journey) -> str:
    """Return the common name of the root that the live chain ends at."""
    topmost = x509.load_pem_x509_certificates(journey.live().fullchain)[-1]
    (found,) = topmost.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found.value)


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory, current_pebble: Path) -> Iterator[Lab]:
    """A lab whose CA is pebble 2.10, with Let's Encrypt's profiles."""
    with Lab(tmp_path_factory.mktemp("current"), pebble=current_pebble, profiles=PROFILES) as lab:
        yield lab


@pytest.fixture
def fresh(current: Lab) -> Iterator[Lab]:
    yield current
    current.reset()


@pytest.mark.parametrize("profile", ["tlsserver", "shortlived"])
def test_profiles(fresh: Lab, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """With `profile` certificates live as long as that profile's, and hosts serve one after the other."""
    said = overheard(fresh.renewal_info, monkeypatch)
    journey = Journey(fresh)
    set_up(journey, CERTIFICATE, f'profile = "{profile}"')
    renewed(journey)
    life = journey.live().leaf.life
    assert profile == named(said, "newOrder")[0].payload["profile"]
    assert abs(life.not_after - life.not_before - PROFILES[profile]) < timedelta(minutes=1)
    journey.first_pull("web1")
    silent = renewed(journey, "--now")
    assert ("", "") == (silent.stdout, silent.stderr)

    renew_again(journey)
    assert 0 == journey.pull("web1", "--now").returncode
    assert journey.live().leaf.sha256 == journey.served("web1")


def test_a_profile_that_the_ca_does_not_have(fresh: Lab) -> None:
    """It is an error that names those that there are; nothing is ordered, and nothing counted."""
    journey = Journey(fresh)
    for _ in range(3):
        set_up(journey, CERTIFICATE, 'profile = "tlsclient"')
        done = journey.renew()
        assert 47 == done.returncode, done.stderr
        assert "classic" in done.stderr
        assert "tlsserver" in done.stderr
    assert 0 == fresh.renewal_info.orders
    set_up(journey, CERTIFICATE, 'profile = "classic"')
    renewed(journey)


def test_an_order_says_which_certificate_it_follows(fresh: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A renewal names the certificate that it replaces, so that the CA's limits don't count it. One that was
    replaced already (this host was restored) is refused by the CA, and ordered once more without the name.
    """
    said = overheard(fresh.renewal_info, monkeypatch)
    journey = Journey(fresh)
    renewed(journey)
    first = journey.live()
    renew_again(journey)
    lost = journey.live()
    for path in sorted((journey.issued().place / lost.version).iterdir()):
        path.unlink()
    (journey.issued().place / lost.version).rmdir()
    limits(journey).unlink()
    renew_again(journey)

    follows = certificate_id(first.fullchain)
    orders = [(order.payload.get("replaces"), order.status) for order in named(said, "newOrder")]
    assert [(None, 201), (follows, 201), (follows, 409), (None, 201)] == orders
    assert 3 == fresh.renewal_info.issued
    assert len(json.loads(limits(journey).read_text())["orders"][f"*.{NAME},{NAME}"]) == 1
