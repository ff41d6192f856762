"""One process to others, 100-byte messages: how many a second, and how late each arrives."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks import ring_sleep
from benchmarks.harness import (
    Absent,
    Contestant,
    Figures,
    Metric,
    Session,
    percentiles,
    progress,
    ring_prefix,
    version_of,
)
from benchmarks.ring_limit import limit, limit_program
from benchmarks.ring_links import JOINED, Link, Mode, RingLink
from benchmarks.ring_peers import IceoryxLink, QueueLink, RedisLink, ZmqLink, missing
from benchmarks.ring_processes import Processes, processes

RATE = 10_000.0
"""Messages a second while times are measured."""
READERS = (1, 2, 4)
PEERS: tuple[type[Link], ...] = (QueueLink, ZmqLink, IceoryxLink, RedisLink)
PEERS_OF_SEVERAL: tuple[type[Link], ...] = (ZmqLink, IceoryxLink)
"""With several readers the others are as far behind as with one."""

THROUGHPUT = (
    Metric("rate", "records/s", more_is_better=True),
    Metric("sender-cpu", "us/record"),
    Metric("reader-cpu", "us/record"),
)
LATENCY = (
    Metric("p50", "us"),
    Metric("p99", "us"),
    Metric("p99.9", "us"),
    Metric("reader-cpu", "us/record"),
)

_FIRST_BURST = 5_000
_MOST_BURST = 500_000
"""Of the default ring's 64 MiB this takes 52 MB: no reader can be overtaken within a burst."""

TITLES: dict[Mode, str] = {
    "one": "records/s, written one by one and read one by one",
    "joined": f"records/s, written {JOINED} at a time and read in batches",
    "spin": "one-way time at 10,000/s, readers that poll",
    "sleep": "one-way time at 10,000/s, readers that sleep",
    "asyncio": "one-way time at 10,000/s, readers that await (uvloop)",
}


def run(session: Session) -> None:
    """Show a table per way of passing messages on and number of readers."""
    with limit_program() as program:
        for mode, title in TITLES.items():
            for readers in READERS:
                if not session.wants(f"ring/{mode}/{readers}"):
                    continue
                if mode == "spin" and readers >= len(os.sched_getaffinity(0)):
                    progress(f"ring/spin/{readers}: left out, {readers + 1} CPUs are needed")
                    continue
                _case(session, program, mode, readers, title)
    if not any(map(session.wants, ring_sleep.CASES)):
        return
    session.show(
        "ring: what sleeping costs",
        ring_sleep.rows(session),
        "A burst is 100 records and one `wake`; the reader of `idle` waits for what never comes.",
    )


def _case(session: Session, program: Path | None, mode: Mode, readers: int, title: str) -> None:
    with ExitStack() as stack:
        ours = _contestant(stack, RingLink, mode, readers)
        peers: list[Contestant | Absent] = [limit(program, mode, readers, RATE)]
        for kind in PEERS if readers == 1 else PEERS_OF_SEVERAL:
            if mode in kind.modes:
                reason = missing(kind)
                peers.append(
                    Absent(kind.name, reason) if reason else _contestant(stack, kind, mode, readers)
                )
        metrics = THROUGHPUT if mode in ("one", "joined") else LATENCY
        rows = session.compare(f"ring/{mode}/{readers}", metrics, ours, peers)
    session.show(f"ring: {title}, readers: {readers}", rows)


def _contestant(stack: ExitStack, kind: type[Link], mode: Mode, readers: int) -> Contestant:
    """A link whose processes live as long as `stack`."""
    progress(f"ring/{mode}/{readers}: start {kind.name}")
    prefix = stack.enter_context(ring_prefix())
    at_work = stack.enter_context(processes(kind(prefix, mode, readers)))
    version = version_of(kind.distribution) if kind.distribution else None
    if mode in ("one", "joined"):
        return Contestant(kind.name, _Throughput(at_work).measure, version or "")
    spins = mode == "spin"
    return Contestant(kind.name, lambda seconds: _latency(at_work, seconds, spins), version or "")


class _Throughput:
    """Bursts whose length is what the link does in a quarter of a round."""

    def __init__(self, at_work: Processes) -> None:
        self._at_work = at_work
        burst = at_work.burst(_FIRST_BURST)
        self._rate = _FIRST_BURST / burst.seconds

    def measure(self, seconds: float) -> Figures:
        wanted = min(int(self._rate * seconds / 4), _MOST_BURST)
        count = max(wanted - wanted % JOINED, _FIRST_BURST)
        total, taken, sender_cpu, readers_cpu = 0, 0.0, 0.0, 0.0
        while taken < seconds:
            burst = self._at_work.burst(count)
            total += count
            taken += burst.seconds
            sender_cpu += burst.sender_cpu
            readers_cpu += burst.readers_cpu
        self._rate = total / taken
        return {
            "rate": self._rate,
            "sender-cpu": sender_cpu * 1e6 / total,
            "reader-cpu": readers_cpu * 1e6 / total,
        }


def _latency(at_work: Processes, seconds: float, spins: bool) -> Figures:
    count = max(int(RATE * seconds), 1000)
    times, spent = at_work.times(count, RATE)
    p50, p99, p999 = percentiles(times, (50, 99, 99.9))
    figures = {"p50": p50 / 1e3, "p99": p99 / 1e3, "p99.9": p999 / 1e3}
    if not spins:
        figures["reader-cpu"] = spent.readers_cpu * 1e6 / len(times)
    return figures
