"""What a ring's reader costs while nothing comes, and how often the writer wakes it."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import uvloop

from alphapulse.shm import RingReader, RingWriter, list_rings
from benchmarks.harness import Contestant, Figures, Metric, Row, Session, ring_prefix
from benchmarks.ring_links import RECORD

_VENUE = "bench"
_BURST = 100
_BURSTS = 50
_SPIN_NS = 5_000_000_000
_IDLE_SECONDS = 5.0
_TIMEOUT_SECONDS = 60

CASES = ("ring/idle/wait", "ring/idle/ready", "ring/wake")

IDLE = (Metric("cpu", "us/s"), Metric("switches", "1/s"))
WAKES = (
    Metric("sleeping", "wake-ups/burst"),
    Metric("spinning", "wake-ups/burst"),
    Metric("absent", "wake-ups/burst"),
)


def rows(session: Session) -> list[Row]:
    """CPU microseconds and voluntary switches a second of an idle reader; wake-ups by the writer.

    A burst is 100 records and one call of `RingWriter.wake`, by a writer that waits before it
    until the reader sleeps; or whose reader polls; or that has none.
    """
    wakes: dict[str, float] = {}
    found: list[Row] = []
    with ring_prefix() as prefix, RingWriter(_VENUE, prefix=prefix, max_instruments=8) as writer:
        wakes["absent"] = _wakes(writer)
        with _reader(prefix, "follow", 0):
            wakes["sleeping"] = _wakes(writer, prefix)
        with _reader(prefix, "follow", _SPIN_NS):
            wakes["spinning"] = _wakes(writer)
        for how in ("wait", "ready"):
            with _reader(prefix, how, 0) as pipe:
                ours = Contestant("ring", _Idle(pipe).measure)
                found += session.compare(f"ring/idle/{how}", IDLE, ours)
    return found + session.compare(
        "ring/wake", WAKES, Contestant("ring", lambda _: wakes), rounds=1
    )


def _wakes(writer: RingWriter, prefix: str | None = None) -> float:
    """Wake-ups per burst; with a prefix, each burst waits for a reader that sleeps."""
    before = writer.wakes
    for _ in range(_BURSTS):
        until = time.monotonic() + _TIMEOUT_SECONDS
        while prefix is not None and not _sleeps(prefix):
            if time.monotonic() > until:
                raise RuntimeError("the reader doesn't go to sleep")
        for _ in range(_BURST):
            writer.write(RECORD)
        writer.wake()
    return (writer.wakes - before) / _BURSTS


def _sleeps(prefix: str) -> bool:
    """Whether the reader has all records and sleeps; just woken, it still says that it sleeps."""
    reader = list_rings(prefix=prefix)[0].readers[0]
    return reader.sleeping and reader.lag == 0


class _Idle(NamedTuple):
    """An idle reader, at the other end of the pipe."""

    pipe: Connection

    def measure(self, _seconds: float) -> Figures:
        """What waiting for two seconds costs it."""
        self.pipe.send(None)
        if not self.pipe.poll(_TIMEOUT_SECONDS):
            raise RuntimeError("the reader doesn't answer")
        found: Figures = self.pipe.recv()
        return found


@contextmanager
def _reader(prefix: str, how: str, spin_ns: int) -> Iterator[Connection]:
    """A reader in its own process; it ends when the block is left."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(prefix, how, spin_ns, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_TIMEOUT_SECONDS):
            raise RuntimeError("the reader doesn't start")
        ours.recv()
        yield ours
    finally:
        ours.close()
        process.join(0 if how == "follow" else _TIMEOUT_SECONDS)
        process.kill()
        process.join()


def _run(prefix: str, how: str, spin_ns: int, pipe: Connection) -> None:
    """Follow the ring until killed, or measure what waiting costs whenever asked."""
    signal.alarm(_TIMEOUT_SECONDS)
    with RingReader(_VENUE, prefix=prefix, spin_ns=spin_ns) as reader:
        pipe.send(None)
        while how == "follow":
            while reader.read():
                pass
            reader.wait(_TIMEOUT_SECONDS)
        with suppress(EOFError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            while True:
                pipe.recv()
                signal.alarm(_TIMEOUT_SECONDS)
                before, switches = time.process_time(), _switches()
                if how == "wait":
                    reader.wait(_IDLE_SECONDS)
                else:
                    runner.run(_await(reader))
                cpu = time.process_time() - before
                pipe.send(
                    {
                        "cpu": cpu * 1e6 / _IDLE_SECONDS,
                        "switches": (_switches() - switches) / _IDLE_SECONDS,
                    }
                )


async def _await(reader: RingReader) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.ready(), _IDLE_SECONDS)


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
