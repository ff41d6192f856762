"""What a store is, and `MarketDataRepository` on top of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from alphapulse.clock import NS_PER_SECOND
from alphapulse.errors import StoreError
from alphapulse.fixed import format_decimal, to_decimal
from alphapulse.history import (
    ALL,
    BarRow,
    BookRow,
    GapFill,
    GapRow,
    History,
    StateRow,
    TradeRow,
    at_most,
    summary_of,
)
from alphapulse.model import Level
from alphapulse.repository import (
    BookLevel,
    BookSnapshot,
    DataSummary,
    MarketDataRepository,
    MarketTrade,
    Number,
    OhlcvBar,
    interval_ns_of,
    nanoseconds_of,
    rows_to_save,
    symbol_of,
)
from alphapulse.shm import Position
from alphapulse.store.bars import Part, bars_of, consolidated

__all__ = ["MarketDataRepository", "Repository", "Store", "WriteBatch"]


class WriteBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What one venue's ring gave since the last batch; written whole or not at all."""

    exchange: str
    trades: Sequence[TradeRow] = ()
    gaps: Sequence[GapRow] = ()
    books: Sequence[BookRow] = ()
    """Books at a moment, to be kept; the newest of a symbol is also its latest book."""
    states: Sequence[StateRow] = ()
    fills: Sequence[GapFill] = ()
    """What has become of gaps that are in the store."""
    position: Position | None = None
    """Where to go on in the ring after this batch; None to leave it as it is."""


class Store(History, MarketDataRepository, Protocol):
    """A history store: exact reading, writing, and reading as a `MarketDataRepository`."""

    @property
    def pace_seconds(self) -> float:
        """Least time between two batches of a venue that has no more; for dear transactions."""
        ...

    async def append(self, batch: WriteBatch) -> int:
        """Write a batch in one transaction; trades that are there already are left out.

        Returns
        -------
        int
            how many trades were new

        Raises
        ------
        StoreError
            the store failed; whether the batch is written or not, `position` tells
        """
        ...

    async def position(self, exchange: str) -> Position | None:
        """Where to go on in a venue's ring, None if nothing was ever written from it."""
        ...

    async def save_book(self, book: BookRow) -> None:
        """Keep a book, apart from those that the writer keeps."""
        ...

    async def read_parts(
        self,
        exchange: str,
        symbol: str,
        interval_ns: int,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
    ) -> list[Part]:
        """What `read_bars` gives of one exchange as parts that can be merged: one a bar."""
        ...


