"""The account at a CA (RFC 8555, 7.3): found where there is one, made where there is none.

    account.json and account.key   → used; the CA is not asked
    account.key alone              → found again by the key (onlyReturnExisting, 7.3.1), else made with it
    no account.key                 → a new key, on disk before the CA sees it; then newAccount

The key is ECDSA P-256 (ES256), or RSA (RS256) where the account was adopted from certbot. A lost key costs
the account and nothing else: each certificate can be revoked by its own key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime  # the documents' converter looks it up
from typing import TYPE_CHECKING, Any

from certcast.acme.pending import new_key
from certcast.host import files, private_files
from certcast.release import certificate, documents
from certcast.report.errors import AccountUnusable, LocalFault

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from certcast.acme.ca import Ca
    from certcast.acme.protocol.network import Network
    from certcast.config.model import ExternalAccount, RenewalConfig

_KEPT = "nothing was ordered; what is published and served stays"


@dataclass(frozen=True)
class Account:
    """An account: its URL, which signed requests name as `kid`, and its key."""

    uri: str
    key: PrivateKeyTypes = field(repr=False)


@dataclass(frozen=True)
class AccountRecord:
    """account.json: the URL of the account at the CA `directory`."""

    directory: str
    uri: str
    recorded_at: datetime


def key_file(folder: Path) -> Path:
    """Where the account's private key lies, PEM, 0600."""
    return folder / "account.key"


def recorded_uri(folder: Path) -> str | None:
    """Return the account's URL as it is written down, for `certcast check`; None without one. LocalFault."""
    record = documents.read(folder / "account.json", AccountRecord)
    return None if record is None else record.uri


def open_account(ca: Ca, renewal: RenewalConfig) -> Account:
    """Return the account at `ca`; without a record of it, ask the CA for it or make it.

    Raises AccountUnusable (terms not agreed to, no external account), SecretExposed, LocalFault, and
    Problem, NoAnswer and ValueError of the CA.
    """
    key = read_key(ca.folder)
    uri = recorded_uri(ca.folder)
    if key is not None and uri is not None:
        return Account(uri, key)
    if key is None:
        if uri is not None:
            ca.note(
                f"the key of account {uri} is lost: a new account is made; certificates of the old one can "
                "still be revoked by their own keys"
            )
        _require_agreement(ca, renewal)
        key = certificate.read_key(new_key("p256"))
        save_key(ca.folder, key)
    else:
        uri = _find_by_key(ca, key)
        if uri is not None:
            return save(ca, Account(uri, key))
        _require_agreement(ca, renewal)
    return save(ca, Account(_register(ca, renewal, key), key))


def save(ca: Ca, account: Account) -> Account:
    """Write the account's record; its key lies there already. LocalFault."""
    path = ca.folder / "account.json"
    with files.reported(f"write {path}", kept=_KEPT):
        documents.write(path, AccountRecord(ca.url, account.uri, ca.clock()))
    return account


def drop_record(folder: Path) -> None:
    """Forget the account's URL; its key stays, by which it is looked for. LocalFault."""
    path = folder / "account.json"
    with files.reported(f"remove {path}", kept=_KEPT):
        path.unlink(missing_ok=True)


def _find_by_key(ca: Ca, key: PrivateKeyTypes) -> str | None:
    """Return the URL of the account that has this key at the CA; None if there is none."""
    from acme import messages

    from certcast.acme.protocol.answers import Problem
    from certcast.acme.protocol.resources import read_location

    registration = messages.NewRegistration(only_return_existing=True)
    try:
        answer = ca.network(signed_by=key).post(ca.directory["newAccount"], registration)
    except Problem as problem:
        if problem.type == "accountDoesNotExist":
            return None
        raise
    return read_location(answer, "newAccount")


def _register(ca: Ca, renewal: RenewalConfig, key: PrivateKeyTypes) -> str:
    from acme import messages

    from certcast.acme.protocol.resources import read_location

    network = ca.network(signed_by=key)
    registration = messages.NewRegistration(
        contact=(f"mailto:{renewal.email}",) if renewal.email else (),
        terms_of_service_agreed=renewal.terms_of_service_agreed or None,
        external_account_binding=_binding(ca, renewal.external_account, network),
    )
    uri = read_location(network.post(ca.directory["newAccount"], registration), "newAccount")
    ca.note(f"a new account was made at {ca.url}: {uri}")
    return uri


def _require_agreement(ca: Ca, renewal: RenewalConfig) -> None:
    """Raise AccountUnusable, before the CA is asked, if the configuration lacks what a new account needs."""
    terms = ca.meta.get("termsOfService")
    if terms and not renewal.terms_of_service_agreed:
        raise AccountUnusable(
            "there is no account at the CA yet, and its terms of service are not agreed to",
            expected="terms_of_service_agreed = true in [renewal]",
            found=f"the terms: {terms}",
            kept=_KEPT,
            next="read them, add that line, then run `certcast renew`",
        )
    if ca.meta.get("externalAccountRequired") is True and renewal.external_account is None:
        raise AccountUnusable(
            "the CA makes an account for its customers only (external account binding)",
            expected="[renewal.external_account] with key_id and hmac_key_file, as the CA shows them",
            found="none",
            kept=_KEPT,
            next="get both from the CA, add the table, then run `certcast renew`",
        )


def _binding(ca: Ca, external: ExternalAccount | None, network: Network) -> dict[str, Any] | None:
    """Return the externalAccountBinding field (RFC 8555, 7.3.4). Raises AccountUnusable."""
    if external is None:
        return None
    from acme import messages

    from certcast.report import redaction

    path = external.hmac_key_file
    try:
        secret = private_files.read_private(path, "the external account's MAC key").decode("ascii").strip()
        redaction.remember(secret)
        # The library skips what isn't base64url, and would sign with another key.
        if not re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", secret):
            raise ValueError("characters that base64url does not have, or none at all")
        assert network.key is not None
        binding: dict[str, Any] = messages.ExternalAccountBinding.from_data(
            account_public_key=network.key.public_key(),
            kid=external.key_id,
            hmac_key=secret.rstrip("="),
            directory=messages.Directory(ca.directory),
        )
    except (FileNotFoundError, ValueError) as error:
        raise AccountUnusable(
            f"{path} does not hold a MAC key for the external account",
            expected="base64url, as the CA shows it",
            found="no such file" if isinstance(error, FileNotFoundError) else str(error)[:100],
            kept=_KEPT,
            next=f"`install -m 600 /dev/null {path} && editor {path}` and copy the key from the CA into it, "
            "then run `certcast renew`",
        ) from None
    return binding


# -- the key


def save_key(folder: Path, key: PrivateKeyTypes) -> None:
    """Write the account's private key, durably, before the CA sees it. LocalFault."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = key_file(folder)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with files.reported(f"write {path}", kept=_KEPT):
        files.make_private_dir(folder)
        files.write_atomically(path, pem)


def read_key(folder: Path) -> PrivateKeyTypes | None:
    """Return the account's private key, None without one. SecretExposed; LocalFault if it is damaged."""
    path = key_file(folder)
    try:
        return certificate.read_key(private_files.read_private(path, "the ACME account's key"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LocalFault(
            f"{path} is not a private key",
            found=str(error)[:200],
            kept=_KEPT,
            next=f"restore {path} from a backup; or `mv {path} {path}.damaged`: then a new account is made",
        ) from None
