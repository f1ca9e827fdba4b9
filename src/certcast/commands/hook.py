"""`certcast hook auth|cleanup|deploy`: on the renewal host, called by a certbot that is already there.

Not here: what certbot hands over, and when it calls (certbot/hooks.py).
"""

from __future__ import annotations

import os
from functools import partial

import click

from certcast.commands.run import CommandRun, now, require_extra, tell_published
from certcast.report import console


@click.command()
@click.argument("event", type=click.Choice(["auth", "cleanup", "deploy"]))
@click.pass_context
def hook(context: click.Context, event: str) -> int:
    """Serve certbot's --manual-auth-hook, --manual-cleanup-hook and --deploy-hook.

    Reads certbot's environment variables. certbot goes on when a hook fails, so
    `certcast renew` must run from a timer as well: it publishes what a hook did not.
    """
    if event != "deploy":
        require_extra("dns")
    from certcast.certbot import hooks

    run = CommandRun(context, f"hook {event}")
    if event == "deploy":
        run.attempt(None, lambda: hooks.deploy(run.config, os.environ, partial(_deploy, run)))
    else:
        act = hooks.auth if event == "auth" else hooks.cleanup
        run.attempt(None, lambda: act(run.config, os.environ))
    return run.status


def _deploy(run: CommandRun, name: str) -> None:
    from certcast.certbot.lineage import require_fresh
    from certcast.publisher.chosen_source import source_of
    from certcast.renewal import replacement

    (certificate,) = run.config.chosen(name)
    source = source_of(
        certificate, state_dir=run.config.state_dir, certbot_config_dir=run.renewal.certbot_config_dir
    )
    live, moment = source.live(), now()
    require_fresh(live, moment)
    published = replacement.publish(
        partial(run.releases, certificate), live, now=moment, note=console.changed
    )
    if published.alarm is not None:
        run.failed(certificate, published.alarm)
    tell_published(run, certificate, published, source)
    if run.config.consumer is not None:
        run.pull(certificate, force=True)
