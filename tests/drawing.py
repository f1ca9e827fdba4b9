"""Examples that hypothesis draws: the same on each run, ten times as many with `--long`.

def test_no_header_stumbles(request):
    for_all(request, st.text(), lambda text: …)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

# Hypothesis keeps what it finds out about the code, and would do so in the working directory.
_HOME = tempfile.TemporaryDirectory(prefix="hypothesis-")
set_hypothesis_home_dir(_HOME.name)

# What a header may hold; hypothesis's own alphabet costs seconds before the first example.
LATIN_1 = "".join(map(chr, range(256)))


def for_all(
    request: pytest.FixtureRequest,
    examples: SearchStrategy[Any],
    holds: Callable[[Any], object],
    *,
    normal: int = 150,
) -> None:
    """Fail with the smallest example for which `holds` raises."""

    def check(example: Any) -> None:
        holds(example)

    chosen = settings(
        max_examples=normal * 10 if request.config.getoption("--long") else normal,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    chosen(given(examples)(check))()
