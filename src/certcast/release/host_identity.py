"""The SSH identity of a host: what private keys are sealed to.

    /etc/certcast/identity    Ed25519, OpenSSH format, no passphrase, 0600

Made once, on the host, and never leaves it; the renewal host gets the public line.
The host's own SSH key may serve instead (`identity = "/etc/ssh/ssh_host_ed25519_key"`).
Each poll loads it, so loading reads the file and its public half, no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast.host import files, private_files
from certcast.release.ssh_keys import PublicKey, public_half
from certcast.report.errors import IdentityUnusable

if TYPE_CHECKING:
    from pathlib import Path

# An Ed25519 file has about 400 octets, with a long comment 1 KiB.
LIMIT = 16 * 1024


@dataclass(frozen=True)
class Identity:
    """A private key file as text (`private`), and the public half that it names."""

    path: Path
    private: bytes = field(repr=False)
    public: PublicKey


def load(path: Path) -> Identity:
    """Return the identity in `path`. Raises IdentityUnusable, SecretExposed, LocalFault."""
    try:
        private = private_files.read_private(path, "this host's identity", limit=LIMIT)
    except FileNotFoundError:
        raise IdentityUnusable(
            "this host has no identity yet",
            expected=f"an Ed25519 private key in {path}",
            found="no such file",
            next="`certcast identity` makes one, and prints the command for the renewal host",
        ) from None
    try:
        return Identity(path, private, public_half(private))
    except ValueError as error:
        raise IdentityUnusable(
            f"the identity in {path} cannot be used",
            expected="an Ed25519 private key as `ssh-keygen -t ed25519` writes it, without a passphrase",
            found=str(error),
            next=f"restore {path} from a backup; or move it away, then `certcast identity` makes a new one",
        ) from None


def new_key(comment: str) -> tuple[bytes, PublicKey]:
    """Return a new Ed25519 key: OpenSSH private key file, and its public half with `comment`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, PublicKey(public_half(private).blob, comment)


def make(path: Path, comment: str) -> Identity:
    """Create the identity in `path`, 0600. FileExistsError if something is there; LocalFault."""
    private, public = new_key(comment)
    with files.reported(f"write {path}", kept="this host has no identity yet"):
        files.make_private_dir(path.parent)
    try:
        files.write_new(path, private)
    except FileExistsError:
        raise
    except OSError:
        with files.reported(f"write {path}", kept="this host has no identity yet"):
            path.unlink(missing_ok=True)
            raise
    return Identity(path, private, public)
