"""A simulated venue that is collected, stored and backfilled, and what its history lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alphapulse.config import Settings, StoreSettings
from alphapulse.fixed import to_decimal
from alphapulse.history import FillStatus, GapRow, OrderKey, TradeRow
from alphapulse.model import IdKind, Side
from alphapulse.shm import Position, RingReader
from alphapulse.simulators import Market, VenueSimulator
from alphapulse.simulators.book import Fill
from alphapulse.store import Store, backfill, open_store
from tests import collecting
from tests.collecting import Collecting
from tests.trading import RedisServer, eventually, redis_server, store_writer

SYMBOLS = ("BTC-USD", "ETH-USD")
NOTHING: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
"""What is lacking where all is there."""
RING_BYTES = 1 << 15
"""Small on purpose: less than a second of trades."""
SOME = 20
"""Trades of each symbol that show that somebody is at work."""


class Site:
    """A simulated venue, its collector with a ring that is too small, and a store.

    Parameters
    ----------
    simulator : the venue
    settings : of all
    store : where the history is
    """

    def __init__(self, simulator: VenueSimulator, settings: Settings, store: Store) -> None:
        self.simulator = simulator
        self.settings = settings
        self.store = store
        self.exchange = simulator.exchange

    @asynccontextmanager
    async def collector(self) -> AsyncIterator[Collecting]:
        """A running collector."""
        at_work = Collecting(self.simulator, self.settings)
        try:
            await at_work.attach()
            yield at_work
            at_work.stop.set()
            await asyncio.wait_for(at_work.task, collecting.TIMEOUT_SECONDS)
        finally:
            at_work.task.cancel()
            await asyncio.gather(at_work.task, return_exceptions=True)
            at_work.detach()

    def writer(self) -> AbstractAsyncContextManager[None]:
        """A running writer."""
        return store_writer(self.settings, self.store)

    @asynccontextmanager
    async def backfill(self) -> AsyncIterator[None]:
        """A running backfill."""
        stop = asyncio.Event()
        task = asyncio.create_task(backfill.run_backfill(self.settings, self.store, stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, collecting.TIMEOUT_SECONDS)

    async def lap(self) -> Position:
        """Have the ring overtake the writer, which isn't running; where that has ended."""
        place = await self.store.position(self.exchange)
        assert place is not None

        async def lapped() -> bool:
            prefix = self.settings.ring.prefix
            with RingReader(self.exchange, prefix=prefix, start="oldest") as reader:
                return reader.position.sequence > place.sequence + 50

        await eventually(lapped)
        return place

    async def fall_behind(self) -> Position:
        """Have a writer write some and end, and the ring overtake it; where it has ended."""
        async with self.writer():
            await self.until_stored(SOME)
        return await self.lap()

    async def lose(self) -> None:
        """Have a writer fall behind and go on, which leaves a gap."""
        await self.fall_behind()
        async with self.writer():
            await self.until_stored(SOME)

    async def stored(self, symbol: str) -> list[TradeRow]:
        return await self.store.read_trades(self.exchange, symbol)

    async def until_stored(self, count: int) -> None:
        """Wait until there are so many trades of each symbol behind those that are there."""
        ends = {symbol: await self._end(symbol) for symbol in SYMBOLS}

        async def there() -> bool:
            return all([await self._are_behind(symbol, ends[symbol], count) for symbol in SYMBOLS])

        await eventually(there)

    async def _end(self, symbol: str) -> OrderKey | None:
        """Place of the newest trade, None where there is none."""
        rows = await self.store.read_trades(self.exchange, symbol, limit=1, newest=True)
        return rows[0].order_key if rows else None

    async def _are_behind(self, symbol: str, end: OrderKey | None, count: int) -> bool:
        rows = await self.store.read_trades(self.exchange, symbol, limit=count, beyond=end)
        return len(rows) == count

    async def until_made(self, count: int) -> None:
        """Wait until the venue has made so many more trades of each symbol."""
        wanted = {symbol: self.made(symbol) + count for symbol in SYMBOLS}

        async def there() -> bool:
            return all(self.made(symbol) >= number for symbol, number in wanted.items())

        await eventually(there)

    def made(self, symbol: str) -> int:
        """Id of the venue's last trade."""
        return self.simulator.books[self.simulator.venue_symbol(symbol)].next_trade_id - 1

    async def gaps(self, status: FillStatus) -> list[GapRow]:
        return [gap for gap in await self.store.read_gaps(self.exchange) if gap.status is status]

    async def until_settled(self, count: int) -> list[GapRow]:
        """Wait until so many gaps are there at least, none of them open; all of them."""
        gaps: list[GapRow] = []

        async def settled() -> bool:
            gaps[:] = await self.store.read_gaps(self.exchange)
            return len(gaps) >= count and all(gap.status is not FillStatus.OPEN for gap in gaps)

        await eventually(settled)
        return gaps

    async def until_whole(self) -> None:
        """Let the market rest, and wait until nothing is lacking.

        If it went on, a slow machine could go on losing as fast as it fills.
        """
        self.simulator.pause()

        async def whole() -> bool:
            return not await self.gaps(FillStatus.OPEN) and await self.check() == NOTHING

        await eventually(whole)

    async def check(self) -> dict[str, set[int]]:
        """What is stored is the venue's own, no match twice; ids of those that are lacking.

        They are those between the first stored trade and the last.
        """
        return {symbol: self.lacking(symbol, await self.stored(symbol)) for symbol in SYMBOLS}

    def lacking(self, symbol: str, rows: list[TradeRow]) -> set[int]:
        """The same of one symbol."""
        orders = self.orders(symbol)
        singles = {fill.trade_id: [fill] for order in orders.values() for fill in order}
        covered: list[int] = []
        for row in rows:
            source = orders if row.id_kind is IdKind.AGGREGATE else singles
            fills = source[int(row.trade_id)]
            spec = self.simulator.books[self.simulator.venue_symbol(symbol)].spec
            assert row.exact_price == to_decimal(fills[0].price, spec.price_exponent)
            assert row.exact_size == sum(to_decimal(f.size, spec.size_exponent) for f in fills)
            assert row.side is (Side.BUY if fills[0].buy else Side.SELL)
            assert row.matches == len(fills)
            covered += [fill.trade_id for fill in fills]
        assert len(set(covered)) == len(covered), "no match twice"
        return set(range(min(covered), max(covered) + 1)) - set(covered)

    def orders(self, symbol: str) -> dict[int, list[Fill]]:
        """The venue's matches by the taker's order."""
        found: dict[int, list[Fill]] = {}
        for fill in self.simulator.books[self.simulator.venue_symbol(symbol)].fills:
            found.setdefault(fill.order, []).append(fill)
        return found


