"""`MarketDataRepository`: market data as programs ask for it, whatever keeps it.

Values are floats, for drop-in use; ``exact=True`` gives `decimal.Decimal` with the venue's digits.
Timestamps in results are epoch seconds, of the same type as the values. Fields can be read as
attributes or in brackets (``trade.price``, ``trade["price"]``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

import msgspec

from alphapulse.clock import NS_PER_SECOND, parse_iso8601
from alphapulse.errors import FixedPointError, RequestError
from alphapulse.fixed import INT64_MAX, parse_decimal, split_decimal
from alphapulse.history import ALL, INTERVALS_NS, TradeRow
from alphapulse.model import IdKind, Side
from alphapulse.symbols import normalize_symbol

Number = float | Decimal

MOST_PLACES = 18
"""Decimal places of a price or volume; more can't be stored."""
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,31}$"
"""What an exchange's name may be."""
MOST_SYMBOL_LENGTH = 64
MOST_ID_LENGTH = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_KINDS = {kind.text: kind for kind in IdKind}
_UINT64 = 2**64
_SECONDS = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?", re.ASCII)
_MOST_SECONDS = 10**11
_SYMBOL = re.compile(r"[A-Za-z0-9]+-[A-Za-z0-9]+")


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
        exchange : lower-case letters, digits and ``_``

        Raises
        ------
        RequestError
            one of them can't be stored; none is, then

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


def symbol_of(text: str) -> str:
    """The unified symbol of what a caller wrote. Raises `RequestError`."""
    try:
        return normalize_symbol(text)
    except ValueError as error:
        raise RequestError("bad_symbol", f"symbol: {error}") from None


def interval_ns_of(interval: str) -> int:
    """Length of a bar in nanoseconds. Raises `RequestError` for an unknown interval."""
    interval_ns = INTERVALS_NS.get(interval)
    if interval_ns is None:
        known = ", ".join(INTERVALS_NS)
        raise RequestError("unknown_interval", f"interval: {interval!r} is none; use {known}")
    return interval_ns


def nanoseconds_of(moment: datetime | None) -> int | None:
    """A time since the epoch; naive ones are UTC, None stays None."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def rows_to_save(
    trades: Iterable[Mapping[str, Any] | Any], symbol: str, exchange: str
) -> list[TradeRow]:
    """Trades as `MarketDataRepository.save_trades` takes them, exactly.

    Raises
    ------
    RequestError
        one can't be stored: the message names what is at fault, and its value
    """
    if exchange == ALL:
        raise RequestError("bad_exchange", f"exchange: {ALL!r} stands for all of them; name one")
    if not re.fullmatch(NAME_PATTERN, exchange):
        raise RequestError(
            "bad_exchange", f"exchange: {exchange!r} is no name: lower-case letters, digits and _"
        )
    unified = symbol_of(symbol)
    if len(unified) > MOST_SYMBOL_LENGTH or not _SYMBOL.fullmatch(unified):
        raise RequestError("bad_symbol", f"symbol: {symbol!r} is none like BTC-USD")
    rows = [trade_row_of(trade, unified, exchange) for trade in trades]
    for row in rows:
        if row.price < 0 or row.size < 0:
            name = "price" if row.price < 0 else "volume"
            raise RequestError("bad_trade", f"trade {row.trade_id}: its {name} is below 0")
        if not 0 < len(row.trade_id) <= MOST_ID_LENGTH:
            raise RequestError(
                "bad_trade",
                f"a trade_id has 1 to {MOST_ID_LENGTH} characters, not {row.trade_id[:80]!r}",
            )
    return rows


def trade_row_of(trade: Mapping[str, Any] | Any, symbol: str, exchange: str) -> TradeRow:
    """A trade that a caller wrote, exactly.

    Parameters
    ----------
    trade : mapping or object; see `MarketDataRepository.save_trades`
    symbol, exchange : whose it is; the symbol unified

    Raises
    ------
    RequestError
        it can't be stored: the message names the trade, the field and its value
    """

    def field(name: str, default: Any = None) -> Any:
        value = trade.get(name) if isinstance(trade, Mapping) else getattr(trade, name, None)
        if value is None and default is None:
            raise RequestError("bad_trade", f"a trade without {name}: {trade!r}")
        return default if value is None else value

    trade_id = str(field("trade_id"))
    try:
        timestamp_ns = _time_of(field("timestamp"))
        price, price_exponent = _scaled(field("price"))
        size, size_exponent = _scaled(field("volume"))
        return TradeRow(
            exchange=exchange,
            symbol=symbol,
            trade_id=trade_id,
            id_kind=_kind_of(trade_id, field("id_kind", "")),
            timestamp_ns=timestamp_ns,
            price=price,
            price_exponent=price_exponent,
            size=size,
            size_exponent=size_exponent,
            side=_SIDES[str(field("side")).lower()],
        )
    except KeyError as error:
        raise RequestError("bad_trade", f"{error} is no side or kind of id: {trade!r}") from None
    except (FixedPointError, ValueError) as error:
        raise RequestError("bad_trade", f"trade {trade_id}: {error}") from None


def _kind_of(trade_id: str, name: str) -> IdKind:
    canonical = trade_id.isascii() and trade_id.isdecimal() and str(int(trade_id)) == trade_id
    number = canonical and int(trade_id) < _UINT64
    kind = _KINDS[name] if name else IdKind.TRADE if number else IdKind.TEXT
    if kind is not IdKind.TEXT and not number:
        raise ValueError(f"an id of kind {kind.text} is a number")
    return kind


def _scaled(value: Any) -> tuple[int, int]:
    text = str(value)
    exponent = max(split_decimal(text)[1], 0)
    if exponent > MOST_PLACES:
        raise ValueError(f"{text} has more than {MOST_PLACES} decimal places")
    return parse_decimal(text, exponent), exponent


def _time_of(value: Any) -> int:
    if isinstance(value, datetime):
        time_ns = nanoseconds_of(value) or 0
    elif isinstance(value, str) and not _SECONDS.fullmatch(value):
        time_ns = parse_iso8601(value)
    else:
        # A float's shortest text is what was meant: its exact value has digits that nobody wrote.
        text = str(value)
        if not _SECONDS.fullmatch(text) or abs(Decimal(text)) > _MOST_SECONDS:
            raise ValueError(f"{value!r} is no time in epoch seconds")
        time_ns = int((Decimal(text) * NS_PER_SECOND).to_integral_value())
    if abs(time_ns) > INT64_MAX:
        raise ValueError(f"{value!r} is beyond what nanoseconds can tell")
    return time_ns
