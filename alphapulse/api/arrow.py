"""Tables as Arrow IPC streams, exact: prices and sizes are decimal128, times nanoseconds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import nanoarrow as na
import numpy as np
from nanoarrow.ipc import StreamWriter

from alphapulse.api.problems import Problem
from alphapulse.history import BarRow, TradeRow

PRECISION = 38
"""Digits of a decimal128."""


class Column(NamedTuple):
    """One column: its name, its Arrow type, and its values."""

    name: str
    type: Any
    array: Any


def trades_table(rows: Sequence[TradeRow]) -> bytes:
    """Trades with the columns of the JSON answer."""
    return _stream(
        len(rows),
        _times("timestamp", [row.timestamp_ns for row in rows]),
        _texts("symbol", [row.symbol for row in rows]),
        _texts("exchange", [row.exchange for row in rows]),
        _decimals("price", [(row.price, row.price_exponent) for row in rows]),
        _decimals("volume", [(row.size, row.size_exponent) for row in rows]),
        _texts("side", [row.side.text for row in rows]),
        _texts("trade_id", [row.trade_id for row in rows]),
    )


def bars_table(rows: Sequence[BarRow]) -> bytes:
    """Bars with the columns of the JSON answer."""
    return _stream(
        len(rows),
        _times("timestamp", [row.timestamp_ns for row in rows]),
        _decimals("open", [(row.open, row.price_exponent) for row in rows]),
        _decimals("high", [(row.high, row.price_exponent) for row in rows]),
        _decimals("low", [(row.low, row.price_exponent) for row in rows]),
        _decimals("close", [(row.close, row.price_exponent) for row in rows]),
        _decimals("volume", [(row.volume, row.size_exponent) for row in rows]),
        _integers("trades", [row.trades for row in rows]),
    )


def _texts(name: str, values: list[str]) -> Column:
    kind = na.string(nullable=False)
    return Column(name, kind, na.c_array(values, kind))


def _integers(name: str, values: list[int]) -> Column:
    kind = na.int64(nullable=False)
    return Column(name, kind, _fixed(kind, values))


def _times(name: str, values: list[int]) -> Column:
    kind = na.timestamp("ns", "UTC", nullable=False)
    return Column(name, kind, _fixed(kind, values))


def _fixed(kind: Any, values: list[int]) -> Any:
    data = np.array(values, np.int64)
    return na.c_array_from_buffers(kind, len(values), [None, data], null_count=0)


def _decimals(name: str, values: list[tuple[int, int]]) -> Column:
    """Scaled integers with their exponents, all at the largest exponent."""
    scale = max((exponent for _, exponent in values), default=0)
    kind = na.decimal128(PRECISION, scale, nullable=False)
    numbers = [value * int(10 ** (scale - exponent)) for value, exponent in values]
    if any(abs(number) >= 10**PRECISION for number in numbers):
        raise Problem(
            HTTPStatus.NOT_ACCEPTABLE,
            f"Accept: {name} has more than {PRECISION} digits, too many for Arrow's decimal128; "
            "ask for JSON or CSV",
            parameter="Accept",
        )
    data = b"".join(number.to_bytes(16, "little", signed=True) for number in numbers)
    array = na.c_array_from_buffers(kind, len(numbers), [None, data], null_count=0)
    return Column(name, kind, array)


def _stream(length: int, *columns: Column) -> bytes:
    schema = na.struct({column.name: column.type for column in columns}, nullable=False)
    children = [column.array for column in columns]
    batch = na.c_array_from_buffers(schema, length, [None], children=children, null_count=0)
    out = io.BytesIO()
    with StreamWriter.from_writable(out) as writer:
        writer.write_array(batch)
    return out.getvalue()
