"""Many symbols and long runs: CPU per frame, memory per symbol, memory over an hour, footprint."""

from __future__ import annotations

import time

from alphapulse.clock import wall_ns
from benchmarks import scale_memory, traffic
from benchmarks.harness import Contestant, Figures, Metric, Session, progress
from benchmarks.scale_play import Clock, play, ring_writer

SYMBOLS = (10, 100, 500, 2000)
LEVELS = 100
EVENTS = 40_000
RATE = 5_000
"""Frames a second of all symbols together, by which the cost of repeats is shared out."""
VENUES = ("kraken", "coinbase")

_STEP_NS = 10_000_000
_REPEATS_NS = 60_000_000_000

METRICS = (Metric("frame", "CPU ns/frame"), Metric("repeats", "CPU ns/frame"))


def run(session: Session) -> None:
    """Show the tables."""
    for venue in VENUES:
        several = [_contestant(venue, count) for count in SYMBOLS]
        rows = session.compare(f"scale/{venue}", METRICS, several[-1], several[:-1])
        session.show(
            f"scale: {venue}, {SYMBOLS[-1]} symbols (ours) beside fewer (peer)",
            rows,
            f"{LEVELS} levels a side. `frame`: `Feed.receive`. `repeats`: the snapshots repeated "
            f"for newcomers within a minute, by the minute's frames at {RATE:,} a second in all.",
        )
    session.show(
        "scale: memory of a collector", scale_memory.rows(session, ("kraken", "binance_us"))
    )


def _contestant(venue: str, symbols: int) -> Contestant:
    progress(f"scale: record {symbols} symbols of a simulated {venue}")
    recorded = traffic.generated(venue, EVENTS, symbols, LEVELS)
    return Contestant(f"{symbols} symbols", _Measured(recorded, symbols).measure)


class _Measured:
    """One number of symbols of one venue."""

    def __init__(self, recorded: traffic.Traffic, symbols: int) -> None:
        self._recorded = recorded
        self._symbols = symbols

    def measure(self, seconds: float) -> Figures:
        """CPU nanoseconds per frame, of passes with a new feed each, first halves left out."""
        spent, frames = 0.0, 0
        until = time.monotonic() + seconds
        while not frames or time.monotonic() < until:
            with ring_writer(self._recorded.venue_name) as writer:
                played = play(self._recorded, self._symbols, writer, wall_ns())
                receive, channel = played.feed.receive, played.channel
                half = len(played.steps) // 2
                now_ns = wall_ns()
                for step in played.steps[:half]:
                    receive(channel, step.raw, now_ns)
                # Copied just before: a socket's frames aren't far from the cache either.
                timed = [bytes(bytearray(step.raw)) for step in played.steps[half:]]
                before = time.process_time()
                for raw in timed:
                    receive(channel, raw, now_ns)
                spent += time.process_time() - before
                frames += len(timed)
        return {"frame": spent * 1e9 / frames, "repeats": self._repeats()}

    def _repeats(self) -> float:
        clock = Clock(wall_ns())
        with ring_writer(self._recorded.venue_name, clock) as writer:
            feed = play(self._recorded, self._symbols, writer, clock.now_ns).feed
            ended_ns = clock.now_ns + _REPEATS_NS
            before = time.process_time()
            while clock.now_ns < ended_ns:
                clock.now_ns += _STEP_NS
                feed.repeat_due(clock.now_ns)
            spent = time.process_time() - before
        return spent * 1e9 / (_REPEATS_NS / 1e9 * RATE)
