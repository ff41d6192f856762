"""A process that writes trades to a ring: ``python -m benchmarks.history_feed PREFIX BYTES FIRST``.

To each line on stdin, a `Task`, it answers with how many trades it has written since it began.
"""

from __future__ import annotations

import select
import sys
import time

import msgspec

from alphapulse.clock import wall_ns
from alphapulse.process import gc_tuned
from alphapulse.shm import RingWriter
from benchmarks.history_market import EXCHANGE, RingFeed
from benchmarks.pacing import bursts

_BEAT_SECONDS = 0.5
_BURST = 100
"""Trades that are written without waking anybody, where it goes as fast as it can."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to write.

    Parameters
    ----------
    count : trades
    rate : a second, at random times; 0: as fast as it goes
    """

    count: int
    rate: float = 0.0


def main(prefix: str, size_bytes: int, first: int) -> None:
    """Serve tasks until stdin ends; the ring is there from before the first answer."""
    with RingWriter(EXCHANGE, prefix=prefix, size_bytes=size_bytes) as writer:
        feed = RingFeed(writer, first)
        print(0, flush=True)
        while True:
            writer.beat()
            if not select.select([sys.stdin], [], [], _BEAT_SECONDS)[0]:
                continue
            line = sys.stdin.readline()
            if not line:
                return
            _serve(msgspec.json.decode(line, type=Task), writer, feed)
            print(feed.number - first, flush=True)


def _serve(task: Task, writer: RingWriter, feed: RingFeed) -> None:
    beat_at = 0.0
    for count in bursts(task.rate, task.count) if task.rate else _full_bursts(task.count):
        now_ns = wall_ns()
        for _ in range(count):
            feed.send(now_ns)
        writer.wake()
        if time.monotonic() > beat_at:
            writer.beat()
            beat_at = time.monotonic() + _BEAT_SECONDS


def _full_bursts(count: int) -> list[int]:
    whole, rest = divmod(count, _BURST)
    return [_BURST] * whole + ([rest] if rest else [])


if __name__ == "__main__":
    with gc_tuned():
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
