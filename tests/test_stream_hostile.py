"""The stream among clients that mean it no good: the others get every event, memory is bounded."""

from __future__ import annotations

import asyncio
import json
import random
import re
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from alphapulse.model import BookSide
from tests.hostile import ATTACKS, Attack, Door, attack, never_reads
from tests.programs import Program, program
from tests.streaming import Consumer, Exchange
from tests.support import ROOT

BID, ASK = BookSide

SYMBOLS = ("BTC-USD", "ETH-USD")
"""What the healthy client follows."""
BULK = "BULK-USD"
"""A book so large that one snapshot of it fills a connection that isn't read."""
BULK_LEVELS = 20_000

BEHIND_SECONDS = 1.0
WAVE_SECONDS = 120.0
"""A wave has to be over, and its connections gone, by then."""
MEMORY_BOUND = 96 << 20
"""Bytes by which a wave of some hundred connections may let the server grow, at any moment."""
LEAK_BOUND = 24 << 20
"""Bytes that may be left of all waves."""


ENDS = re.compile(r"stream_(closes|refused)_total")
"""Metrics in one of which each connection is counted once."""

READ_METRICS = """
import sys
from alphapulse import metrics
metrics.setup(sys.argv[1])
for line in metrics.render()[1].decode().splitlines():
    if line.startswith("stream_"):
        print(line)
"""


class Market:
    """A venue that goes on only when the healthy client has got, and checked, all so far.

    Parameters
    ----------
    exchange : its ring
    socket : the healthy client's
    """

    def __init__(self, exchange: Exchange, socket: ClientConnection) -> None:
        self.events = 0
        self._exchange = exchange
        self._socket = socket
        self._consumer = Consumer([exchange], depth=100)
        self._random = random.Random(1)
        self._expected: list[int] = []
        self._got: list[int] = []

    async def subscribe(self) -> None:
        """Begin; returns when the books are there."""
        fields = {"channels": ["trades", "orderbook"], "symbols": list(SYMBOLS)}
        await self._socket.send(json.dumps({"type": "subscribe", **fields}))
        while len(self._consumer.books) < len(SYMBOLS):
            self._consumer.take(str(await self._socket.recv()))

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            for _ in range(20):
                self._step()
            while len(self._got) < len(self._expected):
                event = self._consumer.take(str(await self._socket.recv()))
                assert event["type"] in ("trade", "orderbook_delta"), event
                self._got.append(int(event["data"]["sequence"]))
            assert self._got == self._expected
            self.events += len(self._got)
            self._got.clear()
            self._expected.clear()
            self._consumer.events.clear()
            self._exchange.history.clear()
            await asyncio.sleep(0)

    async def beat(self) -> None:
        """Show that the venue's writer is at work, until cancelled."""
        while True:
            self._exchange.writer.beat()
            await asyncio.sleep(0.5)

    def _step(self) -> None:
        rng = self._random
        symbol = rng.choice(SYMBOLS)
        before = self._exchange.writer.sequence
        if rng.random() < 0.3:
            self._exchange.trade(symbol, rng.randint(1, 1000))
        else:
            side = rng.choice((BID, ASK))
            price = rng.randint(900, 999) if side is BID else rng.randint(1001, 1099)
            self._exchange.change(symbol, (side, price, rng.choice((0, rng.randint(1, 10**6)))))
        if self._exchange.writer.sequence > before:
            self._expected.append(self._exchange.writer.sequence)


class Attacked:
    """The server under attack, and what is watched of it."""

    def __init__(
        self,
        server: Program,
        port: int,
        market: Market,
        prefix: str,
        going: asyncio.Task[None],
    ) -> None:
        self.port = port
        self.market = market
        self.most = 0
        self.connections = 0
        """That the waves have made."""
        self._pid = server.pid
        self._prefix = prefix
        self._going = going

    def memory(self) -> int:
        """The server's bytes, what it shares divided among those who share it."""
        with open(f"/proc/{self._pid}/smaps_rollup", encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file if ":" in line.split(" ", 1)[0])
        now = int(found["Pss"].split()[0]) * 1024
        self.most = max(self.most, now)
        return now

    def check(self) -> None:
        """Raise what has ended the healthy client."""
        if self._going.done():
            self._going.result()

    async def clients(self) -> int:
        """How many the server says it has."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/health") as answer,
        ):
            assert answer.status == 200
            return int((await answer.json())["clients"])

    async def counted(self) -> Counter[str]:
        """What the server has counted, by the metrics' names."""
        reading = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            READ_METRICS,
            self._prefix,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        text, _ = await reading.communicate()
        assert reading.returncode == 0
        found = (line.split() for line in text.decode().splitlines())
        return Counter({name: int(float(value)) for name, value in found})

    async def wave(self, attacks: list[Attack]) -> None:
        """Have them all at once; returns when none of them is left in the server."""
        door = Door(self.port)
        async with asyncio.timeout(WAVE_SECONDS), asyncio.TaskGroup() as group:
            waiting = [group.create_task(attack(door, one)) for one in attacks]
            leaving = [task for task, one in zip(waiting, attacks, strict=True)
                       if one is not never_reads]  # fmt: skip
            while leaving:
                self.check()
                _, left = await asyncio.wait(leaving, timeout=0.1)
                leaving = list(left)
                self.memory()
            # Those who don't read and don't leave are put out.
            while await self.clients() > 1:
                self.check()
                self.memory()
                await asyncio.sleep(0.1)
            door.leave.set()
        self.connections += door.connections


