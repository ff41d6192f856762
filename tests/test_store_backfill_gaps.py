"""What becomes of gaps at a venue that rests: filled, given up, or kept for later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from alphapulse.config import StoreSettings
from alphapulse.history import FillStatus, GapRow, TradeRow
from alphapulse.model import Channel, Reason, Side
from alphapulse.simulators import VenueSimulator
from alphapulse.simulators.binance_us import BinanceUsSimulator
from alphapulse.simulators.book import Fill
from alphapulse.simulators.coinbase import CoinbaseSimulator
from alphapulse.simulators.coinbase_advanced import CoinbaseAdvancedSimulator
from alphapulse.simulators.kraken import KrakenSimulator
from alphapulse.store import WriteBatch, backfill
from tests import collecting
from tests.backfilling import Site, market, quick, redis, running, store_settings
from tests.trading import Venue, eventually

__all__ = ["quick", "redis", "store_settings"]

pytestmark = pytest.mark.parametrize("store_settings", ["embedded", "redis"], indirect=True)

LOST = 10
"""Trades of a gap."""


@pytest.fixture
async def site(ring_prefix: str, store_settings: StoreSettings) -> AsyncIterator[Site]:
    """Kraken; there is no collector, and thus no ring."""
    async with running(KrakenSimulator(market()), ring_prefix, store_settings) as site:
        site.simulator.pause()
        yield site


def missed(simulator: VenueSimulator, **fields: Any) -> GapRow:
    """A loss of some trades of BTC-USD."""
    book = simulator.books[simulator.venue_symbol("BTC-USD")]
    fills = list(book.fills)[LOST : 2 * LOST]
    defaults: dict[str, Any] = {
        "exchange": simulator.exchange,
        "symbol": "BTC-USD",
        "channel": Channel.TRADES,
        "reason": Reason.GAP,
        "first": fills[0].trade_id,
        "last": fills[-1].trade_id,
        "count": len(fills),
        "since_ns": fills[0].t_ns,
        "received_ns": fills[-1].t_ns,
    }
    return GapRow(**{**defaults, **fields})


async def append(site: Site, *gaps: GapRow) -> None:
    """Write losses of one venue."""
    await site.store.append(WriteBatch(exchange=gaps[0].exchange, gaps=list(gaps)))


async def test_digits_beyond_the_instruments_are_kept(site: Site, ring_prefix: str) -> None:
    with Venue(ring_prefix, "kraken") as ring:
        ring.define("BTC-USD", price_exponent=0, size_exponent=1)
        await append(site, missed(site.simulator))
        async with site.backfill():
            (gap,) = await site.until_settled(1)
    assert (gap.status, gap.filled) == (FillStatus.FILLED, LOST)
    rows = await site.stored("BTC-USD")
    assert max(row.size_exponent for row in rows) > 1
    assert site.lacking("BTC-USD", rows) == set()


async def test_one_venues_outage_keeps_no_other_waiting(site: Site, ring_prefix: str) -> None:
    async with BinanceUsSimulator(market()) as away:
        away.pause()
        away.faults.rest_status(503, count=10_000)
        other = collecting.settings_for(away, ring_prefix).venues.binance_us
        venues = replace(site.settings.venues, binance_us=other)
        site.settings = replace(site.settings, venues=venues)
        await append(site, missed(away))
        await append(site, missed(site.simulator))
        with Venue(ring_prefix, "kraken"), Venue(ring_prefix, "binance_us"):
            async with site.backfill(), asyncio.timeout(collecting.TIMEOUT_SECONDS):
                await away.wait_until(lambda: away.counts["rest /api/v3/trades"] > 0)
                (gap,) = await site.until_settled(1)
        assert gap.status is FillStatus.FILLED
        (waiting,) = await site.store.read_gaps(away.exchange)
        assert waiting.status is FillStatus.OPEN


async def test_an_old_gap_that_keeps_failing_is_given_up(
    site: Site, ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "MOST_FAILURES", 2)
    site.simulator.faults.rest_status(503, count=10_000)
    newer = missed(site.simulator)
    old = replace(newer, received_ns=newer.received_ns - 2 * backfill.OLD_NS)
    await append(site, newer, old)

    async def given_up() -> list[GapRow]:
        return await site.gaps(FillStatus.UNAVAILABLE)

    with Venue(ring_prefix, "kraken"):
        async with site.backfill():
            (gap,) = await eventually(given_up)
    assert gap.received_ns == old.received_ns
    assert len(await site.gaps(FillStatus.OPEN)) == 1, "a newer one may still be filled"


async def test_gaps_wait_for_a_ring(site: Site, ring_prefix: str) -> None:
    await append(site, missed(site.simulator, channel=Channel.ORDERBOOK), missed(site.simulator))

    async def given_up() -> bool:
        return bool(await site.gaps(FillStatus.UNAVAILABLE))

    async with site.backfill():
        await eventually(given_up)
        assert len(await site.gaps(FillStatus.OPEN)) == 1
        with Venue(ring_prefix, "kraken"):
            await site.until_settled(2)
    assert len(await site.gaps(FillStatus.FILLED)) == 1


def heard(simulator: VenueSimulator, fill: Fill, received_ns: int) -> TradeRow:
    """A trade of BTC-USD as it came over the feed."""
    spec = simulator.books[simulator.venue_symbol("BTC-USD")].spec
    return TradeRow(
        exchange=simulator.exchange,
        symbol="BTC-USD",
        trade_id=str(fill.trade_id),
        timestamp_ns=fill.t_ns,
        received_ns=received_ns,
        price=fill.price,
        price_exponent=spec.price_exponent,
        size=fill.size,
        size_exponent=spec.size_exponent,
        side=Side.BUY if fill.buy else Side.SELL,
    )


@pytest.mark.parametrize(
    ("simulator", "options"),
    [
        (KrakenSimulator, {}),
        (CoinbaseSimulator, {}),
        (CoinbaseAdvancedSimulator, {"feed": "advanced"}),
        (BinanceUsSimulator, {}),
        (BinanceUsSimulator, {"api_key": "k"}),
    ],
)
async def test_a_loss_behind_the_first_message_of_all_is_filled(
    simulator: type[VenueSimulator],
    options: dict[str, Any],
    ring_prefix: str,
    store_settings: StoreSettings,
) -> None:
    """That took so long that trades behind it were made before the gap begins."""
    async with running(simulator(market()), ring_prefix, store_settings, **options) as site:
        await site.until_made(100)
        site.simulator.pause()
        fills = list(site.simulator.books[site.simulator.venue_symbol("BTC-USD")].fills)
        since_ns = fills[30].t_ns
        rows = [heard(site.simulator, fill, since_ns) for fill in fills[20:25]]
        rows.append(heard(site.simulator, fills[60], fills[60].t_ns))
        gap = missed(
            site.simulator,
            first=None,
            last=None,
            count=None,
            since_ns=since_ns,
            received_ns=fills[60].t_ns,
        )
        await site.store.append(WriteBatch(exchange=site.exchange, trades=rows, gaps=[gap]))
        async with site.collector(), site.backfill():
            (gap,) = await site.until_settled(1)
        assert gap.status is FillStatus.FILLED
        rows = await site.stored("BTC-USD")
        assert site.lacking("BTC-USD", rows) == set()
        assert gap.filled == sum(row.filled for row in rows)
