"""Trades as commands: the native packer against hiredis and plain Python."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse.clock import NO_TIME
from alphapulse.errors import StoreError
from alphapulse.fixed import INT64_MAX, INT64_MIN, format_decimal
from alphapulse.history import TradeRow
from alphapulse.model import IdKind, Side
from alphapulse.store._entries import TradeStream, append_all
from tests.trading import row

KEY = "alphapulse:{kraken}:trades:BTC-USD"

int64 = st.integers(INT64_MIN + 1, INT64_MAX)
exponents = st.integers(0, 18)
numbers = st.integers(0, 2**64 - 1).map(str)


@st.composite
def rows(draw: st.DrawFn) -> TradeRow:
    kind = draw(st.sampled_from(IdKind))
    return TradeRow(
        exchange="kraken",
        symbol="BTC-USD",
        trade_id=draw(st.text(max_size=300) if kind is IdKind.TEXT else numbers),
        id_kind=kind,
        timestamp_ns=draw(int64),
        received_ns=draw(int64 | st.just(NO_TIME)),
        price=draw(int64),
        price_exponent=draw(exponents),
        size=draw(int64),
        size_exponent=draw(exponents),
        side=draw(st.sampled_from(Side)),
        matches=draw(st.integers(0, 2**32 - 1)),
        filled=draw(st.booleans()),
    )


def packed(row: TradeRow, entry_id: str) -> bytes:
    """The command in plain Python."""
    fields = {
        "trade_id": row.trade_id,
        "id_kind": row.id_kind.text,
        "timestamp_ns": row.timestamp_ns,
        "received_ns": "" if row.received_ns == NO_TIME else row.received_ns,
        "price": format_decimal(row.price, row.price_exponent),
        "volume": format_decimal(row.size, row.size_exponent),
        "side": row.side.text,
        "matches": row.matches,
    }
    if row.filled:
        fields["filled"] = "1"
    words = [str(word) for field in fields.items() for word in field]
    command: bytes = hiredis.pack_command(("XADD", KEY, entry_id, *words))  # type: ignore[arg-type]
    return command


@given(st.lists(rows(), max_size=5))
def test_trades_are_packed_as_in_plain_python(given: list[TradeRow]) -> None:
    stream = TradeStream(KEY, 1000, 7)
    ms, number = 1000, 7
    for trade in given:
        own = trade.timestamp_ns // 10**6
        ms, number = (own, 0) if own > ms else (ms, number + 1)
        assert stream.append(trade) == packed(trade, f"{ms}-{number}")
        assert stream.last == f"{ms}-{number}"
        assert stream.late == (own != ms)


def test_what_is_late_or_has_a_text_for_its_id_is_told() -> None:
    streams = {"BTC-USD": TradeStream(KEY, 0, 0), "ETH-USD": TradeStream("other", 0, 0)}
    given = [row(5), row(1), row(6, symbol="ETH-USD"), row("x", timestamp_ns=row(7).timestamp_ns)]
    commands, noted = append_all(given, streams)
    assert len(commands) == 4
    assert noted == [(given[1], f"{given[0].timestamp_ns // 10**6}-1"), (given[3], None)]


def test_what_is_no_trade_is_refused() -> None:
    stream = TradeStream(KEY, 0, 0)
    with pytest.raises(StoreError, match="exponent of 19"):
        stream.append(row(1, price_exponent=19))
    with pytest.raises(OverflowError):
        stream.append(row(1, price=2**63))
