from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from alphapulse import metrics
from alphapulse.clock import wall_ns
from alphapulse.model import BookSide
from alphapulse.stream.client import Limits
from alphapulse.stream.hub import Hub
from alphapulse.stream.pump import Pump
from tests.streaming import Consumer, Exchange, Inbox, request

LIMITS = Limits(queue_bytes=1 << 20, behind_ns=10_000_000_000, subscriptions=100)
PATIENCE_SECONDS = 60.0


class Stage:
    """A pump at work, and a client of all books."""

    def __init__(self, prefix: str) -> None:
        self.hub = Hub(["kraken"], LIMITS, asyncio.get_running_loop().call_soon)
        self.pump = Pump(self.hub, prefix)
        self.consumer = Consumer()
        client = self.hub.connect(Inbox(self.consumer))
        self.hub.request(client, request(type="subscribe", channels=["orderbook", "state"]))
        self.hub.flush()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.001)

    async def state(self, exchange: str, state: str) -> None:
        await self.until(lambda: self.consumer.states.get((exchange, "BTC-USD")) == state)

    def exchange(self, prefix: str, name: str = "kraken") -> Exchange:
        exchange = Exchange(prefix, name)
        self.consumer.exchanges[name] = exchange
        return exchange


@asynccontextmanager
async def pumping(prefix: str) -> AsyncIterator[Stage]:
    stage = Stage(prefix)
    task = asyncio.create_task(stage.pump.run())
    try:
        yield stage
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_rings_come_and_go(ring_prefix: str) -> None:
    async with pumping(ring_prefix) as stage:
        await stage.pump.looked.wait()
        with stage.exchange(ring_prefix) as kraken:
            await stage.state("kraken", "live")
            kraken.change("BTC-USD", (BookSide.BID, 100, 1))
            await stage.until(lambda: stage.consumer.current("kraken", "BTC-USD", 2))
            with stage.exchange(ring_prefix, "a_new_one"):
                await stage.state("a_new_one", "live")
            await stage.state("a_new_one", "stale")
            assert stage.consumer.states["kraken", "BTC-USD"] == "live"
        await stage.state("kraken", "stale")
        assert stage.consumer.of("state")[-1]["data"]["reason"] == "disconnected"
        with stage.exchange(ring_prefix) as kraken:
            await stage.state("kraken", "live")
            assert stage.consumer.of("orderbook_snapshot")[-1]["data"]["epoch"] == kraken.epoch
            lag = metrics.sample("ring_lag_records", service="stream", exchange="kraken")
            assert lag is not None
            lost = metrics.sample("ring_overruns_total", service="stream", exchange="kraken")
            assert lost is not None


async def test_a_writer_without_a_heartbeat_is_stuck(ring_prefix: str) -> None:
    async with pumping(ring_prefix) as stage:
        with stage.exchange(ring_prefix) as kraken:
            await stage.state("kraken", "live")
            kraken.writer.heartbeat(wall_ns() - 20 * 10**9)
            await stage.state("kraken", "stale")
            assert stage.consumer.of("state")[-1]["data"]["reason"] == "silent"
            kraken.writer.beat()
            await stage.state("kraken", "live")
            assert stage.consumer.current("kraken", "BTC-USD", 1)


async def test_a_reader_that_fails_is_replaced(ring_prefix: str) -> None:
    async with pumping(ring_prefix) as stage:
        with stage.exchange(ring_prefix) as kraken:
            await stage.state("kraken", "live")
            venue = stage.hub.venue("kraken")
            before = len(stage.consumer.of("orderbook_snapshot"))
            stage.pump.readers["kraken"].close()
            await stage.until(lambda: len(stage.consumer.of("orderbook_snapshot")) > before)
            await stage.state("kraken", "live")
            assert venue.connected
            kraken.change("BTC-USD", (BookSide.BID, 100, 1))
            await stage.until(lambda: stage.consumer.current("kraken", "BTC-USD", 2))
