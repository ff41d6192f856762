"""The stream client and a real server: beginnings, all kinds of events, and ends."""

from __future__ import annotations

import asyncio
import ssl
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alphapulse.client import (
    Bbo,
    ConsolidatedDelta,
    ConsolidatedSnapshot,
    Disconnected,
    StreamClient,
)
from alphapulse.errors import (
    BookNotLive,
    ClientClosed,
    ClientError,
    ConnectionFailed,
    HandshakeRefused,
    RequestError,
)
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Reason,
    Trade,
)
from tests.certificates import write_certificates
from tests.clients import PATIENCE_SECONDS, ServerThread, server_thread
from tests.stream_client import FORMATS, QUICK, Taken, a, exchange, server
from tests.streaming import Exchange

__all__ = ["exchange", "server"]

BID, ASK = BookSide


async def test_without_a_server_there_is_a_clear_error() -> None:
    with pytest.raises(ConnectionFailed, match=r"ws://127.0.0.1:9/ws: no connection: .*refused|"):
        await StreamClient("ws://127.0.0.1:9/ws").open()
    for url in ("http://127.0.0.1:9/ws", "127.0.0.1"):
        with pytest.raises(ConnectionFailed, match="isn't"):
            await StreamClient(url).open()
    with pytest.raises(ConnectionFailed, match="after 3 attempts") as caught:
        await StreamClient(
            "ws://127.0.0.1:9/ws", wait_for_server=True, max_attempts=3, **QUICK
        ).open()
    assert caught.value.attempts == 3


async def test_it_waits_for_a_server_that_comes_later(ring_prefix: str, exchange: Exchange) -> None:
    with server_thread(ring_prefix) as server:
        url, port = server.url, server.port
    client = StreamClient(url, wait_for_server=True, **QUICK)
    opening = asyncio.create_task(client.open())
    successor = await asyncio.to_thread(ServerThread, ring_prefix, port)
    try:
        await opening
        assert client.connected
        await client.close()
        assert not client.connected
    finally:
        await asyncio.to_thread(successor.stop)


async def test_a_token_is_needed_where_the_server_wants_one(
    ring_prefix: str, exchange: Exchange
) -> None:
    with server_thread(ring_prefix, token="s3cret") as server:
        with pytest.raises(HandshakeRefused) as caught:
            await StreamClient(server.url, token="guess", wait_for_server=True).open()
        assert caught.value.status == 401
        assert server.url in str(caught.value)
        assert "guess" not in str(caught.value)
        async with StreamClient(server.url, token="s3cret") as client:
            assert await client.ping() >= 0
        with pytest.raises(HandshakeRefused) as missing:
            await StreamClient(server.url.replace("/ws", "/wss"), token="s3cret").open()
        assert missing.value.status == 404


async def test_an_encrypted_connection(
    ring_prefix: str, exchange: Exchange, tmp_path: Path
) -> None:
    tls = write_certificates(tmp_path)
    certificate, key = str(tls / "certificate.pem"), str(tls / "key.pem")
    with server_thread(ring_prefix, tls_certificate=certificate, tls_key=key) as server:
        url = f"wss://localhost:{server.port}/ws"
        with pytest.raises(ConnectionFailed, match="certificate"):
            await StreamClient(url).open()
        context = ssl.create_default_context(cafile=tls / "authority.pem")
        async with StreamClient(url, ssl_context=context, format="json") as client:
            await client.subscribe("orderbook", symbols="BTC-USD", depth="full")
            await Taken(client, exchange).until(a(BookSnapshot))


async def test_a_refusal_names_the_problem(server: ServerThread) -> None:
    async with StreamClient(server.url) as client:
        with pytest.raises(RequestError, match="LUNA-USD") as caught:
            await client.subscribe("trades", "kraken", "LUNA-USD")
        assert caught.value.code == "unknown_symbol"
        with pytest.raises(ValueError, match="no channel"):
            await client.subscribe([])
        with pytest.raises(ClientError, match="opened before"):
            await client.open()
    with pytest.raises(ClientClosed, match="isn't open"):
        await StreamClient(server.url).subscribe("trades")
    wrong: list[dict[str, Any]] = [{"format": "xml"}, {"queue_bytes": 0}]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            StreamClient(server.url, **options)


