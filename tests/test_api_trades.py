"""Trades are written as their type says, whatever they are."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.api.bodies import TradeItem, number, seconds
from alphapulse.api.trades import trade_writer
from alphapulse.fixed import INT64_MAX
from alphapulse.history import TradeRow
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
