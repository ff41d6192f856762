"""Recorded traffic over real sockets, through collector, ring and stream, to a WebSocket client."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest
import websockets

from alphapulse.simulators import SIMULATORS, CaptureSource
from tests.programs import TIMEOUT_SECONDS, program
from tests.rebuild import Consumer, Expected


@pytest.mark.parametrize(
    ("name", "venue", "depth"),
    [
        ("coinbase", "coinbase", 1000),
        ("kraken", "kraken", 1000),
        ("kraken-btcusd-depth10", "kraken", 10),
        ("binance_us", "binance_us", 1000),
    ],
)
async def test_a_client_gets_the_captures_books_and_trades(
    captures: Path, ring_prefix: str, name: str, venue: str, depth: int
) -> None:
    expected = Expected(captures / f"{name}.expected.json")
    source = CaptureSource(path=str(captures / f"{name}.jsonl"))
    async with SIMULATORS[venue](source) as simulator:
        section = f"ALPHAPULSE__VENUES__{venue.upper()}__"
        environ = {
            "ALPHAPULSE__RING__PREFIX": ring_prefix,
            "STREAM_PORT": "0",
            f"{section}SYMBOLS": ",".join(expected.books),
            f"{section}WS_URL": simulator.ws_url,
            f"{section}REST_URL": simulator.rest_url,
        }
        if venue == "kraken":
            environ[f"{section}DEPTH"] = str(depth)
        if venue == "binance_us":
            environ[f"{section}TRADES"] = "agg"
        async with program("alphapulse.cli.serve", "stream", environ=environ) as stream:
            url = f"ws://127.0.0.1:{await stream.port()}/ws"
            async with websockets.connect(url, max_size=None) as client:
                # Subscribed before the collector begins, so that no trade comes too early.
                await client.send(
                    json.dumps(
                        {
                            "type": "subscribe",
                            "channels": ["trades", "orderbook", "state"],
                            "exchanges": [venue],
                            "depth": "full",
                        }
                    )
                )
                assert json.loads(await client.recv())["type"] == "subscribed"
                collector = program("alphapulse.collectors.daemon", venue, environ=environ)
                async with collector as collecting:
                    consumer = await receive(client, expected)
                    assert await collecting.end() == 0
            assert await stream.end() == 0
    assert {symbol: consumer.book(symbol) for symbol in expected.books} == expected.books
    assert sorted(consumer.trade_rows()) == sorted(expected.trades)
    assert consumer.gaps == []
    assert {state for _, state, _ in consumer.changes_of_state} == {"syncing", "live"}


async def receive(client: websockets.ClientConnection, expected: Expected) -> Consumer:
    """Take events until the client has what is expected, or the time is over."""
    consumer = Consumer()

    def complete() -> bool:
        # Levels are counted before whole books are compared, which is dear.
        return len(consumer.trades) == len(expected.trades) and all(
            consumer.states.get(symbol) == "live"
            and symbol in consumer.books
            and all(len(consumer.books[symbol][side]) == len(book[side]) for side in book)
            and consumer.book(symbol) == book
            for symbol, book in expected.books.items()
        )

    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not complete():
                consumer.take(json.loads(await client.recv(), parse_float=Decimal))
    except TimeoutError:
        # What is missing is shown by the comparisons that follow.
        return consumer
    return consumer
