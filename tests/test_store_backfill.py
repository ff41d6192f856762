"""Gaps that real collectors and writers leave are filled from the venues' REST services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

from alphapulse.config import Settings, StoreSettings
from alphapulse.fixed import to_decimal
from alphapulse.history import FillStatus, GapRow, TradeRow
from alphapulse.model import Channel, IdKind, Reason, Side
from alphapulse.shm import Position, RingReader
from alphapulse.simulators import Market, VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator
from alphapulse.simulators.coinbase import CoinbaseSimulator
from alphapulse.simulators.coinbase_advanced import CoinbaseAdvancedSimulator
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.store import Store, open_store
from alphapulse.store import backfill as backfill_module
from alphapulse.store.backfill import run_backfill
from tests import collecting
from tests.collecting import Collecting
from tests.support import ROOT
from tests.trading import RedisServer, eventually, redis_server, store_writer

SYMBOLS = ("BTC-USD", "ETH-USD")


class Venue(NamedTuple):
    """A venue as a collector is set up for it."""

    simulator: type[VenueSimulator]
    settings: dict[str, Any]


VENUES = {
    "coinbase": Venue(CoinbaseSimulator, {}),
    "advanced": Venue(CoinbaseAdvancedSimulator, {"feed": "advanced"}),
    "kraken": Venue(KrakenSimulator, {}),
    "binance_us": Venue(BinanceUsSimulator, {}),
    "binance_us-key": Venue(BinanceUsSimulator, {"api_key": "k"}),
    "binance_us-agg": Venue(BinanceUsSimulator, {"trades": "agg"}),
}


@pytest.fixture(params=VENUES)
def venue(request: pytest.FixtureRequest) -> Venue:
    return VENUES[request.param]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and all of the budget: the simulators keep to the venues' limits anyway."""
    monkeypatch.setattr(backfill_module, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(backfill_module, "REST_SHARE", 1.0)
    monkeypatch.setattr(backfill_module, "QUIET_NS", 3_000_000_000)
    monkeypatch.setattr(backfill_module, "BACKOFF_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(backfill_module, "BACKOFF_MAX_SECONDS", 1.0)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    options: dict[str, Any] = {"path": str(tmp_path / "history.duckdb"), "retention_days": 0}
    if request.param == "redis":
        options["redis_url"] = request.getfixturevalue("redis").url
    return StoreSettings(**options)


def market(trade_rate: float = 200.0) -> Market:
    return Market(SYMBOLS, seed=21, book_rate=20, trade_rate=trade_rate, levels=12)


class Site:
    """A simulated venue, its collector, and a store.

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

    @asynccontextmanager
    async def backfill(self) -> AsyncIterator[None]:
        """A running backfill."""
        stop = asyncio.Event()
        task = asyncio.create_task(run_backfill(self.settings, self.store, stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, collecting.TIMEOUT_SECONDS)

    async def stored(self, symbol: str) -> list[TradeRow]:
        return await self.store.read_trades(self.exchange, symbol)

    async def until_stored(self, count: int) -> None:
        """Wait until there are so many more trades of each symbol."""
        wanted = {symbol: len(await self.stored(symbol)) + count for symbol in SYMBOLS}

        async def there() -> bool:
            return all([len(await self.stored(s)) >= n for s, n in wanted.items()])

        await eventually(there)

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
        """Wait until so many gaps are there at least, none of them open."""

        async def settled() -> list[GapRow]:
            gaps = await self.store.read_gaps(self.exchange)
            done = len(gaps) >= count and all(gap.status is not FillStatus.OPEN for gap in gaps)
            return gaps if done else []

        found: list[GapRow] = await eventually(settled)
        return found

    async def check(self) -> None:
        """What is stored is the venue's own list, from the first stored trade to the last."""
        for symbol in SYMBOLS:
            rows = await self.stored(symbol)
            book = self.simulator.books[self.simulator.venue_symbol(symbol)]
            price, size = book.spec.price_exponent, book.spec.size_exponent
            expected: dict[str, tuple[Decimal, Decimal, Side]] = {}
            for fill in book.fills:
                aggregated = rows[0].id_kind is IdKind.AGGREGATE
                key = str(fill.order if aggregated else fill.trade_id)
                before = expected[key][1] if key in expected else Decimal(0)
                side = Side.BUY if fill.buy else Side.SELL
                whole = before + to_decimal(fill.size, size)
                expected[key] = to_decimal(fill.price, price), whole, side
            found = {row.trade_id: (row.exact_price, row.exact_size, row.side) for row in rows}
            assert len(found) == len(rows), "each once"
            numbers = [int(row.trade_id) for row in rows]
            wanted = {
                key: trade
                for key, trade in expected.items()
                if min(numbers) <= int(key) <= max(numbers)
            }
            assert found == wanted


@pytest.fixture
async def site(
    venue: Venue, ring_prefix: str, store_settings: StoreSettings
) -> AsyncIterator[Site]:
    simulator = venue.simulator(market())
    async with simulator:
        settings = collecting.settings_for(
            simulator, ring_prefix, symbols=SYMBOLS, channels=("trades",), **venue.settings
        )
        settings = replace(
            settings, store=store_settings, ring=replace(settings.ring, size_bytes=1 << 14)
        )
        store = await open_store(settings)
        yield Site(simulator, settings, store)
        await store.close()


def is_lapped(site: Site, place: Position) -> bool:
    """Whether the ring no longer holds what would be read next."""
    with RingReader(site.exchange, prefix=site.settings.ring.prefix, start="oldest") as reader:
        return reader.position.sequence > place.sequence + 50


async def lap(site: Site) -> Position:
    """Have the ring overtake the writer, which isn't running; where that has stopped."""
    place = await site.store.position(site.exchange)
    assert place is not None

    async def lapped() -> bool:
        return is_lapped(site, place)

    await eventually(lapped)
    return place


@asynccontextmanager
async def process(role: str, settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of ``tests.backfill_process``; it is killed on leaving."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.backfill_process", role),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdin is not None
    running.stdin.write(msgspec.json.encode(settings))
    running.stdin.close()
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.kill()
        await running.communicate()


async def test_a_cut_connection_is_filled(site: Site) -> None:
    async with site.collector(), store_writer(site.settings, site.store), site.backfill():
        await site.until_stored(20)
        site.simulator.faults.refuse_connections()
        site.simulator.faults.abort()
        await site.until_made(120)
        site.simulator.faults.refuse_connections(False)
        await site.until_stored(40)
        gaps = await site.until_settled(len(SYMBOLS))
        trades = [gap for gap in gaps if gap.channel is Channel.TRADES]
        assert {gap.symbol for gap in trades} == set(SYMBOLS)
        for gap in trades:
            assert (gap.reason, gap.status) == (Reason.RECONNECTED, FillStatus.FILLED)
            rows = {row.trade_id: row for row in await site.stored(gap.symbol or "")}
            assert gap.first is not None
            assert gap.last is not None
            lost = [rows[str(number)] for number in range(gap.first, gap.last + 1)]
            assert gap.filled == len(lost)
            assert all(row.filled for row in lost)
            assert not rows[str(gap.first - 1)].filled
            assert not rows[str(gap.last + 1)].filled
        await site.check()


async def test_what_a_small_ring_lost_is_filled(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        place = await lap(site)
        async with store_writer(site.settings, site.store), site.backfill():
            await site.until_stored(20)
            (gap,) = await site.until_settled(1)
    assert (gap.channel, gap.reason, gap.symbol) == (Channel.RING, Reason.LAPPED, None)
    assert (gap.epoch, gap.first) == place
    assert gap.first is not None
    assert gap.last is not None
    assert gap.count == gap.last - gap.first + 1
    filled = sum([row.filled for symbol in SYMBOLS for row in await site.stored(symbol)])
    assert gap.status is FillStatus.FILLED
    # Records of a ring aren't all trades: there are instruments and heartbeats.
    assert gap.count - 10 <= filled == gap.filled <= gap.count
    await site.check()


async def test_a_killed_collectors_downtime_is_filled(site: Site) -> None:
    async with store_writer(site.settings, site.store), site.backfill():
        async with process("collector", site.settings):
            await site.until_stored(20)
        await site.until_made(120)
        async with site.collector():
            await site.until_stored(20)

            async def settled() -> list[GapRow]:
                # The small ring may have been lapped before the writer saw it.
                gaps = await site.until_settled(1)
                return [gap for gap in gaps if gap.reason is Reason.RESTARTED]

            (gap,) = await eventually(settled)
    assert (gap.channel, gap.symbol) == (Channel.RING, None)
    assert gap.status is FillStatus.FILLED
    assert gap.filled >= 100
    await site.check()


async def test_a_venue_that_wants_to_be_left_alone_is_left_alone(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        site.simulator.faults.rest_status(429, retry_after_seconds=1, count=2)
        site.simulator.faults.rest_status(418, retry_after_seconds=1)
        async with site.backfill():
            (gap,) = await site.until_settled(1)
    assert gap.status is FillStatus.FILLED
    await site.check()


async def test_an_outage_of_rest_delays_and_loses_nothing(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        site.simulator.faults.rest_status(500, count=4)
        async with site.backfill():
            (gap,) = await site.until_settled(1)
    assert not site.simulator.faults.pending()
    assert gap.status is FillStatus.FILLED
    await site.check()


async def test_a_quiet_symbol_is_asked_about_after_a_while(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        site.simulator.pause()
        async with store_writer(site.settings, site.store), site.backfill():
            (gap,) = await site.until_settled(1)
    assert gap.status is FillStatus.FILLED
    await site.check()


async def test_a_backfill_killed_at_any_moment_continues(site: Site) -> None:
    seed = 20261124
    random = Random(seed)
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        await site.until_made(600)
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        (gap,) = await site.gaps(FillStatus.OPEN)
        await site.store.close()
        for _ in range(3):
            async with process("backfill", site.settings) as running:
                assert running.stdout is not None
                for _ in range(random.randrange(1, 8)):
                    await asyncio.wait_for(running.stdout.readline(), collecting.TIMEOUT_SECONDS)
        site.store = await open_store(site.settings)
        async with site.backfill():
            (gap,) = await site.until_settled(1)
    assert gap.status is FillStatus.FILLED, f"seed {seed}"
    filled = sum([row.filled for symbol in SYMBOLS for row in await site.stored(symbol)])
    assert gap.filled == filled
    await site.check()
