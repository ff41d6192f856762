"""Times many short calls: their mean without a clock between them, their percentiles with one."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Awaitable, Callable, Iterable
from itertools import groupby
from time import perf_counter, perf_counter_ns
from typing import Any, NamedTuple

from benchmarks.harness import Metric, percentiles

PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
METRICS = [Metric("mean", "ns"), *(Metric(key, "ns") for key in PERCENTILES)]


class Call(NamedTuple):
    """One call to be timed.

    ``run(*arguments)``; in `Timer.awaited` it gives an awaitable.
    """

    kind: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]


class Timer:
    """Collects what calls of one kind take, over several passes."""

    def __init__(self) -> None:
        self._spent_ns: dict[str, int] = {}
        self._count: dict[str, int] = {}
        self._each_ns: dict[str, list[int]] = {}
        self._clock_ns = clock_overhead_ns()

    def repeat(self, calls: Callable[[], Iterable[Call]], seconds: float) -> None:
        """Run passes for so long: half of the time for means, half for percentiles."""
        for one_pass in (self._whole, self._singly):
            end = perf_counter() + seconds / 2
            while True:
                prepared = list(calls())
                gc.collect(0)
                one_pass(prepared)
                if perf_counter() > end:
                    break

    async def repeat_awaited(self, calls: Callable[[], Iterable[Call]], seconds: float) -> None:
        """As `repeat`, for coroutine functions."""
        for one_pass in (self._whole_awaited, self._singly_awaited):
            end = perf_counter() + seconds / 2
            while True:
                prepared = list(calls())
                gc.collect(0)
                await one_pass(prepared)
                if perf_counter() > end:
                    break

    def figures(self, kind: str) -> dict[str, float]:
        """Mean and percentiles of a kind's calls, in nanoseconds; empty where there were none."""
        if kind not in self._count:
            return {}
        values = percentiles(self._each_ns[kind], list(PERCENTILES.values()))
        return {
            "mean": self._spent_ns[kind] / self._count[kind],
            **{
                key: max(value - self._clock_ns, 0)
                for key, value in zip(PERCENTILES, values, strict=True)
            },
        }

    def _whole(self, calls: list[Call]) -> None:
        for kind, group in groupby(calls, key=_kind):
            alike = [(call.run, call.arguments) for call in group]
            begun = perf_counter_ns()
            for run, arguments in alike:
                run(*arguments)
            self._add(kind, perf_counter_ns() - begun, len(alike))

    async def _whole_awaited(self, calls: list[Call]) -> None:
        for kind, group in groupby(calls, key=_kind):
            alike: list[tuple[Callable[..., Awaitable[None]], tuple[Any, ...]]]
            alike = [(call.run, call.arguments) for call in group]
            begun = perf_counter_ns()
            for run, arguments in alike:
                await run(*arguments)
            self._add(kind, perf_counter_ns() - begun, len(alike))

    def _singly(self, calls: list[Call]) -> None:
        clock = perf_counter_ns
        for kind, run, arguments in calls:
            begun = clock()
            run(*arguments)
            ended = clock()
            self._each_ns.setdefault(kind, []).append(ended - begun)

    async def _singly_awaited(self, calls: list[Call]) -> None:
        clock = perf_counter_ns
        for kind, run, arguments in calls:
            begun = clock()
            await run(*arguments)
            ended = clock()
            self._each_ns.setdefault(kind, []).append(ended - begun)

    def _add(self, kind: str, spent_ns: int, count: int) -> None:
        self._spent_ns[kind] = self._spent_ns.get(kind, 0) + spent_ns
        self._count[kind] = self._count.get(kind, 0) + count


def clock_overhead_ns() -> float:
    """What two readings of the clock right after each other differ by, at the median."""
    clock = perf_counter_ns
    differences = []
    for _ in range(2000):
        begun = clock()
        differences.append(clock() - begun)
    return statistics.median(differences)


def _kind(call: Call) -> str:
    return call.kind
