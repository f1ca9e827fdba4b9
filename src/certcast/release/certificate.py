"""What a certificate and its key say, and whether they may be trusted here.

    fullchain.pem ── read_chain ──> Chain(leaf, intermediates)
                                      │ describe ──> Leaf: the facts that a manifest carries
    privkey.pem ─── key_fits ─────────┤
    trust roots ─── refusals ─────────┘

A release is identified by the SHA-256 of its leaf's DER. It is never identified
by its common name: Let's Encrypt's newer profiles leave that out.

Not here: when a certificate is due (lifetime.py), which costs no X.509 library.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from certcast.release.lifetime import Life, utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


# Where distributions keep all roots in one file: update-ca-certificates(8) of Debian and Ubuntu,
# update-ca-trust(8) of Fedora and Red Hat. Go looks there, too (crypto/x509, root_linux.go).
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# RFC 7468, 5; "X509" is the older label of section 5.3, which the library takes as well. No "-" inside,
# so that a block without an end does not take the next one with it.
_CERTIFICATE = re.compile(rb"-----BEGIN ((?:X509 )?CERTIFICATE)-----[^-]*-----END \1-----")


@dataclass(frozen=True)
class Leaf:
    """The facts of an end-entity certificate.

    `sha256` is over its DER, `public_key_sha256` over its SubjectPublicKeyInfo
    (the RFC 7469 pin's input), both as 64 lower-case hex digits; `serial` is
    upper-case hex as openssl prints it; `names` are the DNS SANs, sorted.
    """

    sha256: str
    serial: str
    issuer: str
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    public_key_sha256: str

    @property
    def life(self) -> Life:
        """The leaf's validity."""
        return Life(self.not_before, self.not_after)


@dataclass(frozen=True)
class Chain:
    """A leaf and the intermediates that the server sends with it."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]


def read_chain(pem: bytes) -> Chain:
    """Parse fullchain.pem: the leaf first, then its intermediates. ValueError if it is not that."""
    from cryptography import x509

    with _in_words():
        certificates = x509.load_pem_x509_certificates(pem)
    return Chain(certificates[0], tuple(certificates[1:]))


def read_key(pem: bytes) -> PrivateKeyTypes:
    """Parse privkey.pem (PKCS#8 or traditional, unencrypted). ValueError if it is not that, or more."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # What stands behind the key is nothing that was signed, and readers differ in what they take of it.
    # openssl ecparam writes the curve before the key.
    kinds = [kind for kind in re.findall(rb"-----BEGIN ([^-\n]*)-----", pem) if kind != b"EC PARAMETERS"]
    if len(kinds) > 1:
        raise ValueError(f"{len(kinds)} PEM blocks where one private key has to be")
    with _in_words():
        return load_pem_private_key(pem, password=None)


def describe(leaf: x509.Certificate) -> Leaf:
    """Return the facts of a leaf. ValueError if it carries no DNS name, or cannot be understood."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    serial = leaf.serial_number
    if serial <= 0:
        raise ValueError("its serial number is not positive")  # RFC 5280, 4.1.2.2
    with _in_words():
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            raise ValueError("the certificate has no subjectAltName") from None
        return Leaf(
            sha256=hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest(),
            serial=serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex().upper(),
            issuer=leaf.issuer.rfc4514_string(),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            names=tuple(sorted(names.value.get_values_for_type(x509.DNSName))),
            public_key_sha256=_public_key_sha256(leaf.public_key()),
        )


def key_type(leaf: x509.Certificate) -> str:
    """Return "RSA" or "ECDSA", in TLS's words; the curve is no type of its own. Others by their class."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA"
    return "ECDSA" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__


def key_fits(key: PrivateKeyTypes, leaf: Leaf) -> bool:
    """Return whether `key` is the private half of the leaf's public key."""
    return _public_key_sha256(key.public_key()) == leaf.public_key_sha256


def missing_names(leaf: Leaf, wanted: tuple[str, ...]) -> list[str]:
    """Return the wanted names that are not SANs of the leaf, letter for letter.

    Exact, because the certificate is ordered with these very names: a host name
    that a wildcard happens to cover is still not what the configuration asked for.
    """
    return [name for name in wanted if name not in leaf.names]


def refusals(
    chain: Chain, wanted: tuple[str, ...], roots: list[x509.Certificate], now: datetime
) -> list[str]:
    """Return why the chain must not be served for `wanted` at `now`; an empty list if it may.

    The path is built as a TLS client builds it (RFC 5280, 6; RFC 6125 for names),
    once for each wanted name; a wildcard is tried with a made-up label.
    """
    from cryptography.x509 import DNSName
    from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

    leaf = describe(chain.leaf)
    life = leaf.life
    if not life.is_valid(now):
        return [
            f"valid from {utc_text(life.not_before)} to {utc_text(life.not_after)}; now is {utc_text(now)}"
        ]
    missing = missing_names(leaf, wanted)
    if missing:
        return [f"it does not hold {', '.join(missing)}; it holds {', '.join(leaf.names)}"]
    builder = PolicyBuilder().store(Store(roots)).time(now)
    found = []
    for name in wanted:
        host = "any-label" + name[1:] if name.startswith("*.") else name
        try:
            builder.build_server_verifier(DNSName(host)).verify(chain.leaf, list(chain.intermediates))
        except VerificationError as error:
            found.append(f"no chain to a trusted root for {name}: {error}")
    return found


def trust_roots(path: Path | None) -> list[x509.Certificate]:
    """Return the root certificates of a PEM file, or the system's.

    What cannot be read is left out: one strange root in a distribution's bundle must not stop each
    installation. OSError if the file cannot be read, ValueError if there is none, or no certificate in it.
    """
    import warnings

    from cryptography import x509
    from cryptography.utils import CryptographyDeprecationWarning

    path = path or _system_roots()
    found = []
    # Debian 12's bundle has roots with serial 0. cryptography warns of each, and is to refuse them one day:
    # nothing that somebody who gets cron's mails could do anything about.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for block in _CERTIFICATE.finditer(path.read_bytes()):
            with contextlib.suppress(ValueError), _in_words():
                found += x509.load_pem_x509_certificates(block[0])
    if not found:
        raise ValueError(f"no certificate in {path} can be read")
    return found


def _system_roots() -> Path:
    """Return the file of the system's root certificates; ValueError if there is none where one is known."""
    import os
    import ssl
    from pathlib import Path

    places = ssl.get_default_verify_paths()
    # As OpenSSL on this host: the variable comes first, also if it leads nowhere.
    if named := os.environ.get(places.openssl_cafile_env):
        return Path(named)
    # The file that OpenSSL was built for may not exist: Ubuntu 22.04 has only the folder beside it.
    known = [places.openssl_cafile, *_BUNDLES]
    for path in map(Path, known):
        if path.is_file():
            return path
    raise ValueError(f"no file of root certificates at {', '.join(known)}")


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Make ValueError of what the library says of odd files: its other errors aren't of that kind."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except TypeError as error:  # a key with a passphrase: nginx could not open it either
        raise ValueError(str(error)) from None
    except (
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise ValueError(str(error)) from None


def _public_key_sha256(key: object) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # every key type has it
    return hashlib.sha256(spki).hexdigest()
