"""The suite holds itself to what CONTRIBUTING.md says of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Rows of the user's list (design, section 3); `schedule`, row 6, comes later.
ROWS = {1, 2, 3, 4, 5, 7, 8, 9, 10}


def functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path, node


def test_every_test_says_what_is_true_for_the_user() -> None:
    """A reader learns from each test, in a sentence, what it promises."""
    silent = [f"{path.name}: {node.name}" for path, node in functions() if not ast.get_docstring(node)]
    assert [] == silent


def test_every_row_of_the_users_list_has_an_end_to_end_story() -> None:
    """`pytest -m row` runs the stories of everything that the users asked for, row by row."""
    told: set[int] = set()
    for path in (TESTS / "e2e").glob("test_*.py"):
        told |= {int(row) for row in re.findall(r"mark\.row\((\d+)\)", path.read_text())}
    assert told >= ROWS
