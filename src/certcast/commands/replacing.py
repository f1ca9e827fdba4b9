"""`certcast renew --replace NAME --reason …`: what its options mean, and the first thing that it does."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, get_args

import click

from certcast.config.types import seconds
from certcast.host import private_files
from certcast.release.lifetime import utc_text
from certcast.renewal import replacement
from certcast.renewal.replacement import Reason
from certcast.report import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from certcast.config.model import CertificateConfig, Config
    from certcast.renewal.source import Source


def ask(
    config: Config,
    source_of: Callable[[CertificateConfig], Source],
    *,
    name: str | None,
    to_replace: str | None,
    reason: str | None,
    revoke_after: str | None,
) -> str:
    """Write down what is to be replaced; return its name, which is all that the run is about.

    Raises click.UsageError, ConfigInvalid for a name that is not configured, and as `replacement.ask` does.
    """
    if to_replace is None:
        raise click.UsageError("--reason and --revoke-after belong to --replace NAME")
    if name not in {None, to_replace}:
        raise click.UsageError(f"--replace {to_replace} is about that certificate alone, not {name}")
    reasons: dict[str, Reason] = {word.lower(): word for word in get_args(Reason)}
    if reason is None or reason.lower() not in reasons:
        raise click.UsageError(f"--replace needs a --reason: {', '.join(reasons.values())}")
    after = None
    if revoke_after is not None:
        try:
            after = timedelta(seconds=seconds(revoke_after))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--revoke-after") from None
    (wanted,) = config.chosen(to_replace)
    private_files.require_own_dir(config.state_dir)
    asked = replacement.ask(
        config.state_dir,
        source_of(wanted),
        wanted.name,
        reason=reasons[reason.lower()],
        after=after,
        now=datetime.now(timezone.utc),
    )
    if asked.published_at is not None and asked.after:
        # A person who asks for a new key must not believe that there is one more.
        console.changed(f"{wanted.name}: was replaced at {utc_text(asked.published_at)}, not again now")
        console.changed(asked.text())
        click.echo(
            "is another new key wanted? The same with `--revoke-after 0s` ends this replacement; "
            "then ask again",
            err=True,
        )
    return wanted.name
