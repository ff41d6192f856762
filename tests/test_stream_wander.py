"""Clients that come, go, resume and change their mind over real sockets, while two markets move.

Every event that a client gets is compared with the book that the exchange had at that version.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from alphapulse.delta import decode_header
from alphapulse.model import (
    BookSide,
    BookSnapshot,
    BookState,
    Channel,
    Reason,
    RecordType,
    StateChange,
)
from tests.stream_consumers import RecordConsumer
from tests.stream_server import Served, beating, holds, on_uvloop, serving
from tests.streaming import Consumer, Exchange

BID, ASK = BookSide
SYMBOLS = ("BTC-USD", "ETH-USD")
STEPS = 1500
DEPTHS: tuple[int | str, ...] = (1, 3, 10, "full")


class Wanderer:
    """A client in one format that remembers what it needs to resume."""

    def __init__(
        self, served: Served, exchanges: list[Exchange], chance: random.Random, format_: str
    ) -> None:
        self.served = served
        self.chance = chance
        self.format = format_
        self.look: dict[str, Any] = {}
        self.told: set[tuple[str, str]] = set()
        """Books that have begun, or aren't live, since it subscribed to that."""
        self.consumer: Any = (Consumer if format_ == "json" else RecordConsumer)(exchanges)
        self.points: dict[str, dict[str, int]] = {}
        self.resumed: list[str] = []
        self.done = False

    async def run(self) -> None:
        while not self.done:
            async with connect(self.served.url, max_size=None, max_queue=None) as socket:
                await self.subscribe(socket, again=bool(self.points))
                await self.listen(socket)

    async def subscribe(self, socket: ClientConnection, *, again: bool) -> None:
        fields: dict[str, Any] = {
            "type": "subscribe",
            "channels": ["orderbook", "trades"],
            "resume": {},
        }
        if again and len(self.told) == 4 and self.chance.random() < 0.7:
            fields["resume"] = self.points
        else:
            self.told.clear()
            self.look = {"depth": self.chance.choice(DEPTHS)}
            if self.chance.random() < 0.3:
                self.look["conflate_ms"] = self.chance.choice((1, 20))
        await socket.send(json.dumps({**fields, **self.look, "format": self.format}))

    async def listen(self, socket: ClientConnection) -> None:
        """Until it feels like something else."""
        left = self.chance.randint(20, 400)
        async for message in socket:
            self.take(message)
            left -= 1
            if self.done:
                return
            if left <= 0:
                if self.chance.random() < 0.5:
                    return
                await self.subscribe(socket, again=False)
                left = self.chance.randint(20, 400)

    def take(self, message: str | bytes) -> None:
        if isinstance(message, str):
            event = json.loads(message)
            assert event["type"] != "error", message
            if event["type"] == "subscribed":
                if "resumed" not in event:
                    self.told.clear()
                self.consumer.depth = None if event["depth"] == "full" else event["depth"]
                self.resumed.extend(event.get("resumed", {}).values())
                if "resumed" not in event or self.look != {"depth": "full"}:
                    self.consumer.states.clear()  # a book that comes as a snapshot is live
                for exchange, epoch in event["epochs"].items():
                    if event.get("resumed", {}).get(exchange) != "records":
                        sequence = event["sequences"].get(exchange, 0)
                        self.points[exchange] = {"epoch": epoch, "sequence": sequence}
            elif event["type"] == "epoch":
                if self.points[event["exchange"]]["epoch"] != event["epoch"]:
                    self.points[event["exchange"]] = {"epoch": event["epoch"], "sequence": 0}
            elif "sequence" in event["data"]:
                if event["type"] in ("orderbook_snapshot", "state"):
                    self.told.add((event["data"]["exchange"], event["data"]["symbol"]))
                trade = event["type"] == "trade"
                self.note(event["data"]["exchange"], event["data"]["sequence"], trade=trade)
            self.consumer.take(message)
            return
        self.consumer.take(message)
        header = decode_header(message)
        latest = self.consumer.events[-1]
        exchange = latest.exchange
        if isinstance(latest, BookSnapshot | StateChange):
            self.told.add((exchange, latest.instrument.symbol))
        if header.type != RecordType.INSTRUMENT:
            self.note(exchange, header.sequence, trade=header.type == RecordType.TRADE)

    def note(self, exchange: str, sequence: int, *, trade: bool) -> None:
        point = self.points[exchange]
        assert not trade or sequence > point["sequence"], "a trade comes twice"
        point["sequence"] = max(point["sequence"], sequence)

    def current(self, exchanges: list[Exchange]) -> bool:
        return all(
            self.consumer.current(exchange.exchange, symbol, exchange.versions[symbol])
            for exchange in exchanges
            for symbol in SYMBOLS
        )


async def move(exchanges: list[Exchange], chance: random.Random) -> None:
    """Drive the markets, stale books and a new epoch included."""
    stale: set[tuple[Exchange, str]] = set()
    for step in range(STEPS):
        exchange, symbol = chance.choice(exchanges), chance.choice(SYMBOLS)
        if (exchange, symbol) in stale:
            stale.discard((exchange, symbol))
            bids, asks = exchange.books[symbol]
            exchange.reset(symbol, dict(list(bids.items())[1:]), asks, Reason.RESYNCED)
            exchange.state(symbol, BookState.LIVE, Reason.RESYNCED)
        elif step == STEPS // 2 and not any(each is exchange for each, _ in stale):
            exchange.succeed()
        elif chance.random() < 0.01:
            exchange.state(symbol, BookState.STALE, Reason.GAP)
            exchange.gap(symbol, Channel.ORDERBOOK)
            stale.add((exchange, symbol))
        else:
            levels = {
                (chance.choice((BID, ASK)), chance.randint(1, 40)): chance.choice((0, 1, 2, 3))
                for _ in range(chance.randint(1, 5))
            }
            exchange.change(
                symbol,
                *(
                    (side, 500 - price if side is BID else 500 + price, size)
                    for (side, price), size in levels.items()
                ),
            )
            if chance.random() < 0.3:
                exchange.trade(symbol)
            if chance.random() < 0.02:
                exchange.repeat(symbol)
        if step % 10 == 0:
            await asyncio.sleep(0)
    for exchange, symbol in stale:
        exchange.reset(symbol, *exchange.books[symbol], Reason.RESYNCED)
        exchange.state(symbol, BookState.LIVE, Reason.RESYNCED)


@pytest.mark.parametrize("seed", range(4))
@on_uvloop
async def test_wandering_clients_hold_the_exchanges_books(ring_prefix: str, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    exchanges = [Exchange(ring_prefix, name, SYMBOLS, 1 << 22) for name in ("kraken", "coinbase")]
    try:
        async with serving(ring_prefix) as served, beating(*exchanges):
            wanderers = [
                Wanderer(served, exchanges, random.Random(chance.random()), format_)
                for format_ in ("json", "binary") * 4
            ]
            tasks = [asyncio.create_task(each.run()) for each in wanderers]
            moving = asyncio.create_task(move(exchanges, chance))
            await asyncio.wait((moving, *tasks), return_when=asyncio.FIRST_COMPLETED)
            await moving
            settled = asyncio.create_task(
                holds(lambda: all(each.current(exchanges) for each in wanderers))
            )
            await asyncio.wait((settled, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in (settled, *tasks):
                if task.done():
                    await task
            for each in wanderers:
                each.done = True
            for exchange in exchanges:
                exchange.trade("BTC-USD")
            await asyncio.gather(*tasks)
            assert settled.done()
        assert "records" in {kind for each in wanderers for kind in each.resumed}
    finally:
        for exchange in exchanges:
            exchange.writer.close()
