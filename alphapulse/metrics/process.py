"""Memory and CPU time of this process."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from alphapulse.metrics.declared import CPU_USAGE, MEMORY_USAGE

_ROLLUP = Path("/proc/self/smaps_rollup")
_STATM = Path("/proc/self/statm")


def memory_bytes() -> int:
    """Memory of this process, shared pages counted in part (PSS), in bytes.

    Kernels that don't tell it give the resident set instead, rings counted in full.
    """
    try:
        rollup = _ROLLUP.read_text()
    except OSError:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


class ProcessSampler:
    """Keeps ``memory_usage_bytes`` and ``cpu_usage_percent`` of one process up to date.

    Parameters
    ----------
    service : the process's name, their label (``"collector-kraken"``)
    """

    def __init__(self, service: str) -> None:
        self._memory = MEMORY_USAGE.bind(service=service)
        self._cpu = CPU_USAGE.bind(service=service)
        self._cpu_ns = time.process_time_ns()
        self._wall_ns = time.monotonic_ns()

    def sample(self) -> None:
        """Take a sample; CPU time counts from the last one."""
        cpu_ns, wall_ns = time.process_time_ns(), time.monotonic_ns()
        passed = wall_ns - self._wall_ns
        if passed > 0:
            self._cpu.set(100 * (cpu_ns - self._cpu_ns) / passed)
        self._cpu_ns, self._wall_ns = cpu_ns, wall_ns
        self._memory.set(memory_bytes())

    async def run(self, seconds: float) -> None:
        """Take a sample now and every so many seconds, until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(seconds)
