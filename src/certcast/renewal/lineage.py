"""certbot's files for one certificate, read so that they cannot be torn.

    {config_dir}/live/{name}/fullchain.pem -> ../../archive/{name}/fullchain7.pem
    {config_dir}/live/{name}/privkey.pem   -> ../../archive/{name}/privkey7.pem

certbot changes the four live links one by one (certbot 5.8, storage.py), so the
two that matter may name different versions for a moment, or for ever after a
crash. We follow one link, take its version number, and read both files of that
version from the archive, which certbot never changes. The key must fit the leaf.

A key that any user of this host may read is published all the same, since to refuse would cost
the renewal; `exposed` gives the alarm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast import certificate, files
from certcast.errors import LineageUnusable, SecretExposed
from certcast.lifetime import remaining_text, utc_text

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from certcast.certificate import Leaf


@dataclass(frozen=True)
class Lineage:
    """One version of a lineage: its files as they are, and the facts of its leaf."""

    name: str
    version: int
    fullchain: bytes = field(repr=False)
    privkey: bytes = field(repr=False)
    leaf: Leaf

    def text(self, now: datetime) -> str:
        """What a person is told of it."""
        return f"serial {self.leaf.serial}, valid for {remaining_text(self.leaf.not_after, now)} more"


@dataclass(frozen=True)
class Archived:
    """One version in certbot's archive, as far as it is public."""

    version: int
    fullchain: bytes
    leaf: Leaf


def exists(config_dir: Path, name: str) -> bool:
    """Return whether certbot has ever finished issuing this certificate, or True if that may not be seen."""
    try:
        (config_dir / "renewal" / f"{name}.conf").stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def require_complete(config_dir: Path, name: str) -> None:
    """Raise LineageUnusable unless the four live links of a lineage lead to files.

    certbot (5.8, storage.py, RenewableCert._check_symlinks) skips a lineage that lacks one, and
    orders under another name (example.test-0001) each time it is asked: nobody would publish that.
    """
    for kind in ("cert", "privkey", "chain", "fullchain"):
        link = config_dir / "live" / name / f"{kind}.pem"
        try:
            link.stat()
        except OSError as error:
            raise LineageUnusable(
                f"{name}: certbot's files are not complete, so nothing is ordered",
                expected="cert.pem, privkey.pem, chain.pem and fullchain.pem, all leading to files",
                found=f"{link}: {error.strerror}",
                kept="what is published and served stays",
                next=f"run as root, or restore {config_dir} from a backup; without one, `certbot delete "
                f"--cert-name {name}`, then `certcast renew {name}` orders a new certificate",
            ) from None


def authenticator(config_dir: Path, name: str) -> str | None:
    """Return the plugin that renews the lineage (`manual` where hooks do), None if certbot has no such one.

    certbot writes it into renewal/{name}.conf, [renewalparams].
    """
    from configobj import ConfigObj, ConfigObjError  # certbot's own reader of these files

    path = config_dir / "renewal" / f"{name}.conf"
    try:
        found = ConfigObj(str(path), file_error=True, encoding="utf-8")["renewalparams"]["authenticator"]
    except (OSError, KeyError, ConfigObjError, UnicodeDecodeError):
        return None  # certbot itself will say what is wrong with it
    return str(found)


def read(config_dir: Path, name: str) -> Lineage:
    """Return the live version of a lineage. Raises LineageUnusable."""
    live = config_dir / "live" / name / "fullchain.pem"
    try:
        target = live.resolve(strict=True)
        match = re.fullmatch(r"fullchain(\d+)\.pem", target.name)
        if match is None:
            raise LineageUnusable(
                f"{name}: {live} does not lead to a version in certbot's archive",
                expected=f"a link to {config_dir}/archive/{name}/fullchainN.pem",
                found=str(target),
                kept="nothing was published",
                next="run `certbot certificates`, which checks its own links",
            )
        version = int(match[1])
        fullchain = target.read_bytes()
        privkey = (target.parent / f"privkey{version}.pem").read_bytes()
    except OSError as error:
        raise LineageUnusable(
            f"{name}: certbot's files cannot be read",
            found=f"{error.filename}: {error.strerror}",
            kept="nothing was published",
            next=f"run as root, or see whether `ls -lL {live.parent}` lists four files",
        ) from None
    leaf = _checked(name, version, fullchain, privkey)
    return Lineage(name, version, fullchain, privkey, leaf)


