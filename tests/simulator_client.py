"""An independent client of the simulators: plain sockets, plain decimals, no venue code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Self

import aiohttp

from alphapulse.simulators.base import FinalBook, VenueSimulator

TIMEOUT_SECONDS = 30.0


class Number(str):
    """The digits of a JSON number as they were sent."""

    __slots__ = ()


class Closed(Exception):
    """The server closed the connection, with this code."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


def loads(text: str | bytes) -> Any:
    """JSON with fractions kept as the text that was sent."""
    return json.loads(text, parse_float=Number)


class Client:
    """A WebSocket connection that keeps what it gets, and a REST session."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.raw: list[str] = []
        self.pings = 0

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession()
        try:
            self.socket = await self.session.ws_connect(
                self._url, max_msg_size=0, autoping=False, compress=0
            )
        except BaseException:
            await self.session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
        await self.session.close()

    async def send(self, message: Any) -> None:
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def receive_raw(self, pong: bool = False) -> str | None:
        """The next frame's text; with `pong`, None for a pong."""
        while True:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self.raw.append(message.data)
                return str(message.data)
            if message.type is aiohttp.WSMsgType.PING:
                self.pings += 1
                await self.socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                if pong:
                    return None
            else:
                raise Closed(self.socket.close_code)

    async def receive(self) -> Any:
        """The next frame, decoded."""
        return loads(await self.receive_raw() or "")

    async def until(self, condition: Callable[[Any], bool]) -> list[Any]:
        """All frames up to the first that the condition holds for."""
        frames: list[Any] = []
        while not frames or not condition(frames[-1]):
            frames.append(await self.receive())
        return frames

    async def drain(self) -> list[Any]:
        """All frames that the server sent before now: up to its answer to a ping."""
        await self.socket.ping(b"drain")
        frames: list[Any] = []
        while (text := await self.receive_raw(pong=True)) is not None:
            frames.append(loads(text))
        return frames

    async def closed(self) -> int | None:
        """Read until the server closes; gives its code."""
        try:
            while True:
                await self.receive_raw()
        except Closed as end:
            return end.code


class NaiveBook:
    """A book of decimals in two dicts."""

    def __init__(self, depth: int | None = None) -> None:
        self.depth = depth
        self.sides: dict[str, dict[Decimal, tuple[str, str]]] = {"bid": {}, "ask": {}}
        """Price and size as they were written, by price."""

    def set(self, side: str, price: str, size: str) -> None:
        levels = self.sides[side]
        if Decimal(size):
            levels[Decimal(price)] = (price, size)
        else:
            levels.pop(Decimal(price), None)

    def truncate(self) -> None:
        if self.depth is None:
            return
        for side, reverse in (("bid", True), ("ask", False)):
            levels = self.sides[side]
            for price in sorted(levels, reverse=reverse)[self.depth :]:
                del levels[price]

    def top(self, side: str) -> list[tuple[str, str]]:
        """Levels as they were written, best first."""
        return [text for _, text in sorted(self.sides[side].items(), reverse=side == "bid")]

    def levels(self) -> FinalBook:
        bids, asks = (
            [(Decimal(price), Decimal(size)) for price, size in self.top(side)]
            for side in ("bid", "ask")
        )
        return FinalBook(bids, asks)


async def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
    """Status, headers and decoded body of a GET request."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers) as response,
    ):
        return response.status, response.headers, loads(await response.read())


async def post(url: str, body: Any = None) -> tuple[int, Any]:
    """Status and decoded body of a POST request with a JSON body."""
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return response.status, loads(await response.read())


async def finish(venue: VenueSimulator) -> None:
    """Wait until the venue's source has come to its end."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await venue.finished.wait()
    assert venue.failure is None
