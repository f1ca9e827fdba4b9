"""Resource Access Management: users, roles, and what their policies allow.

A RAM user belongs to a cloud account (its uid, digits) and signs with an access
key. Its policies are RAM's own JSON, so that a policy which works here can be
pasted into the console:

    {"Version": "1", "Statement": [{"Effect": "Allow",
      "Action": "alidns:AddDomainRecord", "Resource": "acs:alidns:*:<uid>:domain/example.com",
      "Condition": {"IpAddress": {"acs:SourceIp": ["203.0.113.7/32"]}}}]}

The rule: nothing is allowed until a statement allows it, and one Deny outranks
every Allow. A condition whose key the request doesn't carry isn't met.
A policy with an operator that the lab doesn't know is refused when it is read:
without that condition it would allow more.

Source: RAM policy elements and conditional operators,
https://www.alibabacloud.com/help/en/ram/conditional-operator (matching is
case-sensitive, `*` any number of characters, `?` one).

A role has policies like a user, and a trust policy that says who may assume it:

    {"Version": "1", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
      "Principal": {"RAM": ["acs:ram::<uid>:root", "acs:ram::<uid>:user/<name>"]}}]}

(`root` is everybody in that account.) A caller that assumes the role gets a temporary
key, a token and the role's policies for a while: here, a `User` that expires.
Source: "Edit the trust policy of a RAM role", RAM user guide.

Not here: NotAction, NotResource, groups, trust in services, and the spelling of a
refusal, which is each API's own.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Context = Mapping[str, str]
"""What conditions look at, by condition key: `acs:SourceIp`, `oss:Prefix`."""


@dataclass(frozen=True)
class Statement:
    """One statement of a policy, its single strings made lists."""

    allow: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()  # operator, key, values

    def covers(self, action: str, resource: str, context: Context) -> bool:
        """Whether this statement has a say: action, resource and every condition match."""
        return (
            any(_like(action, pattern) for pattern in self.actions)
            and any(_like(resource, pattern) for pattern in self.resources)
            and all(
                key in context and any(_OPERATORS[operator](context[key], value) for value in values)
                for operator, key, values in self.conditions
            )
        )


def parse_policy(document: Mapping[str, Any]) -> list[Statement]:
    """The statements of a RAM policy document; ValueError for what RAM or the lab doesn't know."""
    if document.get("Version") != "1":
        raise ValueError(f'a RAM policy has "Version": "1", not {document.get("Version")!r}')
    return [_statement(statement) for statement in document["Statement"]]


def _statement(statement: Mapping[str, Any]) -> Statement:
    if unknown := set(statement) - {"Effect", "Action", "Resource", "Condition"}:
        raise ValueError(f"the lab's RAM does not know {', '.join(sorted(unknown))} in a statement")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise ValueError(f"Effect is Allow or Deny, not {statement['Effect']!r}")
    conditions = []
    for operator, keys in statement.get("Condition", {}).items():
        if operator not in _OPERATORS:
            raise ValueError(f"the lab's RAM does not know the condition operator {operator}")
        conditions += [(operator, key, _listed(values)) for key, values in keys.items()]
    return Statement(
        statement["Effect"] == "Allow",
        _listed(statement["Action"]),
        _listed(statement["Resource"]),
        tuple(conditions),
    )


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _like(value: str, pattern: str) -> bool:
    """RAM's wildcards; fnmatch would give `[` a meaning that it doesn't have here."""
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, value, re.DOTALL) is not None


def _in_network(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "IpAddress": _in_network,
    "StringEquals": str.__eq__,
    "StringLike": _like,
}


@dataclass
class User:
    """
    A RAM user and its access key; `policies` are documents as `parse_policy` reads them.

    With a `security_token` the key is a temporary one (STS), and the request has to carry the token;
    it is good until `expires`, in seconds of the epoch. Tests may deactivate the key or exchange the
    policies at any time.
    """

    account: str
    name: str
    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    active: bool = True
    policies: Sequence[Mapping[str, Any]] = ()
    expires: float | None = None

    @property
    def arn(self) -> str:
        """As trust policies write it."""
        return f"acs:ram::{self.account}:user/{self.name}"


@dataclass
class Role:
    """
    A RAM role: `policies` as a user's, `trust` as above. Sessions last at most `longest` seconds; for
    tests, `cut` ends them earlier than was asked for, and earlier than the real service has it (900 s).
    """

    account: str
    name: str
    trust: Mapping[str, Any]
    policies: Sequence[Mapping[str, Any]] = ()
    longest: int = 3600
    cut: float | None = None

    @property
    def arn(self) -> str:
        """What AssumeRole is asked for."""
        return f"acs:ram::{self.account}:role/{self.name}"


class Ram:
    """The users of every cloud account, found as an API finds them: by access key id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, User] = {}
        self._roles: dict[str, Role] = {}

    def add(self, user: User) -> User:
        """Make the user known; ValueError if a policy can't be read or the key id is taken."""
        for policy in user.policies:
            parse_policy(policy)
        with self._lock:
            if user.access_key_id in self._users:
                raise ValueError(f"access key {user.access_key_id} exists already")
            self._users[user.access_key_id] = user
        return user

    def by_access_key(self, access_key_id: str) -> User | None:
        with self._lock:
            return self._users.get(access_key_id)

    def add_role(self, role: Role) -> Role:
        """Make the role known; ValueError if a policy can't be read."""
        for policy in role.policies:
            parse_policy(policy)
        with self._lock:
            self._roles[role.arn] = role
        return role

    def role(self, arn: str) -> Role | None:
        with self._lock:
            return self._roles.get(arn)


def trusts(role: Role, user: User) -> bool:
    """Whether the role's trust policy lets this user assume it."""
    return any(
        statement["Effect"] == "Allow"
        and "sts:AssumeRole" in _listed(statement["Action"])
        and principal in (user.arn, f"acs:ram::{user.account}:root")
        for statement in role.trust["Statement"]
        for principal in _listed(statement["Principal"]["RAM"])
    )


def is_allowed(user: User, action: str, resource: str, context: Context) -> bool:
    """
    Whether the user's policies let it do `action` (`alidns:AddDomainRecord`) to `resource`
    (`acs:alidns:*:<uid>:domain/example.com`): some statement allows it, and none denies it.
    """
    said = [
        statement.allow
        for policy in user.policies
        for statement in parse_policy(policy)
        if statement.covers(action, resource, context)
    ]
    return bool(said) and all(said)
