"""The embedded database's tables, and rows to and from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alphapulse.history import GapRow, TradeRow
from alphapulse.model import Channel, IdKind, Reason, Side
from alphapulse.store.bars import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (schema_version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER NOT NULL, exchange VARCHAR NOT NULL, symbol VARCHAR NOT NULL, ids VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS trades (
    series INTEGER NOT NULL,
    id_kind UTINYINT NOT NULL,
    trade_number UBIGINT NOT NULL,
    trade_text VARCHAR NOT NULL,
    timestamp_ns BIGINT NOT NULL,
    received_ns BIGINT NOT NULL,
    price BIGINT NOT NULL,
    price_exponent UTINYINT NOT NULL,
    size BIGINT NOT NULL,
    size_exponent UTINYINT NOT NULL,
    side UTINYINT NOT NULL,
    matches UINTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS gaps (
    exchange VARCHAR NOT NULL,
    symbol VARCHAR,
    channel UTINYINT NOT NULL,
    reason UTINYINT NOT NULL,
    first BIGINT,
    last BIGINT,
    "count" BIGINT,
    since_ns BIGINT NOT NULL,
    received_ns BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS books (
    exchange VARCHAR NOT NULL, symbol VARCHAR NOT NULL, timestamp_ns BIGINT NOT NULL,
    body VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (
    exchange VARCHAR NOT NULL, epoch BIGINT NOT NULL, sequence BIGINT NOT NULL
);
"""
"""Times in nanoseconds; a price is ``price / 10**price_exponent``, a size likewise."""

INSERT_TRADES = "INSERT INTO trades SELECT * FROM new_trades"

_SELECT_TRADES = """
SELECT id_kind, trade_number, trade_text, timestamp_ns, received_ns, price, price_exponent,
    size, size_exponent, side, matches
FROM trades WHERE series = ? AND timestamp_ns BETWEEN ? AND ? {beyond}
ORDER BY timestamp_ns {order}, trade_number {order}, trade_text {order} LIMIT ?
"""

# One row per bar and pair of exponents, of which there is nearly always one. A rank counts bars.
SELECT_PARTS = """
WITH chosen AS (
    SELECT *, timestamp_ns // ? * ? AS begin_ns,
        (timestamp_ns, trade_number, trade_text) AS order_key
    FROM trades WHERE series = ? AND timestamp_ns BETWEEN ? AND ?
)
SELECT begin_ns, price_exponent, size_exponent, min(order_key), max(order_key),
    arg_min(price, order_key), max(price), min(price), arg_max(price, order_key),
    sum(size), count(*)
FROM chosen GROUP BY begin_ns, price_exponent, size_exponent
QUALIFY dense_rank() OVER (ORDER BY begin_ns * ?) <= ?
"""

SELECT_HIGHEST = """
SELECT series, id_kind, max(trade_number) FROM trades WHERE id_kind <> 2 GROUP BY series, id_kind
"""

SELECT_GAPS = """
SELECT symbol, channel, reason, first, last, "count", since_ns, received_ns
FROM gaps WHERE exchange = ? AND received_ns BETWEEN ? AND ? ORDER BY received_ns
"""

SELECT_SUMMARY = """
SELECT series.exchange, series.symbol, count(*), min(timestamp_ns), max(timestamp_ns)
FROM trades JOIN series ON trades.series = series.id
GROUP BY series.exchange, series.symbol ORDER BY series.exchange, series.symbol
"""

_KINDS = tuple(IdKind)
_SIDES = (Side.BUY, Side.BUY, Side.SELL)


def select_trades(newest: bool, beyond: bool) -> str:
    """Query for trades, with values series, start, end, what `beyond` needs, limit.

    Parameters
    ----------
    newest : the last ones, backwards, instead of the first ones
    beyond : only those beyond a time, number and text
    """
    sign, order = ("<", "DESC") if newest else (">", "ASC")
    condition = f"AND (timestamp_ns, trade_number, trade_text) {sign} (?, ?, ?)" if beyond else ""
    return _SELECT_TRADES.format(beyond=condition, order=order)


def trade_columns(rows: Sequence[TradeRow], series: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Columns of table ``trades``, in its order.

    Parameters
    ----------
    rows : the trades
    series : id of each trade's series
    """
    texts = [row.trade_id if row.id_kind is IdKind.TEXT else "" for row in rows]
    numbers = [0 if row.id_kind is IdKind.TEXT else int(row.trade_id) for row in rows]
    return {
        "series": np.array(series, np.int32),
        "id_kind": np.array([row.id_kind for row in rows], np.uint8),
        "trade_number": np.array(numbers, np.uint64),
        "trade_text": np.array(texts, object),
        "timestamp_ns": np.array([row.timestamp_ns for row in rows], np.int64),
        "received_ns": np.array([row.received_ns for row in rows], np.int64),
        "price": np.array([row.price for row in rows], np.int64),
        "price_exponent": np.array([row.price_exponent for row in rows], np.uint8),
        "size": np.array([row.size for row in rows], np.int64),
        "size_exponent": np.array([row.size_exponent for row in rows], np.uint8),
        "side": np.array([row.side for row in rows], np.uint8),
        "matches": np.array([row.matches for row in rows], np.uint32),
    }


def trade_of(row: tuple[Any, ...], exchange: str, symbol: str) -> TradeRow:
    """Trade of a row that ``select_trades`` gave."""
    kind, number, text, timestamp_ns, received_ns, price, price_exp, size, size_exp, side, n = row
    return TradeRow(
        exchange=exchange,
        symbol=symbol,
        trade_id=text or str(number),
        id_kind=_KINDS[kind],
        timestamp_ns=timestamp_ns,
        received_ns=received_ns,
        price=price,
        price_exponent=price_exp,
        size=size,
        size_exponent=size_exp,
        side=_SIDES[side],
        matches=n,
    )


def part_of(row: tuple[Any, ...]) -> Part:
    """Part of a bar, of a row that ``SELECT_PARTS`` gave."""
    begin_ns, price_exponent, size_exponent, first, last, *rest = row
    return Part(begin_ns, price_exponent, size_exponent, _key(first), _key(last), *rest)


def gap_of(row: tuple[Any, ...], exchange: str) -> GapRow:
    """Gap of a row that ``SELECT_GAPS`` gave."""
    symbol, channel, reason, first, last, count, since_ns, received_ns = row
    return GapRow(
        exchange=exchange,
        symbol=symbol,
        channel=Channel(channel),
        reason=Reason(reason),
        first=first,
        last=last,
        count=count,
        since_ns=since_ns,
        received_ns=received_ns,
    )


def gap_values(gap: GapRow) -> tuple[Any, ...]:
    """Values for table ``gaps``, in its order."""
    return (
        gap.exchange,
        gap.symbol,
        int(gap.channel),
        int(gap.reason),
        gap.first,
        gap.last,
        gap.count,
        gap.since_ns,
        gap.received_ns,
    )


def _key(value: Any) -> tuple[int, int, str]:
    time, number, text = value.values() if isinstance(value, dict) else value
    return time, number, text
