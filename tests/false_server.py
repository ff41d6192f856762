"""Speaks the stream's protocol, and what a test wants besides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import websockets
from websockets.asyncio.server import ServerConnection, serve

from tests.clients import PATIENCE_SECONDS


class FalseServer:
    """Speaks the protocol, and what a test wants besides."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.url = ""
        self.sequence: int | None = 0
        """Where its ring is, if it says so."""
        self.mute: set[str] = set()
        """Types of requests that aren't answered."""

    async def __call__(self, socket: ServerConnection) -> None:
        await self.sockets.put(socket)
        try:
            async for text in socket:
                request = json.loads(text)
                await self.requests.put(request)
                if request["type"] in self.mute:
                    continue
                if request["type"] == "subscribe":
                    await self.answer(socket, request)
                elif request["type"] == "ping":
                    await socket.send('{"type":"pong"}')
        except websockets.ConnectionClosed:
            return

    async def answer(self, socket: ServerConnection, request: dict[str, Any]) -> None:
        resumed = {"resumed": dict.fromkeys(request.get("resume", ()), "records")}
        answer = {
            "type": "subscribed",
            "channels": request["channels"],
            "exchanges": ["kraken"],
            "symbols": ["BTC-USD"],
            "format": "json",
            "depth": "full",
            "epochs": {"kraken": 7},
            "sequences": {} if self.sequence is None else {"kraken": self.sequence},
            "waiting": [],
            **resumed,
        }
        await socket.send(json.dumps(answer))

    async def asked(self, kind: str) -> dict[str, Any]:
        """The next request of a type."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (request := await self.requests.get())["type"] != kind:
                pass
            return request


@asynccontextmanager
async def false_server() -> AsyncIterator[FalseServer]:
    false = FalseServer()
    async with serve(false, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        false.url = f"ws://127.0.0.1:{port}/ws"
        yield false


def book_event(kind: str, **fields: Any) -> str:
    head = {"exchange": "kraken", "symbol": "BTC-USD", "timestamp_ns": None, "received_ns": 1}
    return json.dumps({"type": kind, "data": {**head, "sequence": 1, **fields}})


SNAPSHOT = book_event(
    "orderbook_snapshot", version=7, epoch=7, reason="subscribed", bids=[[100.5, 1]], asks=[]
)


def delta(version: int, prev_version: int, price: float = 100.5, volume: float = 2) -> str:
    change = {"side": "bid", "price": price, "volume": volume, "action": "update"}
    return book_event(
        "orderbook_delta", version=version, prev_version=prev_version, changes=[change]
    )
