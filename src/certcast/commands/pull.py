"""`certcast pull`: on every host that serves, from a timer or resident with --watch.

Not here: what taking a release over means (consumer/takeover.py).
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun

if TYPE_CHECKING:
    from certcast.config.model import CertificateConfig


@click.command()
@click.argument("name", required=False)
@click.option("--now", "force", is_flag=True, help="Look at the store also outside the renewal window.")
@click.option("--watch", metavar="DURATION", help='Stay, and look again after each DURATION, like "60s".')
@click.pass_context
def pull(context: click.Context, name: str | None, force: bool, watch: str | None) -> int:
    """Take over a newer certificate: verify, switch, reload nginx, and see it being served."""
    run = CommandRun(context, "pull", role="consumer")
    certificates = run.config.chosen(name)
    if watch is None:
        for certificate in certificates:
            run.attempt(certificate, partial(run.pull, certificate, force=force))
        return run.status
    return _watch(run, certificates, _duration(watch), force=force)


def _watch(
    run: CommandRun, certificates: tuple[CertificateConfig, ...], period: float, *, force: bool
) -> int:
    """Pull each `period` seconds until a signal; a failure that goes on is told once.

    Being stopped is how a resident process ends well: exit status 0.
    """
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


def _duration(text: str) -> float:
    from certcast.config.types import seconds

    try:
        period = seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--watch") from None
    if not period:
        raise click.BadParameter("must be longer than nothing", param_hint="--watch")
    return period
