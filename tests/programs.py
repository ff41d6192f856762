"""The package's programs as real processes, for tests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from tests.support import ROOT

TIMEOUT_SECONDS = 60.0


class Program:
    """A running program whose lines on stdout can be waited for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, pattern: str) -> re.Match[str]:
        """The first line from now on that matches; the test fails if the program ends first."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while text := (await self.process.stdout.readline()).decode():
                self.lines.append(text)
                if found := re.search(pattern, text):
                    return found
        raise AssertionError(f"ended without {pattern!r}: {''.join(self.lines)}")

    async def port(self) -> int:
        """The port that it says it listens at."""
        return int((await self.line(r"port (\d+)"))[1])

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def program(*arguments: str, environ: Mapping[str, str]) -> AsyncIterator[Program]:
    """Run ``python -m arguments``; it is killed on leaving if it hasn't ended."""
    async with _python("-m", *arguments, environ=environ) as running:
        yield running


async def ended(*arguments: str, **environ: str) -> tuple[int | None, str, str]:
    """Status, stdout and stderr of ``python -m arguments``, which ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def script(name: str, *arguments: str, environ: Mapping[str, str]) -> AsyncIterator[Program]:
    """Run a script of pyproject.toml's, installed or not; else as `program`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"][name].partition(":")
    code = f"from {module} import {function}; {function}()"
    async with _python("-c", code, *arguments, environ=environ) as running:
        yield running


@asynccontextmanager
async def _python(*arguments: str, environ: Mapping[str, str]) -> AsyncIterator[Program]:
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("ALPHAPULSE__")
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
