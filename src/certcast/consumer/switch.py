"""Put a version into service on every nginx of this host, or leave the one that serves.

    copies → switch → `nginx -t` → handshakes before → reload → proof
       └───────┴─────────┴──────────────────────────────┴──> the way back

A reload ends each keep-alive connection, and leaves workers behind for as long as the longest
download. So a release that was reloaded before, broke nothing and is still not seen everywhere is
only looked at, as long as nginx's configuration is what it was; else it is reloaded again.

When to go back, and when not:
- the test or the reload fails, or a handshake that worked is broken: the snippet names
  the previous version again, and whatever was reloaded is reloaded once more.
- the old certificate is merely *still* shown: no way back. The new pair has passed every
  check and nobody is worse off than before, but going back would take it from the
  listeners that have it. The run fails, and says what is likely to be the matter.
- nginx does not run: no way back either. The test has passed, and the host may be waiting
  for this very file in order to start.
- there is nothing to go back to: a host's first version stays where it is. Taking
  the snippet away would leave an `include` that leads nowhere, which nginx refuses.
  Copies always have a way back: something, or nothing, stood there before.

Not here: whether the pair may be served at all (gate.py), which version is the previous one (versions.py),
and remembering that it is (takeover.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from certcast.consumer.disk import copies
from certcast.consumer.nginx import containers, control
from certcast.consumer.proof import baseline, explanation
from certcast.consumer.proof.handshake import Clients
from certcast.consumer.proof.plan import plan_handshakes, site_of
from certcast.consumer.proof.verdict import judge, lost, prove, unreachable, wait_for_retirement
from certcast.report.errors import CertcastError, InstallError, NotIncluded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from certcast.config.model import ConsumerConfig, NginxConfig
    from certcast.consumer.disk.copies import Copies
    from certcast.consumer.disk.versions import Folder
    from certcast.consumer.nginx.processes import Worker
    from certcast.consumer.proof.handshake import Handshake, Shown
    from certcast.consumer.proof.plan import Plan, Site
    from certcast.consumer.proof.verdict import Verdict


@dataclass(frozen=True)
class Change:
    """What is to happen: which version follows which (directory names), and its leaf's SHA-256.

    `ours` are the leaves of earlier releases, however long ago. `key_types` are that of the
    proved key (None if there is none) and that of the new one. `flaw` says in words why nobody should
    be served the previous version (versions.py).

    `standing_with`: all of this stands already, and nginx was reloaded with it in vain while its
    configuration had this SHA-256; None if it is to be reloaded whatever it shows. `stands` is called
    with what to give the next time, when a release breaks nothing and is not proved either.
    """

    folder: Folder
    copies: Copies
    version: str
    previous: str | None
    release: str
    ours: tuple[str, ...] = ()
    key_types: tuple[str | None, str | None] = (None, None)
    flaw: str | None = None
    standing_with: str | None = None
    stands: Callable[[str | None], None] = lambda _configuration: None

    @property
    def has_way_back(self) -> bool:
        """Whether anything would be as before if it were undone."""
        return self.previous is not None or bool(self.copies.entries)


@dataclass(frozen=True)
class Seen:
    """Where a release was seen.

    `summary` in a few words; `places` a line for each listener and name; `remarks`: what
    could not be proved, and what somebody may want to know.
    """

    summary: str
    places: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@dataclass
class _Done:
    """How far the change got: what the way back has to undo, and to look at."""

    servers: tuple[NginxConfig, ...]
    clients: Clients
    deadline: float
    before: dict[Handshake, Shown] = field(default_factory=dict)
    reloaded: list[Site] = field(default_factory=list)
    retiring: tuple[Worker, ...] = ()  # the workers of `reloaded` from before
    others: int = 0  # masters that serve other certificates from the same directory, and so may go on


def put_into_service(
    change: Change, consumer: ConsumerConfig, names: tuple[str, ...], *, after: Callable[[str], None]
) -> Seen:
    """Switch, test, reload and prove; return where the release was seen.

    Raises FileMounted before anything is switched; NginxRefused, NginxMissing, ReloadFailed,
    NotIncluded, HandshakesBroke and NotProved, with what the snippet names now in `kept`;
    LocalFault if a copy cannot be written; OSError.
    """
    servers = consumer.nginx_of(change.folder.certificate)
    for server in servers:
        copied = copies.targets(change.copies.entries)
        written = [change.folder.snippet_of(server), *copied]
        containers.require_mounted(server, written, folder=change.folder.root, test=control.test)
    with Clients() as clients, change.copies.replaced(change.version):
        done = _Done(servers, clients, consumer.proof_deadline)
        return _put_into_service(change, consumer, names, done, after=after)


def _put_into_service(
    change: Change,
    consumer: ConsumerConfig,
    names: tuple[str, ...],
    done: _Done,
    *,
    after: Callable[[str], None],
) -> Seen:
    folder = change.folder
    folder.point_snippets(change.version)
    after("snippet")
    folder.point_current(change.version)
    after("current")
    with _way_back(change, done):
        sites, untold = _examine(change, done.servers)
    if change.previous is None:
        _require_included(change, sites)
    after("tested")
    with _staying(change):
        workers = [_workers([site]) for site in sites]
    done.others = _masters_of_others(consumer, done.servers, [one for some in workers for one in some])
    plan = plan_handshakes(sites, names, done.clients.kinds)
    with _way_back(change, done):
        if not plan.handshakes:
            raise explanation.nowhere(folder.certificate, untold)
        done.before = baseline.completed(folder.handshakes, done.clients.try_all(plan.handshakes))
        verdict = _without_reload(change, plan, done.before, sites)
        if verdict is None:
            baseline.note(folder.handshakes, done.before)
            for site, its_workers in zip(sites, workers, strict=True):
                control.reload(site.nginx)
                done.reloaded.append(site)
                done.retiring += its_workers
            after("reloaded")
            verdict = prove(
                done.before,
                plan,
                done.clients,
                release=change.release,
                ours=_ours(change),
                workers=done.retiring,
                seconds=consumer.proof_deadline,
                give_up=_given_up(change, consumer),
                first=change.previous is None,
                neighbours=folder.other_leaves(),
                others=done.others,
            )
        if verdict.broken and change.has_way_back:
            raise explanation.broke(folder.certificate, verdict)
    baseline.forget(folder.handshakes)
    if not verdict.proved:
        change.copies.keep()
        # Where workers of before still accept, nginx may not have taken it at all. So it may be, too, where
        # nobody was shown it, and some of those workers pass for another certificate's.
        taken = bool(verdict.shown) or not done.others
        if taken and not (verdict.broken or verdict.held):
            change.stands(_configuration(sites))
        error = explanation.not_proved(folder.certificate, change.release, sites, plan, verdict)
        error.kept = f"version {change.version} stays in place: the pair is good"
        raise error
    not_provable = [*untold, *plan.not_provable, *_unasked(plan, verdict)]
    not_provable += unreachable(done.before, verdict.after)
    return _seen(verdict, sites, not_provable)


def _without_reload(
    change: Change, plan: Plan, shown: dict[Handshake, Shown], sites: list[Site]
) -> Verdict | None:
    """Return the verdict on what is `shown` without a reload; None if a reload may better it.

    One round is enough: the workers of before our reload had retired, so none of today's is from before
    the switch. But what was changed since, nginx may not have loaded: of another configuration, what is shown
    proves nothing.
    """
    if change.standing_with is None or change.standing_with != _configuration(sites):
        return None
    return judge(
        shown,
        shown,
        release=change.release,
        ours=_ours(change),
        required=plan.required,
        expected=plan.expected,
        neighbours=change.folder.other_leaves(),
    )


def _configuration(sites: list[Site]) -> str | None:
    """Return the SHA-256 of the configurations; None if an nginx does not tell its own."""
    found = [site.says.sha256 for site in sites if site.says is not None]
    return " ".join(found) if len(found) == len(sites) else None


def _ours(change: Change) -> list[str]:
    """Return the leaves, or their first 16 digits, of every release that was ever put here."""
    return [*change.ours, *(leaf for _, leaf in change.folder.list_versions().values())]


def _masters_of_others(
    consumer: ConsumerConfig, servers: tuple[NginxConfig, ...], workers: Iterable[Worker]
) -> int:
    """Return how many masters of `workers` are those of containers for other certificates.

    As many as are configured, and no more than there are besides ours: one that has a directory of its own,
    or doesn't run, excuses nobody.
    """
    configured = sum(1 for one in consumer.nginx if one.paths and one not in servers)
    running = {worker.master for worker in workers} - {None}
    ours = sum(1 for one in servers if one.paths and one.pid_file is None)
    return max(0, min(configured, len(running) - ours))


def _given_up(change: Change, consumer: ConsumerConfig) -> str | None:
    """Return the type of key whose clients may be lost.

    Of a change of ours the gate has asked for the permission. In the place of somebody else's files
    a first release needs it too; in that of their lines it was the operator who put it there.
    """
    old, new = change.key_types
    if change.has_way_back and not consumer.allow_key_type_change:
        return None
    old = old or {"RSA": "ECDSA", "ECDSA": "RSA"}.get(new or "")
    return old if old != new else None


def _seen(verdict: Verdict, sites: list[Site], not_provable: list[str]) -> Seen:
    summary = verdict.summary()
    if not_provable:
        others = f" and {len(not_provable) - 1:,} more" if len(not_provable) > 1 else ""
        summary += f"; not provable: {not_provable[0]}{others}"
    remarks = [f"not provable: {what}" for what in not_provable]
    lines = explanation.elsewhere(sites, verdict.foreign)
    return Seen(summary, tuple(verdict.seen()), (*remarks, *verdict.remarks(), *lines))


def _unasked(plan: Plan, verdict: Verdict) -> list[str]:
    """Say at which listeners the release was not seen since no name is known that leads to it."""
    seen = {one.target.listener for one in verdict.shown}
    return [
        f"{listener}: no name is known that leads to {line}"
        for listener, line in plan.unasked.items()
        if listener not in seen
    ]


def _examine(change: Change, servers: tuple[NginxConfig, ...]) -> tuple[list[Site], list[str]]:
    """Test each nginx; return what it says of itself, and in words whose server blocks we cannot read."""
    sites, untold = [], []
    for server in servers:
        says = None
        try:
            says = control.examine(server)
        except ValueError as error:
            untold.append(f"server blocks of `{' '.join(server.test)}` ({error})")
        else:
            if says is None and not server.listeners:
                untold.append(f"`{' '.join(server.test)}` does not show its listeners: configure them")
        sites.append(site_of(server, says, change.folder, change.version, change.copies.entries))
    return sites, untold


def _require_included(change: Change, sites: list[Site]) -> None:
    """Raise NotIncluded if an nginx says that it reads neither the snippet nor a copy.

    Asked for a host's first version only: later the handshakes tell.
    """
    folder = change.folder
    for site in sites:
        if site.says is not None and not site.includes_ours():
            change.copies.keep()  # the site that is about to name them must find them
            raise NotIncluded(
                f"{folder.certificate}: the certificate is here, but no site of nginx includes it yet",
                expected=f"include {site.snippet};"
                + ("\nor an ssl_certificate that copy_to writes" if change.copies.entries else ""),
                found=f"`{' '.join(site.nginx.test)}` does not read that file,\n"
                f"but {site.says.files[0]} and what it includes",
                kept="staged; what nginx serves was not touched",
                next=f"in each server block of {folder.certificate}\n"
                f"add     include {site.snippet};\n"
                "remove  its ssl_certificate and ssl_certificate_key lines\n"
                f"then run `certcast pull {folder.certificate}`",
            )


def _workers(sites: Iterable[Site]) -> tuple[Worker, ...]:
    return tuple(worker for site in sites for worker in control.find_workers(site.nginx, site.says))


# -- the way back


@contextlib.contextmanager
def _staying(change: Change) -> Iterator[None]:
    try:
        yield
    except InstallError as error:
        change.copies.keep()
        error.kept = f"version {change.version} is in place and passed the test; nginx will start with it"
        raise


@contextlib.contextmanager
def _way_back(change: Change, done: _Done) -> Iterator[None]:
    """Undo the change if what is inside fails; the first failure stays the one that is raised."""
    try:
        yield
    except InstallError as error:
        try:
            error.kept = _go_back(change, done)
            baseline.forget(change.folder.handshakes)
        except (CertcastError, OSError) as second:
            where = f"version {change.previous}" if change.previous else "the copies of before"
            error.kept = f"going back to {where} failed too: {second}"
        raise


def _go_back(change: Change, done: _Done) -> str:
    """Let the snippet name the previous version again; return how that went. CertcastError, OSError."""
    previous = change.previous
    if not change.has_way_back:
        return f"version {change.version} stays in the snippet, since there is no earlier one"
    back = "copies put back" if previous is None else f"switched back to version {previous}"
    if change.flaw:
        back += f", {change.flaw}: mend this at once"
    change.copies.put_back()
    if previous is not None:
        change.folder.point_snippets(previous)
        change.folder.point_current(previous)
    if not done.reloaded:
        return f"{back}; nginx was not reloaded"
    # A reload is asynchronous: the one to take back may not have begun, and then those
    # who are to retire, the workers with the refused version, do not run yet.
    wait_for_retirement(done.retiring, done.deadline, done.others)
    workers = _workers(done.reloaded)
    for site in done.reloaded:
        control.reload(site.nginx)
    wait_for_retirement(workers, done.deadline, done.others)
    gone = lost(done.before, done.clients.try_all(done.before))
    if gone:
        return f"{back}, reloaded; still without a handshake: {', '.join(gone)}"
    return f"{back}, reloaded; what worked before works again"
