"""Trades as columns of the embedded database's table, against plain Python."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.fixed import INT64_MAX, INT64_MIN
from alphapulse.history import TradeRow
from alphapulse.model import IdKind, Side
from alphapulse.store._columns import trade_columns

numbers = st.integers(INT64_MIN, INT64_MAX)
ids = st.one_of(
    st.tuples(st.sampled_from([IdKind.TRADE, IdKind.AGGREGATE]), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(IdKind.TEXT), st.text(min_size=1)),
)


@st.composite
def trades(draw: st.DrawFn) -> TradeRow:
    kind, trade_id = draw(ids)
    return TradeRow(
        exchange="kraken",
        symbol="BTC-USD",
        trade_id=str(trade_id),
        id_kind=kind,
        timestamp_ns=draw(numbers),
        received_ns=draw(numbers),
        price=draw(numbers),
        price_exponent=draw(st.integers(0, 255)),
        size=draw(numbers),
        size_exponent=draw(st.integers(0, 255)),
        side=draw(st.sampled_from(Side)),
        matches=draw(st.integers(0, 2**32 - 1)),
        filled=draw(st.booleans()),
    )


def expected(rows: list[TradeRow], series: list[int], first_entry: int) -> dict[str, list[Any]]:
    keys = [row.order_key for row in rows]
    columns: dict[str, list[Any]] = {
        "series": series,
        "trade_number": [number for _, number, _ in keys],
        "entry": list(range(first_entry, first_entry + len(rows))),
    }
    for name in ("id_kind", "timestamp_ns", "received_ns", "price", "price_exponent", "size"):
        columns[name] = [getattr(row, name) for row in rows]
    for name in ("size_exponent", "side", "matches", "filled"):
        columns[name] = [getattr(row, name) for row in rows]
    if any(row.id_kind is IdKind.TEXT for row in rows):
        columns["trade_text"] = [text for _, _, text in keys]
    return columns


@given(st.lists(trades(), max_size=20), st.integers(0, 2**62), st.data())
def test_columns_hold_what_the_rows_do(
    rows: list[TradeRow], first_entry: int, data: st.DataObject
) -> None:
    any_series = st.lists(st.integers(1, 2**31 - 1), min_size=len(rows), max_size=len(rows))
    series = data.draw(any_series)
    found = trade_columns(rows, series, first_entry)
    plain = {name: column.tolist() for name, column in found.items()}
    assert plain == expected(rows, series, first_entry)


def test_what_does_not_fit_is_refused() -> None:
    row = TradeRow(
        exchange="kraken",
        symbol="BTC-USD",
        trade_id="1",
        timestamp_ns=1,
        price=INT64_MAX + 1,
        price_exponent=2,
        size=1,
        size_exponent=2,
        side=Side.BUY,
    )
    with pytest.raises(OverflowError):
        trade_columns([row], [1], 0)
    with pytest.raises(ValueError, match="2 series for 1 trades"):
        trade_columns([row], [1, 2], 0)
