"""`MarketDataRepository`: market data as programs ask for it, whatever keeps it.

Values are floats, for drop-in use; ``exact=True`` gives `decimal.Decimal` with the venue's digits.
Timestamps in results are epoch seconds, of the same type as the values. Fields can be read as
attributes or in brackets (``trade.price``, ``trade["price"]``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

import msgspec

Number = float | Decimal


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Base of results: fields by attribute or in brackets."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Names of the fields, so that ``dict(item)`` works."""
        return self.__struct_fields__


class MarketTrade(Item, frozen=True, kw_only=True):
    """One trade; ``side`` is the taker's, ``buy`` or ``sell``."""

    timestamp: Number
    price: Number
    volume: Number
    side: str
    trade_id: str
    symbol: str
    exchange: str
    id_kind: str = "trade"


class OhlcvBar(Item, frozen=True, kw_only=True):
    """One bar; ``timestamp`` is when it begins."""

    timestamp: Number
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    trades: int


class BookLevel(Item, frozen=True, kw_only=True):
    """One price level."""

    price: Number
    size: Number


class BookSnapshot(Item, frozen=True, kw_only=True):
    """An order book; best levels first."""

    symbol: str
    exchange: str
    timestamp: Number
    bids: list[BookLevel]
    asks: list[BookLevel]


class DataSummary(Item, frozen=True, kw_only=True):
    """What a repository holds; ``date_range`` has ``start`` and ``end``, None where it is empty."""

    total_symbols: int
    total_exchanges: int
    total_records: int
    date_range: dict[str, Number | None]
    symbols_by_exchange: dict[str, list[str]]
    record_count_by_symbol: dict[str, int]


@runtime_checkable
class MarketDataRepository(Protocol):
    """Trades, bars, books and what there is of them.

    Times are `datetime`, taken as UTC if naive, or None for no bound; both ends are included.
    Symbols may be written ``BTC-USD`` or ``BTC/USD``.
    """

    async def save_trades(
        self, trades: Iterable[Mapping[str, Any] | Any], symbol: str, exchange: str
    ) -> dict[str, Any]:
        """Store trades that aren't there yet.

        Parameters
        ----------
        trades : mappings or objects with timestamp (epoch seconds, ISO 8601 or datetime), price,
            volume, side, trade_id, and optionally id_kind (trade, aggregate or text)

        Returns
        -------
        dict
            ``success``, ``saved`` and ``duplicates``
        """
        ...

    async def get_trades(
        self,
        symbol: str,
        exchange: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | None = None,
        *,
        exact: bool = False,
    ) -> list[MarketTrade]:
        """Trades by (timestamp, trade_id).

        With a limit: the first ones from ``start_time`` on; without ``start_time`` the newest.
        """
        ...

    async def get_ohlcv(
        self,
        symbol: str,
        exchange: str,
        interval: str = "1m",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        exact: bool = False,
    ) -> list[OhlcvBar]:
        """Bars that begin in the span; times without trades have none.

        Parameters
        ----------
        interval : 1s, 1m, 5m, 15m, 1h, 4h or 1d
        """
        ...

    async def get_orderbook_snapshot(
        self,
        symbol: str,
        exchange: str,
        timestamp: datetime | None = None,
        *,
        exact: bool = False,
    ) -> BookSnapshot | None:
        """The newest book that is known at the time; None if there is none."""
        ...

    async def get_symbols(self, exchange: str) -> list[str]:
        """Symbols of which there is something."""
        ...

    async def get_data_summary(self) -> DataSummary:
        """What there is."""
        ...

    async def health_check(self) -> dict[str, Any]:
        """``status`` ``ok`` or ``failed``; with ``problem`` in the latter case."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...
