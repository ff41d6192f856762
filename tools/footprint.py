"""Measure what the demo takes: CPU time of its processes over a while, and their memory.

    python tools/footprint.py [SECONDS]

A line a process and one for all: the share of a core that it used, and its memory; what several
share is divided among them. The memory reserved for the rings has a line of its own. CPU time
depends on what else the machine does; a minute or more gives figures that repeat.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

SETTLE_SECONDS = 5
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def pss_bytes(pid: int) -> int:
    """Memory of a process, what it shares divided among those who share it; without the rings."""
    total, name = 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if MAPPING.match(line):
            name = line.split()[-1]
        elif line.startswith("Pss:") and "/dev/shm/" not in name:
            total += int(line.split()[1]) * 1024
    return total


def ring_bytes(prefix: str) -> int:
    """Memory reserved for the rings."""
    return sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").glob(f"{prefix}.*"))


def children_of(pid: int) -> list[int]:
    """Processes that a process started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def name_of(pid: int) -> str:
    """Module and arguments of a Python process."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return " ".join(words[2:4])


def seconds_of(text: str) -> float:
    """A time that can be measured over."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def started(demo: subprocess.Popen[str]) -> str:
    """Wait until the demo runs; returns its rings' prefix."""
    assert demo.stdout is not None
    prefix = ""
    for line in demo.stdout:
        if found := re.match(r"\s+rings\s+(\S+)\.<venue>", line):
            prefix = found[1]
        if "Ctrl-C" in line:
            return prefix
    raise SystemExit(f"footprint: the demo ended with status {demo.wait()} before it ran")


def measure(demo: subprocess.Popen[str], seconds: float) -> None:
    """Print what the processes of the demo take."""
    prefix = started(demo)
    time.sleep(SETTLE_SECONDS)
    processes = [demo.pid, *children_of(demo.pid)]
    before = {pid: cpu_seconds(pid) for pid in processes}
    time.sleep(seconds)
    total_cpu = total_memory = 0.0
    for pid in processes:
        share = (cpu_seconds(pid) - before[pid]) / seconds
        memory = pss_bytes(pid)
        total_cpu += share
        total_memory += memory
        print(f"{name_of(pid):44}{share:7.1%} of a core{memory / 1e6:8.1f} MB")
    print(f"{'all processes':44}{total_cpu:7.1%} of a core{total_memory / 1e6:8.1f} MB")
    print(f"{'rings':44}{'':17}{ring_bytes(prefix) / 1e6:8.1f} MB")


def main() -> None:
    """Run the demo, measure, end it."""
    summary, _, explanation = __doc__.partition("\n\n    python tools/footprint.py [SECONDS]\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=explanation)
    parser.add_argument(
        "seconds",
        metavar="SECONDS",
        nargs="?",
        type=seconds_of,
        default=60.0,
        help="how long to measure, a number above 0 (default: 60)",
    )
    seconds = parser.parse_args().seconds
    command = [sys.executable, "-m", "alphapulse.cli", "demo", "--api-port", "0"]
    demo = subprocess.Popen([*command, "--stream-port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        measure(demo, seconds)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        # The terminal's Ctrl-C has reached the demo too; ending twice is one end to it.
        demo.send_signal(signal.SIGINT)
        demo.wait()


if __name__ == "__main__":
    main()