def market(memory: int = 20_000) -> Market:
    """Some 200 trades a second; REST knows so many of each symbol."""
    return Market(SYMBOLS, seed=21, book_rate=20, trade_rate=200, levels=12, memory=memory)


@asynccontextmanager
async def running(
    simulator: VenueSimulator, prefix: str, store: StoreSettings, **venue: Any
) -> AsyncIterator[Site]:
    """A simulated venue and an empty store.

    Parameters
    ----------
    simulator : the venue, not yet entered
    prefix : of the ring
    store : where the history will be
    venue : settings of the venue, but for its symbols and channels
    """
    async with simulator:
        settings = collecting.settings_for(
            simulator, prefix, symbols=SYMBOLS, channels=("trades",), **venue
        )
        ring = replace(settings.ring, size_bytes=RING_BYTES)
        settings = replace(settings, store=store, ring=ring)
        site = Site(simulator, settings, await open_store(settings))
        try:
            yield site
        finally:
            await site.store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and all of the budget: the simulators keep to the venues' limits anyway."""
    monkeypatch.setattr(backfill, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(backfill, "REST_SHARE", 1.0)
    monkeypatch.setattr(backfill, "QUIET_NS", 3_000_000_000)
    monkeypatch.setattr(backfill, "BACKOFF_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(backfill, "BACKOFF_MAX_SECONDS", 1.0)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    """Where the history is: ``embedded``, or ``redis``."""
    options: dict[str, Any] = {"path": str(tmp_path / "history.duckdb"), "retention_days": 0}
    if request.param == "redis":
        options["redis_url"] = request.getfixturevalue("redis").url
    return StoreSettings(**options)