class Repository:
    """What all stores do in the same way, by means of the other methods, which subclasses have."""

    async def read_bars(
        self: Store,
        exchange: str,
        symbol: str,
        interval_ns: int,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
    ) -> list[BarRow]:
        """See `History`."""

        async def parts(exchange: str) -> list[Part]:
            return await self.read_parts(
                exchange, symbol, interval_ns, start_ns, end_ns, limit, newest=newest
            )

        if exchange != ALL:
            return bars_of(await parts(exchange), interval_ns)
        held = [each.exchange for each in await self.summarise() if each.symbol == symbol]
        # A bar that is among the first ones of all exchanges is so in each that has it.
        bars = consolidated({each: await parts(each) for each in held}, interval_ns)
        return at_most(limit, bars, newest)

    async def save_trades(
        self: Store, trades: Iterable[Mapping[str, Any] | Any], symbol: str, exchange: str
    ) -> dict[str, Any]:
        """See `MarketDataRepository`. Raises `RequestError` for a trade that can't be stored."""
        rows = rows_to_save(trades, symbol, exchange)
        saved = await self.append(WriteBatch(exchange=exchange, trades=rows))
        return {"success": True, "saved": saved, "duplicates": len(rows) - saved}

    async def save_book(self: Store, book: BookRow) -> None:
        """See `Store`."""
        await self.append(WriteBatch(exchange=book.exchange, books=[book]))

    async def get_trades(
        self: Store,
        symbol: str,
        exchange: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | None = None,
        *,
        exact: bool = False,
    ) -> list[MarketTrade]:
        """See `MarketDataRepository`."""
        if limit is not None and limit < 1:
            return []
        rows = await self.read_trades(
            exchange,
            symbol_of(symbol),
            nanoseconds_of(start_time),
            nanoseconds_of(end_time),
            limit,
            newest=start_time is None,
        )
        return [
            MarketTrade(
                timestamp=_number(row.timestamp_ns, 9, exact),
                price=_number(row.price, row.price_exponent, exact),
                volume=_number(row.size, row.size_exponent, exact),
                side=row.side.text,
                trade_id=row.trade_id,
                symbol=row.symbol,
                exchange=row.exchange,
                id_kind=row.id_kind.text,
            )
            for row in rows
        ]

    async def get_ohlcv(
        self: Store,
        symbol: str,
        exchange: str,
        interval: str = "1m",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        exact: bool = False,
    ) -> list[OhlcvBar]:
        """See `MarketDataRepository`. Raises `RequestError` for an unknown interval."""
        interval_ns = interval_ns_of(interval)
        rows = await self.read_bars(
            exchange,
            symbol_of(symbol),
            interval_ns,
            nanoseconds_of(start_time),
            nanoseconds_of(end_time),
        )
        return [
            OhlcvBar(
                timestamp=_number(row.timestamp_ns, 9, exact),
                open=_number(row.open, row.price_exponent, exact),
                high=_number(row.high, row.price_exponent, exact),
                low=_number(row.low, row.price_exponent, exact),
                close=_number(row.close, row.price_exponent, exact),
                volume=_number(row.volume, row.size_exponent, exact),
                trades=row.trades,
            )
            for row in rows
        ]

    async def get_orderbook_snapshot(
        self: Store,
        symbol: str,
        exchange: str,
        timestamp: datetime | None = None,
        *,
        exact: bool = False,
    ) -> BookSnapshot | None:
        """See `MarketDataRepository`."""
        book = await self.read_book(exchange, symbol_of(symbol), nanoseconds_of(timestamp))
        if book is None:
            return None
        return BookSnapshot(
            symbol=book.symbol,
            exchange=book.exchange,
            timestamp=_number(book.timestamp_ns, 9, exact),
            bids=_levels(book.bids, book, exact),
            asks=_levels(book.asks, book, exact),
        )

    async def get_symbols(self: Store, exchange: str) -> list[str]:
        """See `MarketDataRepository`."""
        return [series.symbol for series in await self.summarise() if series.exchange == exchange]

    async def get_data_summary(self: Store) -> DataSummary:
        """See `MarketDataRepository`."""
        summary = summary_of(await self.summarise())
        return DataSummary(
            total_symbols=len(summary.trades_by_symbol),
            total_exchanges=len(summary.symbols_by_exchange),
            total_records=summary.trades,
            date_range={"start": _seconds(summary.first_ns), "end": _seconds(summary.last_ns)},
            symbols_by_exchange=summary.symbols_by_exchange,
            record_count_by_symbol=summary.trades_by_symbol,
        )

    async def health_check(self: Store) -> dict[str, Any]:
        """See `MarketDataRepository`."""
        try:
            await self.ping()
        except StoreError as error:
            return {"status": "failed", "problem": str(error)}
        return {"status": "ok"}


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns / NS_PER_SECOND


def _number(value: int, exponent: int, exact: bool) -> Number:
    # The nearest float of the exact text, not a quotient that is rounded twice.
    return to_decimal(value, exponent) if exact else float(format_decimal(value, exponent))


def _levels(levels: Iterable[Level], book: BookRow, exact: bool) -> list[BookLevel]:
    return [
        BookLevel(
            price=_number(level.price, book.price_exponent, exact),
            size=_number(level.size, book.size_exponent, exact),
        )
        for level in levels
    ]
