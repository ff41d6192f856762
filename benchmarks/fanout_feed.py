"""The process that feeds a server: ``python -m benchmarks.fanout_feed OPTIONS``, a JSON object.

To each line on stdin, a `Task`, it answers with a `Done`, when it has sent all that it was told to.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import sys
import time
from pathlib import Path
from typing import Protocol

import msgspec

from alphapulse.clock import monotonic_ns, wall_ns
from alphapulse.process import gc_tuned
from alphapulse.shm import RingWriter
from benchmarks.fanout_market import EXCHANGE, Market, RingFeed, Step

BEAT_SECONDS = 0.5
_BURST = 32
"""Most events that are sent without waking anybody in between."""
_PAUSE_SECONDS = 0.00005


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the process is set up.

    Parameters
    ----------
    readers : of each symbol: how many clients will subscribe to it
    progress : file in whose first eight bytes the load client counts deliveries
    prefix : of the ring to write; empty: lines go to the pipe
    pipe : its file descriptor
    """

    readers: list[int]
    progress: str
    prefix: str = ""
    pipe: int = -1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to send.

    Parameters
    ----------
    seconds : for how long
    rate : events a second
    even : at even times, not at random ones
    window : without a rate: as many as the clients take, so that this many deliveries are under way
    """

    seconds: float
    rate: float = 0.0
    even: bool = False
    window: int = 0


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent: events, and the deliveries that they make, since the process began."""

    events: int
    deliveries: int


class Feed(Protocol):
    """Where events go."""

    def send(self, step: Step, stamp_ns: int) -> None:
        """Send one, soon."""

    def flush(self) -> None:
        """Send all, now."""

    def beat(self, now_ns: int) -> None:
        """Called about twice a second."""


class PipeFeed:
    """Sends each event as a line: number of the symbol, tab, JSON text."""

    def __init__(self, market: Market, pipe: int) -> None:
        self._market = market
        self._pipe = pipe
        self._lines: list[bytes] = []

    def send(self, step: Step, stamp_ns: int) -> None:
        """Implement `Feed`."""
        self._lines.append(b"%d\t%s\n" % (step.market, self._market.text(step, stamp_ns).encode()))

    def flush(self) -> None:
        """Implement `Feed`."""
        data = memoryview(b"".join(self._lines))
        self._lines.clear()
        while data:
            data = data[os.write(self._pipe, data) :]

    def beat(self, now_ns: int) -> None:
        """Implement `Feed`."""


class Feeder:
    """Sends a market at a rate, or as fast as it is delivered."""

    def __init__(self, market: Market, feed: Feed, options: Options) -> None:
        self.events = 0
        self.deliveries = 0
        self._market = market
        self._feed = feed
        self._readers = options.readers
        self._random = random.Random(len(options.readers))
        with Path(options.progress).open("rb") as file:
            memory = mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._delivered = memoryview(memory)[:8].cast("Q")
        self._beaten = 0.0

    def run(self, task: Task) -> Done:
        """Do what a task says."""
        until = time.monotonic() + task.seconds
        if task.rate:
            self._pace(task, until)
        else:
            self._fill(task.window, until)
        return Done(events=self.events, deliveries=self.deliveries)

    def beat(self) -> None:
        """To be called often."""
        now = time.monotonic()
        if now - self._beaten >= BEAT_SECONDS:
            self._beaten = now
            self._feed.beat(wall_ns())

    def _pace(self, task: Task, until: float) -> None:
        due = time.monotonic()
        while due < until:
            now = time.monotonic()
            if now < due:
                time.sleep(min(due - now, BEAT_SECONDS / 2))
            else:
                self._send()
                due += 1 / task.rate if task.even else self._random.expovariate(task.rate)
                if due > now:
                    self._feed.flush()
            self.beat()
        self._feed.flush()

    def _fill(self, window: int, until: float) -> None:
        while time.monotonic() < until:
            sent = 0
            while sent < _BURST and self.deliveries - self._delivered[0] < window:
                self._send()
                sent += 1
            if sent:
                self._feed.flush()
            else:
                time.sleep(_PAUSE_SECONDS)
            self.beat()

    def _send(self) -> None:
        step = self._market.step()
        self._feed.send(step, monotonic_ns())
        self.events += 1
        self.deliveries += self._readers[step.market]


def main(options: Options) -> None:
    """Serve tasks until stdin ends."""
    market = Market(len(options.readers))
    if options.prefix:
        with RingWriter(EXCHANGE, prefix=options.prefix) as writer:
            _serve(Feeder(market, RingFeed(market, writer), options))
    else:
        _serve(Feeder(market, PipeFeed(market, options.pipe), options))


def _serve(feeder: Feeder) -> None:
    print("ready", flush=True)
    tasks = b""
    while True:
        feeder.beat()
        if not select.select([0], [], [], BEAT_SECONDS / 2)[0]:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, tasks = (tasks + data).split(b"\n")
        for line in lines:
            done = feeder.run(msgspec.json.decode(line, type=Task))
            print(msgspec.json.encode(done).decode(), flush=True)


if __name__ == "__main__":
    with gc_tuned():
        main(msgspec.json.decode(sys.argv[1], type=Options))
