"""A certificate authority that issues any certificate, the wrong ones too.

In the lab it signs for every TLS listener but nginx's, so that unmodified clients
believe them: pebble's directory, SMTP, the proxy before the cloud APIs. In tests,
dates, names and keys are chosen: expired, not valid yet, wrong names, another key,
a reused key.

    root = Authority("Lab Root")
    issuer = Authority("Lab Intermediate", parent=root)
    issuer.issue("example.test", "*.example.test").fullchain_pem   # leaf, intermediate

Certificates follow RFC 5280 closely enough for strict verifiers (key
identifiers, key usage, basic constraints). Leaves have no subject, as Let's
Encrypt's `tlsserver` profile has none: code that identifies a certificate by its
common name fails here first.

Not here: the CA that certbot talks to. That is pebble, real ACME.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Authorities outlive any leaf a test may want to date into the past or the
# future; 2049 is the last year of UTCTime (RFC 5280 section 4.1.2.5).
_AUTHORITY_FROM = datetime(2000, 1, 1, tzinfo=timezone.utc)
_AUTHORITY_UNTIL = datetime(2049, 12, 31, tzinfo=timezone.utc)

LEAF_LIFE = timedelta(days=90)


class Pair(NamedTuple):
    """A certificate and its key, as certbot's `fullchain.pem` and `privkey.pem` would hold them."""

    fullchain_pem: bytes
    key_pem: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write `fullchain.pem` and `privkey.pem` (0600) into `folder`; return both paths."""
        folder.mkdir(parents=True, exist_ok=True)
        fullchain, key = folder / "fullchain.pem", folder / "privkey.pem"
        fullchain.write_bytes(self.fullchain_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return fullchain, key


class Authority:
    """A root, or with `parent` an intermediate; `pem` is its own certificate, PEM."""

    def __init__(
        self,
        common_name: str,
        *,
        parent: Authority | None = None,
        key_type: Literal["ecdsa", "rsa"] = "ecdsa",
    ) -> None:
        self._key = _generate(key_type)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer = parent or self
        self._certificate: x509.Certificate = (
            _builder(self._key.public_key(), _AUTHORITY_FROM, _AUTHORITY_UNTIL)
            .subject_name(name)
            .issuer_name(parent._certificate.subject if parent else name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .add_extension(_authority_key_identifier(issuer._key.public_key()), critical=False)
            .sign(issuer._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        self._chain_pem: bytes = self.pem + parent._chain_pem if parent else b""

    def issue(
        self,
        *dns_names: str,
        ips: tuple[str, ...] = (),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key_type: Literal["ecdsa", "rsa"] = "ecdsa",
        key: bytes | None = None,
    ) -> Pair:
        """
        Issue a server certificate.

        Dates are aware datetimes; X.509 keeps whole seconds. `not_before` defaults to an hour ago
        (no clock in the lab is that wrong), `not_after` to 90 days after `not_before`.
        `key` (PEM, unencrypted) is certified again instead of a new one, like certbot's `--reuse-key`.
        """
        private = _load(key) if key else _generate(key_type)
        not_before = not_before or datetime.now(timezone.utc) - timedelta(hours=1)
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        leaf = (
            _builder(private.public_key(), not_before, not_after or not_before + LEAF_LIFE)
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            # Critical because the subject is empty: RFC 5280 section 4.2.1.6.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_authority_key_identifier(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(leaf.public_bytes(serialization.Encoding.PEM) + self._chain_pem, _pem(private))


def _builder(
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before.astimezone(timezone.utc))
        .not_valid_after(not_after.astimezone(timezone.utc))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_key_identifier(
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _generate(key_type: Literal["ecdsa", "rsa"]) -> Key:
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _load(pem: bytes) -> Key:
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
