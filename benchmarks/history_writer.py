"""The store's writer, noting when each trade was answered for: ``-m benchmarks.history_writer``.

Takes its settings from the environment. To each line on stdin it answers with a `Report` of what
was written since the one before.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array

import msgspec

from alphapulse.clock import wall_ns
from alphapulse.config import Settings
from alphapulse.process import Ready, run_service, stop_event
from alphapulse.store import Store, WriteBatch, open_store
from alphapulse.store.writer import run_store_writer
from benchmarks.harness import percentiles


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was written.

    Parameters
    ----------
    rows : trades that the store said were new
    trades, batches : that were handed over
    begun_ns, ended_ns : when the first batch was, and when the last one had been answered for
    cpu_seconds : of this process from the first of them on
    p50_us, p99_us, most_us : from a trade's receipt to the store's answer
    """

    rows: int = 0
    trades: int = 0
    batches: int = 0
    begun_ns: int = 0
    ended_ns: int = 0
    cpu_seconds: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    most_us: float = 0.0

    @property
    def rate(self) -> float:
        """Trades a second."""
        return self.trades * 1e9 / (self.ended_ns - self.begun_ns)


class _Watch:
    """Stands before a store's `append`."""

    def __init__(self, store: Store) -> None:
        self._append = store.append
        self._under_way = asyncio.Lock()
        self.forget()

    def forget(self) -> None:
        self._rows = self._batches = 0
        self._begun_ns = self._ended_ns = 0
        self._cpu = 0.0
        self._waits = array("q")

    async def append(self, batch: WriteBatch) -> int:
        async with self._under_way:
            return await self._write(batch)

    async def settled(self) -> Report:
        """A report, not before the batch under way is answered for: the store may have it."""
        async with self._under_way:
            report = self._report()
            self.forget()
            return report

    async def _write(self, batch: WriteBatch) -> int:
        begun_ns = wall_ns()
        self._cpu = self._cpu or time.process_time()
        new = await self._append(batch)
        if batch.trades:
            now_ns = wall_ns()
            self._waits.extend([now_ns - trade.received_ns for trade in batch.trades])
            self._begun_ns = self._begun_ns or begun_ns
            self._ended_ns = now_ns
            self._rows += new
            self._batches += 1
        return new

    def _report(self) -> Report:
        waits = [0.0, 0.0, 0.0]
        if self._waits:
            waits = percentiles(self._waits, [50.0, 99.0, 100.0])
        return Report(
            rows=self._rows,
            trades=len(self._waits),
            batches=self._batches,
            begun_ns=self._begun_ns,
            ended_ns=self._ended_ns,
            cpu_seconds=time.process_time() - self._cpu,
            p50_us=waits[0] / 1e3,
            p99_us=waits[1] / 1e3,
            most_us=waits[2] / 1e3,
        )


async def write(settings: Settings, ready: Ready) -> int:
    """Write until told to stop."""
    stop = stop_event()
    store = await open_store(settings)
    watch = _Watch(store)
    store.append = watch.append  # type: ignore[method-assign]

    async def tell() -> None:
        print(msgspec.json.encode(await watch.settled()).decode(), flush=True)

    async with asyncio.TaskGroup() as telling:

        def answer() -> None:
            if sys.stdin.readline():
                telling.create_task(tell())
            else:
                stop.set()

        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), answer)
        ready()
        try:
            await run_store_writer(settings, store, stop)
        finally:
            await store.close()
    return 0


if __name__ == "__main__":
    sys.exit(run_service("store", write, ()))
