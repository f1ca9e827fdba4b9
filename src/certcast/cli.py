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

import gc
import io
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import click

from certcast.commands.run import Run, defect, host_name, now
from certcast.host import children
from certcast.report import console
from certcast.report.errors import CertcastError, Defect, LocalFault
from certcast.report.names import printable
from certcast.report.redaction import redacted

if TYPE_CHECKING:
    from certcast.config.model import CertificateConfig, RenewalConfig
    from certcast.publisher.signer import Press
    from certcast.renewal.candidate import Renewed
    from certcast.renewal.reconcile import Renewal
    from certcast.renewal.source import Source


class _Commands(click.Group):
    """The commands of this file, and those of commands/, which are imported when they are asked for."""

    LATER: ClassVar[dict[str, str]] = {
        "check": "check",
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
        """Return the command; one of commands/ is the object of that name in its module."""
        if name not in self.LATER:
            return super().get_command(context, name)
        from importlib import import_module

        found = getattr(import_module(f"certcast.commands.{self.LATER[name]}"), name)
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
    children.dump_no_core()
    # Imports make objects by the ten thousand and leave no garbage: measured, a tenth of their time.
    gc.set_threshold(50_000)
    try:
        status = cli.main(prog_name="certcast", standalone_mode=False)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        # What was pasted there may be a private key; a name that is to be typed otherwise stays as it is.
        console.failed(printable(redacted(text.getvalue().rstrip())))
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # an impatient second one must not change how this ends
        click.echo("interrupted; run the same command again, it goes on from what it finds", err=True)
        status = 130
    except CertcastError as error:
        console.failed(error.report())
        status = error.exit_status
    except Exception as error:
        console.failed(defect(error).report())
        status = Defect.exit_status
    # The interpreter's last collection looks at every object once more: a fifth of a short run's time.
    gc.freeze()
    sys.exit(status if isinstance(status, int) else 0)


def _as_interrupt(_signal: int, _frame: object) -> None:
    """systemd, `kill` and a terminal that is closed get the same orderly end as Ctrl-C."""
    raise KeyboardInterrupt


@cli.command()
@click.argument("name", required=False)
@click.option("--now", "urgent", is_flag=True, help="Ask the CA and the store also where nothing seems due.")
@click.option("--adopt", metavar="NAME", help="Take this lineage over from certbot, without a new order.")
@click.option(
    "--new-account", is_flag=True, help="With --adopt: leave certbot's account at the CA to certbot."
)
@click.option("--replace", "to_replace", metavar="NAME", help="Replace this certificate now, with a new key.")
@click.option("--reason", help="With --replace: keyCompromise, superseded, and others of RFC 5280, 5.3.1.")
@click.option("--revoke-after", metavar="DURATION", help="With --replace: revoke at the CA after (24h).")
@click.pass_context
def renew(
    context: click.Context,
    /,
    name: str | None,
    *,
    urgent: bool,
    adopt: str | None,
    new_account: bool,
    to_replace: str | None,
    **options: str | None,
) -> int:
    """Renew what is due, publish what is newer, and install it here if this host serves too.

    With --replace, hosts give up the certificate that was published so far when they look next.
    """
    run = Run(context.obj, "renew")
    settings = run.config.renewal or run.config.lacks("renewal", "certcast renew")
    _require_extra("acme", "dns")
    from certcast.renewal.reconcile import Renewal

    renewal = Renewal(
        run.config,
        settings,
        open_store=run.store,
        press=partial(_press, run, settings),
        clock=now,
        progress=console.progress(),
        warn=console.warned,
        note=console.changed,
        urgent=urgent,
        emergency=bool(to_replace),
    )
    if to_replace or any(options.values()):
        from certcast.commands.replacing import ask

        name = ask(run.config, renewal.source, name=name, to_replace=to_replace, **options)
    if adopt or new_account:
        from certcast.commands.adopting import adopt_lineage

        name = adopt_lineage(run.config, renewal, name=name, adopt=adopt, new_account=new_account)
    chosen = run.config.chosen(name)
    swept = run.attempt(None, partial(_sweep, run))
    done: list[Renewed] = []
    run.attempt(None, lambda: done.extend(renewal.run(chosen)))
    for one in done:
        run.attempt(one.certificate, partial(_renewed, run, renewal, one))
    for failure in renewal.left:
        run.failed(None, failure)
    run.attempt(None, partial(_revoke, run, renewal))
    if swept != LocalFault.code:  # what is wrong with the ledger has been told
        run.attempt(None, partial(_require_nothing_left, run))
    return run.status


def _sweep(run: Run) -> None:
    """Remove the TXT records of runs that have ended. A ledger without entries costs one small file."""
    from certcast.dns01.ledger import Ledger

    if Ledger(run.config.state_dir).entries():
        from certcast.dns01.challenges import Challenges

        Challenges(run.config).sweep(now())


def _require_nothing_left(run: Run) -> None:
    from certcast.dns01.ledger import Ledger

    if Ledger(run.config.state_dir).entries():
        from certcast.dns01.challenges import Challenges

        Challenges(run.config).require_nothing_left(now())


def _revoke(run: Run, renewal: Renewal) -> None:
    from certcast.renewal.revocation import carry_out

    configured: dict[str, CertificateConfig] = {one.name: one for one in run.config.certificates}
    done, failures = carry_out(
        run.config.state_dir,
        ca_at=renewal.ca,
        source_of=lambda name: renewal.source(configured[name]) if name in configured else None,
        open_store=run.store,
        now=now(),
        progress=console.progress(),
    )
    for text in done:
        console.changed(text)
    for failure in failures:
        run.failed(None, failure)


def _renewed(run: Run, renewal: Renewal, done: Renewed) -> None:
    """Tell what a run did for one certificate, and install it here if this host serves too."""
    certificate = done.certificate
    for failure in done.failures:
        run.failed(certificate, failure)
    if done.published:
        _alarm_if_exposed(run, renewal.source(certificate), certificate)
        console.tell_published(certificate.name, done.published)
    for text in done.notes:
        console.changed(text)
    if (done.published or done.idle) and run.config.consumer is not None:
        run.attempt(certificate, partial(run.pull, certificate, force=not done.idle))


def _alarm_if_exposed(run: Run, source: Source, certificate: CertificateConfig) -> None:
    """Alarm if anybody here may read what was published; to refuse it would cost the renewal."""
    readable = source.exposed()
    if readable is not None:
        run.failed(certificate, readable)


def _press(run: Run, renewal: RenewalConfig) -> Press:
    from certcast.publisher.signer import Press

    return Press.of(run.config, renewal, run.config.host or host_name())


@cli.command()
@click.argument("name", required=False)
@click.option("--now", "force", is_flag=True, help="Look at the store also outside the renewal window.")
@click.option("--watch", metavar="DURATION", help='Stay, and look again after each DURATION, like "60s".')
@click.pass_context
def pull(context: click.Context, name: str | None, force: bool, watch: str | None) -> int:
    """Take over a newer certificate: verify, switch, reload nginx, and see it being served."""
    run = Run(context.obj, "pull")
    if run.config.consumer is None:
        run.config.lacks("consumer", "certcast pull")
    certificates = run.config.chosen(name)
    if watch is None:
        for certificate in certificates:
            run.attempt(certificate, partial(run.pull, certificate, force=force))
        return run.status
    return _watch(run, certificates, _duration(watch), force=force)


def _watch(run: Run, certificates: tuple[CertificateConfig, ...], period: float, *, force: bool) -> int:
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
        _require_extra("dns")
    from certcast.certbot import hooks

    run = Run(context.obj, f"hook {event}")
    if event == "deploy":
        run.attempt(None, lambda: hooks.deploy(run.config, os.environ, lambda name: _deploy(run, name)))
    else:
        act = hooks.auth if event == "auth" else hooks.cleanup
        run.attempt(None, lambda: act(run.config, os.environ))
    return run.status


def _deploy(run: Run, name: str) -> None:
    from certcast.publisher.publishing import publish_live
    from certcast.renewal.source import source_of

    renewal = run.config.renewal or run.config.lacks("renewal", "certcast hook deploy")
    (certificate,) = run.config.chosen(name)
    source = source_of(
        certificate, state_dir=run.config.state_dir, certbot_config_dir=renewal.certbot_config_dir
    )
    published = publish_live(
        certificate,
        source.live(),
        open_store=run.store,
        press=partial(_press, run, renewal),
        now=now(),
        note=console.changed,
    )
    console.tell_published(name, published)
    if published.alarm is not None:
        run.failed(certificate, published.alarm)
    _alarm_if_exposed(run, source, certificate)
    if run.config.consumer is not None:
        run.pull(certificate, force=True)


def _require_extra(*packages: str) -> None:
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


def _duration(text: str) -> float:
    from certcast.config.types import seconds

    try:
        period = seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--watch") from None
    if not period:
        raise click.BadParameter("must be longer than nothing", param_hint="--watch")
    return period
