"""Programs that a benchmark starts, talks to by lines, measures, and ends."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from benchmarks.harness import ROOT

PATIENCE_SECONDS = 120.0
"""How long a program may take to answer, beside what it has work for."""
END_SECONDS = 10.0


def start(
    stack: ExitStack,
    command: Sequence[str],
    *,
    cpus: Collection[int] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: str | None = None,
    files: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that ends with the stack.

    Parameters
    ----------
    cpus : that it may use; None for all
    environ : beside this process's, of which the settings are left out
    folder : where it is started; the repository if None
    files : descriptors that it gets
    """
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("ALPHAPULSE__")
    }
    mine = os.sched_getaffinity(0)
    if cpus is not None:
        os.sched_setaffinity(0, cpus)  # what a process starts has its CPUs
    try:
        process = subprocess.Popen(
            command,
            cwd=folder or ROOT,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=files,
        )
    finally:
        os.sched_setaffinity(0, mine)
    stack.callback(end, process)
    return process


def write(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Write a line to a program's stdin."""
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def read(process: subprocess.Popen[bytes], seconds: float = 0.0) -> bytes:
    """The next line on a program's stdout.

    Parameters
    ----------
    seconds : that it has work for

    Raises
    ------
    RuntimeError
        it has ended, or it doesn't answer
    """
    output: IO[bytes] | None = process.stdout
    assert output is not None
    if not select.select([output], [], [], PATIENCE_SECONDS + seconds)[0]:
        raise RuntimeError(f"{process.args!r} doesn't answer")
    line = output.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} has ended")
    return line


def end(process: subprocess.Popen[bytes]) -> None:
    """Close a program's stdin and tell it to end, then see that it does. May be called twice."""
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads'."""
    return time.clock_gettime(~pid << 3 | 2)


def private_bytes(pid: int) -> int:
    """Memory that a process shares with no other: the rings that it maps are not in it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
