"""Waiting until a zone's nameservers show the TXT values.

A fixed sleep is too long on a good day and too short on a bad one. The CA asks
any one of the zone's servers (and several, from several places: BR section
3.2.2.9), so the question is whether *all* that can be asked have *all* values:

    every server, at each of its addresses, is polled by itself, from 0.25 s on
    go on as soon as
        each has answered or failed once, and
        all that answer have every value, and
        at least half of the servers (rounded up) answer

SERVFAIL and silence are no answer: a server in that state is asked again, and
doesn't hold the others up.

Where no server can be reached (reach.py says when that is certain), resolvers are
asked beside them, for half of the time that is left; then go on as soon as

        each resolver has answered or failed once, and
        all that answer have every value, and one does

A resolver proves less: that some nameserver has the values, not that all have.
And it remembers a "no" for the zone's SOA minimum (600 s at Alidns; RFC 2308
section 5), which is longer than anybody waits. So it isn't asked before the
nameservers have had a `head_start`; and a "no" that lasts comes to the same as no
answer: nobody shows the values, and the caller makes do with the provider's word.

Not here: the polling of one name (watching.py), which servers and resolvers, and
the question itself (nameservers.py, resolvers.py), what to do where nobody shows
the values (unseen.py).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from certcast.dns01.reach import values_text
from certcast.dns01.watching import Common, Watch
from certcast.errors import NotPropagated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from certcast.config import Resolver
    from certcast.dns01.reach import Expected, Seen


def wait(
    expected: Sequence[Expected],
    *,
    fallback: Sequence[Resolver],
    head_start: float,
    deadline: float,
    progress: Callable[[str], None],
) -> list[Seen]:
    """Return once it is settled for every expectation who shows it. All times are seconds from now.

    `fallback` are the resolvers of the configuration, or none for the system's; they are not asked before
    `head_start` is over.
    Raises NotPropagated after `deadline` seconds, with what each server said last.
    """
    for one in expected:
        servers = ", ".join(server.name for server in one.servers) or "no nameserver"
        progress(f"waiting until {servers} show {values_text(len(one.values))} at {one.name}")
    common = Common(fallback, time.monotonic() + head_start, time.monotonic() + deadline, progress)
    return asyncio.run(_watch_all(expected, common, deadline))


async def _watch_all(expected: Sequence[Expected], common: Common, deadline: float) -> list[Seen]:
    watches = [Watch(one, common) for one in expected]
    ends = [asyncio.create_task(watch.end()) for watch in watches]
    try:
        if ends:
            await asyncio.wait(ends, timeout=deadline, return_when=asyncio.FIRST_EXCEPTION)
        seen = [end.result() for end in ends if end.done()]
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    if len(seen) < len(ends):
        unmet = [watch for watch, end in zip(watches, ends, strict=True) if end.cancelled()]
        raise _not_propagated(unmet, deadline)
    return seen


def _not_propagated(unmet: Sequence[Watch], deadline: float) -> NotPropagated:
    one = unmet[0].expected
    address = next((address for server in one.servers for address in server.addresses), None)
    asked = f"@{address.host} -p {address.port} " if address else ""
    return NotPropagated(
        f"the nameservers did not show {values_text(len(one.values))} at {one.name} within {deadline:g} s",
        expected="\n".join(
            f"{watch.expected.name} TXT {value}" for watch in unmet for value in sorted(watch.expected.values)
        ),
        found="\n".join(line for watch in unmet for line in watch.said()),
        next=f"`dig +norecurse {asked}{one.name} TXT` once the nameservers are mended, then run again",
    )
