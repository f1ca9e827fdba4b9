"""Files for other programs, made of the two that were checked."""

from __future__ import annotations

from certcast.consumer.disk import derived
from certcast_lab.serving.authority import Authority

ISSUER = Authority("Issuer", parent=Authority("Root"))


def test_derived_files_lose_and_add_nothing() -> None:
    """cert.pem and chain.pem are fullchain.pem in two parts; combined.pem is the key before it."""
    pair = ISSUER.issue("example.test")
    release = {"fullchain.pem": pair.fullchain_pem, "privkey.pem": pair.key_pem}
    made = derived.files_of(release, ["cert.pem", "chain.pem", "combined.pem", "privkey.pem"])
    assert pair.fullchain_pem == made["cert.pem"] + made["chain.pem"]
    assert ISSUER.pem == made["chain.pem"][: len(ISSUER.pem)]
    assert pair.key_pem + pair.fullchain_pem == made["combined.pem"]
    assert pair.key_pem == made["privkey.pem"]


def test_files_without_a_last_line_feed_do_not_run_into_each_other() -> None:
    """A key whose last line has no line feed is still a block of its own in combined.pem."""
    pair = {"fullchain.pem": b"-----BEGIN CERTIFICATE-----", "privkey.pem": b"-----END PRIVATE KEY-----"}
    combined = derived.files_of(pair, ["combined.pem"])["combined.pem"]
    assert b"-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----" == combined


def test_leaf_alone_has_an_empty_chain() -> None:
    """A certificate that a trusted root has signed itself has no intermediates."""
    leaf = derived.files_of({"fullchain.pem": ISSUER.pem, "privkey.pem": b""}, ["chain.pem"])
    assert {"chain.pem": b""} == leaf
