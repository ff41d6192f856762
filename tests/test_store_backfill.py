"""Gaps that real collectors and writers leave are filled from the venues' REST services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.config import Settings, StoreSettings
from alphapulse.fixed import to_decimal
from alphapulse.history import FillStatus, GapRow, TradeRow
from alphapulse.model import Channel, IdKind, Reason, Side
from alphapulse.shm import Position, RingReader
from alphapulse.simulators import Market, VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator
from alphapulse.simulators.book import Fill
from alphapulse.simulators.coinbase import CoinbaseSimulator
from alphapulse.simulators.coinbase_advanced import CoinbaseAdvancedSimulator
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.store import Store, WriteBatch, open_store
from alphapulse.store import backfill as backfill_module
from alphapulse.store.backfill import run_backfill
from alphapulse.store.follower import BEGINNING
from tests import collecting, trading
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


EVERY = pytest.mark.parametrize(
    ("venue", "store_settings"),
    # Without a key Binance.US gives what it can: tested apart, at a venue that rests.
    [*((name, "redis") for name in VENUES if name != "binance_us"), ("coinbase", "embedded")],
    indirect=True,
)
THREE = pytest.mark.parametrize(
    ("venue", "store_settings"),
    [("coinbase", "redis"), ("kraken", "embedded"), ("binance_us", "redis")],
    indirect=True,
)
COINBASE_SOON = pytest.mark.parametrize(
    ("venue", "store_settings"),
    # The others take long, since their limits make a filler wait.
    [
        ("coinbase", "redis"),
        pytest.param("kraken", "embedded", marks=pytest.mark.soak),
        pytest.param("binance_us", "redis", marks=pytest.mark.soak),
    ],
    indirect=True,
)
STORES = pytest.mark.parametrize("store_settings", ["embedded", "redis"], indirect=True)


@pytest.fixture
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


@pytest.fixture
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    options: dict[str, Any] = {"path": str(tmp_path / "history.duckdb"), "retention_days": 0}
    if request.param == "redis":
        options["redis_url"] = request.getfixturevalue("redis").url
    return StoreSettings(**options)


def market(memory: int = 20_000) -> Market:
    return Market(SYMBOLS, seed=21, book_rate=20, trade_rate=200, levels=12, memory=memory)


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

    async def until_whole(self) -> None:
        """Wait until nothing is lacking: a slow machine's collector may lose more meanwhile."""

        async def whole() -> bool:
            return await self.check() == NOTHING

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


NOTHING: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
"""What is lacking where all is there."""


@asynccontextmanager
async def running(
    simulator: VenueSimulator, prefix: str, store: StoreSettings, **venue: Any
) -> AsyncIterator[Site]:
    """A simulated venue and an empty store; rings are small on purpose."""
    async with simulator:
        settings = collecting.settings_for(
            simulator, prefix, symbols=SYMBOLS, channels=("trades",), **venue
        )
        settings = replace(settings, store=store, ring=replace(settings.ring, size_bytes=1 << 15))
        site = Site(simulator, settings, await open_store(settings))
        yield site
        await site.store.close()


@pytest.fixture
async def site(
    venue: Venue, ring_prefix: str, store_settings: StoreSettings
) -> AsyncIterator[Site]:
    simulator = venue.simulator(market())
    async with running(simulator, ring_prefix, store_settings, **venue.settings) as site:
        yield site


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
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.backfill_process", role),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(settings))
    child.stdin.close()
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


@EVERY
async def test_a_cut_connection_is_filled(site: Site) -> None:
    async with site.collector(), store_writer(site.settings, site.store), site.backfill():
        await site.until_stored(20)
        site.simulator.faults.refuse_connections()
        site.simulator.faults.abort()
        await site.until_made(120)
        site.simulator.faults.refuse_connections(False)
        gaps = await site.until_settled(len(SYMBOLS))
        await site.until_stored(20)
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
        await site.until_whole()


