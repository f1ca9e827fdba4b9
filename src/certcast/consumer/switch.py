"""Put a version into service on every nginx of this host, or leave the one that serves.

    copies → switch → `nginx -t` → handshakes before → reload → proof
       └───────┴─────────┴──────────────────────────────┴──> rollback

    the test or the reload fails,                 rollback: the previous version, reloaded where the new
      or a handshake is lost                        one was
    the old certificate is still shown somewhere  no rollback: the pair has passed every check, and other
                                                    listeners have it; the run fails, and says why
    nginx does not run                            no rollback: it may need this very file to start
    it is the host's first version                no rollback of the snippet, without which nginx refuses the
                                                    `include`; copies become what they were

A reload ends each keep-alive connection, and leaves workers behind for as long as the longest download. So a
release that was reloaded before, broke nothing and is not proved is reloaded again only where nginx's
configuration has changed since (docs/adr/0017).

Not here: which version is the previous one (versions.py), and what is remembered (takeover.py).
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
from certcast.consumer.proof.verdict import Expectation, Verdict, prove, wait_for_retirement
from certcast.report.errors import CertcastError, InstallError, NotIncluded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from certcast.config.model import ConsumerConfig, NginxConfig
    from certcast.consumer.disk.copies import Copies
    from certcast.consumer.disk.versions import Folder
    from certcast.consumer.nginx.processes import Worker
    from certcast.consumer.proof.explanation import Proof
    from certcast.consumer.proof.handshake import Handshake, Shown
    from certcast.consumer.proof.plan import Plan, Site


@dataclass
class Switch:
    """One change: which version follows which (directory names), and its leaf's SHA-256.

    `names` are those of the certificate, `known_leaves` those of earlier releases, however long ago.
    `key_types` are that of the proved key (None if there is none) and that of the new one. `flaw` says in
    words why nobody should be served the previous version (versions.py). `after` gets the name of each step.

    `reloaded_config`: all of this is in place already, and nginx was reloaded with it in vain while its
    configuration had this SHA-256; None if it is to be reloaded whatever it shows. `on_reloaded` is called
    with what to give the next time, when a release breaks nothing and is not proved either.
    """

    folder: Folder
    copies: Copies
    consumer: ConsumerConfig
    names: tuple[str, ...]
    version: str
    previous: str | None
    release: str
    after: Callable[[str], None]
    known_leaves: tuple[str, ...]
    key_types: tuple[str | None, str | None]
    flaw: str | None
    reloaded_config: str | None
    on_reloaded: Callable[[str | None], None]

    # How far it got: what a rollback has to undo, and to look at.
    _clients: Clients = field(init=False)
    _sites: list[Site] = field(default_factory=list)
    _untold: list[str] = field(default_factory=list)  # in words, whose server blocks we cannot read
    _before: dict[Handshake, Shown] = field(default_factory=dict)
    _reloaded: list[Site] = field(default_factory=list)
    _retiring: tuple[Worker, ...] = ()  # the workers of `_reloaded` from before
    _other_masters: int = 0  # they serve other certificates from the same directory, and so may go on

    def put_into_service(self) -> Proof:
        """Switch, test, reload and prove; return where the release was seen.

        Raises FileMounted before anything is switched; NginxRefused, NginxMissing, ReloadFailed,
        NotIncluded, HandshakesBroke and NotProved, with what the snippet names now in `kept`;
        LocalFault if a copy cannot be written; OSError.
        """
        for server in self._servers:
            written = [self.folder.snippet_of(server), *copies.targets(self.copies.entries)]
            containers.require_mounted(server, written, folder=self.folder.root, test=control.test)
        with Clients() as self._clients, self.copies.replaced(self.version):
            return self._run()

    @property
    def _servers(self) -> tuple[NginxConfig, ...]:
        return self.consumer.nginx_of(self.folder.certificate)

    @property
    def _can_roll_back(self) -> bool:
        """Whether a rollback would change anything."""
        return self.previous is not None or bool(self.copies.entries)

    def _run(self) -> Proof:
        self.folder.point_snippets(self.version)
        self.after("snippet")
        self.folder.point_current(self.version)
        self.after("current")
        with self._rolled_back():
            self._examine()
        if self.previous is None:
            self._require_included()
        self.after("tested")
        workers = self._workers()
        with self._rolled_back():
            plan = plan_handshakes(self._sites, self.names, self._clients.kinds)
            if not plan.handshakes:
                raise explanation.no_listener(self.folder.certificate, self._untold)
            self._before = baseline.complete(self.folder.handshakes, self._clients.try_all(plan.handshakes))
            verdict = self._verdict_without_reload(plan) or self._verdict(plan, workers)
            if verdict.lost and self._can_roll_back:
                raise explanation.handshakes_lost(self.folder.certificate, verdict)
        baseline.remove(self.folder.handshakes)
        if not verdict.is_proved:
            raise self._not_proved(plan, verdict)
        return explanation.proof_of(verdict, self._sites, plan, self._untold)

    # -- the test

    def _examine(self) -> None:
        """Test each nginx, and note what it says of itself."""
        for server in self._servers:
            says = None
            command = " ".join(server.test)
            try:
                says = control.examine(server)
            except ValueError as error:
                self._untold.append(f"server blocks of `{command}` ({error})")
            else:
                if says is None and not server.listeners:
                    self._untold.append(f"`{command}` does not show its listeners: configure them")
            entries = self.copies.entries
            self._sites.append(site_of(server, says, self.folder, self.version, entries))

    def _require_included(self) -> None:
        """Raise NotIncluded if an nginx says that it reads neither the snippet nor a copy.

        Only for a host's first version: later the handshakes tell.
        """
        name = self.folder.certificate
        for site in self._sites:
            if site.says is not None and not site.is_included():
                self.copies.keep()  # the site that is about to name them must find them
                raise NotIncluded(
                    f"{name}: the certificate is here, but no site of nginx includes it yet",
                    expected=f"include {site.snippet};"
                    + ("\nor an ssl_certificate that copy_to writes" if self.copies.entries else ""),
                    found=f"`{' '.join(site.nginx.test)}` does not read that file,\n"
                    f"but {site.says.files[0]} and what it includes",
                    kept="staged; what nginx serves was not touched",
                    next=f"in each server block of {name}\n"
                    f"add     include {site.snippet};\n"
                    "remove  its ssl_certificate and ssl_certificate_key lines\n"
                    f"then run `certcast pull {name}`",
                )

    def _workers(self) -> list[tuple[Worker, ...]]:
        """Return the workers of each site. NginxMissing, with the version left in place."""
        try:
            workers = [control.find_workers(site.nginx, site.says) for site in self._sites]
        except InstallError as failure:
            self.copies.keep()
            kept = f"version {self.version} is in place and passed the test; nginx will start with it"
            raise failure.but(kept=kept) from failure
        self._other_masters = self._count_other_masters(worker for group in workers for worker in group)
        return workers

    def _count_other_masters(self, workers: Iterable[Worker]) -> int:
        """Return how many masters of `workers` are those of containers for other certificates.

        As many as are configured, and no more than there are besides ours. A container that has a directory
        of its own, or doesn't run, excuses nobody.
        """
        servers = self._servers
        configured = sum(1 for nginx in self.consumer.nginx if nginx.paths and nginx not in servers)
        running = {worker.master for worker in workers} - {None}
        ours = sum(1 for nginx in servers if nginx.paths and nginx.pid_file is None)
        return max(0, min(configured, len(running) - ours))

    # -- the proof

    def _expectation(self, plan: Plan) -> Expectation:
        here = [leaf for _, leaf in self.folder.list_versions().values()]
        return Expectation(
            self.release,
            (*self.known_leaves, *here),
            plan.required,
            plan.expected,
            self.folder.other_leaves(),
            self._droppable_keys(),
            first=self.previous is None,
        )

    def _droppable_keys(self) -> str | None:
        """Return the type of key whose clients may be lost.

        The gate has asked for permission to change the type of certcast's own key. A first release needs it
        too where it replaces somebody's files; where the operator put the include in, that was permission.
        """
        old, new = self.key_types
        if self._can_roll_back and not self.consumer.allow_key_type_change:
            return None
        old = old or {"RSA": "ECDSA", "ECDSA": "RSA"}.get(new or "")
        return old if old != new else None

    def _verdict_without_reload(self, plan: Plan) -> Verdict | None:
        """Return the verdict on what is shown without a reload; None if a reload may better it.

        One round is enough: the reload of an earlier run already retired every worker that started before
        the switch. But nginx may not have loaded a configuration that was changed since, and then what is
        shown proves nothing.
        """
        reloaded = self.reloaded_config
        if reloaded is None or reloaded != self._configuration():
            return None
        return Verdict(self._before, self._before, self._expectation(plan))

    def _verdict(self, plan: Plan, workers: list[tuple[Worker, ...]]) -> Verdict:
        """Reload each nginx, and return what that came to."""
        baseline.write(self.folder.handshakes, self._before)
        for site, its_workers in zip(self._sites, workers, strict=True):
            control.reload(site.nginx)
            self._reloaded.append(site)
            self._retiring += its_workers
        self.after("reloaded")
        return prove(
            self._before,
            self._expectation(plan),
            self._clients,
            workers=self._retiring,
            seconds=self.consumer.proof_deadline,
            other_masters=self._other_masters,
        )

    def _configuration(self) -> str | None:
        """Return the SHA-256 of the configurations; None if an nginx does not tell its own."""
        found = [site.says.sha256 for site in self._sites if site.says is not None]
        return " ".join(found) if len(found) == len(self._sites) else None

    def _not_proved(self, plan: Plan, verdict: Verdict) -> CertcastError:
        """Let the version stay in place; return the failure of its proof."""
        self.copies.keep()
        # Lingering workers may mean that nginx has not taken the reload at all. So may a leaf that nobody was
        # shown, where some of those workers pass for another certificate's.
        taken = bool(verdict.shown) or not self._other_masters
        if taken and not (verdict.lost or verdict.lingering):
            self.on_reloaded(self._configuration())
        return explanation.not_proved(self.folder.certificate, self.version, self._sites, plan, verdict)

    # -- the rollback

    @contextlib.contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Undo the change if the block fails; the first failure stays the one that is raised."""
        try:
            yield
        except InstallError as failure:
            try:
                kept = self._roll_back()
                baseline.remove(self.folder.handshakes)
            except (CertcastError, OSError) as second:
                previous = self.previous
                where = f"version {previous}" if previous else "the copies of before"
                kept = f"going back to {where} failed too: {second}"
            raise failure.but(kept=kept) from failure

    def _roll_back(self) -> str:
        """Let the snippet name the previous version again; return how that went. CertcastError, OSError."""
        previous = self.previous
        if not self._can_roll_back:
            return f"version {self.version} stays in the snippet, since there is no earlier one"
        back = "copies put back" if previous is None else f"switched back to version {previous}"
        if self.flaw:
            back += f", {self.flaw}: mend this at once"
        self.copies.put_back()
        if previous is not None:
            self.folder.point_snippets(previous)
            self.folder.point_current(previous)
        if not self._reloaded:
            return f"{back}; nginx was not reloaded"
        # A reload is asynchronous: the one to take back may not have begun. Then the workers that are to
        # retire, those with the refused version, do not run yet.
        self._wait(self._retiring)
        sites = self._reloaded
        workers = [worker for site in sites for worker in control.find_workers(site.nginx, site.says)]
        for site in sites:
            control.reload(site.nginx)
        self._wait(tuple(workers))
        after = self._clients.try_all(self._before)
        if lines := explanation.lost(Verdict(self._before, after, Expectation(self.release))):
            return f"{back}, reloaded; still without a handshake: {', '.join(lines)}"
        return f"{back}, reloaded; what worked before works again"

    def _wait(self, workers: tuple[Worker, ...]) -> None:
        wait_for_retirement(workers, self.consumer.proof_deadline, self._other_masters)
