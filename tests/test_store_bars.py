"""Bars against a plain group-by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alphapulse.history import INTERVALS_NS, BarRow, TradeRow, in_order
from alphapulse.model import IdKind
from alphapulse.store.bars import (
    STORED,
    BarTail,
    Part,
    bars_of,
    consolidated,
    parts_of,
    regrouped,
    source_of,
    span_of_bars,
)
from tests.reference import bars as reference
from tests.trading import NOW_NS, row

INT64_MAX = 2**63 - 1

trade = st.builds(
    lambda number, kind, seconds, price, size, places, symbol: row(
        number,
        id_kind=kind,
        symbol=symbol,
        timestamp_ns=NOW_NS + int(seconds * 10**9),
        price=price,
        price_exponent=places[0],
        size=size,
        size_exponent=places[1],
    ),
    st.integers(1, 10**6),
    st.sampled_from([IdKind.TRADE, IdKind.TRADE, IdKind.TRADE, IdKind.AGGREGATE, IdKind.TEXT]),
    st.integers(0, 10) | st.floats(0, 200_000) | st.floats(-2e9, -1.9e9),
    st.integers(1, 100) | st.integers(1, INT64_MAX),
    st.integers(1, 100) | st.integers(1, INT64_MAX),
    st.tuples(st.sampled_from([2, 2, 2, 0, 8, 18]), st.sampled_from([8, 8, 0, 18])),
    st.sampled_from(["BTC-USD", "ETH-USD"]),
)
trades = st.lists(trade, max_size=40, unique_by=lambda each: each.trade_id)
intervals = st.sampled_from(sorted(INTERVALS_NS.values()))


def plain(bars: Iterable[BarRow]) -> list[reference.Bar]:
    return [reference.plain(bar) for bar in bars]


@given(trades, intervals)
def test_bars_equal_a_plain_group_by(rows: list[TradeRow], interval_ns: int) -> None:
    made = bars_of(parts_of(rows, interval_ns), interval_ns)
    assert plain(made) == reference.bars(rows, interval_ns)


@given(st.lists(trades, max_size=5), intervals, st.randoms(use_true_random=False))
def test_trades_may_come_in_any_pieces_and_order(
    pieces: list[list[TradeRow]], interval_ns: int, random: Random
) -> None:
    rows = [replace(each, trade_id=str(n)) for n, each in enumerate(chain(*pieces))]
    finest = [part for each in rows for part in parts_of([each], 10**9)]
    random.shuffle(finest)
    before = [replace(part) for part in finest]
    source_ns = INTERVALS_NS[source_of(interval_ns)]
    stored = regrouped(finest, source_ns)
    assert plain(bars_of(stored, interval_ns)) == reference.bars(rows, interval_ns)
    assert [part.begin_ns for part in stored] == sorted({part.begin_ns for part in stored})
    assert finest == before


@given(st.lists(trades, max_size=4), st.data())
def test_what_is_stored_and_the_tail_make_the_whole(
    pieces: list[list[TradeRow]], data: st.DataObject
) -> None:
    rows: list[TradeRow] = []
    tail = BarTail()
    stored: dict[tuple[str, str], list[Part]] = {}

    def keep(symbols: Sequence[str]) -> None:
        for (symbol, interval), parts in tail.take_out(symbols).items():
            before = stored.get((symbol, interval), [])
            stored[symbol, interval] = regrouped([*before, *parts], INTERVALS_NS[interval])

    for piece in pieces:
        numbered = [replace(each, trade_id=str(len(rows) + n)) for n, each in enumerate(piece)]
        rows += numbered
        tail.add(numbered)
        assert len(tail) > 0 or not numbered
        assert set(tail.symbols()) >= {each.symbol for each in numbered}
        keep(data.draw(st.permutations(tail.symbols()))[: data.draw(st.integers(0, 2))])
    keep(tail.symbols())
    assert (len(tail), tail.symbols()) == (0, [])
    for symbol in {each.symbol for each in rows}:
        of_symbol = [each for each in rows if each.symbol == symbol]
        for interval, interval_ns in INTERVALS_NS.items():
            source = source_of(interval_ns)
            assert (interval in STORED) == (source == interval)
            made = bars_of(stored[symbol, source], interval_ns)
            assert plain(made) == reference.bars(of_symbol, interval_ns)


@given(st.dictionaries(st.sampled_from(["kraken", "all", "coinbase"]), trades), intervals)
def test_consolidated_bars_order_ties_by_exchange(
    venues: dict[str, list[TradeRow]], interval_ns: int
) -> None:
    made = consolidated(
        {exchange: parts_of(rows, 10**9) for exchange, rows in venues.items()}, interval_ns
    )
    ordered = sorted(
        ((each.timestamp_ns, exchange, reference.place(each)), each)
        for exchange, rows in venues.items()
        for each in in_order(rows)
    )
    # Numbered by their place among all, which is what the reference sorts by.
    every = [
        replace(each, trade_id=str(place), id_kind=IdKind.TRADE)
        for place, (_, each) in enumerate(ordered)
    ]
    assert plain(made) == reference.bars(every, interval_ns)


def test_trades_of_text_ids_take_their_places() -> None:
    rows = [row(each, price=price) for each, price in (("b", 2), ("c", 3), ("a", 1))]
    (bar,) = bars_of(parts_of(rows, 10**9), 10**9)
    assert (bar.open, bar.high, bar.low, bar.close) == (1, 3, 1, 3)


def test_bars_that_are_stored() -> None:
    made_of = {interval: source_of(length) for interval, length in INTERVALS_NS.items()}
    assert made_of == {**{each: each for each in STORED}, "5m": "1m", "15m": "1m", "4h": "1h"}
    with pytest.raises(ValueError, match="multiple of 1000000000"):
        source_of(10**9 + 1)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_span_has_whole_bars_only(start: int, end: int, time: int) -> None:
    begin = time - time % 60
    first, last = span_of_bars(60, start, end)
    assert first is not None
    assert last is not None
    assert (first <= time <= last) == (start <= begin <= end)


def test_no_bounds_stay_none() -> None:
    assert span_of_bars(60, None, None) == (None, None)
