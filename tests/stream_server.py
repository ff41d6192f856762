"""For tests over real sockets: a server on the event loop that it runs on, and clients of it."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop
import websockets
from websockets.asyncio.client import ClientConnection, connect

from alphapulse.config import load
from alphapulse.stream.server import StreamServer
from tests.streaming import Consumer, Exchange

PATIENCE_SECONDS = 60.0
"""After which a test that waits for an event fails."""


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the event loop that the server uses."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        uvloop.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_SECONDS))

    return run


class Served:
    """A server that runs in this process."""

    def __init__(self, server: StreamServer, port: int) -> None:
        self.server = server
        self.port = port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def health(self, **options: Any) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/health", **options) as response,
        ):
            assert response.status == 200
            answer: dict[str, Any] = await response.json()
            return answer


@asynccontextmanager
async def serving(prefix: str, **overrides: Any) -> AsyncIterator[Served]:
    settings = load(
        environ={},
        overrides={
            "ring.prefix": prefix,
            "stream.port": 0,
            **{f"stream.{name}": value for name, value in overrides.items()},
        },
    )
    server = StreamServer(settings)
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(stop, port.set_result))
    await asyncio.wait((port, task), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield Served(server, await port)
    finally:
        stop.set()
        await task


class Listener:
    """A client that takes messages until it has seen what a test waits for."""

    def __init__(self, socket: ClientConnection, consumer: Consumer) -> None:
        self.socket = socket
        self.consumer = consumer

    async def ask(self, **fields: Any) -> None:
        await self.socket.send(json.dumps(fields))

    async def take(self, count: int = 1) -> list[dict[str, Any]]:
        return [self.consumer.take(str(await self.socket.recv())) for _ in range(count)]

    async def until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            await self.take()

    async def kinds(self, count: int) -> list[str]:
        return [event["type"] for event in await self.take(count)]


@asynccontextmanager
async def listening(
    served: Served, exchange: Exchange | None = None, query: str = "", **options: Any
) -> AsyncIterator[Listener]:
    async with connect(served.url + query, max_size=None, **options) as socket:
        yield Listener(socket, Consumer([exchange] if exchange else []))


@pytest.fixture
def exchange(ring_prefix: str) -> Any:
    with Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 24) as exchange:
        yield exchange


@asynccontextmanager
async def beating(*exchanges: Exchange) -> AsyncIterator[None]:
    """Exchanges whose collectors say that they are at work, also where nothing happens."""

    async def beat() -> None:
        while True:
            for exchange in exchanges:
                exchange.writer.beat()
            await asyncio.sleep(1)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def holds(condition: Callable[[], bool]) -> None:
    """Return when it does."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def known(served: Served, exchange: Exchange) -> None:
    """Wait until the server has read all that the exchange wrote."""
    venue = served.server.hub.venue(exchange.exchange)
    await holds(lambda: venue.sequence == exchange.writer.sequence)


async def closing(socket: ClientConnection) -> int:
    """Read until the server closes the connection; the close code."""
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await _read_on(socket)
    return closed.value.rcvd.code if closed.value.rcvd is not None else 0


async def _read_on(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade"
    b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@asynccontextmanager
async def raw(
    served: Served, handshake: bytes = HANDSHAKE
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose bytes the test writes itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(handshake)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