async def test_best_prices_and_the_book_of_all(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url) as client:
        answers = await client.subscribe(
            ["bbo", "orderbook", "trades"], ["kraken", "all"], "BTC-USD", depth="full"
        )
        assert [answer.format for answer in answers] == ["json", "json", "binary", "binary"]
        taken: dict[str, Any] = {}
        while not {"kraken", "all", "ConsolidatedSnapshot", "BookSnapshot"} <= taken.keys():
            event = await anext(client)
            taken[event.exchange if isinstance(event, Bbo) else type(event).__name__] = event
        bbo = taken["all"]
        assert bbo.bid == (Decimal("100.12"), Decimal("0.0005"), ("kraken",))
        assert taken["kraken"].ask.price == Decimal("101.11")
        shared = client.consolidated["BTC-USD"]
        assert isinstance(taken["ConsolidatedSnapshot"], ConsolidatedSnapshot)
        assert shared.sources["kraken"].state is BookState.LIVE
        exchange.change("BTC-USD", (BID, 10012, 0), (BID, 10013, 8), (ASK, 10111, 4))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not isinstance(event, ConsolidatedDelta):
                event = await anext(client)
        assert shared.version == event.version
        assert shared.best_bid == (
            Decimal("100.13"),
            Decimal("0.0008"),
            {"kraken": Decimal("0.0008")},
        )
        assert [level.price for level in shared.bids()] == [Decimal("100.13"), Decimal("100.00")]
        assert [level.size for level in shared.asks(1)] == [Decimal("0.0004")]
        await asyncio.to_thread(server.drop_clients)
        while not isinstance(event, Disconnected):
            event = await anext(client)
        with pytest.raises(BookNotLive, match="all BTC-USD"):
            shared.bids()


async def test_conflated_books_are_right(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url) as client:
        await client.subscribe("orderbook", symbols="BTC-USD", depth="full", conflate_ms=20)
        taken = Taken(client, exchange)
        await taken.until(a(BookSnapshot))
        for number in range(500):
            exchange.change("BTC-USD", (BID, 10000 + number % 7, number + 1))
        await taken.version()
        assert len(taken.of(BookDelta)) < 500


@FORMATS
async def test_a_full_queue_stops_the_reading(ring_prefix: str, format_: Any) -> None:
    queue_bytes = 64 * 1024
    with (
        Exchange(ring_prefix, size_bytes=1 << 24) as exchange,
        server_thread(ring_prefix, max_queue_bytes=128 * 1024, behind_seconds=60) as server,
    ):
        async with StreamClient(
            server.url, format=format_, queue_bytes=queue_bytes, **QUICK
        ) as client:
            await client.subscribe("orderbook", depth="full")
            taken = Taken(client, exchange)
            await taken.until(a(BookSnapshot))
            hub = server.call(lambda server: server.hub)
            while client.waiting_bytes < queue_bytes or not sum(
                each.waiting_bytes for each in list(hub.clients)
            ):
                for number in range(20):
                    exchange.change(
                        "BTC-USD",
                        *((BID, 10000 + level, number + level + 1) for level in range(100)),
                    )
                await asyncio.to_thread(server.catch_up)
            assert queue_bytes <= client.waiting_bytes < 6 * queue_bytes
            exchange.reset("BTC-USD", {10000: 1}, {}, Reason.RESYNCED)
            await taken.version()


async def test_only_one_iterates_at_a_time(server: ServerThread) -> None:
    async with StreamClient(server.url) as client:
        first = asyncio.ensure_future(anext(client))
        await asyncio.sleep(0)
        with pytest.raises(ClientError, match="iterated over already"):
            await anext(client)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        following = asyncio.create_task(client.follow())
        await asyncio.sleep(0)
    await following


async def test_it_collects(server: ServerThread, exchange: Exchange) -> None:
    async with StreamClient(server.url) as client:
        await client.subscribe("trades")
        for number in range(5):
            exchange.trade("BTC-USD", 100 + number, 5)
        collected = await client.collect(5, limit=3)
        assert (len(collected), collected.dropped) == (3, 2)
        assert (await client.collect(seconds=0.01)).trades().columns["price"] == []
        exchange.trade("BTC-USD")
        assert len(await client.collect(until=lambda event: isinstance(event, Trade))) == 1
        with pytest.raises(ValueError, match="collect what"):
            await client.collect()
