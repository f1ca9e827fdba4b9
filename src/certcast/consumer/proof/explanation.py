"""A verdict in words: where a release was seen, or why the proof failed and which line is to blame.

    proof_of                                     where the release was seen, and remarks
    handshakes_lost · no_listener · not_proved   the failures, each with its next step
    culprits                                     lines of nginx's configuration that name another certificate

nginx takes the last ssl_certificate of each type of key. To name the line, that choice is made again here,
on what `nginx -T` says.

Not here: which server block answers (server_names.py), whether a proof has failed (verdict.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from certcast.consumer.nginx import server_names
from certcast.report.errors import NotProved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from certcast.config.model import Listener
    from certcast.consumer.nginx.configuration import Server
    from certcast.consumer.proof.handshake import Client, Handshake, Shown
    from certcast.consumer.proof.plan import Plan, Site
    from certcast.consumer.proof.verdict import Verdict

_MOST_LINES = 8  # of one kind, in a report that a person reads
_MOST_PLACES = 100  # in a mail that says where the new certificate was seen


@dataclass(frozen=True)
class Proof:
    """A proved release in words: a summary, a line for each place where it was seen, and remarks."""

    summary: str
    places: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def proof_of(verdict: Verdict, sites: list[Site], plan: Plan, not_provable: list[str]) -> Proof:
    """Return a good verdict in words; `not_provable` says what could not be tried, besides the plan's."""
    seen = {handshake.target.listener for handshake in verdict.shown}
    not_provable = [*not_provable, *plan.not_provable]
    not_provable += [
        f"{listener}: no name is known that leads to {line}"
        for listener, line in plan.unasked.items()
        if listener not in seen
    ]
    not_provable += unreachable(verdict)
    words = summary(verdict)
    if not_provable:
        others = f" and {len(not_provable) - 1:,} more" if len(not_provable) > 1 else ""
        words += f"; not provable: {not_provable[0]}{others}"
    lines = [f"not provable: {what}" for what in not_provable]
    lines += [*remarks(verdict), *culprits(sites, verdict.foreign, advise=False)]
    return Proof(words, tuple(places(verdict)), tuple(lines))


def summary(verdict: Verdict) -> str:
    """Return in a few words what was seen."""
    listeners = len({handshake.target.listener for handshake in verdict.shown})
    words = [
        f"seen in {_many(len(verdict.shown), 'handshake')} "
        f"({_kinds(verdict.shown)}) on {_many(listeners, 'listener')}"
    ]
    if verdict.dropped_clients:
        words.append(f"no longer for {_kinds(verdict.dropped_clients)}")
    if verdict.foreign:
        words.append(f"another certificate in {_many(len(verdict.foreign), 'handshake')}")
    return "; ".join(words)


def places(verdict: Verdict) -> list[str]:
    """Return where the release was seen, one line a target, with the kinds of client."""
    found: dict[str, list[Handshake]] = {}
    for handshake in verdict.shown:
        found.setdefault(str(handshake.target), []).append(handshake)
    return _first((f"{target} ({_kinds(shown)})" for target, shown in found.items()), most=_MOST_PLACES)


def remarks(verdict: Verdict) -> list[str]:
    """Return what is not wrong but worth a line in a mail."""
    return _without_handshake(verdict, verdict.dropped_clients) + _by_target(
        verdict.foreign, verdict.after, lambda handshake: f"{verdict.after[handshake]}, not one of certcast's"
    )


# -- failures


class HandshakesBroke(NotProved):
    """The release broke handshakes that had worked, and was taken back."""


def handshakes_lost(name: str, verdict: Verdict) -> HandshakesBroke:
    """Return the failure of a release that is being taken back."""
    return HandshakesBroke(
        f"{name}: with the new certificate, handshakes failed that had worked",
        expected="a handshake wherever there was one before",
        found="\n".join(failures(verdict)),
        next="often ssl_ciphers or ssl_protocols that suit only the old type of key; or clients that take no "
        "other (consumer.allow_key_type_change = true gives them up). This release is not "
        f"tried again by itself; when it is mended, run `certcast pull --now {name}`",
    )


