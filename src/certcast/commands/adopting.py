"""`certcast renew --adopt NAME`: what its options mean, and what a person is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from certcast.host import private_files
from certcast.report import console

if TYPE_CHECKING:
    from certcast.config.model import Config
    from certcast.renewal.reconcile import Renewal


def adopt_lineage(
    config: Config, renewal: Renewal, *, name: str | None, adopt: str | None, new_account: bool
) -> str:
    """Take a lineage over; return its name, which is all that the run is about.

    Raises click.UsageError, ConfigInvalid for a name that is not configured, and as `adoption.adopt` does.
    """
    from certcast.certbot.adoption import adopt as take_over

    if adopt is None:
        raise click.UsageError("--new-account belongs to --adopt NAME")
    if name not in {None, adopt}:
        raise click.UsageError(f"--adopt {adopt} is about that certificate alone, not {name}")
    (wanted,) = config.chosen(adopt)
    private_files.require_own_dir(config.state_dir)
    for text in take_over(config, renewal.settings, wanted, ca_at=renewal.ca, new_account=new_account):
        console.changed(text)
    return wanted.name
