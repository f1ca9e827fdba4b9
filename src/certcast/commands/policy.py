"""`certcast policy`: the least that an AccessKey must be allowed, to be pasted into the RAM console.

stdout has the policy alone, so that it can go into a file or a command. stderr tells whose it is, and what
RAM cannot express. No service is asked, and nothing is changed: the configuration says it all.

Not here: the statements (ram_policies.py), the CNAMEs of --isolate (isolation.py), and most of the words
(policy_remarks.py).
"""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Literal

import click

from certcast.access import policy_remarks, ram_policies
from certcast.access.isolation import Isolation, isolate
from certcast.commands.run import CommandRun
from certcast.config.types import zone_name
from certcast.report import console
from certcast.report.names import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certcast.access.ram_policies import Policy
    from certcast.config.model import Config


@click.command()
@click.argument("part", type=click.Choice(["dns", "publisher", "consumer"]))
@click.option(
    "--isolate",
    "throwaway",
    metavar="ZONE",
    help="With dns: confine the key to this zone, which has nothing but challenges. Also prints the CNAME "
    "records and the lines of the configuration that this takes.",
)
@click.pass_context
def policy(context: click.Context, part: str, throwaway: str | None) -> int:
    """Print the RAM policy that this configuration needs, and no more.

    \b
    dns        the records of challenges, for the host that renews
    publisher  the bucket, for the host that renews
    consumer   the bucket, for a host that serves

    The policy alone is on stdout; where keys come from several sources, one policy for each, in turn.
    Remarks are on stderr.
    """
    if throwaway is not None and part != "dns":
        raise click.BadParameter("is for `certcast policy dns`", param_hint="--isolate")
    role: Literal["renewal", "consumer"] = "consumer" if part == "consumer" else "renewal"
    config = CommandRun(context, f"policy {part}", role=role, attended=True).config
    if throwaway is not None:
        _isolated(config, throwaway)
    elif part == "dns":
        _print(ram_policies.dns(config), policy_remarks.about_dns(config))
    elif part == "publisher":
        _print(ram_policies.publisher(config), policy_remarks.about_publisher(config))
    elif config.store.read_from is not None:
        _tell(f"This host reads {config.store.read_from} without credentials: it needs no policy.")
    else:
        _print(ram_policies.consumer(config), policy_remarks.about_consumer(config))
    return 0


def _isolated(config: Config, throwaway: str) -> None:
    try:
        isolation = isolate(config, zone_name(throwaway))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--isolate") from None
    (zone,) = isolation.config.zones
    _print(ram_policies.dns(isolation.config), [])
    _tell_steps(config, isolation)
    for remark in policy_remarks.about_isolation(zone.name):
        _tell(remark, mark="- ")


def _tell_steps(config: Config, isolation: Isolation) -> None:
    """Print what makes the policy enough: records, and lines of the configuration, to be copied."""
    (zone,) = isolation.config.zones
    width = max(len(name) for name, _ in isolation.records) + 1
    _tell("\n1. Add these records by hand, once, in the zones that hold the names:\n")
    for name, target in isolation.records:
        console.document(f"{name + '.':{width}}  600  IN  CNAME  {target}.", err=True)
    changed = isolation.config != config
    _tell(f"\n2. Change {config.path}:\n" if changed else f"\n2. {config.path} is right as it is.\n")
    if zone not in config.zones:
        console.document(f'[[zone]]\nname = "{zone.name}"\n\n', err=True)
    if leaving := [other.name for other in config.zones if other != zone]:
        _tell(
            f"and remove [[zone]] {policy_remarks.listed(leaving)}: a zone that is named there is asked "
            "through its API, which this key may not do.\n"
        )
    if not config.dns.follow_cname:
        _tell("and remove follow_cname = false from [dns].\n")
    _tell(
        "3. Attach the policy above to the DNS key in place of what it had, and see a renewal succeed: "
        "`certcast renew`. For ten minutes resolvers may remember that the names were not there.\n"
    )


def _print(policies: Sequence[Policy], remarks: Sequence[str]) -> None:
    for wanted in policies:
        _tell(f"for {wanted.holder}:")
        document = json.dumps(wanted.document, indent=2)
        console.document(document)
        remarks = [*remarks, *policy_remarks.about_length(len(document))]
    for remark in remarks:
        _tell(remark, mark="- ")


def _tell(text: str, *, mark: str = "") -> None:
    """Fill to the terminal's width. Words are never broken: some are there to be copied."""
    before, words, after = text[: text.startswith("\n")], text.strip("\n"), text.endswith("\n")
    filled = textwrap.fill(
        readable(words),
        max(40, min(100, shutil.get_terminal_size().columns)),
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
    console.document(f"{before}{filled}\n" + "\n" * after, err=True)
