"""What the REST API answers, as far as `alphapulse.client.repository` reads it.

Numbers are taken as the text that they are, so that no digit is lost on the way.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
from msgspec import Raw

from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.fixed import decimal_places, format_decimal, parse_decimal
from alphapulse.history import BookRow, FillStatus, GapRow, TradeRow
from alphapulse.model import Channel, Level, Reason
from alphapulse.repository import (
    BookLevel,
    BookSnapshot,
    DataSummary,
    MarketTrade,
    Number,
    OhlcvBar,
)

NULL = b"null"
CHANNELS = {channel.text: channel for channel in Channel}
REASONS = {reason.text: reason for reason in Reason}
LIVE = "live"
STORED = "stored"


class TradeItem(msgspec.Struct):
    """One of ``/trades``."""

    timestamp: Raw
    symbol: str
    exchange: str
    price: Raw
    volume: Raw
    side: str
    trade_id: str
    id_kind: str = "trade"

    def result(self, exact: bool) -> MarketTrade:
        """As the protocol gives it."""
        return MarketTrade(
            timestamp=_number(self.timestamp, exact),
            price=_number(self.price, exact),
            volume=_number(self.volume, exact),
            side=self.side,
            trade_id=self.trade_id,
            symbol=self.symbol,
            exchange=self.exchange,
            id_kind=self.id_kind,
        )


class BarItem(msgspec.Struct):
    """One of ``/ohlcv``."""

    timestamp: Raw
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw
    trades: int

    def result(self, exact: bool) -> OhlcvBar:
        """As the protocol gives it."""
        return OhlcvBar(
            timestamp=_number(self.timestamp, exact),
            open=_number(self.open, exact),
            high=_number(self.high, exact),
            low=_number(self.low, exact),
            close=_number(self.close, exact),
            volume=_number(self.volume, exact),
            trades=self.trades,
        )


class TradesAnswer(msgspec.Struct):
    """A page of ``/trades``."""

    data: list[TradeItem]
    next: str | None = None


class BarsAnswer(msgspec.Struct):
    """A page of ``/ohlcv``."""

    data: list[BarItem]
    next: str | None = None


class GapItem(msgspec.Struct):
    """One of ``/gaps``."""

    exchange: str
    symbol: str | None
    channel: str
    reason: str
    first: int | None
    last: int | None
    count: int | None
    epoch: int | None
    since: Raw
    timestamp: Raw
    status: FillStatus
    filled: int
    filled_time: Raw

    def result(self) -> GapRow:
        """As stores give it, without its name there. Raises ``KeyError`` for unknown words."""
        return GapRow(
            exchange=self.exchange,
            symbol=self.symbol,
            channel=CHANNELS[self.channel],
            reason=REASONS[self.reason],
            first=self.first,
            last=self.last,
            count=self.count,
            since_ns=_nanoseconds(self.since),
            received_ns=_nanoseconds(self.timestamp),
            epoch=self.epoch,
            status=self.status,
            filled_ns=_nanoseconds(self.filled_time),
            filled=self.filled,
        )


class GapsAnswer(msgspec.Struct):
    """A page of ``/gaps``."""

    data: list[GapItem]
    next: str | None = None


class BookAnswer(msgspec.Struct):
    """Body of ``/orderbook``."""

    symbol: str
    exchange: str
    state: str
    timestamp: Raw
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]
    version: int | None = None

    def result(self, exact: bool) -> BookSnapshot | None:
        """As the protocol gives it; None for a live book that must not be shown."""
        if self.state not in (LIVE, STORED):
            return None
        # Where the venue tells no time: a live book is as it is now.
        known = bytes(self.timestamp) != NULL
        timestamp = self.timestamp if known else Raw(format_decimal(wall_ns(), 9).encode())
        return BookSnapshot(
            symbol=self.symbol,
            exchange=self.exchange,
            timestamp=_number(timestamp, exact),
            bids=_levels(self.bids, exact),
            asks=_levels(self.asks, exact),
        )

    def row(self) -> BookRow | None:
        """A book that is kept, exactly; None for another one."""
        if self.state != STORED or self.version is None:
            return None
        levels = [*self.bids, *self.asks]
        price_exponent = max((_places(price) for price, _ in levels), default=0)
        size_exponent = max((_places(size) for _, size in levels), default=0)

        def scaled(side: list[tuple[Raw, Raw]]) -> tuple[Level, ...]:
            return tuple(
                Level(
                    parse_decimal(bytes(price).decode(), price_exponent),
                    parse_decimal(bytes(size).decode(), size_exponent),
                )
                for price, size in side
            )

        return BookRow(
            exchange=self.exchange,
            symbol=self.symbol,
            version=self.version,
            timestamp_ns=parse_decimal(bytes(self.timestamp).decode(), 9),
            price_exponent=price_exponent,
            size_exponent=size_exponent,
            bids=scaled(self.bids),
            asks=scaled(self.asks),
        )


class ExchangesAnswer(msgspec.Struct):
    """Body of ``/exchanges``."""

    exchanges: list[str]


class SymbolsAnswer(msgspec.Struct):
    """Body of ``/symbols``."""

    symbols: list[str]


class SummaryAnswer(msgspec.Struct):
    """Body of ``/summary``."""

    total_symbols: int
    total_exchanges: int
    total_records: int
    date_range: dict[str, Raw]
    symbols_by_exchange: dict[str, list[str]]
    record_count_by_symbol: dict[str, int]

    def result(self) -> DataSummary:
        """As the protocol gives it."""
        return DataSummary(
            total_symbols=self.total_symbols,
            total_exchanges=self.total_exchanges,
            total_records=self.total_records,
            date_range={
                name: None if bytes(value) == NULL else _number(value, False)
                for name, value in self.date_range.items()
            },
            symbols_by_exchange=self.symbols_by_exchange,
            record_count_by_symbol=self.record_count_by_symbol,
        )


class StoreHealth(msgspec.Struct):
    """Whether the server's store answers."""

    status: str
    problem: str | None = None


class Components(msgspec.Struct):
    """The parts of the installation that are of interest here."""

    store: StoreHealth


class HealthAnswer(msgspec.Struct):
    """Body of ``/health``."""

    components: Components


class SavedAnswer(msgspec.Struct):
    """Body of the answer to trades sent."""

    saved: int
    duplicates: int


class GivenTrade(msgspec.Struct):
    """A trade to be stored; numbers as text."""

    timestamp: str
    price: str
    volume: str
    side: str
    trade_id: str
    id_kind: str


class GivenTrades(msgspec.Struct):
    """Body of trades to be stored."""

    data: list[GivenTrade]


def given(row: TradeRow) -> GivenTrade:
    """A trade as it is sent."""
    return GivenTrade(
        timestamp=format_decimal(row.timestamp_ns, 9),
        price=format_decimal(row.price, row.price_exponent),
        volume=format_decimal(row.size, row.size_exponent),
        side=row.side.text,
        trade_id=row.trade_id,
        id_kind=row.id_kind.text,
    )


def _levels(levels: list[tuple[Raw, Raw]], exact: bool) -> list[BookLevel]:
    return [
        BookLevel(price=_number(price, exact), size=_number(size, exact)) for price, size in levels
    ]


def _nanoseconds(text: Raw) -> int:
    return NO_TIME if bytes(text) == NULL else parse_decimal(bytes(text).decode(), 9)


def _number(text: Raw, exact: bool) -> Number:
    return Decimal(bytes(text).decode()) if exact else float(bytes(text))


def _places(number: Raw) -> int:
    return decimal_places(bytes(number).decode())
