"""What a person sees of a run: redacted, in their alphabet, and on the right stream.

    changed    on stdout: something is another way than before; cron mails it
    warned     on stderr: it works, and should not stay like this
    progress   on stderr, at a terminal only
    failed     on stderr: a report, which errors.py makes
    hint       on stderr: what a person may want to do next
    document   unaltered: what a person copies, or a file or a script takes

Not here: mail.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import click

from certcast.report.names import printable, readable
from certcast.report.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable


def shown(text: str) -> str:
    """Return a text as a person may see it; others, such as a CA, may have written parts of it."""
    return printable(readable(redacted(text)))


def changed(text: str) -> None:
    """Print a change."""
    # A terminal of another alphabet must not stop what is done already.
    encoding = sys.stdout.encoding or "utf-8"
    _say(shown(text).encode(encoding, "backslashreplace").decode(encoding))


def warned(text: str) -> None:
    """Print a warning."""
    _say(shown(f"warning: {text}"), err=True)


def progress() -> Callable[[str], None]:
    """Return a function that prints each step at a terminal; a timer's journal doesn't need them."""
    if not sys.stderr.isatty():
        return lambda _text: None
    return lambda text: _say(shown(text), err=True)


def hint(text: str) -> None:
    """Print what a person may want to do next, on stderr."""
    _say(shown(text), err=True)


def document(text: str, *, err: bool = False) -> None:
    """Print a text that is to be copied: no character is exchanged. OSError if it did not get there."""
    click.echo(text, err=err, nl=not text.endswith("\n"))


def failed(report: str) -> None:
    """Print a failure's report (errors.py), which is redacted already."""
    _say(report, err=True)


def _say(text: str, *, err: bool = False) -> None:
    """Print a line, or drop it and all that follows where nobody reads any more: `| head -1`, a full disk.

    The work must go on all the same, and the mail about it must be sent.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(text, err=err)
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            # Otherwise Python fails once more at its end, with exit status 120.
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
