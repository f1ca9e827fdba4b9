"""Errors are an interface: codes, exit statuses, and a runbook that explains each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from certcast.report import errors
from certcast.report.errors import CertcastError, DigestMismatch

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"


def kinds() -> list[type[CertcastError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")]
    return [kind for kind in found if issubclass(kind, CertcastError)]


def test_every_code_and_every_exit_status_means_one_thing() -> None:
    """A script may branch on the status, a search on the code."""
    assert len(kinds()) == len({kind.code for kind in kinds()}) == len({kind.exit_status for kind in kinds()})
    assert not {0, 2, 130} & {kind.exit_status for kind in kinds()}


def test_a_report_gives_a_terminal_nothing_to_act_on() -> None:
    """What a server or a file puts into a report clears no screen and forges no line's beginning."""
    error = DigestMismatch("what\x1b[2Jever", found="Content-Encoding: \x9b31m\rerror: all is well\u202e")
    report = error.report()
    assert [] == [sign for sign in report if not sign.isprintable() and sign != "\n"]
    assert "31m error: all is well" in report


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.code)
def test_every_code_has_its_heading_in_the_runbook_and_its_line_in_the_tree(
    kind: type[CertcastError],
) -> None:
    """The link that an error prints leads somewhere, and the statuses are the documented ones."""
    headings = re.findall(r"^## (\S+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert kind.code in headings
    assert errors.__doc__ is not None
    assert re.search(rf"{kind.__name__} +{kind.code} +{kind.exit_status} ", errors.__doc__)
    assert re.search(rf"^Exit status {kind.exit_status}\.", _section(kind.code), re.MULTILINE)


def _section(code: str) -> str:
    return RUNBOOK.read_text().split(f"## {code}\n")[1].split("\n## ")[0]


def test_a_report_says_what_was_kept_and_what_to_do_next() -> None:
    """The lines stand in one order, long ones aligned, absent ones left out."""
    error = DigestMismatch("it differs", expected="a\nb", kept="the old one", next="`certcast pull`")
    assert error.report() == (
        "error: it differs\n"
        "  expected a\n"
        "           b\n"
        "  kept     the old one\n"
        "  next     `certcast pull`\n"
        "  code     PULL-DIGEST (exit 29), docs/runbook.md#pull-digest"
    )
