"""`certcast publish`: by an administrator's word, publish what `renew` would not.

    --release LEAF     an earlier release again (step back); the one that was left is held off: no
                       `renew` publishes it, and the next newer certificate ends it all
    --at-least N       under a higher sequence: hosts have seen N, and neither this host nor the
                       store remembers it, since both were restored from a backup

Nothing is ordered for it. Hosts take it over when they look next, although it is older than what
they serve: the signed manifest tells them that it is meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from certcast.commands.run import CommandRun, now
from certcast.release.lifetime import utc_text
from certcast.report import console
from certcast.report.errors import LineageUnusable

if TYPE_CHECKING:
    from datetime import datetime

    from certcast.config.model import CertificateConfig, Config
    from certcast.release.certificate import Leaf
    from certcast.release.source import Source

# As the names of version directories on hosts have them (consumer/disk/versions.py).
LEAST_DIGITS = 16


@click.command()
@click.argument("name", required=False)
@click.option(
    "--release",
    "prefix",
    metavar="LEAF",
    help=f"Step back to the release whose leaf's SHA-256 begins with these {LEAST_DIGITS} or more digits.",
)
@click.option(
    "--at-least",
    type=click.IntRange(min=1),
    metavar="N",
    help="Give the manifest a sequence above N, the highest that any host has seen.",
)
@click.pass_context
def publish(context: click.Context, name: str | None, prefix: str | None, at_least: int | None) -> int:
    """Publish an earlier release again, or the present one under a higher sequence.

    `renew` respects both: it does not publish again what was stepped back from, and goes on with
    the next newer certificate.
    """
    if prefix is None and at_least is None:
        raise click.UsageError("say what to publish: --release LEAF, or --at-least N; `renew` does the rest")
    run = CommandRun(context, "publish", role="renewal", attended=True, changes=True)
    wanted, moment = _only_one(run.config, name), now()
    source = run.signer().source(wanted)
    if prefix is None:
        live = source.live()
        done = run.releases(wanted).publish(live, now=moment, at_least=at_least or 0)
    else:
        leaf = choose_leaf(source, wanted, prefix, moment)
        done = run.releases(wanted).step_back(leaf, now=moment, at_least=at_least or 0)
    current = done.manifest
    console.changed(
        f"{wanted.name}: {done.result} serial {current.leaf.serial} as sequence {current.sequence}, "
        f"valid until {utc_text(current.leaf.not_after)}"
    )
    for warning in done.warnings:
        console.warned(f"{wanted.name}: {warning}")
    console.hint("hosts take it over when they look next; `certcast pull --now` looks at once")
    if done.alarm is not None:
        run.failed(wanted, done.alarm)
    return run.status


def _only_one(config: Config, name: str | None) -> CertificateConfig:
    certificates = config.chosen(name)
    if len(certificates) > 1:
        raise click.UsageError("name one of " + ", ".join(wanted.name for wanted in certificates))
    return certificates[0]


def choose_leaf(source: Source, wanted: CertificateConfig, prefix: str, now: datetime) -> str:
    """Return the SHA-256 of the one leaf on this host that begins so. Raises LineageUnusable."""
    held = [version.leaf for version in source.all()]
    valid = [leaf for leaf in held if leaf.life.is_valid(now)]
    digits = prefix.lower().rpartition("-")[2]  # a version directory has its sequence before them
    found = [leaf for leaf in held if leaf.sha256.startswith(digits)]
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", digits):
        raise click.BadParameter(f"must be {LEAST_DIGITS} to 64 hex digits", param_hint="--release")
    if len(found) == 1 and found[0] in valid:
        return found[0].sha256
    raise LineageUnusable(
        f"{wanted.name}: {_why_not(found)}",
        expected=f"one in {source.place} that is valid:\n" + "\n".join(_line(leaf) for leaf in valid),
        found=f"--release {prefix}",
        next="give the first digits of one of these; what hosts serve now stands in the manifest",
    )


def _why_not(found: list[Leaf]) -> str:
    if not found:
        return "no release that this host holds begins like that"
    if len(found) > 1:
        return f"{len(found)} releases begin like that"
    return f"that release is not valid: it was until {utc_text(found[0].not_after)}"


def _line(leaf: Leaf) -> str:
    return f"{leaf.sha256[:LEAST_DIGITS]}  serial {leaf.serial}, issued {utc_text(leaf.not_before)}"
