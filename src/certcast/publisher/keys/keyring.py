"""The publisher's key files (key_files.py), in the order in which they may change.

- A first set is complete once the signing key is there. It is written last: a crash before leaves a host that
  cannot sign, and says so.
- When the spare key becomes the working one, it is written first. Hosts trust both keys, so a crash after it
  leaves a publisher that they still believe, and the same kit finishes the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.host import files, private_files
from certcast.publisher.keys.key_files import former_file, public_file, recovery_file, spare_file
from certcast.publisher.signer import read_public_key, read_text
from certcast.release.ssh_keys import PublicKey, public_half
from certcast.report.errors import SigningFailed

if TYPE_CHECKING:
    from pathlib import Path

    from certcast.publisher.keys.recovery_kit import Kit

_LIMIT = 16 * 1024


@dataclass(frozen=True)
class Keyring:
    """What there is: `working` as the signing key itself names it, None where a file is missing."""

    signing_key: Path
    working: PublicKey | None
    published: PublicKey | None
    spare: PublicKey | None
    recovery: str | None

    @property
    def paths(self) -> list[Path]:
        """The files that are there."""
        key = self.signing_key
        found = {
            key: self.working,
            public_file(key): self.published,
            spare_file(key): self.spare,
            recovery_file(key): self.recovery,
        }
        return [path for path, content in found.items() if content is not None]


def read(signing_key: Path) -> Keyring:
    """Look at the files. Raises SigningFailed (damaged, or others may write), SecretExposed, LocalFault."""
    recovery = read_text(recovery_file(signing_key))
    return Keyring(
        signing_key,
        working=_working(signing_key),
        published=read_public_key(public_file(signing_key)),
        spare=read_public_key(spare_file(signing_key)),
        recovery=recovery,
    )


def begin(signing_key: Path, private: bytes, kit: Kit) -> None:
    """Write the first set of files; none is left if that fails. Raises LocalFault."""
    with files.reported(
        f"write {signing_key}", kept="no key was made; a kit of this run is good for nothing"
    ):
        files.make_private_dir(signing_key.parent)
        try:
            _write_kit_halves(signing_key, kit)
            _write_public(signing_key, kit.working)
            files.write_atomically(signing_key, private)
        except BaseException:
            for path in (signing_key, public_file(signing_key), *_kit_files(signing_key)):
                path.unlink(missing_ok=True)
            raise


def exchange(signing_key: Path, former: Kit, kit: Kit) -> None:
    """Make the spare key of `former` the working one, and `kit` the kit in force.

    The old working key is overwritten. Raises LocalFault; the same call again finishes it.
    """
    kept = "hosts believe the old key and the new one; the same command again finishes the exchange"
    with files.reported(f"write {signing_key}", kept=kept):
        files.make_private_dir(signing_key.parent)
        left = read_public_key(public_file(signing_key))
        # Of a key that is gone, store.publishers says whether it is believed: this may be another host. And
        # where the public half is the spare's already, this is a second try.
        if signing_key.exists() and left is not None and left.blob != former.spare.blob:
            files.write_atomically(former_file(signing_key), f"{left.bare} certcast-former\n".encode())
        files.write_atomically(signing_key, former.spare_private)
        _write_public(signing_key, former.spare)
        _write_kit_halves(signing_key, kit)


def replace_kit(signing_key: Path, kit: Kit) -> None:
    """Make `kit` the kit in force. Raises LocalFault."""
    with files.reported(f"write {spare_file(signing_key)}", kept="the working key is what it was"):
        _write_kit_halves(signing_key, kit)


def is_in_force(signing_key: Path, kit: Kit) -> bool:
    """Whether `kit` is the one whose spare key is named here: the last file that is written."""
    try:
        return spare_file(signing_key).read_text(encoding="utf-8").startswith(kit.spare.bare)
    except OSError:
        return False


def _kit_files(signing_key: Path) -> tuple[Path, Path]:
    return spare_file(signing_key), recovery_file(signing_key)


def _write_kit_halves(signing_key: Path, kit: Kit) -> None:
    spare, recovery = _kit_files(signing_key)
    files.write_atomically(recovery, f"{kit.recovery}\n".encode())
    files.write_atomically(spare, f"{kit.spare.bare} certcast-spare\n".encode())


def _write_public(signing_key: Path, key: PublicKey) -> None:
    files.write_atomically(public_file(signing_key), f"{key.bare} certcast-publisher\n".encode())


def _working(path: Path) -> PublicKey | None:
    try:
        private = private_files.read_private(path, "the publisher's signing key", limit=_LIMIT)
        return PublicKey(public_half(private).blob, "certcast-publisher")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SigningFailed(
            f"the signing key in {path} cannot be used",
            expected="an Ed25519 private key as `ssh-keygen -t ed25519` writes it, without a passphrase",
            found=str(error),
            kept="nothing was changed",
            next=f"restore {path} from a backup; if there is none, move it away, and see the runbook: "
            "docs/runbook.md#the-renewal-host-burned-down",
        ) from None
