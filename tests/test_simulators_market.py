"""The generated market: determinism, shared prices, sane books."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NS_PER_SECOND
from alphapulse.simulators import Market, PairSpec
from alphapulse.simulators.book import ASK, BID, LevelSide, VenueBook
from alphapulse.simulators.market import MarketEvent, VenueMarket
from alphapulse.simulators.noise import Noise
from alphapulse.simulators.specs import pair_spec, pair_specs

START_NS = 1_700_000_000_000_000_000


def market(symbols: Any = 3, **settings: Any) -> Market:
    return Market(symbols, **({"start_ns": START_NS, "levels": 50} | settings))


def run(venue: VenueMarket, count: int) -> list[tuple[Any, ...]]:
    events = [venue.step() for _ in range(count)]
    return [(e.t_ns, e.book.spec.symbol, e.changes, e.fills) for e in events]


def test_the_seed_and_the_venue_determine_all_events() -> None:
    first = run(market(seed=5).venue("kraken"), 3000)
    assert run(market(seed=5).venue("kraken"), 3000) == first
    assert run(market(seed=6).venue("kraken"), 3000) != first
    assert run(market(seed=5).venue("coinbase"), 3000) != first


def test_venues_do_not_disturb_each_other() -> None:
    shared = market(seed=5)
    kraken, coinbase = shared.venue("kraken"), shared.venue("coinbase")
    mixed = []
    for _ in range(1000):
        mixed += run(kraken, 1)
        run(coinbase, 2)
    assert mixed == run(market(seed=5).venue("kraken"), 1000)


def test_the_price_is_a_function_of_seed_and_time() -> None:
    one, other = market(seed=3), market(seed=3, start_ns=START_NS + 10**12)
    times = [START_NS + n * 7 * 10**9 for n in range(200)]
    forward = [one.price(0, t) for t in times]
    assert [other.price(0, t) for t in reversed(times)] == forward[::-1]
    assert len(set(forward)) > 100


def test_prices_stay_near_their_start() -> None:
    path = market(seed=9)
    base = path.specs[0].price // path.specs[0].tick
    for day in range(200):
        assert 0.7 * base < path.price(0, START_NS + day * 86_400 * NS_PER_SECOND) < 1.3 * base


def test_books_are_never_crossed_and_keep_their_size() -> None:
    shared = market(seed=2, levels=60, trade_rate=20)
    for name in ("coinbase", "kraken", "binance_us"):
        venue = shared.venue(name)
        for _ in range(8_000):
            book = venue.step().book
            spec = book.spec
            assert book.bids.best() < book.asks.best()
            assert book.bids.best() % spec.tick == 0
        for book in venue.books:
            assert 20 < len(book.bids) < 90
            assert 20 < len(book.asks) < 90
            assert all(size > 0 and size % book.spec.lot == 0 for _, size in book.bids)


def test_arbitrage_appears_now_and_then() -> None:
    shared = market(1, seed=4, levels=60)
    venues = [shared.venue(name) for name in ("coinbase", "kraken", "binance_us")]
    crossed = 0
    for _ in range(600):
        for venue in venues:
            run(venue, 52)
        bids = max(venue.books[0].bids.best() for venue in venues)
        asks = min(venue.books[0].asks.best() for venue in venues)
        crossed += bids > asks
    assert 0 < crossed < 550


def test_liquid_pairs_get_most_of_the_events() -> None:
    venue = market(20, levels=5).venue("kraken")
    counts = Counter(venue.step().book.spec.symbol for _ in range(20_000))
    ranked = [counts[spec.symbol] for spec in venue.market.specs]
    assert ranked[0] > 1.5 * ranked[1] > 2 * ranked[9]
    assert min(ranked) > 0


def test_rates_are_kept() -> None:
    venue = market(book_rate=50.0, trade_rate=2.0).venue("kraken")
    events = [venue.step() for _ in range(20_000)]
    seconds = (events[-1].t_ns - events[0].t_ns) / NS_PER_SECOND
    trades = sum(bool(event.fills) for event in events)
    assert 0.95 < len(events) / seconds / 52 < 1.05
    assert 0.8 < trades / seconds / 2 < 1.2


def test_fills_agree_with_the_book() -> None:
    venue = market(1, trade_rate=50, history=0).venue("kraken")
    (book,) = venue.books
    sizes = {BID: dict(book.bids.top(None)), ASK: dict(book.asks.top(None))}
    ids = []
    for _ in range(5000):
        event = venue.step()
        for fill in event.fills:
            side = ASK if fill.buy else BID
            assert fill.price in sizes[side]
            sizes[side][fill.price] -= fill.size
            assert sizes[side][fill.price] >= 0
            ids.append(fill.trade_id)
        for side, price, size, rank in event.changes:
            if event.fills and size != book.spec.lot:
                assert sizes[side].get(price, 0) == size
            if size:
                sizes[side][price] = size
            else:
                sizes[side].pop(price, None)
            assert rank >= 0
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert sizes[BID] == dict(book.bids.top(None))
    assert sizes[ASK] == dict(book.asks.top(None))


def test_it_ends_after_the_events_asked_for() -> None:
    venue = market(events=3).venue("kraken")
    run(venue, 3)
    assert venue.left == 0
    with pytest.raises(RuntimeError, match="ended"):
        venue.step()


def test_a_book_of_45000_levels_a_side() -> None:
    (book,) = market(1, levels=45_000).venue("coinbase").books
    assert (len(book.bids), len(book.asks)) == (45_000, 45_000)
    assert min(price for price, _ in book.bids) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"symbols": 0},
        {"symbols": ["BTCUSD"]},
        {"symbols": ["BTC-USD", "XBT/USD"]},
        {"book_rate": -1},
        {"trade_rate": -1},
        {"levels": 0},
        {"memory": 0},
    ],
)
def test_settings_that_make_no_market_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        market(**settings)


def test_pairs_are_made_up_where_unknown() -> None:
    specs = pair_specs(300)
    assert len({spec.symbol for spec in specs}) == 300
    assert pair_spec("T0010-USD") in specs
    for spec in specs:
        assert isinstance(spec, PairSpec)
        assert spec.price // spec.tick > 1000
        assert spec.size % spec.lot == 0


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=60),
    st.sampled_from([BID, ASK]),
)
def test_a_side_is_what_a_dict_and_sorting_make(changes: list[tuple[int, int]], side: int) -> None:
    levels = LevelSide(side)
    twin: dict[int, int] = {}
    for price, size in changes:
        before = sorted(twin, reverse=side == BID)
        if size:
            twin[price] = size
        after = sorted(twin, reverse=side == BID)
        rank = levels.set(price, size)
        if size:
            assert rank == after.index(price)
        else:
            assert rank == (before.index(price) if price in twin else -1)
            twin.pop(price, None)
        assert levels.top(None) == sorted(twin.items(), reverse=side == BID)
        for at, level in enumerate(sorted(twin, reverse=side == BID)):
            assert levels.at(at) == level


@given(st.integers(0, 2**64), st.lists(st.integers(0, 2**40), min_size=2, max_size=20))
def test_noise_does_not_depend_on_what_was_asked_before(key: int, steps: list[int]) -> None:
    one, other = Noise(key, 3, 12, 1000), Noise(key, 3, 12, 1000)
    assert [one.at(step) for step in steps] == [other.at(step) for step in reversed(steps)][::-1]
    assert abs(one.at(steps[0] + 1) - one.at(steps[0])) <= 5000


def test_remembered_fills_are_found_by_id_and_time() -> None:
    book = VenueBook(pair_spec("BTC-USD"), first_trade_id=10, first_update_id=1, memory=5)
    for n in range(8):
        book.fill(100 * n, 1, [1], True)
    assert [fill.trade_id for fill in book.fills] == [13, 14, 15, 16, 17]
    assert [fill.trade_id for fill in book.fills_from(15)] == [15, 16, 17]
    assert [fill.trade_id for fill in book.fills_from(1)] == [13, 14, 15, 16, 17]
    assert [fill.trade_id for fill in book.fills_before(15)] == [13, 14]
    assert [fill.trade_id for fill in book.fills_after(500)] == [16, 17]
    assert isinstance(market().venue("kraken").step(), MarketEvent)
