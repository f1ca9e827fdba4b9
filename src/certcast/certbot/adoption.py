"""Take a lineage over from certbot without a new order.

    live version            → {state_dir}/issued/NAME/1-…, key and chain checked
    renewal/NAME.conf       → the ACME directory that issued it
    accounts/…/{id}/        → certbot's account there, unless a new one is wanted: an RSA key (RS256)

certbot's files stay as they are; the operator is told what to switch off. Adopting again changes nothing.
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

_KEPT = "nothing was taken over; certbot's files are as they were"


def adopt_lineage(
    config: Config,
    renewal: RenewalConfig,
    wanted: CertificateConfig,
    *,
    ca_at: Callable[[str], Ca],
    new_account: bool,
) -> list[str]:
    """Copy the live version and the account; return remarks for the operator.

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
    remarks = []
    if live.directory is None:
        remarks.append(f"{lineage.name}: certbot's files don't say which CA issued it; taken to be {ca.url}")
    remark, account = _adopt_account(lineage, ca, new_account=new_account)
    record = OrderRecord(
        directory=ca.url,
        account=account,
        order="",
        names=live.leaf.names,
        key_type=_key_type(live.privkey),
        profile=None,
        placed_at=live.leaf.not_before,
        issued_at=ca.clock(),
    )
    release = Issued(config.state_dir, wanted.name).add(live.fullchain, live.privkey, record)
    return [
        f"{wanted.name}: adopted serial {release.leaf.serial} as version {release.version}",
        *remarks,
        remark,
        f"{wanted.name}: now switch certbot's renewal of it off: "
        f"`mv {lineage.conf_file} {lineage.conf_file}.adopted`; its other lineages go on",
    ]


def _adopt_account(lineage: Lineage, ca: Ca, *, new_account: bool) -> tuple[str, str]:
    """Return a remark on the account, and its URL; empty where certbot's is not taken over."""
    cost = "the first order makes a new account: the CA then validates each name anew"
    if (uri := recorded_uri(ca.folder)) is not None or key_file(ca.folder).exists():
        return f"this host's own account at {ca.url} is used", uri or ""
    if new_account:
        return f"certbot's account stays certbot's; {cost}", ""
    folder = _account_folder(lineage, ca)
    if folder is None or not folder.is_dir():
        return f"certbot's account at {ca.url} was not found; {cost}", ""
    account = _read_account(folder)
    if account is None:
        return f"certbot's account in {folder} cannot be read; {cost}", ""
    save_key(ca.folder, account.key)
    save(ca, account)
    return f"certbot's account is used from now on: {account.uri}", account.uri


def _account_folder(lineage: Lineage, ca: Ca) -> Path | None:
    """Return where certbot keeps the lineage's account: by the directory's URL without its scheme (5.8)."""
    account = lineage.parameter("account")
    if account is None or "/" in account or account in {"", ".", ".."}:
        return None
    return lineage.config_dir / "accounts" / ca.url.split("://", 1)[1] / account


def _read_account(folder: Path) -> Account | None:
    """Return an account from certbot's private_key.json (a JWK) and regr.json; None if they are not that."""
    import josepy as jose
    from josepy.errors import Error

    jwk, record = folder / "private_key.json", folder / "regr.json"
    if not (jwk.exists() and record.exists()):
        return None
    try:
        with files.reported(f"read {folder}", kept=_KEPT):
            key: Any = jose.JWK.from_json(json.loads(jwk.read_bytes()))
            uri = json.loads(record.read_bytes())["uri"]
    except (ValueError, KeyError, TypeError, Error):
        return None
    # josepy wraps the key so that two may be compared.
    private: Any = getattr(key, "key", None)
    private = getattr(private, "_wrapped", private)
    if not isinstance(uri, str) or not hasattr(private, "private_bytes"):
        return None
    return Account(uri, private)


def _key_type(privkey: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    from certcast.release import certificate

    key = certificate.read_key(privkey)
    if isinstance(key, rsa.RSAPrivateKey):
        return f"rsa{key.key_size}"
    return f"p{key.curve.key_size}" if isinstance(key, ec.EllipticCurvePrivateKey) else "unknown"
