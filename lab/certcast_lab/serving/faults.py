"""Faults of a cloud API, one small named switch each, set while it runs.

    faults = Faults()
    faults.turn_on("lost_reply", action="AddDomainRecord", times=1)
    ...
    faults.consumed("lost_reply")        # 1, once it has happened

`throttle` and `server_error` are answers, and `stale` reads old data: each API asks
`hit()` for these, and answers in its own words. The others happen on the wire, after
the work was done, and are the same for every HTTP service. `Reply` makes them:

    delay        the whole reply comes `seconds` late
    lost_reply   the effect stands, the connection closes without a reply
    truncated    the reply stops half-way through its body
    flipped      one bit of the body's middle byte is wrong
    drip         the body comes byte by byte, `seconds` apart

When several apply, a lost reply outranks a body that would never be sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from certcast_lab.serving.asgi import hang_up

Kind = Literal[
    "throttle", "server_error", "stale", "delay", "lost_reply", "truncated", "flipped", "drip"
]  # fmt: skip


@dataclass
class Switch:
    """One fault that is on: for which requests, how often still (None: until turned off)."""

    kind: Kind
    action: str
    target: str
    times: int | None
    seconds: float

    def applies(self, kind: Kind, action: str, target: str) -> bool:
        return self.kind == kind and fnmatchcase(action, self.action) and fnmatchcase(target, self.target)


class Faults:
    """The switches of one service. Thread-safe: tests turn them while requests are served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._switches: list[Switch] = []
        self._consumed: Counter[Kind] = Counter()

    def turn_on(
        self,
        kind: Kind,
        *,
        action: str = "*",
        target: str = "*",
        times: int | None = None,
        seconds: float = 0,
    ) -> None:
        """
        From now on, `kind` befalls requests whose action and target match these shell patterns.

        `action` is the API's name for the call (`AddDomainRecord`, `GetObject`), `target` what it is
        about (a zone, a `bucket/key`). With `times`, the fault turns itself off after that many.
        `seconds` belongs to `delay` and `drip`, and is the age of what `stale` shows.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"no such fault: {kind!r}; there are {', '.join(get_args(Kind))}")
        with self._lock:
            self._switches.append(Switch(kind, action, target, times, seconds))

    def turn_off(self, kind: Kind | None = None) -> None:
        """Turn off every switch of this kind, or of all kinds; what was consumed stays counted."""
        with self._lock:
            self._switches = [switch for switch in self._switches if kind not in (None, switch.kind)]

    def hit(self, kind: Kind, action: str, target: str = "") -> Switch | None:
        """The switch that strikes this request, and counts it as consumed; None when all is well."""
        with self._lock:
            for switch in self._switches:
                if not switch.applies(kind, action, target):
                    continue
                self._consumed[kind] += 1
                if switch.times is not None:
                    switch.times -= 1
                    if switch.times == 0:
                        self._switches.remove(switch)
                return switch
        return None

    def consumed(self, kind: Kind) -> int:
        """How many requests this fault has struck so far."""
        with self._lock:
            return self._consumed[kind]


class Reply:
    """
    `response`, as the faults that are on let it arrive; return it from an endpoint in its place.

    `action` and `target` are those of the request, as `Faults.turn_on` describes them. The body must be
    in memory: a half and a byte of it are only known then.
    """

    def __init__(self, response: Response, faults: Faults, action: str, target: str = "") -> None:
        self.response = response
        self.faults = faults
        self.action = action
        self.target = target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if delay := self._hit("delay"):
            await _pause(receive, delay.seconds)
        if self._hit("lost_reply"):
            hang_up(scope)
            await _pause(receive, None)
            return
        body = bytes(self.response.body)
        if body and self._hit("flipped"):
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0x01]) + body[middle + 1 :]
        await send(
            {
                "type": "http.response.start",
                "status": self.response.status_code,
                "headers": self.response.raw_headers,
            }
        )
        if body and self._hit("truncated"):
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            # A turn of the loop lets the half leave the buffer before the connection goes.
            await _pause(receive, 0.01)
            hang_up(scope)
            await _pause(receive, None)
            return
        if drip := self._hit("drip"):
            for byte in body:
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                if await _pause(receive, drip.seconds):
                    return
            body = b""
        await send({"type": "http.response.body", "body": body})

    def _hit(self, kind: Kind) -> Switch | None:
        return self.faults.hit(kind, self.action, self.target)


async def _pause(receive: Receive, seconds: float | None) -> bool:
    """Wait `seconds` (None: for ever), or less if the client leaves; whether it has left."""

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(disconnect(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
