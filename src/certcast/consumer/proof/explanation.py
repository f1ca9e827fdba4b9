"""A proof that failed, as an administrator should read it: what is the matter, and in which line.

    broke · nowhere · not_proved   the failures, each with its next step
    culprits · elsewhere           which line of nginx's configuration shows another certificate,
                                   as a fault, and where nothing has failed

nginx takes the last ssl_certificate of each type of key; that is done again here, on what
`nginx -T` says, to name the line.

Not here: which server block answers (server_names.py), whether a proof has failed (verdict.py),
and going back (switch.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from certcast.consumer.nginx import server_names
from certcast.consumer.proof.verdict import MOST_LINES
from certcast.report.errors import NotProved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from certcast.config.model import Listener
    from certcast.consumer.nginx.configuration import Server
    from certcast.consumer.proof.handshake import Client, Handshake
    from certcast.consumer.proof.plan import Plan, Site
    from certcast.consumer.proof.verdict import Verdict


class HandshakesBroke(NotProved):
    """The release broke handshakes that had worked, and was taken back."""


def broke(name: str, verdict: Verdict) -> HandshakesBroke:
    """Return the failure of a release that is being taken back."""
    return HandshakesBroke(
        f"{name}: with the new certificate, handshakes failed that had worked",
        expected="a handshake wherever there was one before",
        found="\n".join(verdict.lines()),
        next="often ssl_ciphers or ssl_protocols that suit only the old type of key; or clients that take no "
        "other (consumer.allow_key_type_change = true gives them up). This release is not "
        f"tried again by itself; when it is mended, run `certcast pull --now {name}`",
    )


def nowhere(name: str, untold: list[str]) -> NotProved:
    """Return the failure where there is nothing to shake hands with; `untold`: what we could not read."""
    return NotProved(
        f"{name}: no TLS listener is known, so nothing could be proved",
        expected="`listen … ssl` in `nginx -T`, or listeners of [[consumer.nginx]]",
        found="; ".join(untold) or "neither",
        next=f'set consumer.nginx.listeners, as in ["127.0.0.1:443"]; then run `certcast pull {name}`',
    )


def not_proved(name: str, release: str, sites: list[Site], plan: Plan, verdict: Verdict) -> NotProved:
    """Return the failure of a release that is not seen everywhere, with what is likely to be the matter."""
    return NotProved(
        f"{name}: nginx was reloaded, but does not serve the new certificate everywhere",
        expected=f"leaf {release[:16]}… on every listener, and the old workers retired",
        found="\n".join(verdict.lines()),
        next="\n".join([*_likely(sites, plan, verdict), f"then run `certcast pull --now {name}`"]),
    )


def _likely(sites: list[Site], plan: Plan, verdict: Verdict) -> list[str]:
    """Return what is likely to be the matter, with what to do about it."""
    if verdict.held:
        return ["nginx did not take the new configuration: look for [emerg] in its error log"]
    if verdict.broken:
        return ["a listener that answered before does not now: look into nginx's error log"]
    for site in sites:
        if site.includes_ours() is False:
            return [f"nginx does not read {site.snippet}: add `include {site.snippet};` to the server blocks"]
    lines = [line for listener in verdict.dark for line in _misdirected(sites, listener, verdict)]
    if lines := lines or _unasked(plan, verdict):
        return lines
    dark = [one for one in verdict.after if one.target.listener in verdict.dark]
    if not (verdict.stale or dark):
        return ["set consumer.nginx.listeners to where this nginx can be reached from here"]
    return culprits(sites, [*verdict.stale, *dark]) or [
        "a server block without the include answers, or another program on that port: see `nginx -T`",
    ]


def _unasked(plan: Plan, verdict: Verdict) -> list[str]:
    return [
        f"{line}: add a name to its server_name by which it can be asked, as no regular expression can"
        for listener, line in plan.unasked.items()
        if listener in verdict.dark or not verdict.shown
    ]


def _misdirected(sites: list[Site], listener: Listener, verdict: Verdict) -> Iterator[str]:
    """Say what is wrong with a configured listener, if it is not where nginx says it listens."""
    for site in sites:
        if listener not in site.nginx.listeners:
            continue
        listens = [listen for _, listen in server_names.list_at(site.servers, listener)]
        if listens and all(one.listener.proxy_protocol != listener.proxy_protocol for one in listens):
            right = replace(listener, proxy_protocol=not listener.proxy_protocol)
            yield f'{listens[0].at} has it otherwise: write "{right}" in consumer.nginx.listeners'
        elif not any(now.reached for one, now in verdict.after.items() if one.target.listener == listener):
            yield f"nothing answers at {listener}: correct consumer.nginx.listeners as in `nginx -T`"


# -- who is to blame


def culprits(sites: Iterable[Site], shown: Iterable[Handshake]) -> list[str]:
    """Return the lines that made these handshakes show another certificate, with what to do; each once.

    At most eight, then how many more there are.
    """
    return _first(f"{what}: {to_do}" for what, to_do in _blamed(sites, shown))


def elsewhere(sites: Iterable[Site], shown: Iterable[Handshake]) -> list[str]:
    """Return the same lines where nothing has failed: what they are, and nothing to do.

    Who follows it might cut off clients that are served as they should be.
    """
    return _first(what for what, _ in _blamed(sites, shown))


def _blamed(sites: Iterable[Site], shown: Iterable[Handshake]) -> dict[tuple[str, str], None]:
    sites = tuple(sites)
    return {
        blame: None
        for handshake in shown
        for site in sites
        for server in server_names.match(site.servers, handshake.target.listener, handshake.target.name)[:1]
        for blame in _blame(site, server, handshake.client)
    }


def _first(found: Iterable[str]) -> list[str]:
    lines = list(dict.fromkeys(found))
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [f"and {len(lines) - MOST_LINES + 1:,} more lines like these"]
    return lines


def _blame(site: Site, server: Server, client: Client) -> Iterator[tuple[str, str]]:
    """Give each line that names another certificate, and what to do about it if that is a fault."""
    certificates = server.certificates
    ours = [index for index, one in enumerate(certificates) if site.is_ours(one.path)]
    if not ours:
        for last in certificates[-1:]:  # none: it rejects handshakes, as it is told to
            yield f"{last.at} names another ssl_certificate", f"put `include {site.snippet};` in its place"
        return
    for one in certificates[ours[-1] + 1 :]:
        yield f"{one.at} names another ssl_certificate after ours (the last of a key type wins)", "remove it"
    for one in certificates[: ours[-1]]:
        if not site.is_ours(one.path):
            yield f"{one.at} names another ssl_certificate, which {client.keys} clients get", "remove it"
