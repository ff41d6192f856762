"""A collector on real sockets: each venue's books come out as the venue has them."""

from __future__ import annotations

from typing import Any

import pytest

from alphapulse.collectors import session
from alphapulse.model import BookState, Reason
from alphapulse.simulators import (
    BinanceUsSimulator,
    CoinbaseAdvancedSimulator,
    CoinbaseSimulator,
    KrakenSimulator,
    Market,
    VenueSimulator,
)
from tests.collecting import collecting

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")


def market(seed: int = 7, rate: float = 300.0) -> Market:
    return Market(SYMBOLS, seed=seed, book_rate=rate, trade_rate=30.0, levels=40)


DIALECTS = [
    (KrakenSimulator, {"depth": 25}, 25),
    (CoinbaseSimulator, {}, None),
    (CoinbaseAdvancedSimulator, {"feed": "advanced"}, None),
    (BinanceUsSimulator, {}, None),
]


@pytest.mark.parametrize(("kind", "settings", "depth"), DIALECTS)
async def test_books_and_trades_are_the_venues(
    kind: type[VenueSimulator],
    settings: dict[str, object],
    depth: int | None,
    ring_prefix: str,
) -> None:
    simulator = kind(market())
    async with collecting(simulator, ring_prefix, **settings) as collector:
        follower = collector.follower
        await collector.until_live(*SYMBOLS)
        await collector.until(lambda: sum(map(len, follower.trades.values())) >= 20)
        await collector.until_equal(*SYMBOLS, depth=depth)
        for symbol in SYMBOLS:
            ids = [int(trade.trade_id) for trade in follower.trades.get(symbol, ())]
            assert ids == sorted(set(ids))
            assert not follower.gaps(symbol)
    for symbol in SYMBOLS:
        assert follower.states[symbol] == (BookState.STALE, Reason.STOPPED)


class GrowingSimulator(CoinbaseSimulator):
    """A venue that comes to list ETH and a finer tick for BTC after a while."""

    grown = False

    def products(self) -> list[dict[str, Any]]:
        listed = super().products()
        if self.grown:
            return [{**one, "quote_increment": "0.0001"} for one in listed]
        return [one for one in listed if one["id"] != "ETH-USD"]


async def test_the_metadata_are_read_again(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "METADATA_SECONDS", 0.3)
    simulator = GrowingSimulator(market())
    async with collecting(simulator, ring_prefix) as collector:
        follower = collector.follower
        await collector.until_live("BTC-USD", "SOL-USD")
        assert "ETH-USD" not in follower.states
        simulator.grown = True
        await collector.until_equal(*SYMBOLS)
        rescaled = (BookState.LIVE, Reason.RESCALED)
        assert rescaled in follower.history("BTC-USD")
        # The symbol that was listed later got a connection of its own.
        assert simulator.counts["connections"] == 2
        reads = simulator.counts["rest /products"]
        await collector.venue_until(lambda: simulator.counts["rest /products"] > reads)
        assert follower.history("BTC-USD").count(rescaled) == 1


async def test_a_connection_that_does_not_give_the_instruments_is_replaced(
    ring_prefix: str,
) -> None:
    simulator = KrakenSimulator(market())
    simulator.faults.silence(newcomers=True)
    # Heartbeats alone would show life: only the instruments are missed.
    timers = {"acknowledge_timeout_seconds": 0.2, "silence_seconds": 60.0}
    async with collecting(simulator, ring_prefix, depth=25, **timers) as collector:
        await collector.venue_until(lambda: simulator.counts["connections"] >= 3)
        assert collector.follower.states == {}
        simulator.faults.speak()
        await collector.until_equal(*SYMBOLS, depth=25)
