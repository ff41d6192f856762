"""Clients that stop reading, over real sockets."""

from __future__ import annotations

import pytest
import websockets

from alphapulse import metrics
from alphapulse.model import BookSide
from tests.stream_server import (
    beating,
    exchange,
    known,
    listening,
    on_uvloop,
    serving,
)
from tests.streaming import Exchange

__all__ = ["exchange"]

BID, ASK = BookSide


@on_uvloop
async def test_a_client_that_never_reads_is_conflated_then_closed(
    ring_prefix: str, exchange: Exchange
) -> None:
    before = metrics.sample("stream_conflations_total") or 0
    async with (
        serving(ring_prefix, max_queue_bytes=100_000, behind_seconds=1.0) as served,
        listening(served, exchange) as other,
        listening(served, exchange, max_queue=1) as slow,
    ):
        await known(served, exchange)
        for listener in (other, slow):
            await listener.ask(type="subscribe", channels=["orderbook"], symbols=["BTC-USD"])
            await listener.kinds(2)
        hub = served.server.hub
        told = 0
        while len(hub.clients) == 2:
            levels = [(BID, 1000 + price, told + price + 1) for price in range(100)]
            exchange.change("BTC-USD", *levels)
            told += 1
            await other.take()
        assert other.consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])
        assert len(other.consumer.of("orderbook_delta")) == told
        assert (metrics.sample("stream_conflations_total") or 0) > before
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await slow.until(lambda: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert len(slow.consumer.of("orderbook_delta")) < told


@on_uvloop
@pytest.mark.parametrize("depth", [100, "full"])
async def test_a_client_that_reads_again_in_time_ends_with_the_right_book(
    ring_prefix: str, exchange: Exchange, depth: int | str
) -> None:
    """It stops reading, is conflated, reads on while the market moves, and misses no trade."""
    trades: list[str] = []

    def move() -> None:
        version = exchange.versions["BTC-USD"]
        exchange.change("BTC-USD", *((BID, 1000 + price, version + price) for price in range(100)))
        trades.append(exchange.trade("BTC-USD"))

    async with (
        serving(ring_prefix, max_queue_bytes=100_000, behind_seconds=60.0) as served,
        beating(exchange),
        listening(served, exchange, max_queue=1) as slow,
    ):
        await known(served, exchange)
        slow.consumer.depth = depth if isinstance(depth, int) else None
        channels = ["orderbook", "trades"]
        await slow.ask(type="subscribe", channels=channels, symbols=["BTC-USD"], depth=depth)
        await slow.kinds(2)
        (client,) = served.server.hub.clients
        waiting = 0
        while client.waiting_bytes >= waiting:  # it grows until the deltas are dropped
            waiting = client.waiting_bytes
            move()
            await known(served, exchange)
        await slow.until(lambda: len(slow.consumer.of("orderbook_snapshot")) == 2)
        states = [event["data"] for event in slow.consumer.of("state")]
        told = [(state["state"], state["reason"]) for state in states]
        assert told == ([("stale", "lapped")] if depth == "full" else [])
        for _ in range(10):
            move()
        version = exchange.versions["BTC-USD"]
        await slow.until(
            lambda: (
                slow.consumer.current("kraken", "BTC-USD", version)
                and len(slow.consumer.of("trade")) == len(trades)
            )
        )
        assert slow.consumer.of("orderbook_snapshot")[1]["data"]["reason"] == "lapped"
        assert slow.consumer.states.get(("kraken", "BTC-USD"), "live") == "live"
        assert [event["data"]["trade_id"] for event in slow.consumer.of("trade")] == trades
