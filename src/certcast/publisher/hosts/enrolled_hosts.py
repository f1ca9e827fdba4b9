"""Who gets the private key: the file of enrolled hosts, which administrators may edit too.

    web1 ssh-ed25519 AAAAC3Nza…
    web2 ssh-ed25519 AAAAC3Nza… certificates=example.com,example.net    # these only
    @web ssh-ed25519 AAAAC3Nza…         a group: many hosts that share one identity

- A name stands for one key, and a key for one name: a key is one recipient, and two names would hide that.
  Hosts that share an identity on purpose (a scaling group, an image) are enrolled as a group.
- A line that is not understood stops every reader, with all mistakes and their lines. A host that silently
  dropped out would go on for weeks, until its certificate ends.
- Remarks and empty lines stay where they are.
- The file must not be writable by others, since its writer gets the key: as sshd's authorized_keys.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certcast.config.types import certificate_name, host_name
from certcast.host import files, private_files
from certcast.release.ssh_keys import PublicKey
from certcast.report.errors import EnrolRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_CERTIFICATES = "certificates="


@dataclass(frozen=True)
class Host:
    """An enrolled host, or a group of hosts with one identity; without `certificates` it gets them all."""

    name: str
    key: PublicKey
    group: bool = False
    certificates: tuple[str, ...] = ()

    def gets(self, certificate: str) -> bool:
        """Whether the private key of this certificate is sealed to it."""
        return not self.certificates or certificate in self.certificates

    @property
    def line(self) -> str:
        """Its line in the file."""
        words = [f"@{self.name}" if self.group else self.name, self.key.bare]
        if self.certificates:
            words.append(_CERTIFICATES + ",".join(self.certificates))
        return " ".join(words)


@dataclass(frozen=True)
class _Line:
    number: int
    text: str
    host: Host | None


def read_hosts(path: Path) -> tuple[Host, ...]:
    """Return all enrolled hosts, in the file's order; none if there is no file.

    Raises EnrolRefused (all mistakes in `found`, or a file that others may write), LocalFault.
    """
    return tuple(line.host for line in _lines(path) if line.host)


def hosts_for(hosts: Iterable[Host], certificate: str) -> tuple[Host, ...]:
    """Return those that get the private key of `certificate`."""
    return tuple(host for host in hosts if host.gets(certificate))


def lock_of(state_dir: Path) -> Path:
    """Return the lock that `add` and `remove` hold: with the state, since /etc may be shared or read-only."""
    return state_dir / "publisher" / "hosts.lock"


def add(path: Path, new: Sequence[Host], *, lock: Path, mistakes: Sequence[str] = ()) -> tuple[Host, ...]:
    """Enrol all of `new` or none; return those whose line is new or another one now.

    `mistakes` were found in the list that `new` comes from: with any, it is none. The same name with the
    same key may come again, with other certificates too. Raises
    EnrolRefused (a name that has another key, a key that has another name; all of them at once),
    LocalFault, Busy.
    """
    with files.lock(lock, wait=10.0):
        lines = _lines(path)
        _require_one_to_one([line.host for line in lines if line.host], new, mistakes)
        texts = {line.host.name: line for line in lines if line.host}
        written = [line.text for line in lines]
        changed = []
        for host in new:
            old = texts.get(host.name)
            if old is None:
                written.append(host.line)
            elif old.host and old.host.line == host.line:
                continue
            else:
                remark = old.text.partition("#")
                written[old.number - 1] = host.line + ("    #" + remark[2] if remark[1] else "")
            changed.append(host)
        if changed:
            _write(path, written)
    return tuple(changed)


def remove(path: Path, name: str, *, lock: Path) -> Host | None:
    """Take a host or group out of the file and return it; None if it isn't there. LocalFault, Busy."""
    with files.lock(lock, wait=10.0):
        lines = _lines(path)
        found = next((line for line in lines if line.host and line.host.name == name), None)
        if found is None:
            return None
        _write(path, [line.text for line in lines if line is not found])
    return found.host


def parse(line: str) -> Host | None:
    """Read one line of the file; None for a remark or an empty one. Raises ValueError, in words."""
    words = line.partition("#")[0].split()
    if not words:
        return None
    if len(words) < 3:
        raise ValueError("a line has a name, a type and a key")
    name, kind, key, *rest = words
    certificates: tuple[str, ...] = ()
    if rest:
        if len(rest) > 1 or not rest[0].startswith(_CERTIFICATES):
            raise ValueError(
                "after the key may stand certificates=a,b and nothing else; a remark begins with #"
            )
        certificates = tuple(map(certificate_name, rest[0].removeprefix(_CERTIFICATES).split(",")))
    return Host(
        host_name(name.removeprefix("@")),
        PublicKey.parse(f"{kind} {key}"),
        group=name.startswith("@"),
        certificates=certificates,
    )


