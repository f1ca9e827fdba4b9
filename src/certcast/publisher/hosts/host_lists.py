"""Host keys that an administrator has collected already, as hosts to enrol.

    known_hosts         web1,10.0.0.5 ssh-ed25519 AAAA…     (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)
    lines               web1 ssh-ed25519 AAAA…              what `certcast identity` printed, collected
    Ansible facts       one host's JSON, a dict of hosts, or a folder with a file for each:
                        `ansible all -m setup --tree DIR`, or the fact cache `jsonfile`  (docs/adr/0022)

These keys are the hosts' SSH keys, so `identity` must name `/etc/ssh/ssh_host_ed25519_key` there. The name
must be what the host calls itself, which `certcast identity` shows. Facts are what a host says of itself, its
name included: a chosen host is looked for among the names that Ansible has for it.

A line without a usable host (a hashed name, a pattern, an address alone, no Ed25519 key) is named and left
out. What looks like a mistake is one, and stops the whole list.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from certcast.config.types import host_name
from certcast.host import files
from certcast.publisher.hosts.enrolled_hosts import Host
from certcast.release.sealing import require_sealable
from certcast.release.ssh_keys import KIND, PublicKey
from certcast.report.errors import EnrolRefused

if TYPE_CHECKING:
    from pathlib import Path

# Facts of one host have some 100 KiB; a fleet's in one file, tens of MiB.
LIMIT = 256 * 1024 * 1024


@dataclass
class HostList:
    """What a list holds: hosts, who was left out and why, and mistakes with where they stand.

    Without `wanted` names (patterns like *.internal) all are taken: each gets `certificates`, or all.
    """

    certificates: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    hosts: list[Host] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    _left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def left_out(self) -> list[str]:
        """Why somebody was left out, one line for each reason: known_hosts has thousands of RSA keys."""
        return [
            f"{', '.join(places[:3])}{f' and {len(places) - 3:,} more' if len(places) > 3 else ''}: {reason}"
            for reason, places in self._left_out.items()
        ]

    def leave_out(self, where: str, reason: str) -> None:
        """Note that somebody is not in the list in a usable way."""
        self._left_out.setdefault(reason, []).append(where)

    def take(self, name: str, key: str, where: str) -> None:
        """Add a host, or the mistake that it is; the same one twice is one."""
        try:
            sealable = require_sealable(PublicKey.parse(key))
            host = Host(host_name(name.lower()), sealable, certificates=self.certificates)
        except ValueError as error:
            self.mistakes.append(f"{where}: {error}")
            return
        if host.line not in (other.line for other in self.hosts if other.name == host.name):
            self.hosts.append(host)

    def wants(self, name: str) -> bool:
        """Whether a host of this name is to be taken."""
        return not self.wanted or any(fnmatchcase(name.lower(), pattern) for pattern in self.wanted)


def read_list(path: Path, *, certificates: tuple[str, ...] = (), wanted: tuple[str, ...] = ()) -> HostList:
    """Read a list, or a folder of Ansible's files.

    Raises EnrolRefused if there is nobody in it, LocalFault.
    """
    found = HostList(certificates, wanted)
    with files.reported(f"read {path}", kept="nobody was enrolled"):
        parts = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]
        for part in parts:
            with part.open("rb") as file:
                body = file.read(LIMIT)
            if body.lstrip()[:1] in (b"{", b"[") or path.is_dir():
                _read_facts(found, body, part, alone=part is path)
            else:
                _read_lines(found, body)
    if not found.hosts and not found.mistakes:
        raise EnrolRefused(
            f"{path} names no host that can be enrolled",
            expected="known_hosts, lines like `web1 ssh-ed25519 AAAA…`, or JSON of Ansible's facts",
            found="\n".join(found.left_out) or "nothing",
            kept="nobody was enrolled",
            next="`certcast identity` on each host prints its line",
        )
    return found


def _read_lines(found: HostList, body: bytes) -> None:
    rows = [line.split() for line in body.decode("utf-8", "replace").splitlines()]
    # Marker, names, type, key; a revoked key must never be accepted, whatever other lines say.
    revoked = {row[3] for row in rows if row[:1] == ["@revoked"] and len(row) > 3}
    by_key: dict[str, list[tuple[str, str]]] = {}
    for number, row in enumerate(rows, start=1):
        where = f"line {number}"
        if not row or row[0].startswith("#"):
            continue
        unfit = _unfit(row)
        if unfit:
            found.leave_out(where, unfit)
        elif len(row) < 3:
            found.mistakes.append(f"{where}: a line has a name, a type and a key")
        elif row[2] in revoked:
            found.mistakes.append(f"{where}: the same list has this key marked @revoked")
        else:
            by_key.setdefault(row[2], []).append((row[0], where))
    for key, lines in by_key.items():
        _take_names(found, key, lines)


def _unfit(row: list[str]) -> str | None:
    """Say why a good line of known_hosts names no host to enrol, if it doesn't."""
    if row[0] in ("@revoked", "@cert-authority"):
        return f"is marked {row[0]}"
    if row[0].startswith("|"):
        return "its name is hashed"
    if any(sign in row[0] for sign in "*?!"):
        return f"{row[0][:80]!r} is a pattern"
    if len(row) > 1 and row[1] != KIND:
        return f"the type of its key is {row[1][:40]!r}"
    return None