@asynccontextmanager
async def attacked(prefix: str, **settings: object) -> AsyncIterator[Attacked]:
    """A server with one ring and one healthy client, which goes on to the end."""
    environ = {
        "ALPHAPULSE__RING__PREFIX": prefix,
        "ALPHAPULSE__LOG__LEVEL": "error",
        "ALPHAPULSE__STREAM__PORT": "0",
        "ALPHAPULSE__STREAM__BEHIND_SECONDS": str(BEHIND_SECONDS),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
    }
    environ |= {f"ALPHAPULSE__STREAM__{key.upper()}": str(one) for key, one in settings.items()}
    with Exchange(prefix, symbols=(*SYMBOLS, BULK), size_bytes=16 << 20) as exchange:
        levels = range(1, BULK_LEVELS)
        exchange.reset(BULK, dict.fromkeys(levels, 1), {BULK_LEVELS + price: 1 for price in levels})
        exchange.history.clear()
        for symbol in SYMBOLS:
            exchange.reset(symbol, {999: 10}, {1001: 10})
        async with (
            program("alphapulse.cli.serve", "stream", environ=environ) as server,
            _healthy(exchange, await server.port()) as (market, port),
        ):
            going = asyncio.create_task(market.run())
            beating = asyncio.create_task(market.beat())
            try:
                yield Attacked(server, port, market, prefix, going)
            finally:
                going.cancel()
                beating.cancel()
                await asyncio.gather(going, beating, return_exceptions=True)


@asynccontextmanager
async def _healthy(exchange: Exchange, port: int) -> AsyncIterator[tuple[Market, int]]:
    async with connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as socket:
        market = Market(exchange, socket)
        await market.subscribe()
        yield market, port


async def hold_out(prefix: str, waves: int, size: int, **settings: object) -> None:
    """Send hostile connections in waves, and see that the server is as it was afterwards."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    everyone = list(ATTACKS)
    async with attacked(prefix, **settings) as here:
        settled = here.memory()
        for number in range(waves):
            attacks = [everyone[(number * size + i) % len(everyone)] for i in range(size)]
            rng.shuffle(attacks)
            before, here.most = here.market.events, 0
            await here.wave(attacks)
            print(f"wave {number}: {here.market.events - before} events for the healthy client, "
                  f"memory {here.memory() >> 20} MiB, at most {here.most >> 20}")  # fmt: skip
            assert here.market.events > before, "the healthy client got nothing meanwhile"
            assert here.most - settled < MEMORY_BOUND
            if number == 0:
                settled = here.memory()  # all code has been run
        assert here.memory() - settled < LEAK_BOUND
        async with asyncio.timeout(WAVE_SECONDS):
            # Those who were put out have a while to say goodbye, and are clients so long.
            while (counted := await here.counted())["stream_clients"] > 1:
                pass
    for name, count in sorted(counted.items()):
        print(name, count)
    assert sum(counted[name] for name in counted if ENDS.match(name)) == here.connections
    assert counted["stream_rate_limited_total"]


def test_hostile_connections_hurt_nobody(ring_prefix: str) -> None:
    uvloop.run(hold_out(ring_prefix, 1, 3 * len(ATTACKS), compression=True, handshake_seconds=1))


@pytest.mark.soak
def test_ten_thousand_hostile_connections_hurt_nobody(ring_prefix: str) -> None:
    uvloop.run(hold_out(ring_prefix, 20, 500, compression=True))
