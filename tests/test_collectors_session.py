"""A collector on real sockets: each venue's books come out as the venue has them."""

from __future__ import annotations

import pytest

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
