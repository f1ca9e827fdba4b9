"""docs/threat-model.md names tests that exist, and one for whatever it says is stopped."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs/threat-model.md").read_text()
NAMED = re.findall(r"`(tests/\S+?\.py)::(\w+)`", PAGE)
ROWS = [row.split("|")[1:-1] for row in PAGE.splitlines() if row.startswith("| ") and "they try" not in row]


def test_each_named_test_exists() -> None:
    """Whoever wants to see that an attack is stopped can run what the page names."""
    assert NAMED
    assert [] == [f"{path}::{name}" for path, name in NAMED if name not in _tests_of(PROJECT / path)]


def test_whatever_is_stopped_names_a_test() -> None:
    """A row without a test says in its own words that nothing stops it."""
    unproved = [row[0] for row in ROWS if "`tests/" not in row[3]]
    assert all("not stopped" in row[2] or "nothing" in row[2] for row in ROWS if row[0] in unproved), unproved


def _tests_of(path: Path) -> set[str]:
    if not path.exists():
        return set()
    body = ast.parse(path.read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
