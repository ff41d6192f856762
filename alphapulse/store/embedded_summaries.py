"""How much the embedded database holds of each series: counted once, then kept up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import duckdb

from alphapulse.history import SeriesSummary
from alphapulse.store import tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

Summaries = dict[tuple[str, str], SeriesSummary]
"""By exchange and symbol."""


def counted(cursor: duckdb.DuckDBPyConnection) -> Summaries:
    """What the tables hold, which takes a scan of all trades."""
    rows = map(SeriesSummary._make, cursor.execute(tables.SELECT_SUMMARY).fetchall())
    return {(row.exchange, row.symbol): row for row in rows}


def with_added(
    held: Summaries, columns: Mapping[str, NDArray[Any]], ids: Mapping[tuple[str, str], int]
) -> Summaries:
    """Summaries after trades were added.

    Parameters
    ----------
    held : before; it stays as it is
    columns : the trades', as `tables.trade_columns` gives them
    ids : of the series, by exchange and symbol
    """
    keys = {number: key for key, number in ids.items()}
    found = dict(held)
    numbers, all_times = columns["series"], columns["timestamp_ns"]
    for number in set(numbers.tolist()):
        key = keys[number]
        times = all_times[numbers == number]
        first, last, count = int(times.min()), int(times.max()), len(times)
        if key in held:
            before = held[key]
            first, last = min(first, before.first_ns), max(last, before.last_ns)
            count += before.trades
        found[key] = SeriesSummary(*key, count, first, last)
    return found
