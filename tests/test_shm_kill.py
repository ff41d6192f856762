"""Writers killed with SIGKILL at random moments, while readers go on."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from alphapulse.shm import list_rings, remove_dead
from alphapulse.shm.names import FOLDER
from alphapulse.shm.segment import open_segment, view
from tests.ring_kill.writers import VENUE
from tests.support import ROOT

SPINNING_NS = 10_000_000_000


def start(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.ring_kill.{module}", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


class Writers:
    """The process that forks writers, and what is known of their epochs."""

    def __init__(self, prefix: str, seed: int) -> None:
        self.process = start("writers", prefix, seed)
        self.last: dict[int, int] = {}
        """Each epoch's last committed sequence, as it was found afterwards."""
        self.pid = 0

    def line(self) -> list[str]:
        assert self.process.stdout
        text = self.process.stdout.readline()
        assert text, "the forking process ended"
        words = text.split()
        if words[0] == "begun" and int(words[2]):
            self.last[int(words[2])] = int(words[3])
        elif words[0] == "finished":
            self.last[int(words[1])] = int(words[2])
        return words

    def begin(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{command}\n")
        words = self.line()
        assert words[0] == "pid"
        self.pid = int(words[1])

    def until(self, *wanted: str) -> str:
        while (words := self.line())[0] not in wanted:
            pass
        return words[0]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.until("ended")

    def look(self, prefix: str) -> None:
        """Note the ends of all epochs, also of those whose successor was killed before a word."""
        for path in FOLDER.glob(f"{prefix}.{VENUE}*"):
            if "~new-" not in path.name and not path.name.endswith(".readers"):
                mapping = open_segment(path)
                segment = view(mapping)
                self.last[segment.epoch] = segment.tail()[1]
                mapping.close()


def run(prefix: str, kills: int, readers: list[int], seed: int) -> list[dict[str, Any]]:
    """Kill that many writers; what the readers report, each with its spin time."""
    chance = random.Random(seed)
    writers = Writers(prefix, seed)
    processes: list[subprocess.Popen[str]] = []
    try:
        writers.begin("start")
        writers.until("begun")
        for spin_ns in readers:
            process = start("reader", prefix, spin_ns)
            processes.append(process)
            assert process.stdout
            assert process.stdout.readline() == "attached\n"
        writers.kill()
        for _ in range(kills - 1):
            writers.begin("start")
            # Half of them while they write, half at any moment from the very start on.
            if chance.random() < 0.5 and writers.until("begun", "ended") == "ended":
                pytest.fail("a writer ended by itself")
            time.sleep(chance.uniform(0, 0.03))
            writers.kill()
        writers.look(prefix)
        writers.begin("finish")
        writers.until("ended")
        reports = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in [writers.process, *processes]:
            process.kill()
            process.communicate()
    check(reports, writers.last)
    return reports


def check(reports: list[dict[str, Any]], last: dict[int, int]) -> None:
    """Nothing torn, nothing unaccounted for, in no epoch but the one attached to in its midst."""
    for report in reports:
        assert report["wrong"] == []
        seen = {int(epoch) for part in ("given", "lost") for epoch in report[part]}
        assert seen <= set(last)
        for epoch in sorted(last)[1:]:
            given = report["given"].get(str(epoch), 0)
            lost = report["lost"].get(str(epoch), 0)
            assert given + lost == last[epoch], f"epoch {epoch}"


def test_readers_outlive_forty_killed_writers(ring_prefix: str) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    reports = run(ring_prefix, 40, [0, SPINNING_NS], seed)
    assert all(sum(report["given"].values()) > 1000 for report in reports)
    remove_dead(prefix=ring_prefix)
    assert list_rings(prefix=ring_prefix) == []


@pytest.mark.soak
def test_readers_outlive_hundreds_of_killed_writers(ring_prefix: str) -> None:
    for _ in range(5):
        seed = secrets.randbits(32)
        print("seed", seed)
        run(ring_prefix, 300, [0, 0, SPINNING_NS], seed)
        remove_dead(prefix=ring_prefix)
