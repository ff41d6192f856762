"""The stream client's connections: a real server that is cut off, replaced or slow."""

from __future__ import annotations

import asyncio
import random
import sys
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.client import (
    Disconnected,
    Reconnected,
    StreamClient,
    StreamEvent,
    session,
)
from alphapulse.errors import (
    BookNotLive,
)
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.shm import remove_dead
from tests.clients import PATIENCE_SECONDS, ServerThread, server_thread
from tests.stream_client import FORMATS, QUICK, Taken, a, exchange, server
from tests.streaming import Exchange
from tests.support import ROOT

__all__ = ["exchange", "server"]

BID, ASK = BookSide


@FORMATS
@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("restart", [True, False])
async def test_a_lost_connection_goes_on_where_it_was(
    server: ServerThread,
    exchange: Exchange,
    ring_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    format_: Any,
    settled: bool,
    restart: bool,
) -> None:
    monkeypatch.setattr(session, "SETTLE_SECONDS", 0.0 if settled else 1e9)
    async with StreamClient(server.url, format=format_, **QUICK) as client:
        await client.subscribe("trades")
        await client.subscribe("orderbook", symbols="BTC-USD", depth="full")
        taken = Taken(client, exchange)
        await taken.until(a(BookSnapshot))
        exchange.trade("BTC-USD")
        exchange.change("BTC-USD", (BID, 10012, 6))
        await taken.version()
        book = client.books["kraken", "BTC-USD"]
        successor: ServerThread | None = None
        if restart:
            await asyncio.to_thread(server.stop)
        else:
            await asyncio.to_thread(server.drop_clients)
        await taken.until(a(Disconnected))
        assert (book.live, book.state, book.reason) == (
            False,
            BookState.STALE,
            Reason.DISCONNECTED,
        )
        with pytest.raises(BookNotLive, match="disconnected"):
            book.bids()
        exchange.trade("BTC-USD")
        exchange.trade("ETH-USD")
        exchange.change("BTC-USD", (ASK, 10111, 0), (ASK, 10112, 4))
        if restart:
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
        try:
            back = await taken.until(a(Reconnected))
            assert isinstance(back, Reconnected)
            assert back.resumed == {"kraken": "records"}
            exchange.trade("ETH-USD")
            exchange.change("BTC-USD", (BID, 10012, 7))
            await taken.version()
            trades = await taken.have(Trade, 4)
            assert [trade.trade_id for trade in trades] == ["1", "2", "3", "4"]
            assert taken.of(Gap) == []
            snapshots = [event.reason for event in taken.of(BookSnapshot)]
            if settled:
                assert snapshots == [Reason.SUBSCRIBED]
            else:
                again = (await taken.have(BookSnapshot, 2))[1]
                assert again.reason is Reason.REQUESTED
            assert book.live
        finally:
            if successor is not None:
                await client.close()
                await asyncio.to_thread(successor.stop)


