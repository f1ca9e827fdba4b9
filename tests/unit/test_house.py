"""The house keeps its order: where a file lies, what it imports, how large it is, how errors travel."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import certcast

SOURCE = Path(certcast.__file__).parent
TESTS = Path(__file__).parents[1]
FOLDERS = sorted({path.parent for path in SOURCE.rglob("*.py")})
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
# Each room may import from those before it.
ROOMS = (
    "report", "host", "release", "config", "credentials", "storage", "dns01", "acme", "certbot", "publisher",
    "renewal", "notify", "consumer", "access", "commands", "cli",
)  # fmt: skip
MOST_FILES = 13
MOST_LINES = 60
MOST_BRANCHES = 15
LONGEST_TEST_NAME = 60


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def contents(folder: Path) -> list[Path]:
    """What a reader of a folder sees beside its page."""
    hidden = {"__init__.py", "__pycache__", "py.typed"}
    return sorted(path for path in folder.iterdir() if path.name not in hidden)


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The modules of certcast that are imported in these statements."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("certcast"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        yield from ast.walk(node)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(TREES[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def branches(function: ast.AST) -> int:
    """Cyclomatic complexity, each `and` and `or` counted."""
    one = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.comprehension)
    found = 1
    for node in ast.walk(function):
        found += isinstance(node, one)
        found += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(SOURCE)))
def test_a_package_page_names_every_file(folder: Path) -> None:
    """Who opens a folder reads what is in it, with half a line for each file and folder."""
    page = ast.get_docstring(TREES[folder / "__init__.py"]) or ""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in contents(folder)]
    assert [] == [name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}", page)]


def test_a_folder_is_small_enough_to_be_read() -> None:
    """commands/ alone has as many files as there are commands."""
    counts = {module(folder / "__init__.py"): len(contents(folder)) for folder in FOLDERS}
    del counts["certcast.commands"], counts["certcast"]
    assert {} == {name: count for name, count in counts.items() if count > MOST_FILES}


def test_no_two_files_have_one_name() -> None:
    """A file is found by its name alone."""
    counts = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert [] == [stem for stem, count in counts.items() if count > 1]


def test_no_room_imports_from_one_above_it() -> None:
    """Also not inside a function, nor for a type: the rooms can be read from the ground up."""
    upward = []
    for path in FILES:
        here = module(path).split(".")
        for name in imports(ast.walk(TREES[path])):
            there = name.split(".")
            if len(here) > 1 and len(there) > 1 and ROOMS.index(there[1]) > ROOMS.index(here[1]):
                upward.append(f"{module(path)} imports {name}")
    assert [] == upward


def test_every_room_has_its_place_in_the_order() -> None:
    """A new room has to say what it may import."""
    assert set(ROOMS) == {path.stem for path in contents(SOURCE)}


def test_no_imports_go_in_a_circle() -> None:
    """Each module can be imported first."""
    graph = {name: set(imports(at_import(TREES[path].body))) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_a_function_fits_on_a_screen() -> None:
    """At most 60 lines and 15 branches; ruff counts the parameters (pyproject.toml, PLR0913)."""
    large = []
    for path in FILES:
        for function in functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > MOST_LINES or branches(function) > MOST_BRANCHES:
                large.append(f"{module(path)}.{function.name}: {lines} lines, {branches(function)} branches")
    assert [] == large


def test_no_failure_is_changed_on_its_way_up() -> None:
    """`with within(kept=…)` or `raise failure.but(…)`: others may hold the failure (report/errors.py)."""
    lines = {"what", "expected", "found", "kept", "next"}
    changed = [
        f"{path.relative_to(SOURCE)}:{target.lineno}: {ast.unparse(node)[:60]}"
        for path in FILES
        for node in ast.walk(TREES[path])
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and target.attr in lines
        if not (isinstance(target.value, ast.Name) and target.value.id in {"self", "cls"})
    ]
    assert [] == changed


def test_the_name_of_a_test_is_short() -> None:
    """The sentence stands in the docstring; the name is what a person types."""
    long = [
        f"{path.relative_to(TESTS)}: {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if len(node.name) >= LONGEST_TEST_NAME
    ]
    assert [] == long
