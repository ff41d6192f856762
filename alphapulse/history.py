"""What the history stores keep, exactly: rows of trades, bars and gaps, and who reads them.

Prices and sizes are integers scaled by the exponents in the same row, as in a ring's records, so
that nothing is rounded on its way into a store, through it, or out of it. Programs that want plain
numbers use `alphapulse.repository`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from operator import lt
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.fixed import to_decimal
from alphapulse.model import (
    BookState,
    Channel,
    Gap,
    IdKind,
    Level,
    Overrun,
    Reason,
    Side,
    StateChange,
    Trade,
)

R = TypeVar("R")

INTERVALS_NS = {
    "1s": NS_PER_SECOND,
    "1m": 60 * NS_PER_SECOND,
    "5m": 300 * NS_PER_SECOND,
    "15m": 900 * NS_PER_SECOND,
    "1h": 3600 * NS_PER_SECOND,
    "4h": 4 * 3600 * NS_PER_SECOND,
    "1d": 86400 * NS_PER_SECOND,
}
"""Lengths of bars, in nanoseconds; each bar begins at a multiple of its length since the epoch."""

ALL = "all"
"""Stands for all exchanges together, where bars are asked for."""

OrderKey = tuple[int, int, str]
"""What rows of trades sort by: time, then the id as a number (0 for text), then as text."""


class TradeRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One trade. Its identity is (exchange, symbol, id_kind, trade_id); a store keeps it once."""

    exchange: str
    symbol: str
    trade_id: str
    """Decimal digits without leading zeros, unless ``id_kind`` is `IdKind.TEXT`."""
    id_kind: IdKind = IdKind.TRADE
    timestamp_ns: int
    """The venue's time; ours at the frame's arrival where the venue gives none."""
    received_ns: int = NO_TIME
    price: int
    price_exponent: int
    size: int
    size_exponent: int
    side: Side
    """The taker's."""
    matches: int = 1
    """How many of the venue's matches it stands for; 0 if unknown."""
    filled: bool = False
    """Whether it comes from the venue's REST service, to fill a gap, and not from the feed."""

    @property
    def exact_price(self) -> Decimal:
        return to_decimal(self.price, self.price_exponent)

    @property
    def exact_size(self) -> Decimal:
        return to_decimal(self.size, self.size_exponent)

    @property
    def order_key(self) -> OrderKey:
        if self.id_kind is IdKind.TEXT:
            return self.timestamp_ns, 0, self.trade_id
        return self.timestamp_ns, int(self.trade_id), ""


class BarRow(NamedTuple):
    """One bar; prices scaled by ``price_exponent``, the volume by ``size_exponent``."""

    timestamp_ns: int
    """When the bar begins."""
    open: int
    high: int
    low: int
    close: int
    price_exponent: int
    volume: int
    size_exponent: int
    trades: int


class FillStatus(StrEnum):
    """What has become of a gap."""

    OPEN = "open"
    """Nothing as yet."""
    FILLED = "filled"
    """The trades that were missing are there."""
    PARTIAL = "partial"
    """Some are there; the venue gives no more."""
    UNAVAILABLE = "unavailable"
    """It can't be filled: books have no history, or the venue gives none of the trades."""


class GapRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the store doesn't have, as far as it is known; bounds are inclusive."""

    exchange: str
    symbol: str | None
    """None where all of the venue's symbols may be concerned."""
    channel: Channel
    reason: Reason
    first: int | None
    last: int | None
    count: int | None
    since_ns: int
    """Our time from which on something may be missing: what was heard earlier came before it."""
    received_ns: int
    """Our time when the loss was seen."""
    epoch: int | None = None
    """The ring's, where the bounds are sequences of a ring."""
    id: str = ""
    """What the store calls it; empty until it is stored."""
    status: FillStatus = FillStatus.OPEN
    filled_ns: int = NO_TIME
    """Our time when `status` was found."""
    filled: int = 0
    """Trades that were written to fill it."""

    @property
    def order_key(self) -> OrderKey:
        # Aligned to the right, what a store calls its gaps sorts as it was written.
        return self.received_ns, 0, f"{self.exchange} {self.id:>40}"


