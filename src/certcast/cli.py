"""Arguments to calls, calls to exit statuses. Imports stand inside the commands.

    certcast renew [NAME]                   on the renewal host, from a timer
    certcast hook auth|cleanup|deploy       on the renewal host, from certbot
    certcast pull [NAME] [--now] [--watch]  on every host that serves
    certcast check                          read the configuration, say what it means
    certcast identity                       on every host: the key that its private keys are sealed to
    certcast publisher · host · publish · policy    on the renewal host, by its administrator (operate/)

At a terminal the commands tell what they do. From cron or a timer they are silent
unless something changed or failed. One certificate's failure doesn't stop the
others; the exit status is the first failure's (errors.py lists them), and every
failure is printed and mailed. A mail that cannot be sent never hides the failure
it was about; alone it is exit status 40.
"""

from __future__ import annotations

import signal
import sys
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import click

from certcast.errors import CertcastError, Defect, LocalFault, MailNotSent
from certcast.names import readable
from certcast.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.config import CertificateConfig, Config, RenewalConfig
    from certcast.consumer.outcome import Outcome
    from certcast.renewal.press import Press
    from certcast.renewal.publish import Published
    from certcast.storage.store import Reader, Store


class _Commands(click.Group):
    """The commands of this file, and those of operate/, which are imported when they are asked for."""

    LATER: ClassVar[dict[str, str]] = {
        "host": "host",
        "identity": "identity",
        "policy": "policy",
        "publish": "publish",
        "publisher": "publisher",
    }

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names for `--help`."""
        return sorted({*super().list_commands(context), *self.LATER})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command; one of operate/ is the object of that name in its module."""
        if name not in self.LATER:
            return super().get_command(context, name)
        from importlib import import_module

        found = getattr(import_module(f"certcast.operate.{self.LATER[name]}"), name)
        assert isinstance(found, click.Command)
        return found


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="Default: CERTCAST_CONFIG, then /etc/certcast/certcast.toml.",
)
@click.version_option(package_name="certcast")
@click.pass_context
def cli(context: click.Context, config_file: str | None) -> None:
    """Renew a certificate on one host, take it over on every other, and see it being served."""
    context.obj = config_file


def main() -> None:
    """Run the command line; the console script's entry point."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _as_interrupt)
    _dump_no_core()
    try:
        status = cli.main(prog_name="certcast", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again, it goes on from what it finds", err=True)
        status = 130
    except CertcastError as error:
        click.echo(error.report(), err=True)
        status = error.exit_status
    except Exception as error:
        click.echo(_defect(error).report(), err=True)
        status = Defect.exit_status
    sys.exit(status if isinstance(status, int) else 0)


def _as_interrupt(_signal: int, _frame: object) -> None:
    """systemd, `kill` and a terminal that is closed get the same orderly end as Ctrl-C."""
    raise KeyboardInterrupt


def _dump_no_core() -> None:
    """Let no crash write keys to the disk, ours or certbot's.

    The soft limit alone: an nginx that a reload command starts anew may raise it (worker_rlimit_core).
    Whoever takes dumps through a pipe sees this limit as %c, core(5); systemd-coredump respects it.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _defect(error: Exception) -> Defect:
    """Return what is told of a failure that is nobody's but ours: source lines, and no variables."""
    import traceback

    return Defect(
        f"certcast did not expect this: {type(error).__name__}: {error}",
        found="".join(traceback.format_exception(error, limit=-3)).strip(),
        kept="what was served before, unless the lines above say otherwise",
        next="run it again; if it repeats, report it with these lines",
    )


@cli.command()
@click.argument("name", required=False)
@click.option("--replace", "to_replace", metavar="NAME", help="Replace this certificate now, with a new key.")
@click.option("--reason", help="With --replace: keyCompromise, superseded, and others of RFC 5280, 5.3.1.")
@click.option("--revoke-after", metavar="DURATION", help="With --replace: revoke at the CA after (24h).")
@click.pass_context
def renew(context: click.Context, /, name: str | None, to_replace: str | None, **options: str | None) -> int:
    """Renew what is due, publish what is newer, and install it here if this host serves too.

    With --replace, hosts give up the certificate that was published so far when they look next.
    """
    _require_extra("certbot", "dns", "alibabacloud_tea_openapi")
    from certcast.dns01.challenges import Challenges

    run = _Run(context.obj, "renew")
    renewal = run.config.renewal or run.config.lacks("renewal", "certcast renew")
    if to_replace or any(options.values()):
        from certcast.operate.replacing import ask

        name = ask(run.config, renewal, name=name, to_replace=to_replace, **options)
    swept = run.attempt(None, partial(Challenges(run.config).sweep, _now()))
    for certificate in run.config.chosen(name):
        run.attempt(certificate, partial(_renew, run, renewal, certificate, emergency=bool(to_replace)))
    run.attempt(None, partial(_revoke, run, renewal))
    if swept != LocalFault.code:  # what is wrong with the ledger has been told
        run.attempt(None, lambda: Challenges(run.config).require_nothing_left(_now()))
    return run.status


