"""One command's run: its configuration, its store, and how it ended.

Every failure is printed and mailed; the first gives the exit status, and a mail that
cannot be sent never hides the failure that it was about.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from certcast.report import console
from certcast.report.errors import CertcastError, Defect, MailNotSent

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.config.model import CertificateConfig, Config
    from certcast.consumer.outcome import Outcome
    from certcast.storage.store import Reader, Store


class Run:
    """One command's run: the configuration, the store once it is needed, and how it ended."""

    def __init__(self, config_file: str | None, doing: str) -> None:
        from certcast.config.reading import config_path, load

        self.config: Config = load(config_path(config_file))
        self.doing = doing
        self.status = 0
        console.caveat(self.config)
        self._store: Store | None = None
        self._reader: Reader | None = None

    def store(self) -> Store:
        """Open the store at its first use; SDKs are slow to import."""
        if self._store is None:
            from certcast.storage import open_store

            self._store = open_store(self.config.store, self.config.state_dir)
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
        """Pull one certificate; print and mail what changed, also if the run then ends with an alarm."""
        from certcast.consumer.takeover import pull

        installed: list[Outcome] = []
        try:
            outcome = pull(
                self.config,
                certificate,
                open_store=self.reader,
                now=now(),
                force=force,
                progress=console.progress(),
                installed=installed.append,
            )
            if outcome.result != "installed" and sys.stderr.isatty():
                hint = "; --now looks all the same" if outcome.result == "nothing due" else ""
                console.progress()(outcome.text + hint)
        finally:
            for outcome in installed:
                console.changed(outcome.text)
                self.attempt(certificate, partial(self._mail_installed, outcome))

    def attempt(
        self, certificate: CertificateConfig | None, work: Callable[[], object], *, unless: str | None = None
    ) -> str | None:
        """Do `work`; tell of its failure unless it has the code `unless`. Return the failure's code."""
        from certcast.host import private_files

        try:
            private_files.require_own_dir(self.config.state_dir)
            work()
        except CertcastError as failure:
            if failure.code != unless:
                self.failed(certificate, failure)
            return failure.code
        except Exception as error:
            ours = defect(error)
            if ours.code != unless:
                self.failed(certificate, ours)
            return ours.code
        return None

    def failed(self, certificate: CertificateConfig | None, failure: CertcastError) -> None:
        """Print and mail a failure. The first gives the exit status; an unsent mail yields to any other."""
        console.failed(failure.report())
        if self.status in {0, MailNotSent.exit_status}:
            self.status = failure.exit_status
        if isinstance(failure, MailNotSent):
            return
        from certcast.notify import mail

        try:
            mail.send_failure(
                self.config.mail,
                failure,
                host=self.config.host or host_name(),
                doing=self.doing,
                certificate=certificate.name if certificate else None,
                now=now(),
            )
        except MailNotSent as second:
            console.failed(second.report())

    def _mail_installed(self, outcome: Outcome) -> None:
        from certcast.notify import mail

        assert outcome.leaf is not None  # an installation has a leaf
        mail.send_installed(
            self.config.mail,
            host=self.config.host or host_name(),
            certificate=outcome.certificate,
            leaf=outcome.leaf,
            previous=outcome.previous,
            proved=outcome.proved,
            remarks=outcome.remarks,
            now=now(),
        )


def defect(error: Exception) -> Defect:
    """Return what is told of a failure that is nobody's but ours: source lines, and no variables."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    # Where in certcast it was, and where it came to: what lies between is the library's business.
    ours = [frame for frame in frames[:-1] if "/certcast/" in frame.filename]
    shown = traceback.StackSummary.from_list([*ours[-3:], *frames[-1:]]).format()
    return Defect(
        f"certcast did not expect this: {type(error).__name__}: {error}",
        found="".join([*shown, *traceback.format_exception_only(error)]).strip(),
        kept="what was served before, unless the lines above say otherwise",
        next="run it again; if it repeats, report it with these lines",
    )


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(timezone.utc)


def host_name() -> str:
    """The system's name for this host, which mails and manifests carry where `host` names no other."""
    import socket

    return socket.gethostname()
