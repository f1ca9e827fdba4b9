"""RSA becomes ECDSA, or the other way round, and a host that was not asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certcast.report.errors import KeyTypeChanged, NotProved
from certcast_lab.lab import Lab
from consuming import Consumer, consumer, sha256
from journey import Journey

ORDER = (
    *("certonly", "--agree-tos", "--register-unsafely-without-email", "--force-renewal"),
    *("--cert-name", "example.test", "-d", "example.test", "-d", "*.example.test"),
)


@pytest.fixture
def web(tmp_path: Path, nginx_program: str) -> Iterator[Consumer]:
    with consumer(tmp_path, program=nginx_program) as started:
        yield started


def issue(journey: Journey, *arguments: str) -> str:
    done = journey.certbot_with_hooks(*arguments)
    assert 0 == done.returncode, done.stderr
    return journey.live().leaf.sha256


def test_certbots_new_default_waits_for_somebody_to_allow_it(lab: Lab) -> None:
    """
    ECDSA, certbot's default since 2.0, is not installed over RSA by surprise: KEY-TYPE (32), and the old
    one is served. The command of the report brings RSA again; `allow_key_type_change` takes ECDSA.
    """
    journey = Journey(lab, by_certbot=("example.test",))
    rsa = issue(journey, *ORDER, "--key-type", "rsa")
    toml = journey.first_pull("web1").certcast_toml
    issue(journey, *ORDER, "--key-type", "ecdsa")
    refused = journey.pull("web1", "--now")
    assert 32 == refused.returncode, refused.stderr
    assert "the new key is ECDSA, the one that is served RSA" in refused.stderr
    assert rsa == journey.served("web1")

    assert "`certbot renew --cert-name example.test --force-renewal --key-type rsa`" in refused.stderr
    renew = ("renew", "--no-random-sleep-on-renew", "--cert-name", "example.test", "--force-renewal")
    rsa = issue(journey, *renew, "--key-type", "rsa")
    assert 0 == journey.pull("web1", "--now").returncode
    assert rsa == journey.served("web1")

    extra = '[consumer]\nallow_key_type_change = true\nderive = ["cert.pem", "chain.pem"]\n'
    toml.write_text(toml.read_text().replace("[consumer]\n", extra))
    ecdsa = issue(journey, *ORDER, "--key-type", "ecdsa")
    done = journey.pull("web1", "--now")
    assert 0 == done.returncode, done.stderr
    assert ecdsa == journey.served("web1")
    # What is derived is what certbot itself has.
    live = journey.certbot_dir() / "live/example.test"
    current = lab.host("web1").certcast_folder / "certs/example.test/current"
    for name in ("cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"):
        assert (live / name).read_bytes() == (current / name).read_bytes()


@pytest.mark.parametrize(("old", "new"), [("rsa", "ecdsa"), ("ecdsa", "rsa")])
def test_changed_key_type_is_refused_in_both_directions(web: Consumer, old: str, new: str) -> None:
    """Whichever type was proved, the other one is refused, and nginx goes on with what it serves."""
    web.publish("A", web.issue(key_type=old))
    web.first_pull()
    web.publish("B", web.issue(days_ago=0, key_type=new))
    with pytest.raises(KeyTypeChanged) as caught:
        web.pull(force=True)
    assert "nginx was not touched" in (caught.value.kept or "")
    assert web.leaf("A") == web.served()
    assert [] == web.leftovers()


def test_key_type_of_an_older_state_is_read_from_the_version(web: Consumer) -> None:
    """A host whose state was written before certcast knew of key types notices the change, too."""
    web.publish("A", web.issue(key_type="rsa"))
    web.first_pull()
    state = json.loads(web.folder.state.read_text())
    del state["proved"]["key_type"]
    web.folder.state.write_text(json.dumps(state))
    web.publish("B")
    with pytest.raises(KeyTypeChanged):
        web.pull(force=True)


def test_another_curve_is_no_other_type(web: Consumer) -> None:
    """From P-256 to P-384 nothing has to be allowed."""
    web.publish("A")
    web.first_pull()
    key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    web.publish("B", web.issue(days_ago=0, key=key))
    assert "installed" == web.pull(force=True).result
    assert web.leaf("B") == web.served()


def test_operators_files_of_another_key_type(tmp_path: Path) -> None:
    """
    Fixed paths hold the operator's RSA pair, and the first release is ECDSA: clients that take only RSA
    would be lost, so the operator's files come back, until somebody allows it.
    """
    with consumer(tmp_path) as web:
        theirs = web.issue(key_type="rsa", days_ago=30)
        fullchain, privkey = web.name_fixed_paths(theirs)
        web.publish("A")
        with pytest.raises(NotProved, match="handshakes failed that had worked") as caught:
            web.pull()
        assert "consumer.allow_key_type_change" in (caught.value.next or "")
        assert (theirs.fullchain_pem, theirs.key_pem) == (fullchain.read_bytes(), privkey.read_bytes())
        assert sha256(theirs) == web.served()

        web.configure(allow_key_type_change=True)
        outcome = web.pull(force=True)
        assert web.leaf("A") == web.served()
        assert "no longer for TLS 1.2, RSA clients" in outcome.text
