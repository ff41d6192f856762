"""The newest trades of the series that are asked for, in memory: most requests want no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from alphapulse.history import TradeRow, in_order

KEPT = 1001
"""Trades of a series: a page of a thousand, and one to see whether there are more."""

Key = tuple[str, str]
"""Exchange and symbol."""


class _Newest(NamedTuple):
    rows: list[TradeRow]
    """In order; never changed, only replaced."""
    whole: bool
    """Whether there are no older ones."""


class RecentTrades:
    """What a store's tables hold at the end of each series; told of every change."""

    def __init__(self) -> None:
        self._series: dict[Key, _Newest] = {}

    def read(self, key: Key, limit: int | None) -> list[TradeRow] | None:
        """The newest trades in order, None where they aren't known here.

        Parameters
        ----------
        key : of the series
        limit : how many, None for all
        """
        newest = self._series.get(key)
        if newest is None:
            return None
        if limit is not None and limit <= len(newest.rows):
            return newest.rows[len(newest.rows) - limit :]
        return list(newest.rows) if newest.whole else None

    def put(self, key: Key, rows: list[TradeRow]) -> None:
        """Begin with a series.

        Parameters
        ----------
        key : of the series
        rows : the newest `KEPT` of the tables, or all if there are fewer; in order
        """
        self._series[key] = _Newest(rows, len(rows) < KEPT)

    def add(self, new: Iterable[TradeRow]) -> None:
        """Take in trades that were added to the tables."""
        by_series: dict[Key, list[TradeRow]] = {}
        for row in new:
            key = row.exchange, row.symbol
            if key in self._series:
                by_series.setdefault(key, []).append(row)
        for key, rows in by_series.items():
            before = self._series[key]
            added = in_order(rows)
            merged = [*before.rows, *added]
            if before.rows and before.rows[-1].order_key >= added[0].order_key:
                merged = in_order(merged)
            self._series[key] = _Newest(merged[-KEPT:], before.whole and len(merged) <= KEPT)

    def clear(self) -> None:
        """Forget everything: the tables have lost trades."""
        self._series.clear()
