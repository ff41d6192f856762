"""Gaps that real collectors and writers leave are filled from the venues' REST services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.config import Settings, StoreSettings
from alphapulse.history import FillStatus, GapRow
from alphapulse.model import Channel, IdKind, Reason
from alphapulse.simulators import VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator
from alphapulse.simulators.coinbase import CoinbaseSimulator
from alphapulse.simulators.coinbase_advanced import CoinbaseAdvancedSimulator
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.store import WriteBatch, open_store
from alphapulse.store.follower import BEGINNING
from tests import collecting
from tests.backfilling import (
    NOTHING,
    SOME,
    SYMBOLS,
    Site,
    market,
    quick,
    redis,
    running,
    store_settings,
)
from tests.support import ROOT
from tests.trading import eventually

__all__ = ["quick", "redis", "store_settings"]


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


@pytest.fixture
def venue(request: pytest.FixtureRequest) -> Venue:
    return VENUES[request.param]


@pytest.fixture
async def site(
    venue: Venue, ring_prefix: str, store_settings: StoreSettings
) -> AsyncIterator[Site]:
    simulator = venue.simulator(market())
    async with running(simulator, ring_prefix, store_settings, **venue.settings) as site:
        yield site


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
    async with site.collector(), site.writer(), site.backfill():
        await site.until_stored(SOME)
        site.simulator.faults.refuse_connections()
        site.simulator.faults.abort()
        await site.until_made(120)
        site.simulator.faults.refuse_connections(False)
        gaps = await site.until_settled(len(SYMBOLS))
        await site.until_stored(SOME)
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
        place = await site.fall_behind()
        async with site.writer(), site.backfill():
            await site.until_stored(SOME)
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


async def until_restarted(site: Site) -> GapRow:
    """Wait until what lies between the rings of two collectors is settled."""

    async def settled() -> list[GapRow]:
        # The small ring may have been lapped before the writer saw it.
        gaps = await site.until_settled(1)
        return [gap for gap in gaps if gap.reason is Reason.RESTARTED]

    gaps: list[GapRow] = await eventually(settled)
    (gap,) = gaps
    return gap


@EVERY
async def test_a_killed_collectors_downtime_is_filled(site: Site) -> None:
    async with site.writer(), site.backfill():
        async with process("collector", site.settings):
            await site.until_stored(SOME)
        await site.until_made(120)
        async with site.collector():
            await site.until_stored(SOME)
            gap = await until_restarted(site)
            await site.until_whole()
    assert (gap.channel, gap.symbol) == (Channel.RING, None)
    assert gap.status is FillStatus.FILLED
    assert gap.filled >= 100


@COINBASE_SOON
async def test_a_stopped_collectors_downtime_is_filled(site: Site) -> None:
    async with site.writer(), site.backfill():
        async with site.collector():
            await site.until_stored(SOME)

        async def over() -> bool:
            return await site.store.position(site.exchange) == BEGINNING

        await eventually(over)
        await site.until_made(120)
        async with site.collector():
            await site.until_stored(SOME)
            site.simulator.pause()
            gap = await until_restarted(site)
            await site.until_whole()
    assert (gap.channel, gap.first, gap.status) == (Channel.RING, None, FillStatus.FILLED)
    assert gap.filled >= 240


@COINBASE_SOON
async def test_a_venue_that_wants_to_be_left_alone_is_left_alone(site: Site) -> None:
    async with site.collector():
        await site.lose()
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
        await site.lose()
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
        await site.fall_behind()
        site.simulator.pause()
        async with site.writer(), site.backfill():
            gaps = await site.until_settled(1)
    assert {gap.status for gap in gaps} == {FillStatus.FILLED}
    assert await site.check() == NOTHING


@COINBASE_SOON
async def test_a_backfill_killed_at_any_moment_continues(site: Site) -> None:
    seed = 20261124
    random = Random(seed)
    async with site.collector():
        await site.fall_behind()
        await site.until_made(600)
        async with site.writer():
            await site.until_stored(SOME)
        (gap,) = await site.gaps(FillStatus.OPEN)
        await site.store.close()
        for _ in range(3):
            async with process("backfill", site.settings) as child:
                assert child.stdout is not None
                for _ in range(random.randrange(1, 8)):
                    async with asyncio.timeout(collecting.TIMEOUT_SECONDS):
                        assert await child.stdout.readline(), "the backfill has ended"
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
        await site.lose()
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


class ShortSighted(BinanceUsSimulator):
    """Gives the latest 30 single trades only."""

    async def _trades(self, request: Request) -> Response:
        query = urlencode({**request.query_params, "limit": "30"}).encode()
        return await super()._trades(Request({**request.scope, "query_string": query}))


@pytest.mark.parametrize("store_settings", ["embedded", "redis"], indirect=True)
async def test_without_a_key_older_trades_come_as_aggregates(
    ring_prefix: str, store_settings: StoreSettings
) -> None:
    async with running(ShortSighted(market()), ring_prefix, store_settings) as site:
        async with site.collector():
            await site.lose()
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
