"""Take a lineage over from certbot without a new order.

    live version            → {state_dir}/issued/NAME/1-…, key and chain checked
    renewal/NAME.conf       → the ACME directory that issued it
    accounts/…/{id}/        → certbot's account there, unless a new one is wanted: an RSA key (RS256)

certbot's files are read and left as they are. What to switch off there is said. Adopting again changes
nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from certcast.acme.account import Account, key_file, recorded_uri, save, save_key
from certcast.acme.issued import Issued, OrderRecord
from certcast.certbot.lineage import Lineage
from certcast.host import files
from certcast.report.errors import LineageUnusable, SourceUndecided

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from certcast.acme.ca import Ca
    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.release.source import Release

_KEPT = "nothing was taken over; certbot's files are as they were"


def adopt_lineage(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    ca_at: Callable[[str], Ca],
    new_account: bool,
) -> list[str]:
    """Copy the live version and the account; return what a person is told.

    Raises SourceUndecided (the configuration leaves it to certbot), LineageUnusable, LocalFault.
    """
    if wanted.source != "acme":
        raise SourceUndecided(
            f"{wanted.name}: the configuration leaves it to certbot",
            expected='source = "acme", or no `source`',
            found=f'source = "{wanted.source}"',
            kept=_KEPT,
            next=f"take that line out of {config.path}, then run it again",
        )
    lineage = Lineage(renewal.certbot_config_dir, wanted.name)
    if not lineage.exists():
        raise LineageUnusable(
            f"{wanted.name}: certbot has no lineage of this name, so there is nothing to adopt",
            expected=f"{lineage.conf_file}",
            found="no such file",
            kept=_KEPT,
            next="`certbot certificates` lists what it has, and certbot_config_dir in [renewal] says where; "
            f"`certcast renew {wanted.name}` orders a certificate without it",
        )
    live = lineage.live_as_it_is()
    ca = ca_at(live.directory or renewal.directory)
    told = []
    if live.directory is None:
        told.append(f"{lineage.name}: certbot's files don't say which CA issued it; taken to be {ca.url}")
    said, account = _account(lineage, ca, new_account=new_account)
    told.append(said)
    now = ca.clock()
    release = Issued(config.state_dir, wanted.name).add(
        live.fullchain,
        live.privkey,
        OrderRecord(
            directory=ca.url,
            account=account,
            order="",
            names=live.leaf.names,
            key_type=_key_type(live),
            profile=None,
            placed_at=live.leaf.not_before,
            issued_at=now,
        ),
    )
    told.insert(0, f"{wanted.name}: adopted serial {release.leaf.serial} as version {release.version}")
    told.append(
        f"{wanted.name}: now switch certbot's renewal of it off: "
        f"`mv {lineage.conf_file} {lineage.conf_file}.adopted`; its other lineages go on"
    )
    return told


def _account(lineage: Lineage, ca: Ca, *, new_account: bool) -> tuple[str, str]:
    """Return what is told of the account, and its URL; empty where certbot's is not taken over."""
    cost = "the first order makes a new account: the CA then validates each name anew"
    if (uri := recorded_uri(ca.folder)) is not None or key_file(ca.folder).exists():
        return f"this host's own account at {ca.url} is used", uri or ""
    if new_account:
        return f"certbot's account stays certbot's; {cost}", ""
    account = lineage.conf().account
    folder = None if account is None else _account_folder(lineage.config_dir, ca.url, account)
    if folder is None or not folder.is_dir():
        return f"certbot's account at {ca.url} was not found; {cost}", ""
    found = _read_account(folder)
    if found is None:
        return f"certbot's account in {folder} cannot be read; {cost}", ""
    save_key(ca.folder, found.key)
    save(ca, found)
    return f"certbot's account is used from now on: {found.uri}", found.uri


def _account_folder(config_dir: Path, directory_url: str, account: str) -> Path | None:
    """Return where certbot keeps an account: by the directory's URL without its scheme (5.8)."""
    if "/" in account or account in {"", ".", ".."}:
        return None
    place = directory_url.split("://", 1)[1]
    return config_dir / "accounts" / place / account


def _read_account(folder: Path) -> Account | None:
    """Return an account from certbot's private_key.json (a JWK) and regr.json; None if they are not that."""
    import josepy as jose
    from josepy.errors import Error

    jwk, record = folder / "private_key.json", folder / "regr.json"
    if not (jwk.exists() and record.exists()):
        return None
    try:
        with files.reported(f"read {folder}", kept=_KEPT):
            key = jose.JWK.from_json(json.loads(jwk.read_bytes()))
            uri = json.loads(record.read_bytes())["uri"]
    except (ValueError, KeyError, TypeError, Error):
        return None
    private: Any = getattr(key, "key", None)
    # josepy wraps the key so that two may be compared.
    private = getattr(private, "_wrapped", private)
    if not isinstance(uri, str) or not hasattr(private, "private_bytes"):
        return None
    return Account(uri, private)


def _key_type(live: Release) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    from certcast.release import certificate

    key = certificate.read_key(live.privkey)
    if isinstance(key, rsa.RSAPrivateKey):
        return f"rsa{key.key_size}"
    return f"p{key.curve.key_size}" if isinstance(key, ec.EllipticCurvePrivateKey) else "unknown"
