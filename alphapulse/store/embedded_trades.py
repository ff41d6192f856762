"""Trades of the embedded database's table, as they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from alphapulse.fixed import INT64_MAX
from alphapulse.history import OrderKey, TradeRow
from alphapulse.model import IdKind
from alphapulse.store._rows import rows_of_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = dict[str, NDArray[Any]]

UNSORTED = 8
"""Times the limit up to which trades are taken from the database as they lie there: to sort so few
here costs less than a sorted query."""
MOST_UNSORTED = 100_000
"""How many more than the limit that may be, so that a page takes about the memory of its trades."""

_SELECT = """
SELECT id_kind, trade_number, trade_text, timestamp_ns, received_ns, price, price_exponent,
    size, size_exponent, side, matches, filled
FROM trades WHERE series = $series AND timestamp_ns BETWEEN $start AND $end
"""
_ORDER = " ORDER BY timestamp_ns {way}, trade_number {way}, trade_text {way}"
_BEYOND = " AND (timestamp_ns, trade_number, trade_text) {sign} ($time, $number, $text)"


def read_span(
    cursor: duckdb.DuckDBPyConnection,
    key: tuple[str, str],
    series: int,
    span: tuple[int, int],
    limit: int | None = None,
    *,
    newest: bool = False,
    beyond: OrderKey | None = None,
) -> list[TradeRow]:
    """The first or the newest trades of a span, in order.

    Parameters
    ----------
    cursor : of the calling thread
    key, series : exchange and symbol, and the id that stands for them
    span : first and last time in nanoseconds
    limit : how many, None for all
    newest : the last ones instead of the first ones
    beyond : only those beyond this place
    """
    values: dict[str, Any] = {"series": series, "start": span[0], "end": span[1]}
    most = None if limit is None else min(UNSORTED * limit, limit + MOST_UNSORTED, INT64_MAX)
    columns = _fetch(cursor, _SELECT, values, most)
    if most is not None and len(columns["timestamp_ns"]) == most:
        sign, way = ("<", "DESC") if newest else (">", "ASC")
        query = _SELECT
        if beyond is not None:
            query += _BEYOND.format(sign=sign)
            values |= dict(zip(("time", "number", "text"), beyond, strict=True))
        columns = _fetch(cursor, query + _ORDER.format(way=way), values, limit)
    columns = _sorted(columns)
    first, end = _part(columns, limit, newest, beyond)
    return rows_of_columns({name: column[first:end] for name, column in columns.items()}, *key)


def _fetch(
    cursor: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any], limit: int | None
) -> Columns:
    # A query of the same text is planned anew each time. DuckDB keeps plans of prepared statements,
    # but with what it knew of the table's contents then.
    return cursor.execute(f"{query} LIMIT $limit", {**values, "limit": limit}).fetchnumpy()


def _sorted(columns: Columns) -> Columns:
    times, numbers, kinds = (columns[n] for n in ("timestamp_ns", "trade_number", "id_kind"))
    if bool((times[1:] > times[:-1]).all()):
        return columns
    order: NDArray[Any]
    if bool((kinds == IdKind.TEXT).any()):
        places = list(zip(times.tolist(), numbers.tolist(), columns["trade_text"], strict=True))
        order = np.array(sorted(range(len(places)), key=places.__getitem__))
    else:
        order = np.lexsort((numbers, times))
    return {name: column[order] for name, column in columns.items()}


def _part(
    columns: Columns, limit: int | None, newest: bool, beyond: OrderKey | None
) -> tuple[int, int]:
    """First and end of those that are asked for, of columns in order."""
    times, numbers, texts = (columns[n] for n in ("timestamp_ns", "trade_number", "trade_text"))
    first, end = 0, len(times)
    if beyond is not None and newest:
        while end and (times[end - 1], numbers[end - 1], texts[end - 1]) >= beyond:
            end -= 1
    elif beyond is not None:
        while first < end and (times[first], numbers[first], texts[first]) <= beyond:
            first += 1
    if limit is None:
        return first, end
    return (max(first, end - limit), end) if newest else (first, min(end, first + limit))
