"""Trades and bars are written as their types say, whatever they are."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.api.bodies import BarItem, TradeItem, number, seconds
from alphapulse.api.trades import bar_items_json, trade_items_json, trade_writer
from alphapulse.fixed import INT64_MAX
from alphapulse.history import BarRow, TradeRow
from alphapulse.model import IdKind, Side

numbers = st.integers(-INT64_MAX, INT64_MAX)
exponents = st.integers(0, 18)
ids = st.one_of(
    st.tuples(st.sampled_from([IdKind.TRADE, IdKind.AGGREGATE]), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(IdKind.TEXT), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
)


@given(ids, numbers, numbers, exponents, numbers, exponents, st.sampled_from(Side), st.text('A-"b'))
def test_the_quick_way_writes_what_the_encoder_does(
    identity: tuple[IdKind, int | str],
    time_ns: int,
    price: int,
    price_exponent: int,
    size: int,
    size_exponent: int,
    side: Side,
    symbol: str,
) -> None:
    kind, trade_id = identity
    row = TradeRow(
        exchange="kraken",
        symbol=symbol,
        trade_id=str(trade_id),
        id_kind=kind,
        timestamp_ns=time_ns,
        price=price,
        price_exponent=price_exponent,
        size=size,
        size_exponent=size_exponent,
        side=side,
    )
    written = bytes(trade_writer(symbol, "kraken")(row))
    item = TradeItem(
        timestamp=seconds(time_ns),
        symbol=symbol,
        exchange="kraken",
        price=number(price, price_exponent),
        volume=number(size, size_exponent),
        side=side.text,
        trade_id=str(trade_id),
        id_kind=None if kind is IdKind.TRADE else kind.text,  # type: ignore[arg-type]
    )
    assert written == msgspec.json.encode(item)
    for rows, items in (([], []), ([row], [item]), ([row] * 3, [item] * 3)):
        assert bytes(trade_items_json(rows, symbol, "kraken")) == msgspec.json.encode(items)


@given(
    st.tuples(numbers, numbers, numbers, numbers, numbers),
    exponents,
    st.integers(0, 2**70),
    exponents,
    st.integers(1, 2**64 - 1),
)
def test_bars_are_written_as_the_encoder_does(
    times_and_prices: tuple[int, int, int, int, int],
    price_exponent: int,
    volume: int,
    size_exponent: int,
    trades: int,
) -> None:
    begin_ns, *prices = times_and_prices
    row = BarRow._make(
        (begin_ns, *prices, price_exponent, volume, size_exponent, trades),
    )
    item = BarItem(
        timestamp=seconds(begin_ns),
        open=number(row.open, price_exponent),
        high=number(row.high, price_exponent),
        low=number(row.low, price_exponent),
        close=number(row.close, price_exponent),
        volume=number(volume, size_exponent),
        trades=trades,
    )
    for rows, items in (([], []), ([row], [item]), ([row] * 3, [item] * 3)):
        assert bytes(bar_items_json(rows)) == msgspec.json.encode(items)
