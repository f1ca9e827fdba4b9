"""`certcast renew`: on the renewal host, from a timer.

    renew [NAME] [--now]              renew what is due, publish what is newer, install it here
    renew --adopt NAME                take a lineage over from certbot, without a new order
    renew --replace NAME --reason …   another certificate with another key, now

Not here: what is due, and in which order things happen (renewal/reconcile.py).
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun, now, require_extra, tell_published
from certcast.report import console
from certcast.report.errors import LocalFault

if TYPE_CHECKING:
    from certcast.dns01.challenges import Challenges
    from certcast.renewal.candidate import Candidate
    from certcast.renewal.reconcile import Renewal


@click.command()
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
    run = CommandRun(context, "renew", role="renewal")
    require_extra("acme", "dns")
    from certcast.renewal.reconcile import Renewal

    renewal = Renewal(
        run.config,
        run.renewal,
        open_store=run.store,
        releases=run.releases,
        clock=now,
        progress=console.progress(),
        warn=console.warned,
        note=console.changed,
        urgent=urgent,
        emergency=bool(to_replace),
    )
    if to_replace or any(options.values()):
        name = _ask_to_replace(run, renewal, name=name, to_replace=to_replace, **options)
    if adopt or new_account:
        name = _adopt(run, renewal, name=name, adopt=adopt, new_account=new_account)
    chosen = run.config.chosen(name)
    swept = run.attempt(None, partial(_sweep, run))
    done: list[Candidate] = []
    run.attempt(None, lambda: done.extend(renewal.run(chosen)))
    for candidate in done:
        run.attempt(candidate.wanted, partial(_finish, run, renewal, candidate))
    for failure in renewal.left:
        run.failed(None, failure)
    run.attempt(None, partial(_revoke, run, renewal))
    if swept != LocalFault.code:  # what is wrong with the ledger has been told
        run.attempt(None, partial(_require_nothing_left, run))
    return run.status


def _ask_to_replace(
    run: CommandRun,
    renewal: Renewal,
    *,
    name: str | None,
    to_replace: str | None,
    reason: str | None,
    revoke_after: str | None,
) -> str:
    """Write down what is to be replaced; return its name, which is all that the run is about.

    Raises click.UsageError, ConfigInvalid for a name that is not configured, and as `replacement.ask` does.
    """
    from certcast.config.types import seconds
    from certcast.release.lifetime import utc_text
    from certcast.renewal import replacement

    if to_replace is None:
        raise click.UsageError("--reason and --revoke-after belong to --replace NAME")
    if name not in {None, to_replace}:
        raise click.UsageError(f"--replace {to_replace} is about that certificate alone, not {name}")
    reasons = {word.lower(): word for word in replacement.REASONS}
    if reason is None or reason.lower() not in reasons:
        raise click.UsageError(f"--replace needs a --reason: {', '.join(reasons.values())}")
    after = None
    if revoke_after is not None:
        try:
            after = timedelta(seconds=seconds(revoke_after))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--revoke-after") from None
    (wanted,) = run.config.chosen(to_replace)
    run.require_own_state()
    request = replacement.ask(
        run.config.state_dir,
        renewal.source(wanted),
        wanted.name,
        reason=reasons[reason.lower()],
        after=after,
        now=now(),
    )
    if request.published_at is not None and request.after_seconds:
        # A person who asks for a new key must not believe that there is one more.
        console.changed(f"{wanted.name}: was replaced at {utc_text(request.published_at)}, not again now")
        console.changed(request.text(wanted.name))
        console.hint(
            "is another new key wanted? The same with `--revoke-after 0s` ends this replacement; "
            "then ask again"
        )
    return wanted.name


def _adopt(
    run: CommandRun, renewal: Renewal, *, name: str | None, adopt: str | None, new_account: bool
) -> str:
    """Take a lineage over; return its name, which is all that the run is about.

    Raises click.UsageError, ConfigInvalid for a name that is not configured, and as `adoption.adopt` does.
    """
    from certcast.certbot.adoption import adopt_lineage

    if adopt is None:
        raise click.UsageError("--new-account belongs to --adopt NAME")
    if name not in {None, adopt}:
        raise click.UsageError(f"--adopt {adopt} is about that certificate alone, not {name}")
    (wanted,) = run.config.chosen(adopt)
    run.require_own_state()
    for text in adopt_lineage(run.config, run.renewal, wanted, ca_at=renewal.ca, new_account=new_account):
        console.changed(text)
    return wanted.name


def _sweep(run: CommandRun) -> None:
    """Remove the TXT records of runs that have ended."""
    if challenges := _challenges(run):
        challenges.sweep(now())


def _require_nothing_left(run: CommandRun) -> None:
    if challenges := _challenges(run):
        challenges.require_nothing_left(now())


def _challenges(run: CommandRun) -> Challenges | None:
    """Return the challenges if the ledger has entries; one without costs a small file."""
    from certcast.dns01.ledger import Ledger

    if not Ledger(run.config.state_dir).entries():
        return None
    from certcast.dns01.challenges import Challenges

    return Challenges(run.config)


def _revoke(run: CommandRun, renewal: Renewal) -> None:
    from certcast.renewal.revocation import carry_out

    done, failures = carry_out(renewal)
    for text in done:
        console.changed(text)
    for failure in failures:
        run.failed(None, failure)


def _finish(run: CommandRun, renewal: Renewal, candidate: Candidate) -> None:
    """Tell what a run did for one certificate, and install it here if this host serves too."""
    wanted, published = candidate.wanted, candidate.published
    for failure in candidate.failures:
        run.failed(wanted, failure)
    if published:
        tell_published(run, wanted, published, renewal.source(wanted))
    for text in candidate.notes:
        console.changed(text)
    if (published or candidate.is_idle) and run.config.consumer is not None:
        run.attempt(wanted, partial(run.pull, wanted, force=not candidate.is_idle))