def _revoke(run: _Run, renewal: RenewalConfig) -> None:
    from certcast.renewal.revocation import carry_out

    done, failures = carry_out(run.config, renewal, open_store=run.store, now=_now(), progress=_progress())
    for text in done:
        _changed(text)
    for failure in failures:
        run.failed(None, failure)


def _renew(run: _Run, renewal: RenewalConfig, certificate: CertificateConfig, *, emergency: bool) -> None:
    from certcast.renewal.renew import renew as renew_one

    done = renew_one(
        run.config,
        renewal,
        certificate,
        open_store=run.store,
        press=partial(_press, run, renewal),
        clock=_now,
        progress=_progress(),
        emergency=emergency,
    )
    if not sys.stderr.isatty():  # a terminal has seen them among certbot's output
        for warning in done.warnings:
            click.echo(_shown(f"warning: {certificate.name}: {warning}"), err=True)
    for failure in done.failures:
        run.failed(certificate, failure)
    if done.published:
        _tell_published(certificate.name, done.published)
    for text in done.notes:
        _changed(text)
    if done.published and run.config.consumer is not None:
        run.attempt(certificate, partial(run.pull, certificate, force=True))


def _press(run: _Run, renewal: RenewalConfig) -> Press:
    from certcast.renewal.press import Press

    return Press.of(run.config, renewal, run.config.host or _host())


@cli.command()
@click.argument("name", required=False)
@click.option("--now", "force", is_flag=True, help="Look at the store also outside the renewal window.")
@click.option("--watch", metavar="DURATION", help='Stay, and look again after each DURATION, like "60s".')
@click.pass_context
def pull(context: click.Context, name: str | None, force: bool, watch: str | None) -> int:
    """Take over a newer certificate: verify, switch, reload nginx, and see it being served."""
    run = _Run(context.obj, "pull")
    if run.config.consumer is None:
        run.config.lacks("consumer", "certcast pull")
    certificates = run.config.chosen(name)
    if watch is None:
        for certificate in certificates:
            run.attempt(certificate, partial(run.pull, certificate, force=force))
        return run.status
    return _watch(run, certificates, _duration(watch), force=force)


def _watch(run: _Run, certificates: tuple[CertificateConfig, ...], period: float, *, force: bool) -> int:
    """Pull each `period` seconds until a signal; a failure that goes on is told once.

    Being stopped is how a resident process ends well: exit status 0.
    """
    import time

    told: dict[str, str | None] = {}
    try:
        while True:
            begun = time.monotonic()
            for certificate in certificates:
                told[certificate.name] = run.attempt(
                    certificate,
                    partial(run.pull, certificate, force=force),
                    unless=told.get(certificate.name),
                )
            time.sleep(max(0.0, period - (time.monotonic() - begun)))
    except KeyboardInterrupt:
        return 0


@cli.command()
@click.argument("event", type=click.Choice(["auth", "cleanup", "deploy"]))
@click.pass_context
def hook(context: click.Context, event: str) -> int:
    """Serve certbot's --manual-auth-hook, --manual-cleanup-hook and --deploy-hook.

    Reads certbot's environment variables. certbot goes on when a hook fails, so
    `certcast renew` must run from a timer as well: it publishes what a hook did not.
    """
    import os

    if event != "deploy":
        _require_extra("dns", "alibabacloud_tea_openapi")
    from certcast.renewal import hooks

    run = _Run(context.obj, f"hook {event}")
    if event == "deploy":
        run.attempt(None, lambda: hooks.deploy(run.config, os.environ, lambda name: _deploy(run, name)))
    else:
        act = hooks.auth if event == "auth" else hooks.cleanup
        run.attempt(None, lambda: act(run.config, os.environ))
    return run.status


def _deploy(run: _Run, name: str) -> None:
    from certcast.renewal.renew import publish_live

    renewal = run.config.renewal or run.config.lacks("renewal", "certcast hook deploy")
    (certificate,) = run.config.chosen(name)
    published = publish_live(
        renewal,
        certificate,
        open_store=run.store,
        press=partial(_press, run, renewal),
        now=_now(),
        note=_changed,
    )
    _tell_published(name, published)
    if published.alarm is not None:
        run.failed(certificate, published.alarm)
    if run.config.consumer is not None:
        run.pull(certificate, force=True)


@cli.command()
@click.pass_context
def check(context: click.Context) -> int:
    """Read the configuration and say what this host would do with it."""
    from certcast.config_reading import config_path, load

    config = load(config_path(context.obj))
    roles = [word for word, on in (("renews", config.renewal), ("serves", config.consumer)) if on]
    click.echo(f"{config.path}: good. This host {' and '.join(roles) or 'has no role yet'}.")
    for certificate in config.certificates:
        _changed(f"  {certificate.name}: {', '.join(certificate.names)}")
    click.echo(f"  store {config.store.url}")
    if config.mail is None:
        click.echo("  nobody is told of failures: there is no [mail]")
    else:
        click.echo(f"  failures are mailed to {', '.join(config.mail.failures_to)}")
    return 0


