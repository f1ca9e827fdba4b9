"""Errors are an interface: codes, exit statuses, and a runbook that explains each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from certcast.report import errors
from certcast.report.errors import CertcastError, DigestMismatch, within

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
def test_every_code_is_in_the_runbook_and_in_the_tree(
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


class Careful(CertcastError, code="CAREFUL", exit_status=99, kept="the old one", next="try again"):
    """What a class line may say for all of its failures."""


def test_a_class_may_say_what_was_kept_and_what_is_next() -> None:
    """A failure without words of its own has those of its class line; others keep their own."""
    assert ("the old one", "try again") == (Careful("no").kept, Careful("no").next)
    own = Careful("no", kept="nothing", next="give up")
    assert ("nothing", "give up") == (own.kept, own.next)
    assert (None, None) == (DigestMismatch("no").kept, DigestMismatch("no").next)


def test_but_gives_another_failure_with_other_lines() -> None:
    """Who holds the first one still sees its lines; what is not said again stays."""
    first = DigestMismatch("it differs", expected="a", found="b", kept="the old one", next="look")
    second = first.but(found="c", next="run it again")
    assert ("b", "the old one", "look") == (first.found, first.kept, first.next)
    assert type(second) is DigestMismatch
    assert ("it differs", "a", "c") == (second.what, second.expected, second.found)
    assert ("the old one", "run it again") == (second.kept, second.next)


class Demanding(CertcastError, code="DEMANDING", exit_status=98):
    def __init__(self, what: str, *, connected: bool) -> None:
        super().__init__(what)
        self.connected = connected


def test_but_keeps_what_a_class_adds() -> None:
    """A class may ask for more than the lines of a report, like a store's NotReached."""
    first = Demanding("no", connected=True)
    second = first.but(kept="all")
    assert ("no", True, "all", ("no",)) == (second.what, second.connected, second.kept, second.args)
    assert first.kept is None


def test_within_says_what_was_kept_for_those_that_do_not() -> None:
    """A store knows only of requests; its caller knows what stays published. Others pass as they are."""
    silent, careful = DigestMismatch("no"), Careful("no")
    with pytest.raises(DigestMismatch) as told, within(kept="what is published stays"):
        raise silent
    assert ("what is published stays", None) == (told.value.kept, silent.kept)
    assert told.value.__cause__ is silent
    with pytest.raises(Careful) as passed, within(kept="what is published stays"):
        raise careful
    assert passed.value is careful
    with pytest.raises(ValueError, match="no failure"), within(kept="all"):
        raise ValueError("no failure of ours")
