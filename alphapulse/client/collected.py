"""Events that were kept, as tables for notebooks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from alphapulse.client.events import StreamEvent
from alphapulse.clock import NO_TIME
from alphapulse.errors import MissingPackage
from alphapulse.model import BookSide, BookSnapshot, Instrument, Level, Trade

if TYPE_CHECKING:
    import pandas
    import polars

EXTRA = "notebook"
"""The group of optional dependencies with what tables are made of."""

DEFAULT_LIMIT = 1_000_000

Numbers = Literal["float", "decimal", "scaled"]
"""How prices and sizes are given: as floats; exactly, as `Decimal`; or exactly, as the integers of
the ring, with the columns ``price_exponent`` and ``size_exponent`` beside them."""

_NUMBERS: tuple[Numbers, ...] = ("float", "decimal", "scaled")
_TIMES = ("exchange_ns", "received_ns")


class Table:
    """Columns of equal length, by name.

    ``exchange_ns`` and ``received_ns`` are integer nanoseconds since the epoch, None where unknown;
    data frames have ``exchange_time`` and ``received_time`` in UTC beside them.
    """

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dictionary a row."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas data frame.

        Raises
        ------
        MissingPackage
            pandas isn't installed
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingPackage("pandas", EXTRA) from error
        frame = pd.DataFrame(self.columns)
        for name in _TIMES:
            # Nullable integers: a float can't hold nanoseconds.
            frame[name] = pd.array(self.columns[name], dtype="Int64")
            frame[name.replace("_ns", "_time")] = pd.to_datetime(frame[name], unit="ns", utc=True)
        return frame

    def to_polars(self) -> polars.DataFrame:
        """A polars data frame.

        Raises
        ------
        MissingPackage
            polars isn't installed
        """
        try:
            import polars as pl
        except ImportError as error:
            raise MissingPackage("polars", EXTRA) from error
        frame = pl.DataFrame(self.columns, schema_overrides=dict.fromkeys(_TIMES, pl.Int64))
        return frame.with_columns(
            pl.from_epoch(name, time_unit="ns")
            .dt.replace_time_zone("UTC")
            .alias(name.replace("_ns", "_time"))
            for name in _TIMES
        )


class Collected:
    """Events in their order, the latest `limit` of them.

    Attributes
    ----------
    dropped : how many older ones were dropped
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"limit {limit}: at least 1")
        self.dropped = 0
        self._events: deque[StreamEvent] = deque(maxlen=limit)

    def append(self, event: StreamEvent) -> None:
        """Keep an event."""
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append(event)

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[StreamEvent]:
        return iter(self._events)

    def trades(self, numbers: Numbers = "float") -> Table:
        """One row a trade: exchange, symbol, times, price, size, side, trade_id, sequence."""
        make = _maker(numbers)
        trades = [event for event in self._events if isinstance(event, Trade)]
        columns: dict[str, list[Any]] = {
            "exchange": [trade.exchange for trade in trades],
            "symbol": [trade.symbol for trade in trades],
            "exchange_ns": [_time(trade.exchange_ns) for trade in trades],
            "received_ns": [_time(trade.received_ns) for trade in trades],
            "price": [make(t.price, t.instrument.price_exponent) for t in trades],
            "size": [make(t.size, t.instrument.size_exponent) for t in trades],
            "side": [trade.side.text for trade in trades],
            "trade_id": [trade.trade_id for trade in trades],
            "sequence": [trade.sequence for trade in trades],
        }
        return _with_exponents(columns, numbers, [trade.instrument for trade in trades])

    def snapshots(self, depth: int = 10, numbers: Numbers = "float") -> Table:
        """One row a level of each snapshot: exchange, symbol, times, version, side, level, ...

        Parameters
        ----------
        depth : levels a side; 0 for all. ``level`` counts from 0, the best
        """
        make = _maker(numbers)
        names = ("exchange", "symbol", "exchange_ns", "received_ns", "version", "side", "level")
        columns: dict[str, list[Any]] = {name: [] for name in (*names, "price", "size")}
        instruments: list[Instrument] = []
        for event in self._events:
            if not isinstance(event, BookSnapshot):
                continue
            times = _time(event.exchange_ns), _time(event.received_ns)
            head = event.exchange, event.symbol, *times, event.version
            instrument = event.instrument
            for side, number, level in _levels(event, depth):
                price = make(level.price, instrument.price_exponent)
                size = make(level.size, instrument.size_exponent)
                row = (*head, side.text, number, price, size)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
                instruments.append(instrument)
        return _with_exponents(columns, numbers, instruments)


def _levels(snapshot: BookSnapshot, depth: int) -> Iterator[tuple[BookSide, int, Level]]:
    for side, levels in zip(BookSide, (snapshot.bids, snapshot.asks), strict=True):
        for number, level in enumerate(levels[:depth] if depth else levels):
            yield side, number, level


def _with_exponents(
    columns: dict[str, list[Any]], numbers: Numbers, instruments: Iterable[Instrument]
) -> Table:
    if numbers == "scaled":
        instruments = list(instruments)
        columns["price_exponent"] = [instrument.price_exponent for instrument in instruments]
        columns["size_exponent"] = [instrument.size_exponent for instrument in instruments]
    return Table(columns)


def _maker(numbers: Numbers) -> Callable[[int, int], float | Decimal | int]:
    if numbers not in _NUMBERS:
        raise ValueError(f"numbers {numbers!r}: one of {', '.join(_NUMBERS)}")
    if numbers == "scaled":
        return lambda value, _: value
    if numbers == "decimal":
        return lambda value, exponent: Decimal(value).scaleb(-exponent)
    # Division of integers rounds correctly, as reading the decimal text would.
    return lambda value, exponent: value / 10**exponent


def _time(time_ns: int) -> int | None:
    return None if time_ns == NO_TIME else time_ns
