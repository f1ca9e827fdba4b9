"""certbot's files for one certificate, read so that they cannot be torn, and never written.

    {config_dir}/renewal/{name}.conf         how certbot renews it, and at which CA
    {config_dir}/live/{name}/fullchain.pem -> ../../archive/{name}/fullchain7.pem
    {config_dir}/live/{name}/privkey.pem   -> ../../archive/{name}/privkey7.pem

- certbot changes the four live links one by one (certbot 5.8, storage.py), so two links may name different
  versions for a moment, or for ever after a crash. certcast follows one link, takes its version number, and
  reads both files of that version from the archive, which certbot never changes. The key must fit the leaf.
- A lineage that certbot itself could not use is an error with the commands that mend it. Else certbot would
  skip it, or order under another name (example.test-0001) at each run.
- A key that any user of this host may read is published all the same: to refuse would cost the renewal.
  `exposed` gives the alarm.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.release import certificate
from certcast.release.lifetime import utc_text
from certcast.release.source import Known, Release
from certcast.report.errors import LineageUnusable, SecretExposed

if TYPE_CHECKING:
    from datetime import datetime

    from configobj import ConfigObj

_STAYS = "what is published and served stays"
_FULLCHAIN = re.compile(r"fullchain(\d+)\.pem")
KINDS = ("cert", "privkey", "chain", "fullchain")


class Lineage:
    """One lineage of a certbot on this host."""

    def __init__(self, config_dir: Path, name: str) -> None:
        self.name = name
        self.config_dir = config_dir
        self.place = config_dir / "archive" / name
        self._live = config_dir / "live" / name
        self.conf_file = config_dir / "renewal" / f"{name}.conf"

    def exists(self) -> bool:
        """Return whether certbot has this lineage, in whatever state; True also if that may not be seen."""
        for path in (self.conf_file, self._live):
            try:
                path.lstat()
            except PermissionError:
                return True
            except OSError:
                continue
            return True
        return False

    def mark(self) -> str:
        """Return where the live links lead, with the moment and number of each file."""
        links = [self._live / "fullchain.pem", self._live / "privkey.pem"]
        parts = [f"{link.resolve().name} {_stamp(link)}" for link in links]
        return "; ".join([*parts, _stamp(self.conf_file)])

    def live(self) -> Release:
        """Return the live version of a lineage that certbot can use. Raises LineageUnusable."""
        self.require_usable()
        return self.live_as_it_is()

    def live_as_it_is(self) -> Release:
        """Return the live version, also where certbot could not renew it. Raises LineageUnusable."""
        link = self._live / "fullchain.pem"
        try:
            target = link.resolve(strict=True)
            match = _FULLCHAIN.fullmatch(target.name)
            if match is None:
                raise self._unusable(
                    f"{link} does not lead to a version in certbot's archive",
                    expected=f"a link to {self.place}/fullchainN.pem",
                    found=str(target),
                )
            fullchain = target.read_bytes()
            privkey = (target.parent / f"privkey{int(match[1])}.pem").read_bytes()
        except OSError as error:
            raise LineageUnusable(
                f"{self.name}: certbot's files cannot be read",
                found=f"{error.filename}: {error.strerror}",
                next=f"run as root, or see whether `ls -lL {self._live}` lists four files",
            ) from None
        return self._release(int(match[1]), fullchain, privkey)

    def all(self) -> list[Known]:
        """Return all versions in certbot's archive, the latest first; one that is no certificate is left out.

        Raises LocalFault if a file cannot be read.
        """
        matches = [_FULLCHAIN.fullmatch(path.name) for path in self.place.glob("fullchain*.pem")]
        server = self.parameter("server")
        known = []
        for number, file in sorted(((int(match[1]), match[0]) for match in matches if match), reverse=True):
            path = self.place / file
            with files.reported(f"read {path}", kept=_STAYS):
                fullchain = path.read_bytes()
            try:
                leaf = certificate.describe(certificate.read_chain(fullchain).leaf)
            except ValueError:
                continue  # certbot keeps no damaged version on purpose, and no host can serve it
            known.append(Known(str(number), fullchain, leaf, server))
        return known

    def find(self, leaf_sha256: str) -> Release | None:
        """Return the version in certbot's archive with this leaf, or None if it, or its key, is not there.

        Raises LineageUnusable if the key is another one, LocalFault.
        """
        for known in self.all():
            path = self.place / f"privkey{known.version}.pem"
            if known.leaf.sha256 == leaf_sha256 and path.exists():
                with files.reported(f"read {path}", kept=_STAYS):
                    return self._release(int(known.version), known.fullchain, path.read_bytes())
        return None

    def _release(self, version: int, fullchain: bytes, privkey: bytes) -> Release:
        try:
            leaf = certificate.describe_pair(fullchain, privkey)
        except ValueError as error:
            raise LineageUnusable(
                f"{self.name}: version {version} in certbot's archive is not a certificate and its key",
                found=str(error),
                next=f"run `certbot renew --cert-name {self.name} --force-renewal`, then `certcast renew "
                f"{self.name}`; if certbot cannot read it either, `certbot delete --cert-name {self.name}` "
                "first",
            ) from None
        return Release(self.name, str(version), fullchain, privkey, leaf, self.parameter("server"))

    # -- what certbot needs

    def parameter(self, name: str) -> str | None:
        """Return a text of [renewalparams]: `server` is the ACME directory, `account` certbot's id of it.

        None if there is no such text, or renewal/{name}.conf cannot be read.
        """
        from configobj import ConfigObjError

        try:
            value = self._read_conf()["renewalparams"].get(name)
        except (OSError, KeyError, ConfigObjError, UnicodeDecodeError, AttributeError):
            return None
        return value if isinstance(value, str) else None

    def _read_conf(self) -> ConfigObj:
        from configobj import ConfigObj  # certbot's own reader of these files

        return ConfigObj(str(self.conf_file), file_error=True, encoding="utf-8")

    def require_usable(self) -> None:
        """Raise LineageUnusable unless certbot itself could renew the lineage.

        The checks of certbot 5.8, storage.py: RenewableCert's constructor, and _check_symlinks.
        """
        conf = self._conf_or_error()
        missing = [kind for kind in KINDS if not isinstance(conf.get(kind), str)]
        if missing or "renewalparams" not in conf:
            raise self._unusable(
                f"{self.conf_file} is not complete",
                expected="cert, privkey, chain, fullchain and [renewalparams]",
                found=f"no {', '.join(missing or ['[renewalparams]'])}",
            )
        archive = Path(str(conf.get("archive_dir") or self.place))
        for kind in KINDS:
            self._require_link(Path(conf[kind]), archive)
        if Path(conf["fullchain"]) != self._live / "fullchain.pem":
            raise self._unusable(
                f"{self.conf_file} names another folder",
                expected=f"fullchain = {self._live / 'fullchain.pem'}",
                found=f"fullchain = {conf['fullchain']}",
            )

    def _conf_or_error(self) -> ConfigObj:
        from configobj import ConfigObjError

        try:
            return self._read_conf()
        except OSError as error:
            if self.exists():
                reason = str(error.strerror or "no such file")
                raise self._unusable(f"{self.conf_file} cannot be read", found=reason) from None
            raise LineageUnusable(
                f"{self.name}: certbot has no such lineage yet",
                expected=f"{self.conf_file}",
                found=str(error.strerror or error),
                next="let certbot issue it, with the three hooks as the README shows",
            ) from None
        except (ConfigObjError, UnicodeDecodeError) as error:
            raise self._unusable(f"{self.conf_file} cannot be understood", found=str(error)) from None

    def _require_link(self, link: Path, archive: Path) -> None:
        try:
            status = link.lstat()
            if not link.is_symlink():
                raise self._unusable(
                    f"{link} is a file", expected=f"a link into {archive}", found=f"{status.st_size} octets"
                )
            target = link.parent / link.readlink()
            size = target.stat().st_size
        except OSError as error:
            raise self._unusable(
                "certbot's files are not complete",
                expected="cert.pem, privkey.pem, chain.pem and fullchain.pem, all leading to files",
                found=f"{link}: {error.strerror}",
            ) from None
        if target.parent.resolve() != archive.resolve() or not size:
            raise self._unusable(
                f"{link} does not lead to a version in certbot's archive",
                expected=f"a link to a file in {archive}",
                found=f"{target}, {size} octets",
            )

    def _unusable(self, what: str, *, expected: str | None = None, found: str) -> LineageUnusable:
        return LineageUnusable(
            f"{self.name}: {what}; certbot would not renew it",
            expected=expected,
            found=found,
            # Not `certbot delete`: that one needs the conf to be well (5.8, storage.py, delete_files).
            next=f"restore {self.conf_file} and {self._live} from a backup (`cp -a`: with their links); "
            f"without one, `cd {shlex.quote(str(self.config_dir))}; for one in renewal/{self.name}.conf "
            f"live/{self.name} archive/{self.name}; do mv $one $one.broken; done`, then `certbot certonly "
            f"--cert-name {self.name}` with the hooks; `certbot renew --cert-name {self.name} --dry-run` "
            "shows whether it is well again",
        )

    def exposed(self) -> SecretExposed | None:
        """Return the alarm about private keys in certbot's archive that any user may read, or None.

        Old versions of certbot made keys 0644, and such a mode stays (5.8, compat/filesystem.py,
        compute_private_key_mode). In the folder `archive`, which certbot makes 0700, it opens nothing. The
        group's bits raise no alarm: administrators set them for other daemons, and certbot keeps them.
        """
        folder = self.place
        try:
            if any(not path.stat().st_mode & 0o001 for path in (folder.parent, folder)):
                return None
            modes = {path: path.stat().st_mode & 0o777 for path in sorted(folder.glob("privkey*.pem"))}
        except OSError:
            return None  # `live` says why
        readable = [path for path, mode in modes.items() if mode & 0o007]
        if not readable:
            return None
        paths = " ".join(shlex.quote(str(path)) for path in readable)
        return SecretExposed(
            f"{self.name}: any user of this host may read the private key",
            expected="mode 0600, or 0640 for a group of your choice",
            found="\n".join(f"{path}: mode {modes[path]:04o}" for path in readable),
            kept="what was published stays published",
            next=f"`chmod o= {paths}`; if somebody else works "
            "on this host, exchange the key, too: "
            f"`certcast renew --replace {self.name} --reason keyCompromise`",
        )


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_ino} {status.st_size}"


def require_fresh(live: Release, now: datetime) -> None:
    """Raise LineageUnusable unless the certificate is inside its life and before its renewal window.

    A deploy hook may expect that. A number of days (the 89 of older scripts) is wrong for a shorter life.
    """
    life = live.leaf.life
    if life.not_before <= now < life.window_start:
        return
    raise LineageUnusable(
        f"{live.name}: certbot says it renewed, but its certificate is not a fresh one",
        expected=f"now between {utc_text(life.not_before)} and {utc_text(life.window_start)}",
        found=f"valid until {utc_text(life.not_after)}, serial {live.leaf.serial}",
        next=f"run `certcast renew {live.name}` and read what certbot says",
    )