class _Run:
    """One command's run: the configuration, the store once it is needed, and how it ended."""

    def __init__(self, config_file: str | None, doing: str) -> None:
        from certcast.config_reading import config_path, load

        self.config: Config = load(config_path(config_file))
        self.doing = doing
        self.status = 0
        if self.config.store.encryption == "none":
            click.echo(
                'warning: store.encryption = "none": whoever can read the bucket has the private keys',
                err=True,
            )
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
        from certcast.consumer.pull import pull

        installed: list[Outcome] = []
        try:
            outcome = pull(
                self.config,
                certificate,
                open_store=self.reader,
                now=_now(),
                force=force,
                progress=_progress(),
                installed=installed.append,
            )
            if outcome.result != "installed" and sys.stderr.isatty():
                hint = "; --now looks all the same" if outcome.result == "nothing due" else ""
                click.echo(_shown(outcome.text + hint), err=True)
        finally:
            for outcome in installed:
                _changed(outcome.text)
                self.attempt(certificate, partial(self._mail_installed, outcome))

    def attempt(
        self, certificate: CertificateConfig | None, work: Callable[[], object], *, unless: str | None = None
    ) -> str | None:
        """Do `work`; tell of its failure unless it has the code `unless`. Return the failure's code."""
        from certcast import private_files

        try:
            private_files.require_own_dir(self.config.state_dir)
            work()
        except CertcastError as failure:
            if failure.code != unless:
                self.failed(certificate, failure)
            return failure.code
        except Exception as error:
            defect = _defect(error)
            if defect.code != unless:
                self.failed(certificate, defect)
            return defect.code
        return None

    def failed(self, certificate: CertificateConfig | None, failure: CertcastError) -> None:
        """Print and mail a failure. The first gives the exit status; an unsent mail yields to any other."""
        click.echo(failure.report(), err=True)
        if self.status in {0, MailNotSent.exit_status}:
            self.status = failure.exit_status
        if isinstance(failure, MailNotSent):
            return
        from certcast.notify import mail

        try:
            mail.send_failure(
                self.config.mail,
                failure,
                host=_host(),
                doing=self.doing,
                certificate=certificate.name if certificate else None,
                now=_now(),
            )
        except MailNotSent as second:
            click.echo(second.report(), err=True)

    def _mail_installed(self, outcome: Outcome) -> None:
        from certcast.notify import mail

        assert outcome.leaf is not None  # an installation has a leaf
        mail.send_installed(
            self.config.mail,
            host=_host(),
            certificate=outcome.certificate,
            leaf=outcome.leaf,
            previous=outcome.previous,
            proved=outcome.proved,
            remarks=outcome.remarks,
            now=_now(),
        )


def _require_extra(*packages: str) -> None:
    """Raise ConfigInvalid if this is a consumer's installation, which lacks what renewing needs."""
    from importlib.util import find_spec

    from certcast.errors import ConfigInvalid

    if missing := [package for package in packages if find_spec(package) is None]:
        raise ConfigInvalid(
            "this installation cannot renew: it has the consumer's packages only",
            found=f"no package {', '.join(missing)} for {sys.executable}",
            kept="nothing was changed",
            next=f"`{sys.executable} -m pip install 'certcast[renewal]'`",
        )


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _host() -> str:
    import socket

    return socket.gethostname()


def _shown(text: str) -> str:
    """Return what a person may see of a text that others have a part in, such as certbot."""
    return readable(redacted(text))


def _changed(text: str) -> None:
    # A terminal of another alphabet must not stop what is done already.
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(_shown(text).encode(encoding, "backslashreplace").decode(encoding))


def _tell_published(name: str, published: Published) -> None:
    """Print what changed, and what is as it should not be."""
    from certcast.lifetime import utc_text

    to = ", ".join(published.sealed_to[:5])
    if len(published.sealed_to) > 5:
        to += f" and {len(published.sealed_to) - 5} more"
    if published.result not in {"unchanged", "re-dated"}:
        leaf = published.manifest.leaf
        _changed(f"{name}: {published.result} serial {leaf.serial}, valid until {utc_text(leaf.not_after)}")
    if to:
        _changed(f"{name}: private key sealed to {to}")
    for warning in published.warnings:
        click.echo(_shown(f"warning: {name}: {warning}"), err=True)


def _progress() -> Callable[[str], None]:
    """Tell a person what is going on; a timer's journal doesn't need it."""
    if not sys.stderr.isatty():
        return lambda _text: None
    return lambda text: click.echo(_shown(text), err=True)


def _duration(text: str) -> float:
    from certcast.config_values import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--watch") from None
