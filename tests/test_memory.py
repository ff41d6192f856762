"""What a program has no use for isn't in its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

LARGE = {"duckdb", "numpy", "pandas", "polars", "pyarrow", "redis", "starlette"}


@pytest.mark.parametrize(
    ("program", "needed"),
    [
        ("alphapulse.collectors.daemon", set[str]()),
        ("alphapulse.stream.server", set[str]()),
        ("alphapulse.client", set[str]()),
        ("alphapulse.store.service", {"redis"}),
        ("alphapulse.store.embedded", {"duckdb", "numpy"}),
        ("alphapulse.store.redis", {"redis"}),
    ],
)
def test_a_program_loads_only_the_large_libraries_that_it_needs(
    program: str, needed: set[str]
) -> None:
    code = f"import sys, {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert LARGE & set(done.stdout.split()) == needed