def no_listener(name: str, untold: list[str]) -> NotProved:
    """Return the failure where there is nothing to shake hands with; `untold`: what we could not read."""
    return NotProved(
        f"{name}: no TLS listener is known, so nothing could be proved",
        expected="`listen … ssl` in `nginx -T`, or listeners of [[consumer.nginx]]",
        found="; ".join(untold) or "neither",
        next=f'set consumer.nginx.listeners, as in ["127.0.0.1:443"]; then run `certcast pull {name}`',
    )


def not_proved(name: str, version: str, sites: list[Site], plan: Plan, verdict: Verdict) -> NotProved:
    """Return the failure of a release that is not seen everywhere, with what is likely to be the matter."""
    return NotProved(
        f"{name}: nginx was reloaded, but does not serve the new certificate everywhere",
        expected=f"leaf {verdict.expectation.release[:16]}… on every listener, and the old workers retired",
        found="\n".join(failures(verdict)),
        kept=f"version {version} stays in place: the pair is good",
        next="\n".join([*_likely(sites, plan, verdict), f"then run `certcast pull --now {name}`"]),
    )


def failures(verdict: Verdict) -> list[str]:
    """Return what is wrong, in words."""

    def instead_of_new(handshake: Handshake) -> str:
        was, now = verdict.before[handshake], verdict.after[handshake]
        return f"still {now}" if was.leaf == now.leaf else f"now {now}; before it was {was}"

    lines = lost(verdict)
    lines += _by_target(verdict.outdated, verdict.after, instead_of_new)
    for listener in verdict.unseen:
        shown = dict.fromkeys(str(now) for _, now in _at(verdict, listener))
        lines.append(f"{listener}: {'; '.join(list(shown)[:3])}")
    if verdict.lingering:
        pids = ", ".join(str(worker.pid) for worker in verdict.lingering)
        lines.append(f"workers from before still accept: {pids}")
    return lines or unreachable(verdict) or ["no handshake showed it"]


def lost(verdict: Verdict) -> list[str]:
    """Return the targets of lost handshakes, with what came instead."""
    return _without_handshake(verdict, verdict.lost)


def _without_handshake(verdict: Verdict, handshakes: Iterable[Handshake]) -> list[str]:
    before, after = verdict.before, verdict.after
    return _by_target(handshakes, before, lambda key: f"{after[key]}; before it was {before[key]}")


def unreachable(verdict: Verdict) -> list[str]:
    """Return the listeners that could not be connected to in either round, with the reason."""
    rounds = (*verdict.before.items(), *verdict.after.items())
    reached = {handshake.target.listener for handshake, shown in rounds if shown.reached}
    reasons = {
        handshake.target.listener: now.failure
        for handshake, now in verdict.after.items()
        if handshake.target.listener not in reached
    }
    return [f"{listener}: {reason}" for listener, reason in reasons.items()]


def _at(verdict: Verdict, listener: Listener) -> list[tuple[Handshake, Shown]]:
    return [
        (handshake, now) for handshake, now in verdict.after.items() if handshake.target.listener == listener
    ]


def _by_target(
    handshakes: Iterable[Handshake], shown: Mapping[Handshake, Shown], say: Callable[[Handshake], str]
) -> list[str]:
    """Return one line for each target and text; which clients, if others of the target fare otherwise."""
    groups: dict[tuple[str, str], list[Handshake]] = {}
    for handshake in handshakes:
        groups.setdefault((str(handshake.target), say(handshake)), []).append(handshake)
    alive: dict[str, set[Handshake]] = {}
    for handshake, now in shown.items():
        if now.leaf:
            alive.setdefault(str(handshake.target), set()).add(handshake)
    return _first(
        f"{target}: {text}"
        if alive.get(target, set()) <= set(group)
        else f"{target} ({_kinds(group)}): {text}"
        for (target, text), group in groups.items()
    )


def _kinds(handshakes: Iterable[Handshake]) -> str:
    """Return the kinds of client in words: "TLS 1.2 and 1.3, ECDSA clients"."""
    clients = {handshake.client for handshake in handshakes}
    versions = sorted({client.version for client in clients})
    keys = sorted({client.keys for client in clients if client.keys != "any"}, reverse=True)
    numbers = [version.removeprefix("TLS ") for version in versions if version != "TLS"]
    words = f"TLS {' and '.join(numbers)}" if numbers else "TLS"
    return f"{words}, {' and '.join(keys)} clients" if keys else words


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")


