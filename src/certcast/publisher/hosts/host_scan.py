"""A host's SSH key, asked of its SSH server: an answer that nobody has vouched for.

An attacker between the two hosts can answer with a key of their own, and would get the private key sealed to
it. So the fingerprint must come from the host by another way: a person types it who has read it there, or a
script gives it that knows it.

`ssh-keyscan` does the talking (OpenSSH; `-t ed25519` asks for this one type).
"""

from __future__ import annotations

import subprocess
import sys

import click

from certcast.config.model import Address
from certcast.host import children
from certcast.release.ssh_keys import PublicKey
from certcast.report import console
from certcast.report.errors import EnrolRefused

# ssh-keyscan waits this long for each connection, in seconds; the whole may take a name server's time more.
PATIENCE = 5
_DEADLINE = 30.0


def scan(address: Address) -> PublicKey:
    """Return the Ed25519 host key that answers at an address. Raises EnrolRefused."""
    argv = ["ssh-keyscan", "-t", "ed25519", "-T", str(PATIENCE), "-p", str(address.port), "--", address.host]
    try:
        done = subprocess.run(
            argv,
            env=children.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DEADLINE,
            check=False,
        )
    except FileNotFoundError:
        raise EnrolRefused(
            "ssh-keyscan is not installed here, so no host can be scanned",
            kept="nobody was enrolled",
            next="`apt-get install openssh-client`; or paste the line that `certcast identity` prints there",
        ) from None
    except subprocess.TimeoutExpired:
        raise _silent(address, f"no end after {_DEADLINE:g} s") from None
    said = done.stderr.decode("utf-8", "replace").strip()
    keys = set()
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        words = line.split(None, 1)  # the name, which we know better
        try:
            keys.add(PublicKey.parse(words[1]).bare)
        except (IndexError, ValueError):
            said = said or line[:200]
    if len(keys) != 1:
        raise _silent(address, said or "no answer, or no key of this type")
    return PublicKey.parse(keys.pop())


def _silent(address: Address, found: str) -> EnrolRefused:
    return EnrolRefused(
        f"no Ed25519 host key came from {address}",
        expected=f"an SSH server that answers within {PATIENCE} s",
        found="".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in found),
        kept="nobody was enrolled",
        next="is the address right, and its SSH port open from here? Or paste the line that "
        "`certcast identity` prints there",
    )


def require_confirmed(address: Address, name: str, key: PublicKey, fingerprint: str | None) -> None:
    """Return if a fingerprint from elsewhere is the scanned key's; it is asked for at a terminal.

    Raises EnrolRefused; click.Abort at Ctrl-C.
    """
    how = "on the host itself, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows it"
    if fingerprint is None:
        if not sys.stdin.isatty():
            raise EnrolRefused(
                f"nobody has confirmed that the key from {address} is {name}'s",
                expected=f"its fingerprint; {how}",
                found=f"{key.fingerprint}, from an unauthenticated scan",
                kept="nobody was enrolled",
                next="run it at a terminal and type the fingerprint; or if it is this one,\n"
                f"`certcast host add {name} --scan {address} --fingerprint {key.fingerprint}`",
            )
        console.hint(f"{address} answers with the Ed25519 key {key.fingerprint}")
        console.hint(f"Anybody in between could have answered. {how[0].upper()}{how[1:]}.")
        fingerprint = click.prompt("Its fingerprint, as you have seen it there", err=True)
    if _plain(fingerprint) != _plain(key.fingerprint):
        raise EnrolRefused(
            f"the key from {address} is not the one that was confirmed",
            expected=fingerprint[:100],
            found=key.fingerprint,
            kept="nobody was enrolled",
            next=f"compare once more; {how}. If they differ, somebody answers in {name}'s place",
        )


def _plain(fingerprint: str) -> str:
    return fingerprint.strip().removeprefix("SHA256:").rstrip("=")
