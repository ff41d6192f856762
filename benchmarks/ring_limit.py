"""Compiles and runs `ring_limit.c`, the limit that the ring is measured against."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Absent, Contestant, Figures
from benchmarks.ring_links import MESSAGE_BYTES, Mode

_SOURCE = Path(__file__).with_suffix(".c")
_TIMEOUT_SECONDS = 90
_MOST_TIMED = 500_000
"""Of which the program can keep the times."""
_JOINED = 32
_FIRST_COUNT = 200_000
_MOST_COUNT = 100_000_000

NAME = "C atomics"


@contextmanager
def limit_program() -> Iterator[Path | None]:
    """The program, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="apbench-") as folder:
        program = Path(folder) / "ring_limit"
        subprocess.run(
            [compiler, "-O3", "-std=gnu11", "-o", str(program), str(_SOURCE)], check=True
        )
        yield program


def limit(program: Path | None, mode: Mode, readers: int, rate: float) -> Contestant | Absent:
    """The program as a contestant; it spins but for the modes in which a reader sleeps.

    Parameters
    ----------
    program : as `limit_program` gives it
    mode, readers : of the case
    rate : messages a second in the modes that measure times
    """
    if program is None:
        return Absent(NAME, "no C compiler")

    def run(*arguments: object) -> list[float]:
        answer = subprocess.run(
            [str(program), *map(str, arguments)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
        return [float(word) for word in answer.stdout.split()]

    def throughput(seconds: float) -> Figures:
        joined = _JOINED if mode == "joined" else 1
        first = run("throughput", _FIRST_COUNT, joined, readers)[0]
        count = min(max(int(first * seconds), _FIRST_COUNT), _MOST_COUNT)
        return {"rate": run("throughput", count, joined, readers)[0]}

    def latency(seconds: float) -> Figures:
        count = min(max(int(rate * seconds), 1000), _MOST_TIMED)
        how = "spin" if mode == "spin" else "futex"
        found = run("latency", how, count, rate, readers)
        return dict(zip(("p50", "p99", "p99.9"), (ns / 1e3 for ns in found), strict=False))

    assert MESSAGE_BYTES == 100, "as the program has it"
    how = "spinning" if mode in ("one", "joined", "spin") else "futex"
    return Contestant(NAME, throughput if mode in ("one", "joined") else latency, how)
