"""Redis away for long: what the writer holds meanwhile, and how fast it catches up."""

from __future__ import annotations

import time
from contextlib import ExitStack

from alphapulse.clock import wall_ns
from benchmarks import programs
from benchmarks.harness import Contestant, Figures, Metric, Session, progress, ring_prefix
from benchmarks.history_parts import (
    Redis,
    bytes_of_ring,
    room_for_rings,
    start_ring_feed,
    start_writer,
)

RATE = 10_000.0
"""Trades a second that come in."""
OUTAGE_TIMES = 30
"""So many times a round's seconds Redis is away."""

OUTAGE = (
    Metric("away", "s"),
    Metric("trades", "trades"),
    Metric("memory-before", "MB"),
    Metric("memory-most", "MB"),
    Metric("memory-after", "MB"),
    Metric("growth", "MB"),
    Metric("resumed", "s"),
    Metric("catch-up", "trades/s", more_is_better=True),
    Metric("lost", "trades"),
)

NOTE = """\
10,000 trades/s go into a ring that has room for all of them while Redis is shut down. `memory`: of
the writer's process, what it shares with no other, before the outage, at most during it, and after
catching up; `growth`: the most less what it was before. `resumed`: from Redis's first answer to the
writer's first batch; `catch-up`: from there to the last. Goal: memory flat, nothing lost.
`--seconds 20 --rounds 1` makes the outage 10 minutes long."""

_WARM_SECONDS = 3.0
_SAMPLE_SECONDS = 0.5
_ROOM = 4
"""The ring takes no more than one part in so many of the memory that is free for it."""


def run(session: Session) -> None:
    """Measure, and show the table."""
    rows = session.compare(
        "history/outage",
        OUTAGE,
        Contestant("ours", lambda seconds: outage(OUTAGE_TIMES * seconds)),
        rounds=1,
    )
    session.show("History: Redis away", rows, NOTE)


def outage(seconds: float) -> Figures:
    """Redis is away for so long."""
    count = round(seconds * RATE)
    size = bytes_of_ring(count + round(_WARM_SECONDS * RATE))
    if size > room_for_rings() // _ROOM:
        raise RuntimeError(f"a ring of {size} bytes is too large for /dev/shm here")
    with ExitStack() as stack:
        prefix = stack.enter_context(ring_prefix())
        redis = Redis(stack)
        feed = start_ring_feed(stack, prefix, size)
        writer = start_writer(stack, prefix, redis.url)
        # Long enough that whatever grows with the first trades has grown.
        redis.wait_for(prefix, feed.make(round(_WARM_SECONDS * RATE), RATE))
        writer.report()
        before = programs.private_bytes(writer.pid)
        redis.stop()
        begun = time.monotonic()
        feed.begin(count, RATE)
        most = before
        while time.monotonic() - begun < seconds:
            time.sleep(_SAMPLE_SECONDS)
            most = max(most, programs.private_bytes(writer.pid))
            progress(f"history/outage: {time.monotonic() - begun:.0f} s of {seconds:.0f}")
        sent = feed.done()
        away = time.monotonic() - begun
        redis.start()
        back_ns = wall_ns()
        redis.wait_for(prefix, sent)
        after = programs.private_bytes(writer.pid)
        report = writer.report()
        return {
            "away": away,
            "trades": count,
            "memory-before": before / 1e6,
            "memory-most": most / 1e6,
            "memory-after": after / 1e6,
            "growth": (most - before) / 1e6,
            "resumed": (report.begun_ns - back_ns) / 1e9,
            "catch-up": report.rate,
            "lost": sent - redis.trades(prefix),
        }
