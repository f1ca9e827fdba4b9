"""Arguments to calls, calls to exit statuses. Each command has a file in commands/.

    certcast renew [NAME]                   on the renewal host, from a timer
    certcast hook auth|cleanup|deploy       on the renewal host, from certbot
    certcast pull [NAME] [--now] [--watch]  on every host that serves
    certcast check                          read the configuration, say what it means
    certcast identity                       on every host: the key that its private keys are sealed to
    certcast publisher · host · publish · policy    on the renewal host, by its administrator

At a terminal the commands tell what they do. From cron or a timer they are silent
unless something changed or failed. One certificate's failure does not stop the
others; the exit status is the first failure's (report/errors.py lists them), and every
failure is printed and mailed. A mail that cannot be sent never hides the failure
that it was about; alone it is exit status 40.
"""

from __future__ import annotations

import gc
import io
import signal
import sys

import click

from certcast.host import children
from certcast.report import console
from certcast.report.errors import CertcastError, Defect, defect
from certcast.report.names import printable
from certcast.report.redaction import redacted


class _Commands(click.Group):
    """The commands of commands/, one file each, imported when they are asked for."""

    NAMES = ("check", "hook", "host", "identity", "policy", "publish", "publisher", "pull", "renew")

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names for `--help`."""
        return list(self.NAMES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command: the object of that name in the module of that name."""
        if name not in self.NAMES:
            return None
        from importlib import import_module

        found = getattr(import_module(f"certcast.commands.{name}"), name)
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
