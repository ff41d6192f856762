"""Trades from a venue's frames into Redis: how late, at what cost, and how many at most."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

import msgspec

from benchmarks import programs
from benchmarks.harness import (
    INSTALL_PEERS,
    Absent,
    Contestant,
    Figures,
    Metric,
    Row,
    Session,
    ring_prefix,
    version_of,
)
from benchmarks.history_parts import (
    Redis,
    start_collector,
    start_ring_feed,
    start_writer,
)

RATE = 10_000.0
"""Trades a second that come in."""

STEADY = (
    Metric("p50", "us"),
    Metric("p99", "us"),
    Metric("max", "us"),
    Metric("batch", "trades", more_is_better=True),
    Metric("collector-cpu", "% of a core"),
    Metric("writer-cpu", "% of a core"),
    Metric("redis-cpu", "% of a core"),
    Metric("venue-cpu", "% of a core"),
)
MOST = (
    Metric("rate", "trades/s", more_is_better=True),
    Metric("writer-cpu", "us/trade"),
    Metric("redis-cpu", "us/trade"),
)

NOTE = """\
`steady`: 10,000 trades/s at random times, each in a frame of its own from a simulated Kraken's
WebSocket through the collector's process into its ring, and from there by the writer's process
into Redis. `p50` to `max`: from the frame's receipt in the collector to Redis's answer in the
writer, of each trade. `most`: as many trades a second as the writer takes from a full ring; the
peer's are in its memory. Redis has appendonly yes and appendfsync everysec, over TCP on loopback.
Goals: p99 under 1,000 us, collector at most 20 %, writer at most 30 %, ratio of `most` 5."""

_WARM_TRADES = 5_000
_STEADY_TIMES = 10
"""So many times a round's seconds the venue trades."""
_MOST_PER_SECOND = 60_000
"""Trades in a full ring, per second of a round."""


def run(session: Session) -> None:
    """Measure both, and show the table."""
    rows: list[Row] = []
    rows += session.compare("history/redis/steady", STEADY, Contestant("ours", steady))
    ours = Contestant("ours", lambda seconds: most(round(_MOST_PER_SECOND * seconds)))
    rows += session.compare("history/redis/most", MOST, ours, [_cryptofeed()])
    session.show("History: trades into Redis", rows, NOTE)


def steady(seconds: float) -> Figures:
    """A round of `seconds`, `_STEADY_TIMES` over, at `RATE`."""
    with ExitStack() as stack:
        prefix = stack.enter_context(ring_prefix())
        redis = Redis(stack)
        venue, collector = start_collector(stack, prefix)
        writer = start_writer(stack, prefix, redis.url)
        redis.wait_for(prefix, venue.make(_WARM_TRADES, RATE))
        writer.report()
        pids = {"collector": collector, "writer": writer.pid, "redis": redis.pid}
        pids["venue"] = venue.pid
        before = {name: programs.cpu_seconds(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        sent = venue.make(round(_STEADY_TIMES * seconds * RATE), RATE)
        took = time.monotonic() - begun
        cpu = {name: programs.cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        redis.wait_for(prefix, sent)
        report = writer.report()
    if report.rows != sent - _WARM_TRADES:
        raise RuntimeError(f"{report.rows} trades were written, {sent} sent in all")
    return {
        "p50": report.p50_us,
        "p99": report.p99_us,
        "max": report.most_us,
        "batch": report.trades / report.batches,
        **{f"{name}-cpu": spent / took * 100 for name, spent in cpu.items()},
    }


def most(trades: int) -> Figures:
    """As fast as our writer takes so many trades from a ring that is full of them."""
    with ExitStack() as stack:
        prefix = stack.enter_context(ring_prefix())
        redis = Redis(stack)
        start_ring_feed(stack, prefix).make(trades)
        redis_before = programs.cpu_seconds(redis.pid)
        writer = start_writer(stack, prefix, redis.url)
        redis.wait_for(prefix, trades)
        redis_cpu = programs.cpu_seconds(redis.pid) - redis_before
        report = writer.report()
    if report.rows != trades:
        raise RuntimeError(f"{report.rows} trades were written of {trades}")
    return {
        "rate": report.rate,
        "writer-cpu": report.cpu_seconds * 1e6 / trades,
        "redis-cpu": redis_cpu * 1e6 / trades,
    }


def _cryptofeed() -> Contestant | Absent:
    version = version_of("cryptofeed")
    if version is None:
        return Absent("cryptofeed", f"not installed: {INSTALL_PEERS}")
    return Contestant(
        "cryptofeed", lambda seconds: cryptofeed_most(round(_MOST_PER_SECOND * seconds)), version
    )


class PeerReport(msgspec.Struct, frozen=True):
    """What the peer's process says: wall and CPU time of writing."""

    seconds: float
    cpu_seconds: float


def cryptofeed_most(trades: int) -> Figures:
    """As fast as cryptofeed's stream backend writes so many trades."""
    with ExitStack() as stack:
        redis = Redis(stack)
        command = [sys.executable, "-m", "benchmarks.peers.cryptofeed_redis"]
        process = programs.start(stack, [*command, str(redis.port), str(trades)])
        programs.read(process)
        before = programs.cpu_seconds(redis.pid)
        programs.write(process, b"go")
        report = msgspec.json.decode(programs.read(process), type=PeerReport)
        redis_cpu = programs.cpu_seconds(redis.pid) - before
        streams = redis.client.keys("trades-*")
        found = sum(redis.client.xlen(stream) for stream in streams)
    if found != trades:
        raise RuntimeError(f"cryptofeed has written {found} trades of {trades}")
    return {
        "rate": trades / report.seconds,
        "writer-cpu": report.cpu_seconds * 1e6 / trades,
        "redis-cpu": redis_cpu * 1e6 / trades,
    }
