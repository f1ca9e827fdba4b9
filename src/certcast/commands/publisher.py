"""`certcast publisher`: the key that signs, and the recovery kit that replaces it.

    init      once, on the renewal host: signing key, spare key, kit
    show      what hosts must be told of it
    kit       a new kit, when one was lost or seen
    rotate    the spare key of the kit becomes the working one: the old key is lost, stolen or old

A command that makes a kit hands it out first (stdout, or --kit FILE) and changes this host after: a kit that
was lost on its way is the one loss that cannot be made up for. Where the kit goes to stdout, nothing else
does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun
from certcast.host import files
from certcast.report import console
from certcast.report.errors import KitRefused, SigningFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, TypeVar

    from certcast.config.model import Config
    from certcast.publisher.keys.keyring import Keyring
    from certcast.publisher.keys.recovery_kit import Kit
    from certcast.release.ssh_keys import PublicKey

    F = TypeVar("F", bound=Callable[..., Any])

_BURNED_DOWN = "docs/runbook.md#the-renewal-host-burned-down"

_passphrase_file = click.option(
    "--passphrase-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the kit's passphrase from FILE (mode 0600) instead of asking for it.",
)


def _kit_option(name: str) -> Callable[[F], F]:
    return click.option(
        name,
        "new_kit",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Write the new kit to FILE, which must not exist yet, instead of stdout.",
    )


@click.group()
def publisher() -> None:
    """Make, show and replace the key that signs manifests, and its recovery kit."""


@publisher.command()
@_kit_option("--kit")
@_passphrase_file
@click.pass_context
def init(context: click.Context, new_kit: Path | None, passphrase_file: Path | None) -> None:
    """Make the signing key, the spare key and the recovery kit, once, on the renewal host."""
    from certcast.publisher.keys import keyring, kit_handover, recovery_kit
    from certcast.release.host_identity import new_key

    config, signing_key = _config(context)
    with _alone(config):
        _require_nothing(keyring.read(signing_key))
        kit_handover.require_free(new_kit)
        words = kit_handover.new_passphrase(passphrase_file)
        private, working = new_key("")
        made = recovery_kit.make(config.store.url, working)
        with kit_handover.hand_out(made, words, new_kit, signing_key):
            keyring.begin(signing_key, private, made)
    _tell(new_kit, f"signing key {working.fingerprint} in {signing_key}")
    _hint(
        "The kit goes into the safe, on paper or on a stick, and its passphrase elsewhere. It is nowhere",
        "else: whoever loses both this host and the kit has to set up every host anew.",
        "",
        "In [store] on every host:",
        "",
        _publishers_line([working, made.spare]),
    )


@publisher.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show what hosts must be told: the keys to pin, also as `ssh-keygen -Y verify` wants them.

    For new hosts also the sequence that each certificate has reached.
    """
    from certcast.publisher.keys import keyring
    from certcast.publisher.keys.key_files import recovery_file
    from certcast.publisher.keys.recovery_kit import allowed_signers

    config, signing_key = _config(context)
    ring = keyring.read(signing_key)
    working = _require_working(ring)
    keys = [working, *([ring.spare] if ring.spare else [])]
    spare = "none"
    if ring.spare is not None:
        spare = f"{ring.spare.fingerprint}  private half: in the recovery kit only"
    if ring.recovery is None:
        recovery = "none: `certcast publisher kit` makes one"
    else:
        recovery = f"opens what is sealed to {ring.recovery}  {recovery_file(signing_key)}"
    console.document(
        f"working key   {working.fingerprint}  {signing_key}\n"
        f"spare key     {spare}\n"
        f"recovery kit  {recovery}\n"
        f"\n# in [store] on every host\n{_publishers_line(keys)}"
    )
    if lines := _at_least_lines(config):
        console.document(f"\n# in its [[certificate]] on a new host: nothing older is taken there\n{lines}")
    console.document(f"\n# allowed signers, for ssh-keygen -Y verify\n{allowed_signers(keys)}")
    if ring.published is None or ring.published.blob != working.blob:
        _hint(
            "",
            f"warning: {signing_key}.pub is not the public half of {signing_key}, and should be:",
            f"ssh-keygen -y -f {signing_key} > {signing_key}.pub",
        )
    pinned = {key.blob for key in config.store.publishers}
    if pinned and not pinned & {key.blob for key in keys}:
        _hint("", f"warning: store.publishers in {config.path} names neither of these keys")


@publisher.command("kit")
@_kit_option("--kit")
@_passphrase_file
@click.option("--replace", is_flag=True, help="Don't ask whether the kit in force shall be replaced.")
@click.pass_context
def kit_command(
    context: click.Context, new_kit: Path | None, passphrase_file: Path | None, replace: bool
) -> None:
    """Make a new recovery kit: a lost one cannot be printed again, its secrets are nowhere else."""
    from certcast.publisher.keys import keyring, kit_handover, recovery_kit

    config, signing_key = _config(context)
    with _alone(config):
        ring = keyring.read(signing_key)
        working = _require_working(ring)
        kit_handover.require_free(new_kit)
        if ring.spare and not replace:
            _confirm()
        words = kit_handover.new_passphrase(passphrase_file)
        made = recovery_kit.make(config.store.url, working)
        with kit_handover.hand_out(made, words, new_kit, signing_key):
            keyring.replace_kit(signing_key, made)
    _tell(new_kit, f"spare key {made.spare.fingerprint}, in the new recovery kit only")
    _steps(
        "`certcast renew` seals what is published to the new kit.",
        _in_store([working, made.spare]),
        "Only then destroy the old kit: until a host has this line, it trusts the old spare key.",
    )


