"""Opportunities between the books that a stream's client keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Literal

import pytest

from alphapulse.client import StreamClient
from alphapulse.client.arbitrage import BookArbitrage, Event, Terms
from alphapulse.config import load
from alphapulse.model import BookState, Reason
from alphapulse.stream.server import StreamServer
from tests.programs import TIMEOUT_SECONDS
from tests.trading import Venue, cross

TERMS = Terms({"kraken": Decimal(26), "coinbase": Decimal("2.5")})


@asynccontextmanager
async def stream(prefix: str) -> AsyncIterator[str]:
    """A server; its address."""
    overrides = {"ring.prefix": prefix, "stream.port": 0}
    server = StreamServer(load(environ={}, overrides=overrides))
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(stop, port.set_result))
    try:
        yield f"ws://127.0.0.1:{await port}/ws"
    finally:
        stop.set()
        await task


@pytest.mark.parametrize("form", ["binary", "json"])
async def test_a_clients_books(ring_prefix: str, form: Literal["binary", "json"]) -> None:
    with Venue(ring_prefix, "kraken") as kraken, Venue(ring_prefix, "coinbase") as coinbase:
        cross(kraken, coinbase)
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            stream(ring_prefix) as url,
            StreamClient(url, format=form) as client,
        ):
            await client.subscribe("orderbook", symbols=["BTC-USD"])
            finder = BookArbitrage(client.books, TERMS)

            async def found() -> Event:
                async for _ in client:
                    if not client.waiting_bytes:
                        for event in finder.evaluate():
                            return event
                raise AssertionError("the client ended")

            opened = await found()
            assert (opened.status.value, opened.opportunity.volume) == ("opened", Decimal("2.4"))
            assert opened.opportunity.profit == Decimal("3.824616")
            coinbase.change("BTC-USD", {"102": "0.5"}, {})
            changed = await found()
            assert (changed.status.value, changed.opportunity.volume) == ("changed", Decimal("0.9"))
            kraken.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
            closed = await found()
            assert (closed.status.value, closed.reason) == ("closed", "not_live")