@FORMATS
async def test_a_storm_of_losses_leaves_no_trade_out_and_no_book_wrong(
    server: ServerThread, exchange: Exchange, format_: Any
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    trades: list[str] = []
    async with StreamClient(server.url, format=format_, **QUICK) as client:
        await client.subscribe("trades")
        await client.subscribe(["orderbook", "state"], depth="full")
        taken = Taken(client, exchange)
        for _ in range(40):
            for _ in range(rng.randrange(40)):
                symbol = rng.choice(("BTC-USD", "ETH-USD"))
                what = rng.random()
                if what < 0.3:
                    trades.append(exchange.trade(symbol))
                elif what < 0.97:
                    side = rng.choice((BID, ASK))
                    price = 10000 + rng.randrange(20) + (side is ASK) * 50
                    exchange.change(symbol, (side, price, rng.randrange(5)))
                else:
                    exchange.state(symbol, BookState.INVALID, Reason.CHECKSUM)
                    exchange.reset(symbol, {9000: 1}, {}, Reason.RESYNCED)
                    exchange.state(symbol, BookState.LIVE, Reason.RESYNCED)
            if rng.random() < 0.4:
                await asyncio.to_thread(server.drop_clients)
            elif trades:
                await taken.have(Trade, rng.randint(len(taken.of(Trade)), len(trades)))
        for symbol in ("BTC-USD", "ETH-USD"):
            exchange.change(symbol, (BID, 10030, rng.randrange(10, 1000)))
        await taken.have(Trade, len(trades))
        for symbol in ("BTC-USD", "ETH-USD"):
            book = client.books["kraken", symbol]
            while not (book.live and book.version == exchange.versions[symbol]):
                await taken.until(lambda _: True)
        assert [trade.trade_id for trade in taken.of(Trade)] == trades
        assert taken.of(Gap) == []


@FORMATS
async def test_what_the_ring_no_longer_holds_is_a_gap(ring_prefix: str, format_: Any) -> None:
    with (
        Exchange(ring_prefix, size_bytes=1 << 16) as exchange,
        server_thread(ring_prefix) as server,
    ):
        async with StreamClient(server.url, format=format_, **QUICK) as client:
            await client.subscribe(["trades", "orderbook"], depth="full")
            taken = Taken(client, exchange)
            exchange.trade("BTC-USD")
            await taken.until(a(Trade))
            await asyncio.to_thread(server.stop)
            for number in range(2000):
                exchange.trade("BTC-USD")
                exchange.change("BTC-USD", (BID, 100, number + 1))
                if number % 50 == 0:
                    exchange.repeat("BTC-USD")
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
            try:
                gap = await taken.until(a(Gap))
                assert isinstance(gap, Gap)
                assert (gap.channel, gap.reason) == (Channel.RING, Reason.LAPPED)
                await taken.version()
                back = taken.of(Reconnected) or [await taken.until(a(Reconnected))]
                assert back[0].resumed == {"kraken": "snapshot"}
            finally:
                await client.close()
                await asyncio.to_thread(successor.stop)


@FORMATS
async def test_a_collector_is_replaced_while_the_connection_is_lost(
    server: ServerThread, exchange: Exchange, ring_prefix: str, format_: Any
) -> None:
    async with StreamClient(server.url, format=format_, **QUICK) as client:
        await client.subscribe(["trades", "orderbook"], "kraken", "BTC-USD", depth="full")
        taken = Taken(client, exchange)
        exchange.trade("BTC-USD")
        await taken.have(BookSnapshot, 1)
        await taken.have(Trade, 1)
        await asyncio.to_thread(server.stop)
        await taken.until(a(Disconnected))
        exchange.writer.close()
        with Exchange(ring_prefix, symbols=("ETH-USD", "BTC-USD")) as after:
            after.reset("BTC-USD", {777: 7}, {})
            taken.exchange = after
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
            try:
                await taken.until(a(BookSnapshot))
                back = await taken.have(Reconnected, 1)
                assert back[0].resumed == {"kraken": "snapshot"}
                gap = (await taken.have(Gap, 1))[0]
                assert (gap.channel, gap.reason) == (Channel.RING, Reason.RESTARTED)
                after.trade("BTC-USD")
                after.change("BTC-USD", (BID, 778, 1))
                await taken.version()
                await taken.have(Trade, 2)
                assert client.books["kraken", "BTC-USD"].epoch == after.epoch
            finally:
                await client.close()
                await asyncio.to_thread(successor.stop)


@FORMATS
async def test_records_of_a_killed_collector_come_before_its_successors(
    ring_prefix: str, format_: Any
) -> None:
    pipe = asyncio.subprocess.PIPE
    collector = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stream_processes", "venue", ring_prefix),
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
    )
    assert collector.stdin is not None
    assert collector.stdout is not None
    epoch = int(await collector.stdout.readline())
    server = await asyncio.to_thread(ServerThread, ring_prefix)
    successor = server
    client = StreamClient(server.url, format=format_, **QUICK)
    try:
        await client.open()
        await client.subscribe("orderbook", depth="full")
        seen: list[StreamEvent] = [await anext(client)]
        while not isinstance(seen[-1], BookSnapshot):
            seen.append(await anext(client))
        assert client.books["kraken", "BTC-USD"].epoch == epoch
        await asyncio.to_thread(server.stop)
        collector.stdin.write(b"\n")
        missed = int(await collector.stdout.readline())
        collector.kill()
        await collector.wait()
        with Exchange(ring_prefix) as after:
            after.reset("BTC-USD", {777: 7}, {})
            successor = await asyncio.to_thread(ServerThread, ring_prefix, server.port)
            while client.books["kraken", "BTC-USD"].epoch != after.epoch:
                seen.append(await asyncio.wait_for(anext(client), PATIENCE_SECONDS))
            changes = [event.version for event in seen if isinstance(event, BookDelta)]
            assert changes == [missed]
            reasons = [event.reason for event in seen if isinstance(event, StateChange)]
            assert Reason.RESTARTED in reasons
            assert BookState.INVALID not in [getattr(event, "state", None) for event in seen]
            after.change("BTC-USD", (BID, 778, 1))
            taken = Taken(client, after)
            await taken.version()
    finally:
        await client.close()
        await asyncio.to_thread(successor.stop)
        if collector.returncode is None:
            collector.kill()
        await collector.communicate()
        remove_dead(prefix=ring_prefix)


async def test_views_of_limited_depth_begin_anew(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url, **QUICK) as client:
        await client.subscribe("orderbook", symbols="BTC-USD", depth=1)
        await client.subscribe("state", exchanges=["kraken"], symbols="ETH-USD")
        await client.unsubscribe("state", symbols="ETH-USD")
        first = await anext(client)
        while not isinstance(first, BookSnapshot):
            first = await anext(client)
        await asyncio.to_thread(server.drop_clients)
        exchange.change("BTC-USD", (BID, 10012, 6))
        seen: list[Any] = []
        while not (seen and isinstance(seen[-1], BookSnapshot)):
            seen.append(await anext(client))
        assert seen[-1].bids[0].size == 6
        lost = [isinstance(event, Disconnected) for event in seen].index(True)
        assert "ETH-USD" not in [getattr(event, "symbol", None) for event in seen[lost:]]
        assert client.books["kraken", "BTC-USD"].bids() == [(Decimal("100.12"), Decimal("0.0006"))]
