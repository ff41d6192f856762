"""For tests of the stream client: an exchange, a server, and what the client takes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from alphapulse.client import (
    StreamClient,
    StreamEvent,
)
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
)
from tests.clients import PATIENCE_SECONDS, ServerThread, exact, server_thread
from tests.streaming import Exchange

BID, ASK = BookSide
QUICK: dict[str, Any] = {"retry_seconds": 0.01, "max_retry_seconds": 0.05}
FORMATS = pytest.mark.parametrize("format_", ["json", "binary"])


@pytest.fixture
def exchange(ring_prefix: str) -> Iterator[Exchange]:
    with Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 22) as exchange:
        exchange.reset("BTC-USD", {10012: 5, 10000: 10}, {10111: 3})
        yield exchange


@pytest.fixture
def server(ring_prefix: str, exchange: Exchange) -> Iterator[ServerThread]:
    with server_thread(ring_prefix) as server:
        yield server


class Taken:
    """A client's events, and its book compared at each of them."""

    def __init__(self, client: StreamClient, exchange: Exchange) -> None:
        self.client = client
        self.exchange = exchange
        self.events: list[StreamEvent] = []

    async def until(self, wanted: Callable[[StreamEvent], bool]) -> StreamEvent:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                event = await anext(self.client)
                self.events.append(event)
                if isinstance(event, BookSnapshot | BookDelta):
                    self.compare(event)
                if wanted(event):
                    return event

    async def have(self, kind: type[Any], count: int) -> list[Any]:
        """Wait until so many events of a kind were taken."""
        while len(self.of(kind)) < count:
            await self.until(lambda _: True)
        return self.of(kind)

    async def version(self, symbol: str = "BTC-USD") -> None:
        version = self.exchange.versions[symbol]
        await self.until(
            lambda event: (
                isinstance(event, BookSnapshot | BookDelta)
                and (event.symbol, event.version) == (symbol, version)
            )
        )

    def compare(self, event: BookSnapshot | BookDelta) -> None:
        book = self.client.books[event.exchange, event.symbol]
        bids, asks = self.exchange.history[book.epoch, event.symbol, event.version]
        assert [tuple(level) for level in book.bids()] == exact(sorted(bids.items(), reverse=True))
        assert [tuple(level) for level in book.asks()] == exact(sorted(asks.items()))

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def a(kind: type[Any]) -> Callable[[StreamEvent], bool]:
    return lambda event: isinstance(event, kind)
