"""Security Token Service: a RAM user becomes a role for a while. One action, AssumeRole.

    api = StsApi(ram)
    with Server(api.app, tls=...) as server:        # official clients speak https to it alone

rpc_api.py authenticates the caller, as for every RPC service. The caller needs
`sts:AssumeRole` on the role by a policy of its own, and a place in the role's trust
policy. It gets a temporary key with a token. The other services of the same Ram
accept that key with exactly the policies that the role has now.

    {"AssumedRoleUser": {"Arn": "acs:ram::<uid>:role/<role>/<session>", "AssumedRoleId": ...},
     "Credentials": {"AccessKeyId": "STS....", "AccessKeySecret": ..., "SecurityToken": ...,
                     "Expiration": "2026-11-23T12:00:00Z"}, "RequestId": ...}

Sources: AssumeRole, STS API reference; "STS FAQ" for NoPermission, which is one
word for both missing rights. DurationSeconds is 900 to the role's longest session.
Assumptions: the status of the refusals (403 and 404), and that the role is looked
for before its trust.

Not here: the Policy parameter, which narrows a session; other actions.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timezone
from typing import Any

from starlette.requests import Request

from certcast_lab.aliyun.alidns_errors import Refusal, invalid, missing
from certcast_lab.aliyun.ram import Role, User, is_allowed, trusts
from certcast_lab.aliyun.rpc_api import RpcApi, Signed

VERSION = "2015-04-01"
SHORTEST, DEFAULT = 900, 3600


class StsApi(RpcApi):
    """The emulator of STS; see RpcApi for `app`, `faults` and `log`."""

    host = "sts.aliyuncs.com"
    product = "Sts"

    def perform(self, signed: Signed, user: User, request: Request) -> dict[str, Any]:
        if signed.version != VERSION:
            raise invalid("Version")
        if signed.action != "AssumeRole":
            raise Refusal("InvalidApi.NotFound")
        for name in ("RoleArn", "RoleSessionName"):
            if not signed.parameters.get(name):
                raise missing(name)
        if "Policy" in signed.parameters:
            raise Refusal("InvalidParameter.PolicyGrammar", "The lab does not emulate Policy.")
        if self.faults.hit("server_error", signed.action, ""):
            raise Refusal("ServiceUnavailable")
        arn, session = signed.parameters["RoleArn"], signed.parameters["RoleSessionName"]
        role = self.ram.role(arn)
        if role is None:
            raise Refusal("EntityNotExist.Role", "The specified Role not exists.", status=404)
        context = {"acs:SourceIp": request.client.host} if request.client else {}
        if not is_allowed(user, "sts:AssumeRole", arn, context) or not trusts(role, user):
            raise Refusal(
                "NoPermission",
                "You are not authorized to do this action. You should be authorized by RAM.",
                status=403,
            )
        caller = self._session(role, session, _seconds(signed, role))
        assert caller.expires is not None
        return {
            "AssumedRoleUser": {
                "Arn": f"{role.arn}/{session}",
                "AssumedRoleId": f"3{role.account}:{session}",
            },
            "Credentials": {
                "AccessKeyId": caller.access_key_id,
                "AccessKeySecret": caller.access_key_secret,
                "SecurityToken": caller.security_token,
                "Expiration": f"{datetime.fromtimestamp(caller.expires, timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            },
        }

    def _session(self, role: Role, name: str, seconds: float) -> User:
        """Make the caller that the role's temporary key belongs to. Its end is whole seconds, as told."""
        return self.ram.add(
            User(
                role.account,
                f"{role.name}/{name}",
                f"STS.{secrets.token_hex(12)}",
                secrets.token_hex(22),
                secrets.token_hex(64),
                policies=list(role.policies),
                expires=int(self._now().timestamp() + seconds),
            )
        )


def _seconds(signed: Signed, role: Role) -> float:
    try:
        asked = int(signed.parameters.get("DurationSeconds") or DEFAULT)
    except ValueError:
        raise invalid("DurationSeconds") from None
    if not SHORTEST <= asked <= role.longest:
        raise Refusal(
            "InvalidParameter.DurationSeconds", "The Min/Max value of DurationSeconds is 15min/1hr."
        )
    return asked if role.cut is None else role.cut