class GapFill(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a gap that a store holds."""

    id: str
    """The gap's, as in `GapRow`."""
    status: FillStatus
    filled_ns: int
    filled: int


class StateRow(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a book's state."""

    exchange: str
    symbol: str
    state: BookState
    reason: Reason
    timestamp_ns: int
    """The venue's time; ours where the venue gives none."""
    received_ns: int


class BookRow(msgspec.Struct, frozen=True, kw_only=True):
    """The best levels of a book at one moment; best first, scaled."""

    exchange: str
    symbol: str
    version: int
    timestamp_ns: int
    """The venue's time; ours at the frame's arrival where the venue gives none."""
    price_exponent: int
    size_exponent: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class SeriesSummary(NamedTuple):
    """How much a store holds of one venue's symbol."""

    exchange: str
    symbol: str
    trades: int
    first_ns: int
    last_ns: int


class Summary(NamedTuple):
    """How much a store holds of all series together."""

    trades: int
    first_ns: int | None
    """Time of the first trade; None where there is none."""
    last_ns: int | None
    symbols_by_exchange: dict[str, list[str]]
    trades_by_symbol: dict[str, int]


class History(Protocol):
    """Exact reading of what a store holds. All methods raise `StoreError` where it fails.

    Times are nanoseconds since the epoch, both ends included, None for no bound.
    """

    async def read_trades(
        self,
        exchange: str,
        symbol: str,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
        beyond: OrderKey | None = None,
    ) -> list[TradeRow]:
        """Trades in the order of (time, id); with a limit the first ones, or the newest ones.

        With `beyond` only those after this place in the order, or before it if `newest`.
        """
        ...

    async def read_bars(
        self,
        exchange: str,
        symbol: str,
        interval_ns: int,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
    ) -> list[BarRow]:
        """Bars that begin in the span, whole ones, oldest first; times without trades have none.

        With a limit it is the first ones, or the newest ones. With `ALL` for the exchange the
        bars are of all exchanges' trades.
        """
        ...

    async def read_gaps(
        self,
        exchange: str,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
        *,
        symbol: str | None = None,
        newest: bool = False,
        beyond: OrderKey | None = None,
    ) -> list[GapRow]:
        """Losses by the time when they were seen; with a limit the first ones, or the newest ones.

        With a symbol only those that may concern it; `beyond` is as in `read_trades`.
        """
        ...

    async def read_states(
        self,
        exchange: str,
        symbol: str,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
    ) -> list[StateRow]:
        """Changes of a book's state by the time of their arrival; with a limit the newest ones."""
        ...

    async def read_book(
        self, exchange: str, symbol: str, at_ns: int | None = None
    ) -> BookRow | None:
        """The newest book kept that isn't younger than the time; None if there is none."""
        ...

    async def summarise(self) -> list[SeriesSummary]:
        """What there is, sorted by exchange and symbol."""
        ...

    async def ping(self) -> None:
        """Return if the store answers. Raises `StoreError` otherwise."""
        ...


def trade_row(trade: Trade) -> TradeRow:
    """Row of a trade from a ring."""
    instrument = trade.instrument
    return TradeRow(
        exchange=instrument.exchange,
        symbol=instrument.symbol,
        trade_id=trade.trade_id,
        id_kind=trade.id_kind,
        timestamp_ns=trade.received_ns if trade.exchange_ns == NO_TIME else trade.exchange_ns,
        received_ns=trade.received_ns,
        price=trade.price,
        price_exponent=instrument.price_exponent,
        size=trade.size,
        size_exponent=instrument.size_exponent,
        side=trade.side,
        matches=trade.matches,
    )


def gap_row(gap: Gap) -> GapRow:
    """Row of a gap from a ring."""
    return GapRow(
        exchange=gap.exchange,
        symbol=gap.instrument.symbol if gap.instrument else None,
        channel=gap.channel,
        reason=gap.reason,
        first=gap.first,
        last=gap.last,
        count=gap.count,
        since_ns=gap.since_ns,
        received_ns=gap.received_ns,
    )


def state_row(change: StateChange) -> StateRow:
    """Row of a change of state from a ring."""
    return StateRow(
        exchange=change.exchange,
        symbol=change.symbol,
        state=change.state,
        reason=change.reason,
        timestamp_ns=change.received_ns if change.exchange_ns == NO_TIME else change.exchange_ns,
        received_ns=change.received_ns,
    )


def overrun_row(overrun: Overrun, since_ns: int, seen_ns: int) -> GapRow:
    """Row of what a reader of the ring was not given.

    Parameters
    ----------
    overrun : from the reader
    since_ns : our time of the last record before the loss, ``NO_TIME`` if there was none
    seen_ns : our time now
    """
    row = gap_row(overrun.as_gap(seen_ns))
    return msgspec.structs.replace(row, since_ns=since_ns, epoch=overrun.epoch)


def summary_of(series: Sequence[SeriesSummary]) -> Summary:
    """One summary out of those of all series, in their order."""
    symbols: dict[str, list[str]] = {}
    trades: dict[str, int] = {}
    for one in series:
        symbols.setdefault(one.exchange, []).append(one.symbol)
        trades[one.symbol] = trades.get(one.symbol, 0) + one.trades
    return Summary(
        trades=sum(trades.values()),
        first_ns=min((one.first_ns for one in series), default=None),
        last_ns=max((one.last_ns for one in series), default=None),
        symbols_by_exchange=symbols,
        trades_by_symbol=trades,
    )


def narrowed(
    start_ns: int | None, end_ns: int | None, beyond: OrderKey | None, newest: bool
) -> tuple[int | None, int | None]:
    """The times between which the rows lie that are asked for, as of `History.read_trades`."""
    if beyond is None:
        return start_ns, end_ns
    if newest:
        return start_ns, beyond[0] if end_ns is None else min(end_ns, beyond[0])
    return beyond[0] if start_ns is None else max(start_ns, beyond[0]), end_ns


def at_most(limit: int | None, rows: Sequence[R], newest: bool) -> list[R]:
    """The first rows, or the last ones if `newest`; all without a limit."""
    if limit is None:
        return list(rows)
    return list(rows[max(len(rows) - limit, 0) :] if newest else rows[:limit])


def in_order(rows: Sequence[TradeRow]) -> list[TradeRow]:
    """Rows in the order in which stores give them."""
    times = [row.timestamp_ns for row in rows]
    if all(map(lt, times, times[1:])):
        return list(rows)
    return sorted(rows, key=lambda row: row.order_key)
