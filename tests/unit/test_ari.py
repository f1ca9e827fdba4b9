"""Renewal information, as RFC 9773 writes it; the asking itself is told in tests/e2e/test_renew.py."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone

import pytest
from acme.client import _renewal_info_path_component
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certcast.renewal import ari
from certcast_lab.ca import Authority
from sockets import answering, dripping


def leaf() -> x509.Certificate:
    return x509.load_pem_x509_certificates(Authority("Lab").issue("example.test").fullchain_pem)[0]


def test_the_identifier_is_the_one_of_the_rfc() -> None:
    """The example of RFC 9773, section 4.1: key identifier 69:88:5B:…, serial 00:87:65:43:21."""
    day = datetime(2026, 11, 23, tzinfo=timezone.utc)
    key = ec.generate_private_key(ec.SECP256R1())
    key_identifier = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(0x87654321)
        .not_valid_before(day)
        .not_valid_after(day)
        .add_extension(x509.AuthorityKeyIdentifier(key_identifier, None, None), critical=False)
        .sign(key, hashes.SHA256())
    )
    assert "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" == ari.certificate_id(certificate)


def test_the_identifier_is_the_one_that_certbot_asks_with() -> None:
    """certcast and certbot ask the CA about the same certificate, whatever its serial begins with."""
    authority = Authority("Lab")
    for _ in range(32):
        pem = authority.issue("example.test").fullchain_pem
        certificate = x509.load_pem_x509_certificates(pem)[0]
        assert _renewal_info_path_component(certificate) == ari.certificate_id(certificate)


def test_an_unreachable_ca_is_told_apart_from_one_that_says_nothing() -> None:
    """When even the directory cannot be read, no order could be placed: the caller must know."""
    with pytest.raises(ari.CaUnreachable, match=r"127\.0\.0\.1"):
        ari.suggested_window("https://127.0.0.1:9/dir", leaf())


BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "answer", [b"", BEGUN + b"X-Padding: ", BEGUN + b"\r\n{"], ids=["status", "header", "body"]
)
def test_a_ca_that_drips_holds_nobody_up(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that comes octet by octet, for ever, ends at the deadline: the CA is not reachable."""
    monkeypatch.setattr(ari, "_SECONDS", 0.5)
    begun = time.monotonic()
    with (
        dripping(answer) as port,
        pytest.raises(ari.CaUnreachable, match=r"no complete answer within 0\.5 s"),
    ):
        ari.suggested_window(f"http://127.0.0.1:{port}/dir", leaf())
    assert time.monotonic() - begun < 3


def test_a_ca_without_an_end_fills_no_memory() -> None:
    """A directory of more than 4 MiB is not read to its end: the CA is not reachable."""
    with (
        answering(BEGUN + b"\r\n" + b" " * 8 * 1024 * 1024) as port,
        pytest.raises(ari.CaUnreachable, match="4,194,304 octets"),
    ):
        ari.suggested_window(f"http://127.0.0.1:{port}/dir", leaf())


def test_a_dripping_renewal_information_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA whose directory is there, and whose renewal information drips, counts as one that says nothing."""
    monkeypatch.setattr(ari, "_SECONDS", 0.5)
    with dripping(BEGUN + b"\r\n{") as slow:
        body = json.dumps({"renewalInfo": f"http://127.0.0.1:{slow}/info"}).encode()
        with answering(BEGUN + b"\r\n" + body) as port:
            assert ari.suggested_window(f"http://127.0.0.1:{port}/dir", leaf()) is None
