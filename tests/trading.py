"""For tests of the history and of REST: venues that write rings, and stores to write to."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis
from msgspec.structs import replace

from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.config import RingSettings, Settings, StoreSettings, VenuesSettings
from alphapulse.delta import BookTracker, Encoder, LevelLayout, encode_instrument
from alphapulse.history import TradeRow
from alphapulse.model import BookSide, BookState, Channel, IdKind, Reason, Side
from alphapulse.shm import RingWriter
from alphapulse.store import Store
from alphapulse.store.writer import run_store_writer
from tests.support import find_program, make_instrument

PATIENCE_SECONDS = 30.0
NOW_NS = wall_ns() // 10**9 * 10**9

Levels = dict[str, str]
"""Sizes by price."""


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until a condition holds that another task or process brings about; its value."""
    until = time.monotonic() + PATIENCE_SECONDS
    async with asyncio.timeout(PATIENCE_SECONDS):
        # What another process does can't set an event here.
        while not (value := await condition()):
            # A library may swallow the cancellation of a timeout, which comes once only.
            assert time.monotonic() < until, "what is waited for doesn't come"
            await asyncio.sleep(0.005)
        return value


def row(number: int | str, **fields: Any) -> TradeRow:
    """A trade of Kraken's BTC-USD at 100.00, one a second."""
    text = isinstance(number, str)
    defaults: dict[str, Any] = {
        "exchange": "kraken",
        "symbol": "BTC-USD",
        "trade_id": str(number),
        "id_kind": IdKind.TEXT if text else IdKind.TRADE,
        "timestamp_ns": NOW_NS + (0 if text else int(number)) * 10**9,
        "received_ns": NO_TIME,
        "price": 10000,
        "price_exponent": 2,
        "size": 5000,
        "size_exponent": 4,
        "side": Side.BUY,
    }
    return TradeRow(**{**defaults, **fields})


class Venue:
    """A collector, as far as its ring shows one.

    Parameters
    ----------
    prefix : of the ring
    exchange : name of the venue
    symbols : to begin with; prices have 2, sizes 4 decimal places
    """

    def __init__(
        self, prefix: str, exchange: str = "kraken", *symbols: str, size_bytes: int = 1 << 20
    ) -> None:
        self.exchange = exchange
        self.writer = RingWriter(exchange, prefix=prefix, size_bytes=size_bytes)
        self.trackers: dict[str, BookTracker] = {}
        self._encoder = Encoder()
        self._instruments = 0
        for symbol in symbols or ("BTC-USD",):
            self.define(symbol)

    def __enter__(self) -> Venue:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def define(self, symbol: str, price_exponent: int = 2, size_exponent: int = 4) -> None:
        """Announce an instrument; the symbol's later records are about it."""
        self._instruments += 1
        instrument = make_instrument(
            self.exchange,
            symbol,
            id=self._instruments,
            price_exponent=price_exponent,
            size_exponent=size_exponent,
        )
        self.trackers[symbol] = BookTracker(instrument, encoder=self._encoder)
        self._write(encode_instrument(self._encoder, instrument))

    def book(self, symbol: str, bids: Levels, asks: Levels) -> None:
        """A snapshot, and the state live."""
        self.load(symbol, bids, asks)
        self.state(symbol, BookState.LIVE, Reason.SUBSCRIBED)

    def load(self, symbol: str, bids: Levels, asks: Levels) -> None:
        """A snapshot alone."""
        tracker = self.trackers[symbol]
        self._write(tracker.load(_parts(bids, asks), reason=Reason.SUBSCRIBED, **_times()))

    def change(self, symbol: str, bids: Levels, asks: Levels) -> None:
        """A delta."""
        record = self.trackers[symbol].update(_parts(bids, asks), **_times())
        assert record is not None
        self._write(record)

    def state(self, symbol: str, state: BookState, reason: Reason) -> None:
        number = self.trackers[symbol].instrument.id
        self._write(self._encoder.state(number, state, reason, received_ns=wall_ns()))

    def trade(self, symbol: str, trade_id: int | str, **fields: Any) -> None:
        """A trade of 5.0000 at 100.00; ids that are texts are of that kind."""
        kind = IdKind.TEXT if isinstance(trade_id, str) else IdKind.TRADE
        values = {"price": 10000, "size": 50000, "side": Side.BUY, "id_kind": kind, **fields}
        values = {"exchange_ns": NOW_NS, "received_ns": wall_ns(), **values}
        number = self.trackers[symbol].instrument.id
        self._write(self._encoder.trade(number, trade_id=trade_id, **values))

    def gap(self, symbol: str, first: int, last: int) -> None:
        """A loss of trades."""
        number = self.trackers[symbol].instrument.id
        count = last - first + 1
        self._write(
            self._encoder.gap(
                number, Channel.TRADES, Reason.GAP, first, last, count, NOW_NS, received_ns=NOW_NS
            )
        )

    def _write(self, record: Encoder) -> None:
        self.writer.write(record)
        self.writer.beat()
        self.writer.wake()


DEAR_BIDS = {"102": "2", "101.5": "0.4"}
CHEAP_ASKS = {"100": "1.5", "100.1": "1", "101": "9"}
"""Crossed by those bids: 2.4, for 240.09 and 244.6."""


def cross(cheap: Venue, dear: Venue, symbol: str = "BTC-USD") -> None:
    """One venue sells for less than the other buys for."""
    cheap.book(symbol, {"99": "1"}, CHEAP_ASKS)
    dear.book(symbol, DEAR_BIDS, {"103": "1"})


def _times() -> dict[str, int]:
    return {"exchange_ns": NOW_NS + 123_456_789, "received_ns": wall_ns()}


def _parts(bids: Levels, asks: Levels) -> list[tuple[LevelLayout, BookSide, bytes]]:
    return [
        (LevelLayout.pairs(), side, json.dumps(list(levels.items())).encode())
        for side, levels in ((BookSide.BID, bids), (BookSide.ASK, asks))
    ]


def settings_for(prefix: str, **store: Any) -> Settings:
    """Settings of rings under this prefix; no venue is configured."""
    venues = VenuesSettings()
    off = {name: replace(getattr(venues, name), enabled=False) for name in venues.__struct_fields__}
    return Settings(
        ring=RingSettings(prefix=prefix),
        store=StoreSettings(**store),
        venues=VenuesSettings(**off),
    )


class RedisServer:
    """A Redis server of the test's own, on a socket in a folder of its own."""

    def __init__(self, *options: str) -> None:
        self._program = find_program("redis-server", "redis-server")
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="aptest-redis-"))
        self.url = f"unix://{self.folder}/redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", "0", "--unixsocket", f"{self.folder}/redis.sock"),
                *("--save", "", "--dir", str(self.folder), *self._options),
            ],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + PATIENCE_SECONDS
        with redis.Redis.from_url(self.url) as client:
            while not self._answers(client):
                assert time.monotonic() < until, "redis-server doesn't answer"
                assert self._process.poll() is None, "redis-server ended"
                time.sleep(0.005)

    def _answers(self, client: redis.Redis) -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Kill it; what wasn't persisted is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A running Redis server."""
    server = RedisServer(*options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@asynccontextmanager
async def store_writer(settings: Settings, store: Store) -> AsyncIterator[None]:
    """A running writer; at the end it has written what the rings hold."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_store_writer(settings, store, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def stored_ids(store: Store, symbol: str = "BTC-USD", exchange: str = "kraken") -> list[str]:
    """Ids of all trades of a symbol, in the store's order."""
    return [row.trade_id for row in await store.read_trades(exchange, symbol)]