@publisher.command()
@click.option(
    "--kit",
    "kit_file",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="The encrypted recovery kit whose spare key becomes the working one.",
)
@_kit_option("--new-kit")
@_passphrase_file
@click.pass_context
def rotate(
    context: click.Context, kit_file: Path, new_kit: Path | None, passphrase_file: Path | None
) -> None:
    """Put the kit's spare key into service: the working key was lost, or stolen, or is old.

    Hosts trust the spare key already, so nothing has to be changed on them for it. A new spare key and a new
    kit are made; the new kit has the passphrase of the old one. On a new machine this is all that it needs of
    a renewal host that is gone.
    """
    from certcast.publisher.keys import keyring, kit_handover, recovery_kit

    config, signing_key = _config(context)
    with _alone(config):
        ring = keyring.read(signing_key)
        armored = kit_handover.read_text(kit_file)
        kit_handover.require_free(new_kit)
        words = kit_handover.known_passphrase(passphrase_file)
        former = kit_handover.open_kit(kit_file, armored, words)
        kit_handover.require_in_force(former, ring, config, kit_file)
        made = recovery_kit.make(config.store.url, former.spare)
        with kit_handover.hand_out(made, words, new_kit, signing_key):
            keyring.exchange(signing_key, former, made)
    _tell(new_kit, f"signing key {former.spare.fingerprint} in {signing_key}, until now the spare one")
    if ring.working is None:
        _tell_new_machine(config, former, made)
    else:
        _tell_rotated(former, made)


def _tell_rotated(former: Kit, made: Kit) -> None:
    _steps(
        "`certcast renew` signs what is published with this key.",
        _in_store([former.spare, made.spare])
        + "\n\n   at once if the old key was stolen, since until then a host trusts it too; else before the "
        "next `rotate`",
        "Only then destroy the old kit. The new one has the same passphrase.",
    )


def _tell_new_machine(config: Config, former: Kit, made: Kit) -> None:
    pins = [former.working, former.spare, made.spare]
    _steps(
        f"In [store] in {config.path}, so that what the lost host signed is believed here:\n\n"
        + _publishers_line(pins)
        + "\n",
        f"Put the list of hosts back ({config.renewal.hosts_file if config.renewal else ''}), or enrol them "
        "again: `certcast host add`.",
        f"`certcast renew` gets a new certificate. All of it stands in {_BURNED_DOWN}",
        _in_store([former.spare, made.spare])
        + "\n\n   soon: the new kit's spare key is worth nothing before",
        "Only then destroy the old kit. The new one has the same passphrase.",
    )


# -- what must be so before anything is made


def _config(context: click.Context) -> tuple[Config, Path]:
    """Return the configuration, and where the signing key is."""
    doing = f"publisher {context.info_name}"
    run = CommandRun(context, doing, role="renewal", attended=True, changes=True)
    return run.config, run.renewal.signing_key


def _alone(config: Config) -> AbstractContextManager[None]:
    return files.lock(config.state_dir / "publisher" / "keys.lock")


def _require_nothing(ring: Keyring) -> None:
    if not ring.paths:
        return
    there = "\n".join(str(path) for path in ring.paths)
    if ring.working:
        raise KitRefused(
            "this host has a signing key already, which hosts trust",
            found=f"{there}\nworking key {ring.working.fingerprint}",
            next="`certcast publisher show` shows it, `certcast publisher kit` makes a new recovery kit",
        )
    raise KitRefused(
        "this host had a signing key: its public halves are here",
        found=there,
        next=f"if the key was lost: `certcast publisher rotate --kit FILE`, {_BURNED_DOWN}; if no host "
        "trusts it yet, as after an `init` that was killed: move these files away, then run this again",
    )


def _require_working(ring: Keyring) -> PublicKey:
    if ring.working is None:
        raise SigningFailed(
            "this host has no signing key",
            found=f"no {ring.signing_key}",
            kept="nothing was changed",
            next=f"`certcast publisher init` makes one; if it was lost, {_BURNED_DOWN}",
        )
    return ring.working


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise KitRefused(
            "there is a recovery kit already, and no terminal to ask whether it shall be replaced",
            next="confirm it with --replace; hosts must be told of the new spare key",
        )
    _hint("A new kit has a new spare key. It is worth nothing until every host has been told of it.")
    if not click.confirm("Replace the kit in force?", err=True):
        raise KitRefused("another recovery kit was not confirmed", kept="the one in force stays")


# -- what is told


def _publishers_line(keys: Sequence[PublicKey]) -> str:
    """Return the line of TOML that pins the keys."""
    return f"publishers = {json.dumps([key.bare for key in keys], indent=2)}"


def _at_least_lines(config: Config) -> str:
    """Return a line of TOML for each certificate that was published here. Raises LocalFault."""
    from certcast.publisher import record

    folder = config.state_dir / "publisher"
    names = [certificate.name for certificate in config.certificates]
    sequences = {name: record.read(folder, name).sequence for name in names}
    return "\n".join(f"at_least = {number}    # {name}" for name, number in sequences.items() if number)


def _in_store(keys: Sequence[PublicKey]) -> str:
    return f"In [store] on every host:\n\n{_publishers_line(keys)}"


def _tell(new_kit: Path | None, text: str) -> None:
    """Say on stdout what was changed; on stderr where the kit itself goes to stdout."""
    if new_kit is None:
        console.hint(text)
    else:
        console.changed(f"{text}\nrecovery kit in {new_kit}")


def _steps(*steps: str) -> None:
    _hint("", *(f"{number}. {step}" for number, step in enumerate(steps, 1)))


def _hint(*lines: str) -> None:
    console.document("\n".join(lines), err=True)