def _lines(path: Path) -> list[_Line]:
    with files.reported(f"read {path}", kept="nothing was changed"):
        try:
            with path.open("rb") as file:
                _require_not_writable_by_others(path, os.fstat(file.fileno()))
                body = file.read()
        except FileNotFoundError:
            return []
    lines, mistakes = [], []
    for number, octets in enumerate(body.splitlines(), start=1):
        try:
            text = octets.decode()
            lines.append(_Line(number, text, parse(text)))
        except UnicodeDecodeError:
            mistakes.append(f"line {number}: is not UTF-8")
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    mistakes += _twice([line for line in lines if line.host])
    if mistakes:
        raise EnrolRefused(
            f"{path} has {'a mistake' if len(mistakes) == 1 else f'{len(mistakes)} mistakes'}",
            expected="lines like `web1 ssh-ed25519 AAAA…`",
            found="\n".join(mistakes),
            next=f"edit {path}, then run it again",
        )
    return lines


def _twice(lines: Sequence[_Line]) -> list[str]:
    mistakes = []
    names: dict[str, _Line] = {}
    keys: dict[bytes, _Line] = {}
    for line in lines:
        assert line.host
        first = names.setdefault(line.host.name, line)
        if first is not line:
            mistakes.append(f"line {line.number}: {line.host.name} stands in line {first.number} already")
        owner = keys.setdefault(line.host.key.blob, line)
        if owner is not line and owner is not first:
            assert owner.host
            whose = f"{owner.host.name} in line {owner.number}"
            mistakes.append(f"line {line.number}: {line.host.name} has the key of {whose}")
    return mistakes


def _require_not_writable_by_others(path: Path, status: os.stat_result) -> None:
    if private_files.others_may_write(status):
        raise EnrolRefused(
            f"{path} can be written by others, who could enrol themselves and get the private keys",
            expected="mode 0644 or less, owner root or whoever runs certcast",
            found=f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}",
            next=f"look who is in it, then `chown root {path} && chmod go-w {path}`",
        )


def _require_one_to_one(enrolled: Sequence[Host], new: Sequence[Host], others: Sequence[str]) -> None:
    """Refuse what would give a name a second key or a key a second name, together with `others`."""
    known = list(enrolled)
    mistakes: list[tuple[str, str]] = []
    for host in new:
        for other in known:
            if other.name == host.name and other.key.blob != host.key.blob:
                mistakes.append(_another_key(other, host))
            elif other.name != host.name and other.key.blob == host.key.blob:
                mistakes.append(_another_name(other, host))
        known.append(host)
    if len(mistakes) == 1 and not others:
        ((what, step),) = mistakes
        raise EnrolRefused(what, kept="nobody was enrolled", next=step)
    if mistakes or others:
        found = [*others, *(what for what, _ in mistakes)]
        raise EnrolRefused(
            f"the list has {'a mistake' if len(found) == 1 else f'{len(found)} mistakes'}",
            expected="one key for each name, one name for each key",
            found="\n".join(found),
            kept="nobody was enrolled",
            next="mend them, then run it again; `certcast host list` shows who is enrolled",
        )


def _another_key(enrolled: Host, host: Host) -> tuple[str, str]:
    mark = "--group " if host.group else ""
    return (
        f"{host.name} is enrolled with {enrolled.key.fingerprint}, not with {host.key.fingerprint}",
        f"was {host.name} set up anew? `certcast host remove {host.name}`, then\n"
        f'`certcast host add {mark}{host.name} "{host.key.bare}"`',
    )


def _another_name(enrolled: Host, host: Host) -> tuple[str, str]:
    return (
        f"{host.name} has the key of {enrolled.name}, {host.key.fingerprint}",
        f"is {host.name} another name for {enrolled.name}? `certcast host remove {enrolled.name}` first\n"
        f"is it a copy of it? remove the identity file there, then `certcast identity` makes another\n"
        "do they share it on purpose? enrol it once, as a group: `certcast host add --group`",
    )


def _write(path: Path, lines: Sequence[str]) -> None:
    """Replace the file, or what it links to; owner, group and mode stay what they were."""
    with files.reported(f"write {path}", kept="nothing was changed"):
        target = path.resolve()
        files.make_private_dir(target.parent)
        owner, group, mode = -1, -1, 0o600
        with contextlib.suppress(FileNotFoundError):
            status = target.stat()
            owner, group, mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
        beside = target.with_name(f".{target.name}.new")
        beside.unlink(missing_ok=True)  # left by a crash; callers hold the lock
        try:
            body = "".join(f"{line}\n" for line in lines).encode()
            files.write_new(beside, body, owner=owner, group=group, mode=mode)
            beside.replace(target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        files.sync_dir(target.parent)