@EVERY
async def test_what_a_small_ring_lost_is_filled(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        place = await lap(site)
        async with store_writer(site.settings, site.store), site.backfill():
            await site.until_stored(20)
            await site.until_whole()
            gaps = await site.until_settled(1)
    (gap,) = [gap for gap in gaps if (gap.epoch, gap.first) == place]
    assert (gap.channel, gap.reason, gap.symbol) == (Channel.RING, Reason.LAPPED, None)
    assert gap.first is not None
    assert gap.last is not None
    assert gap.count == gap.last - gap.first + 1
    filled = sum([row.filled for symbol in SYMBOLS for row in await site.stored(symbol)])
    assert sum(gap.filled for gap in gaps) == filled
    assert {gap.status for gap in gaps} == {FillStatus.FILLED}
    # Records of a ring aren't all trades: there are instruments and heartbeats.
    assert gap.count - 10 <= gap.filled <= gap.count


@EVERY
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
            await site.until_whole()
    assert (gap.channel, gap.symbol) == (Channel.RING, None)
    assert gap.status is FillStatus.FILLED
    assert gap.filled >= 100


@COINBASE_SOON
async def test_a_stopped_collectors_downtime_is_filled(site: Site) -> None:
    async with store_writer(site.settings, site.store), site.backfill():
        async with site.collector():
            await site.until_stored(20)

        async def over() -> bool:
            return await site.store.position(site.exchange) == BEGINNING

        await eventually(over)
        await site.until_made(120)
        async with site.collector():
            await site.until_stored(20)
            site.simulator.pause()

            async def settled() -> list[GapRow]:
                gaps = await site.until_settled(1)
                return [gap for gap in gaps if gap.reason is Reason.RESTARTED]

            (gap,) = await eventually(settled)
            await site.until_whole()
    assert (gap.channel, gap.first, gap.status) == (Channel.RING, None, FillStatus.FILLED)
    assert gap.filled >= 240


@COINBASE_SOON
async def test_a_venue_that_wants_to_be_left_alone_is_left_alone(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        site.simulator.pause()
        site.simulator.faults.rest_status(429, retry_after_seconds=1, count=2)
        site.simulator.faults.rest_status(418, retry_after_seconds=1)
        async with site.backfill():
            gaps = await site.until_settled(1)
    assert {gap.status for gap in gaps} == {FillStatus.FILLED}
    assert await site.check() == NOTHING


@THREE
async def test_an_outage_of_rest_delays_and_loses_nothing(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        site.simulator.pause()
        site.simulator.faults.rest_status(500, count=4)
        async with site.backfill():
            gaps = await site.until_settled(1)
    assert not site.simulator.faults.pending()
    assert {gap.status for gap in gaps} == {FillStatus.FILLED}
    assert await site.check() == NOTHING


@THREE
async def test_a_quiet_symbol_is_asked_about_after_a_while(site: Site) -> None:
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        site.simulator.pause()
        async with store_writer(site.settings, site.store), site.backfill():
            gaps = await site.until_settled(1)
    assert {gap.status for gap in gaps} == {FillStatus.FILLED}
    assert await site.check() == NOTHING


@COINBASE_SOON
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
            async with process("backfill", site.settings) as child:
                assert child.stdout is not None
                for _ in range(random.randrange(1, 8)):
                    await asyncio.wait_for(child.stdout.readline(), collecting.TIMEOUT_SECONDS)
        site.store = await open_store(site.settings)
        async with site.backfill():
            (gap,) = await site.until_settled(1)
    filled = sum([row.filled for symbol in SYMBOLS for row in await site.stored(symbol)])
    assert gap.filled == filled, f"seed {seed}"
    lacking = await site.check()
    assert gap.status is (FillStatus.FILLED if lacking == NOTHING else FillStatus.PARTIAL)
    binance = site.settings.venues.binance_us
    # Of what comes as aggregates, a kill may leave orders of which a part is there.
    aggregates = binance.enabled and binance.trades == "trade" and not binance.api_key
    assert lacking == NOTHING or aggregates, f"seed {seed}"


@pytest.fixture
async def forgetful_site(
    venue: Venue, ring_prefix: str, store_settings: StoreSettings
) -> AsyncIterator[Site]:
    """The venue's REST service knows the latest trades only."""
    simulator = venue.simulator(market(memory=50))
    async with running(simulator, ring_prefix, store_settings, **venue.settings) as site:
        yield site


@COINBASE_SOON
async def test_what_the_venue_has_forgotten_is_lost(forgetful_site: Site) -> None:
    site = forgetful_site
    async with site.collector():
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await lap(site)
        async with store_writer(site.settings, site.store):
            await site.until_stored(20)
        await site.until_made(200)
        async with site.backfill():
            (gap,) = await site.until_settled(1)
    assert gap.status is FillStatus.UNAVAILABLE
    assert gap.filled == 0


@THREE
async def test_books_have_no_history(site: Site) -> None:
    lost = GapRow(
        exchange=site.exchange,
        symbol="BTC-USD",
        channel=Channel.ORDERBOOK,
        reason=Reason.GAP,
        first=1,
        last=2,
        count=2,
        since_ns=1,
        received_ns=2,
    )
    await site.store.append(WriteBatch(exchange=site.exchange, gaps=[lost]))
    async with site.backfill():
        (gap,) = await site.until_settled(1)
    assert gap.status is FillStatus.UNAVAILABLE


def missed(exchange: str, fills: Sequence[Fill], **fields: Any) -> GapRow:
    """A loss of these trades of BTC-USD."""
    first, last = fills[0], fills[-1]
    defaults: dict[str, Any] = {
        "exchange": exchange,
        "symbol": "BTC-USD",
        "channel": Channel.TRADES,
        "reason": Reason.GAP,
        "first": first.trade_id,
        "last": last.trade_id,
        "count": len(fills),
        "since_ns": first.t_ns,
        "received_ns": last.t_ns,
    }
    return GapRow(**{**defaults, **fields})


@STORES
async def test_digits_beyond_the_instruments_are_kept(
    ring_prefix: str, store_settings: StoreSettings
) -> None:
    async with running(KrakenSimulator(market()), ring_prefix, store_settings) as site:
        site.simulator.pause()
        fills = list(site.simulator.books["BTC/USD"].fills)[10:20]
        with trading.Venue(ring_prefix, "kraken") as ring:
            ring.define("BTC-USD", price_exponent=0, size_exponent=1)
            gap = missed("kraken", fills)
            await site.store.append(WriteBatch(exchange="kraken", gaps=[gap]))
            async with site.backfill():
                (gap,) = await site.until_settled(1)
        assert (gap.status, gap.filled) == (FillStatus.FILLED, 10)
        rows = await site.stored("BTC-USD")
        assert max(row.size_exponent for row in rows) > 1
        assert site.lacking("BTC-USD", rows) == set()


@STORES
async def test_one_venues_outage_keeps_no_other_waiting(
    ring_prefix: str, store_settings: StoreSettings
) -> None:
    away = BinanceUsSimulator(market())
    async with away, running(KrakenSimulator(market()), ring_prefix, store_settings) as site:
        other = collecting.settings_for(away, ring_prefix).venues.binance_us
        venues = replace(site.settings.venues, binance_us=other)
        site.settings = replace(site.settings, venues=venues)
        away.faults.rest_status(503, count=10_000)
        for simulator, symbol in ((away, "BTCUSD"), (site.simulator, "BTC/USD")):
            simulator.pause()
            lost = missed(simulator.exchange, list(simulator.books[symbol].fills)[10:20])
            await site.store.append(WriteBatch(exchange=simulator.exchange, gaps=[lost]))
        with trading.Venue(ring_prefix, "kraken"), trading.Venue(ring_prefix, "binance_us"):
            async with site.backfill(), asyncio.timeout(collecting.TIMEOUT_SECONDS):
                await away.wait_until(lambda: away.counts["rest /api/v3/trades"] > 0)
                (gap,) = await site.until_settled(1)
        assert gap.status is FillStatus.FILLED
        (waiting,) = await site.store.read_gaps(away.exchange)
        assert waiting.status is FillStatus.OPEN


@STORES
async def test_an_old_gap_that_keeps_failing_is_given_up(
    ring_prefix: str, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill_module, "MOST_FAILURES", 2)
    async with running(KrakenSimulator(market()), ring_prefix, store_settings) as site:
        site.simulator.pause()
        site.simulator.faults.rest_status(503, count=10_000)
        fills = list(site.simulator.books["BTC/USD"].fills)[10:20]
        old = missed("kraken", fills, received_ns=fills[-1].t_ns - 2 * backfill_module.OLD_NS)
        await site.store.append(WriteBatch(exchange="kraken", gaps=[missed("kraken", fills), old]))
        with trading.Venue(ring_prefix, "kraken"):
            async with site.backfill():

                async def given_up() -> list[GapRow]:
                    return await site.gaps(FillStatus.UNAVAILABLE)

                (gap,) = await eventually(given_up)
        assert gap.received_ns == old.received_ns
        assert len(await site.gaps(FillStatus.OPEN)) == 1, "a newer one may still be filled"


@STORES
async def test_gaps_wait_for_a_ring(ring_prefix: str, store_settings: StoreSettings) -> None:
    async with running(KrakenSimulator(market()), ring_prefix, store_settings) as site:
        site.simulator.pause()
        lost = missed("kraken", list(site.simulator.books["BTC/USD"].fills)[10:20])
        books = missed("kraken", list(site.simulator.books["BTC/USD"].fills)[:1])
        books = replace(books, channel=Channel.ORDERBOOK)
        await site.store.append(WriteBatch(exchange="kraken", gaps=[books, lost]))
        async with site.backfill():

            async def settled() -> bool:
                return bool(await site.gaps(FillStatus.UNAVAILABLE))

            await eventually(settled)
            assert len(await site.gaps(FillStatus.OPEN)) == 1
            with trading.Venue(ring_prefix, "kraken"):
                await site.until_settled(2)
        assert len(await site.gaps(FillStatus.FILLED)) == 1


class ShortSighted(BinanceUsSimulator):
    """Gives the latest 30 single trades only."""

    async def _trades(self, request: Request) -> Response:
        query = urlencode({**request.query_params, "limit": "30"}).encode()
        return await super()._trades(Request({**request.scope, "query_string": query}))


@STORES
async def test_without_a_key_older_trades_come_as_aggregates(
    ring_prefix: str, store_settings: StoreSettings
) -> None:
    async with running(ShortSighted(market()), ring_prefix, store_settings) as site:
        async with site.collector():
            async with store_writer(site.settings, site.store):
                await site.until_stored(20)
            await lap(site)
            async with store_writer(site.settings, site.store):
                await site.until_stored(20)
            async with site.backfill():
                (gap,) = await site.until_settled(1)
        rows = [row for symbol in SYMBOLS for row in await site.stored(symbol)]
        filled = [row for row in rows if row.filled]
        assert gap.filled == len(filled) > 50
        kinds = {row.id_kind for row in filled}
        assert IdKind.AGGREGATE in kinds
        # An aggregate some of whose matches were heard as single trades would count them twice.
        lacking = await site.check()
        for symbol, numbers in lacking.items():
            heard = {int(row.trade_id) for row in rows if row.symbol == symbol and not row.filled}
            for order in site.orders(symbol).values():
                matches = {fill.trade_id for fill in order}
                assert not matches & numbers or matches & heard
        whole = lacking == NOTHING
        assert gap.status is (FillStatus.FILLED if whole else FillStatus.PARTIAL)
