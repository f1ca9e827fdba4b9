"""What administrators make once: the publisher's keys, an identity for each host, the list of enrolled ones.

    keys/publisher · publisher.pub · publisher-spare.pub · publisher-recovery.pub     the publisher
    keys/publisher-spare · recovery.txt        what is in the safe: spare key and age identity
    keys/identity-web1 · identity-web1.pub     one for each host, made when a test first asks for it
    keys/hosts                                 the hosts that get the private key

`ssh-keygen` and `age-keygen` make the keys, so the lab works without certcast's own commands
for it. The demonstration uses those.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


class Trust:
    """Keys in `folder`, made at their first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signing_key = folder / "publisher"
        self.spare_key = folder / "publisher-spare"
        self.recovery_identity = folder / "recovery.txt"
        self.hosts_file = folder / "hosts"

    @property
    def publishers(self) -> list[str]:
        """The two public keys that hosts pin, as lines."""
        return [self._key(self.signing_key), self._key(self.spare_key)]

    def make_publisher(self) -> None:
        """Make what the renewal host has: both keys, the recovery recipient, a list of hosts."""
        assert self.publishers
        if not self.recovery_identity.exists():
            made = _run("age-keygen", "-o", str(self.recovery_identity)).stderr
            recipient = made.partition("Public key: ")[2].strip()
            file = self.folder / "publisher-recovery.pub"
            file.write_text(recipient + "\n")
            file.chmod(0o644)  # under any umask: a file that others may write is refused

    def identity_file(self, host: str) -> Path:
        """Return where the private key of a host is, or will be."""
        return self.folder / f"identity-{host}"

    def identity(self, host: str) -> Path:
        """Return the private key file of a host, made if need be."""
        self._key(self.identity_file(host))
        return self.identity_file(host)

    def public(self, host: str) -> str:
        """Return the public line of a host, without a comment."""
        return " ".join(self._key(self.identity(host)).split()[:2])

    def make_folder(self) -> None:
        """Make the folder, for keys that a test makes itself."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def enrol(self, *hosts: str) -> None:
        """Let hosts get the private key; hosts that are enrolled already stay as they are."""
        text = self.hosts_file.read_text() if self.hosts_file.exists() else ""
        enrolled = {line.split()[0] for line in text.splitlines()}
        new = [f"{host} {self.public(host)}\n" for host in dict.fromkeys(hosts) if host not in enrolled]
        if new:
            self.hosts_file.write_text(text + "".join(new))
            self.hosts_file.chmod(0o644)  # under any umask: a list that others may write is refused

    def signed_by_stranger(self, document: bytes) -> bytes:
        """Return a signature by another key than the publisher's, in the publisher's namespace."""
        stranger = self.identity("stranger")
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", "certcast-manifest", "-f", str(stranger)]
        return subprocess.run(argv, input=document, capture_output=True, check=True).stdout

    def _key(self, path: Path) -> str:
        public = path.with_name(f"{path.name}.pub")
        if not public.exists():
            self.make_folder()
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path))
        return public.read_text().strip()


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True)
