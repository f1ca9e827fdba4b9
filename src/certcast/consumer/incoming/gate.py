"""What must be true of a downloaded release before nginx gets to see it.

    require_published   fullchain.pem is the file that the manifest names: size, MD5, SHA-256
    require_fit         key, chain, names, dates; not older than what is served; not revoked
    require_key_type    RSA stays RSA, ECDSA stays ECDSA, unless a change is allowed
    require_changed     a new release brings a new certificate and a new key

In this order: nothing is parsed before its digest is right. The private key has no digest; its public half,
which the signed manifest names, binds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certcast.release import certificate
from certcast.release.lifetime import utc_text
from certcast.release.manifest import FILES, FULLCHAIN, PAIR, PRIVKEY, Digest
from certcast.report.errors import DigestMismatch, FilesUnchanged, GateRefused, KeyTypeChanged, LocalFault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from certcast.consumer.state import ProvedRelease
    from certcast.release.certificate import Leaf
    from certcast.release.manifest import Manifest


def is_published(pair: Mapping[str, bytes], manifest: Manifest) -> bool:
    """Whether the pair is what the manifest names: files by digest, the key by its public half."""
    if not all(name in pair and Digest.of(pair[name]) == manifest.files[name] for name in FILES):
        return False
    try:
        return certificate.key_fits(certificate.read_key(pair[PRIVKEY]), manifest.leaf)
    except (KeyError, ValueError):
        return False


def require_published(pair: Mapping[str, bytes], manifest: Manifest) -> None:
    """Raise DigestMismatch for the first file that is not the published one."""
    for name in FILES:
        expected, found = manifest.files[name], Digest.of(pair[name])
        if expected != found:
            raise DigestMismatch(
                f"{manifest.certificate}: {name} of sequence {manifest.sequence} is not what was published",
                expected=str(expected),
                found=str(found),
                next=f"run `certcast pull {manifest.certificate}`; if it repeats, "
                f"`certcast renew {manifest.certificate}` on the renewal host",
            )


def require_fit(
    pair: Mapping[str, bytes],
    manifest: Manifest,
    *,
    names: tuple[str, ...],
    trust_roots: Path | None,
    proved: Leaf | None,
    now: datetime,
) -> None:
    """Raise GateRefused, with every reason found, if this host must not serve the pair.

    `names` are those of the configuration, `proved` the leaf that is served now.
    LocalFault if the trust roots cannot be read.
    """
    try:
        chain = certificate.read_chain(pair[FULLCHAIN])
        key = certificate.read_key(pair[PRIVKEY])
        leaf = certificate.describe(chain.leaf)
    except ValueError as error:
        raise _refused(manifest, [f"it cannot be read: {error}"]) from None
    reasons = []
    if leaf != manifest.leaf:
        reasons.append(
            f"fullchain.pem holds leaf {leaf.sha256[:16]}…, the manifest says {manifest.leaf.sha256[:16]}…"
        )
    if not certificate.key_fits(key, leaf):
        reasons.append("privkey.pem is not the key of this certificate")
    if leaf.sha256 in manifest.revoked:
        reasons.append("it is on the list of revoked leaves")
    if proved is not None and leaf.not_before < proved.not_before and not manifest.step_back:
        reasons.append(
            f"issued {utc_text(leaf.not_before)}; the one that is served, {utc_text(proved.not_before)}"
        )
    reasons += certificate.refusals(chain, names, _roots(trust_roots), now)
    if reasons:
        raise _refused(manifest, reasons)


def key_type(pair: Mapping[str, bytes]) -> str | None:
    """Return the type of a pair's key as its leaf says it; None if that cannot be read."""
    try:
        return certificate.key_type(certificate.read_chain(pair[FULLCHAIN]).leaf)
    except (KeyError, ValueError):
        return None


def require_key_type(pair: Mapping[str, bytes], manifest: Manifest, *, proved: str | None) -> None:
    """Raise KeyTypeChanged if the pair's key has another type than `proved` (None: any will do).

    nginx's test accepts an ECDSA pair where ssl_ciphers suit only RSA, and then serves nobody. Old clients
    may know only one type. So a change needs the operator's permission.
    """
    found = key_type(pair)
    if proved is not None and found != proved:
        raise KeyTypeChanged(
            f"{manifest.certificate}: the new key is {found}, the one that is served {proved}",
            expected=f"an {proved} key, or consumer.allow_key_type_change = true",
            found=f"an {found} key in the release of sequence {manifest.sequence}",
            next=f"if it is meant: do nginx's ssl_ciphers allow {found}, and all clients know it? Then set "
            "consumer.allow_key_type_change = true here, and run `certcast pull`\n"
            f"if not: on the renewal host, set key_type of {manifest.certificate}, then run "
            f"`certcast renew --replace {manifest.certificate} --reason superseded`; or with its certbot "
            f"`certbot renew --cert-name {manifest.certificate} --force-renewal --key-type {proved.lower()}`",
        )


def md5_of(pair: Mapping[str, bytes]) -> dict[str, str]:
    """Return the MD5 (hex) of both files, for the comparison that the users asked for."""
    return {name: Digest.of(pair[name]).md5 for name in PAIR}


def require_changed(
    pair: Mapping[str, bytes], manifest: Manifest, proved: ProvedRelease | None, *, allow_reused_key: bool
) -> None:
    """Raise FilesUnchanged if a release other than the proved one brings a file again.

    The users' rule (all files differ, or a person is told), on the two files that nginx reads. A key counts
    as the same also when only its encoding changed. `chain.pem` takes no part: it changes as the CA likes
    (docs/adr/0002).
    """
    if proved is None or proved.leaf.sha256 == manifest.leaf.sha256:
        return
    md5 = md5_of(pair)
    same = {name for name in PAIR if md5[name] == proved.md5[name]}
    if manifest.leaf.public_key_sha256 == proved.leaf.public_key_sha256:
        same.add(PRIVKEY)
    if allow_reused_key:
        same.discard(PRIVKEY)
    if same:
        raise FilesUnchanged(
            f"{manifest.certificate}: the new release brings the same {' and '.join(sorted(same))} as before",
            expected="a new certificate and a new key",
            found=", ".join(f"{name} md5 {md5[name]}" for name in sorted(same)),
            next="renew without --reuse-key, or set consumer.allow_reused_key = true if that is meant"
            if same == {PRIVKEY}
            else f"on the renewal host run `certcast renew {manifest.certificate}`",
        )


def _roots(path: Path | None) -> list[x509.Certificate]:
    try:
        return certificate.trust_roots(path)
    except (OSError, ValueError) as error:
        raise LocalFault(
            "the root certificates cannot be read",
            expected=f"PEM certificates in {path or 'the file that OpenSSL uses'}",
            found=str(error),
            next="set consumer.trust_roots to a PEM file" if path else "install the package ca-certificates",
        ) from None


def _refused(manifest: Manifest, reasons: list[str]) -> GateRefused:
    return GateRefused(
        f"{manifest.certificate}: the release of sequence {manifest.sequence} must not be served here",
        expected="a key that fits, a chain to a trusted root, every configured name, valid now, and newer",
        found="\n".join(reasons),
        next=f"compare [[certificate]] and consumer.trust_roots with the renewal host's, "
        f"there run `certcast renew {manifest.certificate}`",
    )
