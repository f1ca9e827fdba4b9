"""What is said of certificates and keys, with a CA whose dates, names and keys can be chosen."""

from __future__ import annotations

import ssl
import subprocess
import warnings
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from certcast.release import certificate
from certcast.release.certificate import (
    describe,
    key_fits,
    missing_names,
    read_chain,
    read_key,
    refusals,
    trust_roots,
)
from certcast_lab.serving.authority import Authority, Pair
from consuming import with_serial_zero

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
NAMES = ("example.test", "*.example.test")


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority("Root")


def roots(authority: Authority) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(authority.pem)


def refused(pair: Pair, authority: Authority, names: tuple[str, ...] = NAMES) -> list[str]:
    return refusals(read_chain(pair.fullchain_pem), names, roots(authority), NOW)


def test_serial_and_fingerprint_are_those_that_openssl_prints(root: Authority, tmp_path: Path) -> None:
    """An administrator can compare what certcast says with `openssl x509`."""
    pair = root.issue(*NAMES)
    leaf = describe(read_chain(pair.fullchain_pem).leaf)
    command = ["openssl", "x509", "-noout", "-serial", "-fingerprint", "-sha256"]
    printed = subprocess.run(
        command, input=pair.fullchain_pem, capture_output=True, check=True
    ).stdout.decode()
    assert f"serial={leaf.serial}" in printed
    assert leaf.sha256.upper() in printed.replace(":", "")


def test_a_good_chain_is_not_refused(root: Authority) -> None:
    """A certificate under an intermediate is accepted for the apex and for a name under the wildcard."""
    assert [] == refused(Authority("Intermediate", parent=root).issue(*NAMES, not_before=NOW), root)


@pytest.mark.parametrize("shift", [timedelta(days=-91), timedelta(hours=1)])
def test_outside_its_life_a_certificate_is_refused(root: Authority, shift: timedelta) -> None:
    """Neither an expired certificate nor one of tomorrow is served."""
    (why,) = refused(root.issue(*NAMES, not_before=NOW + shift), root)
    assert why.startswith("valid from")


def test_a_missing_name_is_refused_even_if_a_wildcard_covers_it(root: Authority) -> None:
    """The certificate must hold the configured names themselves."""
    (why,) = refused(root.issue("*.example.test", not_before=NOW), root)
    assert "does not hold example.test" in why
    leaf = describe(read_chain(root.issue("*.example.test").fullchain_pem).leaf)
    assert ["www.example.test"] == missing_names(leaf, ("www.example.test",))


def test_a_chain_to_another_root_is_refused_for_every_name(root: Authority) -> None:
    """A certificate of somebody else's CA is not served, whatever names it holds."""
    found = refused(Authority("Stranger").issue(*NAMES, not_before=NOW), root)
    assert 2 == len(found)


def test_a_missing_intermediate_is_refused(root: Authority) -> None:
    """A leaf whose chain was cut off is refused: browsers would refuse it too."""
    pair = Authority("Intermediate", parent=root).issue(*NAMES, not_before=NOW)
    leaf_only = pair.fullchain_pem[
        : pair.fullchain_pem.index(b"-----END") + len("-----END CERTIFICATE-----\n")
    ]
    assert refused(Pair(leaf_only, pair.key_pem), root)


def test_only_its_own_key_fits_a_certificate(root: Authority) -> None:
    """A key of another certificate is recognised, RSA or ECDSA."""
    one, other = root.issue(*NAMES), root.issue(*NAMES, key_type="rsa")
    leaf = describe(read_chain(one.fullchain_pem).leaf)
    assert key_fits(read_key(one.key_pem), leaf)
    assert not key_fits(read_key(other.key_pem), leaf)


@pytest.mark.parametrize(
    "pem", [b"", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", b"\0"]
)
def test_bytes_that_are_no_certificate_are_a_value_error(pem: bytes) -> None:
    """Damaged files end in a message, not in whatever the library raises."""
    with pytest.raises(ValueError):
        read_chain(pem)
    with pytest.raises(ValueError):
        read_key(pem)


def test_a_key_with_a_passphrase_is_a_value_error(root: Authority, tmp_path: Path) -> None:
    """A key that nginx could not open unattended is refused with a reason."""
    key = tmp_path / "key.pem"
    key.write_bytes(root.issue("a.test").key_pem)
    command = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-passout", "pass:secret"]
    locked = subprocess.run(command, capture_output=True, check=True).stdout
    with pytest.raises(ValueError, match="Password"):
        read_key(locked)


def test_trust_roots_come_from_the_file_or_the_system(root: Authority, tmp_path: Path, monkeypatch) -> None:
    """`trust_roots` replaces the system's roots, and SSL_CERT_FILE moves these as for every other program."""
    path = tmp_path / "roots.pem"
    path.write_bytes(root.pem)
    assert roots(root) == trust_roots(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert roots(root) == trust_roots(None)


def test_system_roots_are_found_without_openssl_s_own_file(
    root: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where OpenSSL has a folder of roots and no file, as on Ubuntu 22.04, the distribution's bundle is read;
    where there is none either, the error names every place. SSL_CERT_FILE is believed, right or wrong.
    """
    debian, red_hat = tmp_path / "ca-certificates.crt", tmp_path / "ca-bundle.crt"
    paths = ssl.get_default_verify_paths()._replace(cafile=None, openssl_cafile=str(tmp_path / "cert.pem"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.setattr(certificate, "_BUNDLES", (str(debian), str(red_hat)))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(ValueError, match=f"cert.pem, {debian}, {red_hat}"):
        trust_roots(None)
    for path in (red_hat, debian):
        authority = Authority(path.name)
        path.write_bytes(authority.pem)
        assert roots(authority) == trust_roots(None)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError):
        trust_roots(None)


def test_roots_that_cannot_be_read_are_left_out(root: Authority, tmp_path: Path) -> None:
    """
    One damaged root of a bundle, or one with serial 0 as Debian 12 has, neither stops an installation nor
    warns anybody; a bundle with no root that can be read does stop it.
    """
    damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    cut = root.pem[: len(root.pem) // 2] + b"\n"
    path = tmp_path / "roots.pem"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path.write_bytes(b"# Strange\n" + damaged + cut + with_serial_zero(root) + root.pem)
        assert roots(root) == trust_roots(path)[-1:]
        path.write_bytes(damaged + cut)
        with pytest.raises(ValueError, match=r"no certificate in \S+roots.pem"):
            trust_roots(path)
    assert [] == told
