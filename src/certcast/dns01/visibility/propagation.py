"""Waiting until a zone's nameservers show the TXT values.

A fixed sleep is too long on a good day and too short on a bad one. The CA asks
any one of the zone's servers (and several, from several places: BR section
3.2.2.9), so the question is whether *all* that can be asked have *all* values:

    every server, at each of its addresses, is polled by itself, from every 0.1 s on
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

from certcast.dns01.visibility.reach import names_text, values_text
from certcast.dns01.visibility.watching import Common, Watch
from certcast.report.errors import NotPropagated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from certcast.config.model import Resolver
    from certcast.dns01.visibility.reach import Expected, Seen


def wait(
    expected: Sequence[Expected],
    *,
    fallback: Sequence[Resolver],
    head_start: float,
    deadline: float,
    progress: Callable[[str], None],
) -> list[Seen]:
    """Do as `watch` does, for a caller that waits for these alone."""

    async def alone() -> list[Seen]:
        common = Common(fallback, progress)
        return await watch(expected, common, head_start=head_start, deadline=deadline)

    return asyncio.run(alone())


async def watch(
    expected: Sequence[Expected], common: Common, *, head_start: float, deadline: float
) -> list[Seen]:
    """Return once it is settled for every expectation who shows it. All times are seconds from now.

    `common` is that of the loop, for the resolvers and what is known of reachability; resolvers are not
    asked before `head_start` is over.
    Raises NotPropagated after `deadline` seconds, with what each server said last.
    """
    now = time.monotonic()
    watches = [Watch(one, common, now + head_start, now + deadline) for one in expected]
    ends = [asyncio.create_task(one.end()) for one in watches]
    try:
        if ends:
            await asyncio.wait(ends, timeout=deadline, return_when=asyncio.FIRST_EXCEPTION)
        seen = [end.result() for end in ends if end.done()]
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    if len(seen) < len(ends):
        unmet = [one for one, end in zip(watches, ends, strict=True) if end.cancelled()]
        raise _not_propagated(unmet, deadline)
    return seen


def waiting_for(expected: Sequence[Expected]) -> list[str]:
    """Say in words for a person what is waited for: a line for all names with the same nameservers."""
    by_servers: dict[tuple[str, ...], list[Expected]] = {}
    for one in expected:
        by_servers.setdefault(tuple(server.name for server in one.servers), []).append(one)
    lines = []
    for servers, some in by_servers.items():
        names = {one.name for one in some}
        at = names_text(len(names)) if len(names) > 1 else some[0].name
        count = values_text(sum(len(one.values) for one in some))
        lines.append(f"waiting until {', '.join(servers) or 'no nameserver'} show {count} at {at}")
    return lines


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
