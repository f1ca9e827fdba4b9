"""Alidns as its clients meet it: one HTTP endpoint, two signature schemes.

    api = AlidnsApi(ram, zones)
    with Server(api.app) as server:          # http://127.0.0.1:port/?Action=...

rpc_api.py authenticates the caller, as for every RPC service. Then:

    check      the action exists, nothing mandatory is missing
    faults     a throttled or failing request has no effect
    authorize  the caller's RAM policies, for the domain in question
    perform    alidns_actions.py

A site with accounts of its own (mainland, international) is a second AlidnsApi with a
Ram of its own, which does not know the keys of the first.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from certcast_lab.aliyun.alidns_actions import ACTIONS, Action, Call
from certcast_lab.aliyun.alidns_errors import Refusal, invalid, missing
from certcast_lab.aliyun.ram import Ram, User, is_allowed
from certcast_lab.aliyun.rpc_api import RpcApi, Signed
from certcast_lab.dns.zones import Zones

HOST = "alidns.aliyuncs.com"
VERSION = "2015-01-09"


class AlidnsApi(RpcApi):
    """The emulator of Alidns over zone data; see RpcApi for `app`, `faults` and `log`."""

    host = HOST
    product = "Alidns"

    def __init__(self, ram: Ram, zones: Zones, **seams: Any) -> None:
        super().__init__(ram, lock=zones.lock, **seams)
        self.zones = zones

    def perform(self, signed: Signed, user: User, request: Request) -> dict[str, Any]:
        action = _action(signed)
        target = signed.parameters.get("DomainName", "")
        if self.faults.hit("throttle", signed.action, target):
            raise Refusal("Throttling.User")
        if self.faults.hit("server_error", signed.action, target):
            raise Refusal("ServiceUnavailable")
        stale = self.faults.hit("stale", signed.action, target)
        # An empty parameter counts as not given; several clients send `ValueKeyWord=`.
        given = {name: value for name, value in signed.parameters.items() if value}
        call = Call(user.account, given, self.zones, stale.seconds if stale else 0)
        self._authorize(user, signed.action, action.domain(call), request)
        return action.run(call)

    def _authorize(self, user: User, action: str, domain: str, request: Request) -> None:
        resource = f"acs:alidns:*:{user.account}:domain/{domain}"
        context = {"acs:SourceIp": request.client.host} if request.client else {}
        if not is_allowed(user, f"alidns:{action}", resource, context):
            raise Refusal(
                "Forbidden.RAM",
                AccessDeniedDetail={
                    "AuthPrincipalOwnerId": user.account,
                    "AuthPrincipalType": "SubUser",
                    "AuthPrincipalDisplayName": user.name,
                    "EncodedDiagnosticMessage": "",
                },
            )


def _action(signed: Signed) -> Action:
    if signed.version != VERSION:
        raise invalid("Version")
    if signed.action not in ACTIONS:
        raise Refusal("InvalidApi.NotFound")
    action = ACTIONS[signed.action]
    for name in action.mandatory:
        if not signed.parameters.get(name):
            raise missing(name)
    return action