def _first(lines: Iterable[str], *, most: int = _MOST_LINES, what: str = "") -> list[str]:
    """Return each line once; at most so many, the last of which says how many more there are."""
    found = list(dict.fromkeys(lines))
    if len(found) > most:
        found[most - 1 :] = [f"and {len(found) - most + 1:,} more {what}like these"]
    return found


# -- what is likely to be the matter


def _likely(sites: list[Site], plan: Plan, verdict: Verdict) -> list[str]:
    """Return what is likely to be the matter, with what to do about it."""
    if verdict.lingering:
        return ["nginx did not take the new configuration: look for [emerg] in its error log"]
    if verdict.lost:
        return ["a listener that answered before does not now: look into nginx's error log"]
    for site in sites:
        if site.is_included() is False:
            return [f"nginx does not read {site.snippet}: add `include {site.snippet};` to the server blocks"]
    lines = [line for listener in verdict.unseen for line in _misdirected(sites, listener, verdict)]
    if lines := lines or _unasked(plan, verdict):
        return lines
    unseen = [handshake for handshake in verdict.after if handshake.target.listener in verdict.unseen]
    suspects = [*verdict.outdated, *unseen]
    if not suspects:
        return ["set consumer.nginx.listeners to where this nginx can be reached from here"]
    return culprits(sites, suspects, advise=True) or [
        "a server block without the include answers, or another program on that port: see `nginx -T`",
    ]


def _unasked(plan: Plan, verdict: Verdict) -> list[str]:
    return [
        f"{line}: add a name to its server_name by which it can be asked, as no regular expression can"
        for listener, line in plan.unasked.items()
        if listener in verdict.unseen or not verdict.shown
    ]


def _misdirected(sites: list[Site], listener: Listener, verdict: Verdict) -> Iterator[str]:
    """Say what is wrong with a configured listener, if it is not where nginx says it listens."""
    for site in sites:
        if listener not in site.nginx.listeners:
            continue
        listens = [listen for _, listen in server_names.list_at(site.servers, listener)]
        if listens and all(listen.listener.proxy_protocol != listener.proxy_protocol for listen in listens):
            right = replace(listener, proxy_protocol=not listener.proxy_protocol)
            yield f'{listens[0].at} has it otherwise: write "{right}" in consumer.nginx.listeners'
        elif not any(now.reached for _, now in _at(verdict, listener)):
            yield f"nothing answers at {listener}: correct consumer.nginx.listeners as in `nginx -T`"


def culprits(sites: Iterable[Site], shown: Iterable[Handshake], *, advise: bool) -> list[str]:
    """Return the lines that made these handshakes show another certificate, and what to do about it.

    Without advice where nothing has failed: it might cut off clients that are served as they should be.
    """
    sites = tuple(sites)
    blamed = (
        blame
        for handshake in shown
        for site in sites
        for server in server_names.match(site.servers, handshake.target.listener, handshake.target.name)[:1]
        for blame in _blame(site, server, handshake.client)
    )
    return _first((f"{what}: {to_do}" if advise else what for what, to_do in blamed), what="lines ")


def _blame(site: Site, server: Server, client: Client) -> Iterator[tuple[str, str]]:
    """Give each line that names another certificate, and what to do about it if that is a fault."""
    certificates = server.certificates
    ours = [index for index, found in enumerate(certificates) if site.is_our_file(found.path)]
    if not ours:
        for last in certificates[-1:]:  # none: it rejects handshakes, as it is told to
            yield f"{last.at} names another ssl_certificate", f"put `include {site.snippet};` in its place"
        return
    for later in certificates[ours[-1] + 1 :]:
        yield (
            f"{later.at} names another ssl_certificate after ours (the last of a key type wins)",
            "remove it",
        )
    for earlier in certificates[: ours[-1]]:
        if not site.is_our_file(earlier.path):
            yield f"{earlier.at} names another ssl_certificate, which {client.keys} clients get", "remove it"
