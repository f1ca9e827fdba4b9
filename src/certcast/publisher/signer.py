"""What publishing needs besides a certificate: who signs, who may read, what is remembered.

    /etc/certcast/publisher…            the keys (keys/key_files.py); what this host believes in the store is
                                        signed by the working or the spare one, or by store.publishers
    /etc/certcast/hosts                 who gets the private key (hosts/enrolled_hosts.py)
    {state_dir}/publisher/{name}.json   the record of what was published

Of the former key this host's own last words count here, and nothing else, also where store.publishers still
names it. Anyone who can write these files decides which keys this host trusts, or gets every private key:
none may be writable by others.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certcast.host import files, private_files
from certcast.publisher.keys.key_files import former_file, public_file, recovery_file, spare_file
from certcast.release.sealing import Recipient
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import SigningFailed

if TYPE_CHECKING:
    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.release.source import Source


def own_keys(renewal: RenewalConfig) -> tuple[PublicKey, ...]:
    """Return the public halves of the working and the spare key, those that there are. Raises LocalFault."""
    found = [read_public_key(path(renewal.signing_key)) for path in (public_file, spare_file)]
    return tuple(key for key in found if key is not None)


@dataclass(frozen=True)
class Signer:
    """The publisher of a renewal host: `publisher` is its name in manifests, `working` the key that signs."""

    publisher: str
    signing_key: Path
    working: PublicKey
    pinned: tuple[PublicKey, ...]
    recovery: str | None
    hosts_file: Path
    state_dir: Path
    certbot_config_dir: Path
    encryption: str
    former: PublicKey | None = None

    @classmethod
    def of(cls, config: Config, renewal: RenewalConfig, publisher: str) -> Signer:
        """Gather it from the configuration and the files that it names.

        Raises SigningFailed, SecretExposed, LocalFault.
        """
        signing_key = renewal.signing_key
        own = own_keys(renewal)
        if not public_file(signing_key).exists():
            raise _no_key(signing_key)
        if signing_key.exists():  # one that is missing is told when something is to be signed
            private_files.require_private(signing_key, "the publisher's signing key")
        former = read_public_key(former_file(signing_key))
        named = [key for key in config.store.publishers if former is None or key.blob != former.blob]
        return cls(
            publisher=publisher,
            signing_key=signing_key,
            working=own[0],
            pinned=(*own, *named),
            recovery=read_text(recovery_file(signing_key)),
            hosts_file=renewal.hosts_file,
            state_dir=config.state_dir,
            certbot_config_dir=renewal.certbot_config_dir,
            encryption=config.store.encryption,
            former=former,
        )

    def source(self, wanted: CertificateConfig) -> Source:
        """Return where the releases of a certificate lie on this host."""
        from certcast.publisher.chosen_source import source_of

        return source_of(wanted, state_dir=self.state_dir, certbot_config_dir=self.certbot_config_dir)

    @property
    def folder(self) -> Path:
        """Where this publisher remembers what it has published."""
        return self.state_dir / "publisher"

    def recipients(self, certificate: str) -> tuple[Recipient, ...]:
        """Whom the private key of a certificate is sealed to: hosts, groups, and the recovery kit.

        Raises LocalFault or EnrolRefused if the list cannot be read.
        """
        from certcast.publisher.hosts import enrolled_hosts

        hosts = [
            Recipient.of_host(host.name, host.key)
            for host in enrolled_hosts.hosts_for(enrolled_hosts.read_hosts(self.hosts_file), certificate)
        ]
        return (*hosts, *([Recipient.of_kit(self.recovery)] if self.recovery else []))

    def warnings(self) -> list[str]:
        """What is wrong with how this host publishes, and is allowed all the same."""
        if self.recovery is not None:
            return []
        return [
            "there is no recovery kit: if this host is lost, every other host must be set up anew; "
            "`certcast publisher kit` makes one"
        ]


def _no_key(key: Path) -> SigningFailed:
    makes_one = (
        "`certcast publisher init` makes one; if this host replaces a lost one, read "
        "docs/runbook.md#the-renewal-host-burned-down"
    )
    there = key.exists()
    return SigningFailed(
        f"this host has no {'public half of its ' if there else ''}signing key, so it cannot publish",
        expected=f"{key}, and its public half in {public_file(key)}",
        found=f"no {public_file(key)}",
        kept="what is published and served stays",
        next=public_half_command(key) if there else makes_one,
    )


def public_half_command(key: Path) -> str:
    """Return the command that writes the public half of the signing key anew."""
    return f"`(umask 022; ssh-keygen -y -f {key} > {public_file(key)})`"


def read_public_key(path: Path) -> PublicKey | None:
    """Return the key in one of these files, None if there is none. Raises SigningFailed, LocalFault."""
    text = read_text(path)
    if text is None:
        return None
    with files.understood(path, advice=f"restore {path} from a backup"):
        return PublicKey.parse(text)


def read_text(path: Path) -> str | None:
    """Return what stands in one of these files, None if there is none. Raises SigningFailed, LocalFault."""
    with files.reported(f"read {path}", kept="what is published and served stays"):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                _require_not_writable_by_others(path, os.fstat(file.fileno()))
                return file.read().strip()
        except FileNotFoundError:
            return None


def _require_not_writable_by_others(path: Path, status: os.stat_result) -> None:
    if private_files.others_may_write(status):
        raise SigningFailed(
            f"{path} can be written by others, who could put a key of their own there",
            expected="mode 0644 or less, owner root or whoever runs certcast",
            found=f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}",
            kept="what is published and served stays",
            next="compare it with the recovery kit's text and with store.publishers on the hosts, "
            f"then `chown root {path} && chmod go-w {path}`",
        )
