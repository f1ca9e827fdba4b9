"""`certcast identity`: this host's key, made where there is none, and what to do with it.

The public line alone is on stdout, for scripts; the rest is on stderr:

    $ certcast identity
    ssh-ed25519 AAAAC3Nza… web1
    this host is called web1; its identity is /etc/certcast/identity, made now
    fingerprint  SHA256:…
    on the renewal host, run
      certcast host add web1 "ssh-ed25519 AAAAC3Nza…"

sshd's own host key may serve too; it is shown, and never made or written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun
from certcast.host import files
from certcast.release import host_identity
from certcast.release.ssh_keys import PublicKey
from certcast.report import console
from certcast.report.errors import IdentityUnusable

if TYPE_CHECKING:
    from certcast.config.model import Config
    from certcast.release.host_identity import Identity

_SSHD = Path("/etc/ssh")


@click.command()
@click.pass_context
def identity(context: click.Context) -> int:
    """Show this host's identity, made where there is none, and the command that enrols it."""
    config = CommandRun(context, "identity", attended=True).config
    name = config.enrolled_as
    found, made = _load_or_make(config, name)
    console.document(PublicKey(found.public.blob, name).line)
    console.document("\n".join(_explanation(config, name, found, made=made)), err=True)
    return 0


def _load_or_make(config: Config, name: str) -> tuple[Identity, bool]:
    path = config.identity
    with files.reported(f"look for {path}", kept="nothing was changed"):
        there = path.is_symlink() or path.exists()
    if not there:
        if _SSHD in path.parents or path.name.startswith("ssh_host_"):
            raise IdentityUnusable(
                "this host's SSH server has no such key, and certcast makes none for it",
                expected=f"an Ed25519 private key in {path}",
                found="no such file",
                kept="nothing was changed",
                next="`ssh-keygen -A` makes the keys that sshd lacks; or leave `identity` out of "
                f"{config.path}, and certcast makes a key of its own",
            )
        try:
            return host_identity.make(path, name), True
        except FileExistsError:
            pass  # another run was quicker
    return host_identity.load(path), False


def _explanation(config: Config, name: str, found: Identity, *, made: bool) -> list[str]:
    group = config.consumer is not None and config.consumer.group is not None
    lines = [
        f"this host is called {name}{', as all of its group' if group else ''}; "
        f"its identity is {found.path}{', made now' if made else ''}",
        f"fingerprint  {found.public.fingerprint}",
    ]
    if group and made:
        lines.append("copy this file to every host of the group, or into their image, with mode 0600")
    return [
        *lines,
        "on the renewal host, run",
        f'  certcast host add {"--group " if group else ""}{name} "{found.public.bare}"',
    ]