def _take_names(found: HostList, key: str, lines: list[tuple[str, str]]) -> None:
    """Take the first name of each line with this key; its addresses are no names of their own."""
    named = False
    for names, where in lines:
        plain = [_without_port(name) for name in names.split(",")]
        spoken = [name for name in plain if not _is_address(name)]
        if spoken:
            name = next(filter(found.wants, spoken), spoken[0])
            if found.wants(name):
                found.take(name, f"{KIND} {key}", where)
            named = True
    if not named:
        names, where = lines[0]
        found.leave_out(where, f"{names[:80]} is an address without a name")


def _without_port(name: str) -> str:
    return name[1:].partition("]")[0] if name.startswith("[") else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read_facts(found: HostList, body: bytes, path: Path, *, alone: bool) -> None:
    """Take the hosts of one file. One that is given `alone` may have any name if it is about one host."""
    try:
        document = json.loads(body)
        # The fact cache of ansible-core 2.19 and later: JSON within JSON, in s1_HOST (ansible#86162).
        if isinstance(document, dict) and isinstance(document.get("__payload__"), str):
            document = json.loads(document["__payload__"])
        if not isinstance(document, dict):
            raise ValueError("is not an object")
    except (ValueError, RecursionError) as error:
        found.mistakes.append(f"{path.name}: is not JSON of Ansible's facts: {str(error)[:200]}")
        return
    if (
        "ansible_facts" in document
        or _fact(document, "nodename")
        or _fact(document, "ssh_host_key_ed25519_public")
    ):
        listed_as = path.name.removeprefix("s1_")
        _take_facts(found, document, listed_as, path.name, chosen=alone)
        return
    for name, facts in document.items():
        if isinstance(facts, dict):
            _take_facts(found, facts, str(name), f"{path.name}, {str(name)[:80]!r}")
        else:  # {"unreachable": true, "msg": "…"} of a host that did not answer
            found.mistakes.append(f"{path.name}: holds no facts of hosts: {str(name)[:80]!r} is no object")
            return


def _take_facts(
    found: HostList, facts: dict[str, Any], listed_as: str, where: str, *, chosen: bool = False
) -> None:
    """Take one host if it is wanted: by what it is listed as, or if its file was `chosen`, by its own name.

    It is enrolled as what it calls itself, since it will look under that name.
    """
    key = _fact(facts, "ssh_host_key_ed25519_public")
    name = _fact(facts, "nodename") or _fact(facts, "hostname") or _fact(facts, "fqdn") or listed_as
    if not (found.wants(listed_as) or (chosen and found.wants(name))):
        return
    if key is None:
        found.leave_out(where, "has no ansible_ssh_host_key_ed25519_public")
    else:
        kind = _fact(facts, "ssh_host_key_ed25519_public_keytype") or KIND
        found.take(name, f"{kind} {key}", where)


def _fact(facts: dict[str, Any], name: str) -> str | None:
    """Return a fact: at the top (fact cache, hostvars) or in ansible_facts, which may drop the prefix."""
    inner = facts.get("ansible_facts")
    for place in (facts, inner if isinstance(inner, dict) else {}):
        for spelt in (f"ansible_{name}", name):
            if isinstance(place.get(spelt), str) and place[spelt]:
                return str(place[spelt])
    return None
