"""The frame of every command: configuration, role, store, and how a failure ends.

    run = CommandRun(context, "pull", role="consumer")
    run.attempt(certificate, work)      a failure is told, and the next certificate has its turn
    return run.status                   the first failure's exit status

Every failure is printed. Where no person is `attending`, it is mailed, too; a mail that cannot be sent never
hides the failure that it was about.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Literal

from certcast.report import console
from certcast.report.errors import CertcastError, MailNotSent, defect

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from certcast.config.model import CertificateConfig, Config, RenewalConfig
    from certcast.consumer.outcome import Outcome
    from certcast.publisher.publication import Published
    from certcast.publisher.releases import Releases
    from certcast.publisher.signer import Signer
    from certcast.release.source import Source
    from certcast.storage.store import Reader, Store


class CommandRun:
    """One command's run: the configuration, the store once it is needed, and how it ended.

    `role` is the section of the configuration without which the command makes no sense here. `attended`: a
    person has typed it and reads how it ends, so nobody is mailed. `changes` certcast's own state, which
    nobody else may be able to write to.
    """

    def __init__(
        self,
        context: click.Context,
        doing: str,
        *,
        role: Literal["renewal", "consumer"] | None = None,
        attended: bool = False,
        changes: bool = False,
    ) -> None:
        from certcast.config.reading import config_path, load

        self.config: Config = load(config_path(context.obj))
        self.doing = doing
        self.attended = attended
        self.status = 0
        if self.config.store.encryption == "none":
            console.warned('store.encryption = "none": whoever can read the bucket has the private keys')
        if role is not None and getattr(self.config, role) is None:
            self.config.lacks(role, f"certcast {doing}")
        if changes:
            self.require_own_state()
        self._store: Store | None = None
        self._reader: Reader | None = None

    @property
    def renewal(self) -> RenewalConfig:
        """The [renewal] of the configuration; ConfigInvalid where there is none."""
        return self.config.renewal or self.config.lacks("renewal", f"certcast {self.doing}")

    @property
    def host(self) -> str:
        """What mails and manifests call this host."""
        return self.config.host or host_name()

    def require_own_state(self) -> None:
        """Raise SecretExposed if others may change what certcast remembers on this host. LocalFault."""
        from certcast.host import private_files

        private_files.require_own_dir(self.config.state_dir)

    def store(self) -> Store:
        """Open the store at its first use; SDKs are slow to import."""
        if self._store is None:
            from certcast.storage import open_store

            self._store = open_store(self.config.store)
        return self._store

    def reader(self) -> Reader:
        """Open what this host reads of the store: by `store.read_from`, where it has no credentials."""
        if self.config.store.read_from is None:
            return self.store()
        if self._reader is None:
            from certcast.storage import open_reader

            self._reader = open_reader(self.config.store)
        return self._reader

    def pull(self, certificate: CertificateConfig, *, force: bool) -> None:
        """Pull one certificate; print and mail what changed, then raise the alarm of the run, if any."""
        from certcast.consumer.takeover import pull

        outcome = pull(
            self.config,
            certificate,
            open_store=self.reader,
            now=now(),
            force=force,
            progress=console.progress(),
        )
        if outcome.result == "installed":
            console.changed(outcome.text)
            self.attempt(certificate, partial(self._mail_installed, outcome))
        elif outcome.alarm is None and sys.stderr.isatty():
            hint = "; --now looks all the same" if outcome.result == "nothing due" else ""
            console.progress()(outcome.text + hint)
        if outcome.alarm is not None:
            raise outcome.alarm

    def signer(self) -> Signer:
        """Gather who signs and who may read. Raises SigningFailed, SecretExposed, LocalFault."""
        from certcast.publisher.signer import Signer

        return Signer.of(self.config, self.renewal, self.host)

    def releases(self, certificate: CertificateConfig) -> Releases:
        """Return the releases of a certificate in the store. Raises as `signer` and `store` do."""
        from certcast.publisher.releases import Releases

        signer = self.signer()
        return Releases(certificate, self.store(), signer)

    def attempt(
        self, certificate: CertificateConfig | None, work: Callable[[], object], *, unless: str | None = None
    ) -> str | None:
        """Do `work`; tell of its failure unless it has the code `unless`. Return the failure's code."""
        try:
            self.require_own_state()
            work()
        except CertcastError as error:
            failure = error
        except Exception as error:
            failure = defect(error)
        else:
            return None
        if failure.code != unless:
            self.failed(certificate, failure)
        return failure.code

    def failed(self, certificate: CertificateConfig | None, failure: CertcastError) -> None:
        """Tell of a failure. The first gives the exit status; an unsent mail yields to any other."""
        console.failed(failure.report())
        if self.status in {0, MailNotSent.exit_status}:
            self.status = failure.exit_status
        if self.attended or isinstance(failure, MailNotSent):
            return
        from certcast.notify import mail

        try:
            mail.send_failure(
                self.config.mail,
                failure,
                host=self.host,
                doing=self.doing,
                certificate=certificate.name if certificate else None,
                now=now(),
            )
        except MailNotSent as second:
            console.failed(second.report())

    def _mail_installed(self, outcome: Outcome) -> None:
        from certcast.notify import mail

        assert outcome.leaf is not None  # an installation has a leaf
        installation = mail.Installation(
            host=self.host,
            certificate=outcome.certificate,
            leaf=outcome.leaf,
            previous=outcome.previous,
            proved=outcome.proved,
            remarks=outcome.remarks,
        )
        mail.send_installed(self.config.mail, installation, now=now())


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(timezone.utc)


def host_name() -> str:
    """The system's name for this host, which mails and manifests carry where `host` names no other."""
    import socket

    return socket.gethostname()


def require_extra(*packages: str) -> None:
    """Raise ConfigInvalid if this is a consumer's installation, which lacks what renewing needs."""
    from importlib.util import find_spec

    from certcast.report.errors import ConfigInvalid

    if missing := [package for package in packages if find_spec(package) is None]:
        raise ConfigInvalid(
            "this installation cannot renew: it has the consumer's packages only",
            found=f"no package {', '.join(missing)} for {sys.executable}",
            kept="nothing was changed",
            next=f"`{sys.executable} -m pip install 'certcast[renewal]'`",
        )


def tell_published(
    run: CommandRun, certificate: CertificateConfig, published: Published, source: Source
) -> None:
    """Print what changed, and what is as it should not be; alarm if anybody here may read the key of it.

    To refuse such a key would cost the renewal.
    """
    from certcast.release.lifetime import utc_text
    from certcast.report.names import abridged

    name = certificate.name
    if published.result not in {"unchanged", "re-dated"}:
        leaf = published.manifest.leaf
        console.changed(
            f"{name}: {published.result} serial {leaf.serial}, valid until {utc_text(leaf.not_after)}"
        )
    if published.sealed_to:
        console.changed(f"{name}: private key sealed to {abridged(published.sealed_to)}")
    for warning in published.warnings:
        console.warned(f"{name}: {warning}")
    readable = source.exposed()
    if readable is not None:
        run.failed(certificate, readable)
