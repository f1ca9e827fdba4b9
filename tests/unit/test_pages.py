"""The documentation leads where it says: links, headings, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]


def _text_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors_of(page: Path) -> Iterator[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    for heading in re.findall(r"^#+ (.*)$", _text_of(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """A reader who follows a link finds the page, and the heading on it."""
    lost = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _text_of(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors_of(target)):
            lost.append(link)
    assert [] == lost


def test_every_page_that_the_program_names_exists() -> None:
    """An operator finds the page, and the heading, that a message or a comment points to."""
    lost = []
    for source in sorted((PROJECT / "src").rglob("*.py")):
        for path, anchor in re.findall(r"\b(docs/[\w./-]+\.md)(?:#([\w-]+))?", source.read_text()):
            page = PROJECT / path
            if not page.exists() or (anchor and anchor not in _anchors_of(page)):
                lost.append(f"{source.name}: {path}#{anchor}")
    assert [] == lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """A newcomer finds each source file of `src/certcast` or `tests` under the name that a page gives."""
    roots = [PROJECT / "src/certcast", PROJECT]
    named = re.findall(r"`((\w+)/[\w./-]+\.py)(?:::\w+)?`", _text_of(page))
    own = [name for name, folder in named if any((root / folder).is_dir() for root in roots)]
    assert [] == [name for name in own if not any((root / name).exists() for root in roots)]
