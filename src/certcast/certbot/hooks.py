"""certcast called by a certbot that is already there: --manual hooks and the deploy hook.

    auth      adds one TXT value; the last one of an order waits for all of them
    cleanup   removes one
    deploy    publishes the lineage that was renewed

- For apex and wildcard, certbot calls auth, auth, (validation), cleanup, cleanup, (files), deploy. It goes on
  when a hook fails, and may never call one (the CA reuses authorizations): nothing depends on a hook's run.
- certbot speaks through environment variables and a shell. A value is matched whole against what it may be,
  and never reaches a shell again. The command line says which hook it is: certbot leaves variables of one
  lineage standing for the next. certbot 2.1 has CERTBOT_DOMAIN, newer ones CERTBOT_IDENTIFIER as well:
  https://eff-certbot.readthedocs.io/en/stable/using.html#hooks
- RENEWED_DOMAINS is not read: the names are in the certificate, which is what is published.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from certcast.dns01.challenges import Challenge, Challenges
from certcast.dns01.ledger import Process
from certcast.report.errors import CertbotFailed, CertcastError, LineageUnusable, SourceUndecided

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from certcast.config.model import Config


class _Variable(NamedTuple):
    """A variable of certbot's: its names, newest first, the form of its value, and the form in words."""

    names: tuple[str, ...]
    form: re.Pattern[str]
    words: str


# As in a certificate, but for `*.` (RFC 8555 section 7.1.4); the last label keeps IP addresses out.
_DOMAIN = _Variable(
    ("CERTBOT_IDENTIFIER", "CERTBOT_DOMAIN"),
    re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"),
    "the domain to be validated, like example.com: lower case, no *. before it, no IP address",
)
# base64url of a SHA-256, without padding (RFC 8555 section 8.4)
_VALIDATION = _Variable(
    ("CERTBOT_VALIDATION",),
    re.compile(r"[A-Za-z0-9_-]{43}"),
    "the TXT value: 43 letters, digits, - and _",
)
_REMAINING = _Variable(
    ("CERTBOT_REMAINING_CHALLENGES",),
    re.compile(r"[0-9]{1,4}"),
    "how many challenges of the order are still to come: 0 to 9999",
)
_RECORD_ID = re.compile(r"[0-9]{1,32}")


def auth(config: Config, environ: Mapping[str, str], *, out: TextIO = sys.stdout) -> None:
    """Add the TXT value; if it is the order's last, return when the nameservers show all of them.

    Writes to `out` nothing but the record id, which certbot gives back to the cleanup hook. A value that was
    there before gets no id, so that nothing ever removes it.
    Raises RenewalError and LocalFault. certbot goes on all the same.
    """
    challenge = _challenge(environ)
    remaining = int(_read_variable(environ, _REMAINING))
    run = _certbot(challenge.validation)
    challenges = Challenges(config)
    try:
        entry = challenges.add(challenge, run, datetime.now(timezone.utc))
        if entry.ours:
            out.write(f"{entry.record_id}\n")
            out.flush()
        if remaining == 0:
            ledger = challenges.ledger.entries()
            # Not the values that an earlier hook failed to add: the nameservers will never show them.
            challenges.wait(
                [entry for entry in ledger if entry.run == run and entry.record_id and not entry.leaving]
            )
    except CertcastError as failure:
        kept = (
            f"certbot goes on and lets the CA look at {challenge.name}: expect a failed validation, and no "
            "new certificate"
        )
        if remaining:
            # Each hook is a process of its own, and often fails for the same reason as the one before.
            kept += f"; the order has {remaining} more to add, which may fail and be mailed likewise"
        raise failure.but(kept=kept) from failure


def cleanup(config: Config, environ: Mapping[str, str]) -> None:
    """Remove the TXT value, if certcast added it.

    By the record id in the ledger; where the ledger has lost it, by the id that `auth` wrote out.
    Raises RenewalError and LocalFault.
    """
    challenge = _challenge(environ)
    challenges = Challenges(config)
    if challenges.ledger.find(challenge.name, challenge.validation):
        challenges.cleanup([challenge])
        return
    written = environ.get("CERTBOT_AUTH_OUTPUT", "")
    # Else a wrapper around the auth hook has printed it, or auth has failed or added nothing.
    if _RECORD_ID.fullmatch(written):
        challenges.cleanup_unlisted(challenge, written)


def deploy(config: Config, environ: Mapping[str, str], publish: Callable[[str], None]) -> None:
    """Call `publish` with the name of the lineage that certbot renewed.

    Raises LineageUnusable if certbot named none that is configured here, SourceUndecided for a certificate
    that certcast orders itself, and what `publish` raises.
    """
    lineage = Path(environ.get("RENEWED_LINEAGE", ""))
    names = [certificate.name for certificate in config.certificates]
    if lineage.name not in names or not lineage.is_absolute() or not (lineage / "fullchain.pem").exists():
        raise LineageUnusable(
            "the deploy hook was not given a lineage that is configured here",
            expected="RENEWED_LINEAGE=…/live/NAME, with NAME one of " + ", ".join(names),
            found=f"RENEWED_LINEAGE={str(lineage)[:200]}" if lineage.name else "no RENEWED_LINEAGE",
            kept="nothing was published; what is served stays",
            next=f"name the lineage in {config.path} as [[certificate]], then `certcast renew`",
        )
    (certificate,) = config.chosen(lineage.name)
    if certificate.source != "certbot":
        raise SourceUndecided(
            f"{lineage.name}: certbot has renewed it, and the configuration says that certcast orders it",
            expected='source = "certbot" for a certificate that a certbot renews',
            found=f'source = "{certificate.source}"',
            kept="nothing was published; what is served stays",
            next=f"switch certbot's renewal off: move {lineage.parents[1]}/renewal/{lineage.name}.conf away; "
            f'or write source = "certbot" into its [[certificate]] in {config.path}',
        )
    publish(lineage.name)


def _challenge(environ: Mapping[str, str]) -> Challenge:
    return Challenge(_read_variable(environ, _DOMAIN), _read_variable(environ, _VALIDATION))


def _read_variable(environ: Mapping[str, str], variable: _Variable) -> str:
    """Return the variable's value, under the first of its names that is set. Raises CertbotFailed."""
    name = next((name for name in variable.names if name in environ), variable.names[-1])
    value = environ.get(name)
    if value is None or not variable.form.fullmatch(value):
        raise CertbotFailed(
            f"{name} is not what certbot gives to a hook",
            expected=f"{variable.words}, as certbot sets it",
            found=f"{name} is not set" if value is None else repr(value[:100]),
            kept="no TXT record was touched",
            next="let certbot call it, by --manual-auth-hook and --manual-cleanup-hook as in the README",
        )
    return value


def _certbot(validation: str) -> Process:
    """Return the certbot process that called this hook, directly or through shells and wrappers.

    Those in between were started with this CERTBOT_VALIDATION in their environment; certbot itself put it
    into its environment later, which /proc doesn't show (proc(5)).
    """
    marker = f"CERTBOT_VALIDATION={validation}".encode()
    pid = os.getppid()
    try:
        while pid > 1 and marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        # Another user's process: no wrapper, so this is certbot, or what stands for it.
        pass
    return Process.find(pid) or Process.current()
