"""Bars against a plain group-by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alphapulse.history import INTERVALS_NS, TradeRow
from alphapulse.store.bars import bars_of, parts_of, span_of_bars
from tests.reference import bars as reference
from tests.trading import NOW_NS, row

INT64_MAX = 2**63 - 1

trades = st.lists(
    st.builds(
        lambda number, seconds, price, size, places: row(
            number,
            timestamp_ns=NOW_NS + int(seconds * 10**9),
            price=price,
            price_exponent=places[0],
            size=size,
            size_exponent=places[1],
        ),
        st.integers(1, 10**6),
        st.integers(0, 10) | st.floats(0, 200_000),
        st.integers(1, 100) | st.integers(1, INT64_MAX),
        st.integers(1, 100) | st.integers(1, INT64_MAX),
        st.tuples(st.sampled_from([2, 2, 2, 0, 8, 18]), st.sampled_from([8, 8, 0, 18])),
    ),
    max_size=40,
    unique_by=lambda trade: trade.trade_id,
)


@given(trades, st.sampled_from(sorted(INTERVALS_NS)))
def test_bars_equal_a_plain_group_by(rows: list[TradeRow], interval: str) -> None:
    interval_ns = INTERVALS_NS[interval]
    made = bars_of(parts_of(rows, interval_ns), interval_ns)
    assert [reference.plain(bar) for bar in made] == reference.bars(rows, interval_ns)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_span_has_whole_bars_only(start: int, end: int, time: int) -> None:
    begin = time - time % 60
    first, last = span_of_bars(60, start, end)
    assert first is not None
    assert last is not None
    assert (first <= time <= last) == (start <= begin <= end)


def test_no_bounds_stay_none() -> None:
    assert span_of_bars(60, None, None) == (None, None)