def archived(config_dir: Path, name: str) -> list[Archived]:
    """Return all versions in certbot's archive, the latest first; one that is no certificate is left out.

    Raises LocalFault if a file cannot be read.
    """
    found = []
    for path in (config_dir / "archive" / name).glob("fullchain*.pem"):
        match = re.fullmatch(r"fullchain(\d+)\.pem", path.name)
        if match is None:
            continue
        with files.reported(f"read {path}", kept="what is published and served stays"):
            fullchain = path.read_bytes()
        try:
            leaf = certificate.describe(certificate.read_chain(fullchain).leaf)
        except ValueError:
            continue  # certbot keeps no damaged version on purpose, and nobody can serve it
        found.append(Archived(int(match[1]), fullchain, leaf))
    return sorted(found, key=lambda one: one.version, reverse=True)


def in_archive(config_dir: Path, name: str, leaf_sha256: str) -> Lineage | None:
    """Return the version in certbot's archive that has this leaf, or None if it, or its key, is not there.

    Raises LineageUnusable if the key is another one, LocalFault.
    """
    for one in archived(config_dir, name):
        path = config_dir / "archive" / name / f"privkey{one.version}.pem"
        if one.leaf.sha256 != leaf_sha256 or not path.exists():
            continue
        with files.reported(f"read {path}", kept="what is published and served stays"):
            privkey = path.read_bytes()
        leaf = _checked(name, one.version, one.fullchain, privkey)
        return Lineage(name, one.version, one.fullchain, privkey, leaf)
    return None


def exposed(config_dir: Path, name: str) -> SecretExposed | None:
    """Return what to tell of private keys in certbot's archive that any user of this host may read, or None.

    certbot makes the folder `archive` 0700, and then the mode of a file in it opens nothing: old versions of
    certbot made keys 0644, and such a mode stays (5.8, compat/filesystem.py, compute_private_key_mode). The
    group's bits are let through: administrators set them for other daemons, and certbot means to keep them.
    """
    import shlex

    folder = config_dir / "archive" / name
    try:
        closed = any(not one.stat().st_mode & 0o001 for one in (folder.parent, folder))
        modes = {path: path.stat().st_mode & 0o777 for path in sorted(folder.glob("privkey*.pem"))}
    except OSError:
        return None  # `read` says what is the matter
    if closed:
        return None
    readable = [path for path, mode in modes.items() if mode & 0o007]
    if not readable:
        return None
    return SecretExposed(
        f"{name}: any user of this host may read the private key",
        expected="mode 0600, or 0640 for a group of your choice",
        found="\n".join(f"{path}: mode {modes[path]:04o}" for path in readable),
        kept="what was published stays published",
        next=f"`chmod o= {' '.join(shlex.quote(str(path)) for path in readable)}`; if somebody else works on "
        f"this host, exchange the key, too: `certcast renew --replace {name} --reason keyCompromise`",
    )


def _checked(name: str, version: int, fullchain: bytes, privkey: bytes) -> Leaf:
    try:
        leaf = certificate.describe(certificate.read_chain(fullchain).leaf)
        key = certificate.read_key(privkey)
    except ValueError as error:
        raise LineageUnusable(
            f"{name}: version {version} in certbot's archive is not a certificate and its key",
            found=str(error),
            kept="nothing was published",
            next=_another(name),
        ) from None
    if not certificate.key_fits(key, leaf):
        raise LineageUnusable(
            f"{name}: the private key of version {version} does not belong to its certificate",
            expected=f"the key of serial {leaf.serial}",
            found="another key",
            kept="nothing was published",
            next=_another(name),
        )
    return leaf


def _another(name: str) -> str:
    return (
        f"run `certbot renew --cert-name {name} --force-renewal`, then `certcast renew {name}`; "
        f"if certbot cannot read it either, `certbot delete --cert-name {name}` first"
    )


def require_fresh(lineage: Lineage, now: datetime) -> None:
    """Raise LineageUnusable unless the certificate was just issued, as a deploy hook may expect.

    Fresh is: inside its life and before its renewal window. A number of days
    (the 89 of older scripts) is wrong for every shorter life.
    """
    life = lineage.leaf.life
    if life.not_before <= now < life.window_start:
        return
    raise LineageUnusable(
        f"{lineage.name}: certbot says it renewed, but its certificate is not a fresh one",
        expected=f"now between {utc_text(life.not_before)} and {utc_text(life.window_start)}",
        found=f"valid until {utc_text(life.not_after)}, serial {lineage.leaf.serial}",
        kept="nothing was published",
        next=f"run `certcast renew {lineage.name}` and read what certbot says",
    )
