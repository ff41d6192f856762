"""History as Parquet files, exact: one for each symbol and day, of gaps for each exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import duckdb

from alphapulse.clock import NS_PER_SECOND
from alphapulse.errors import StoreError
from alphapulse.fixed import INT64_MAX
from alphapulse.history import BookRow, GapRow, OrderKey, SeriesSummary, StateRow, TradeRow
from alphapulse.repository import OhlcvBar
from alphapulse.store.export_files import Scratch, has_open_gaps
from alphapulse.store.repository import Store

PAGE_ROWS = 20_000
"""Trades read at once."""
PAGE_BOOKS = 50
"""Books gathered at once."""

TRADES = "trades"
GAPS = "gaps"
STATES = "states"
BOOKS = "books"

Wanted = Callable[[str, str | None], bool]
"""Tells by exchange and symbol what to export; for files of gaps by exchange alone."""

R = TypeVar("R", GapRow, StateRow)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


class Source(Protocol):
    """Where history is read from."""

    async def series(self) -> list[SeriesSummary]:
        """What there is; the times may be too wide."""
        ...

    def trades(
        self, exchange: str, symbol: str, start: datetime, end: datetime
    ) -> AsyncIterator[list[TradeRow]]:
        """Trades from the start to just before the end, in order, in pages."""
        ...

    async def bars(
        self, exchange: str, symbol: str, interval: str, start: datetime, end: datetime
    ) -> list[OhlcvBar]:
        """Bars that begin from the start to just before the end, exact."""
        ...

    async def gaps(self) -> list[GapRow]:
        """All that is or was lacking."""
        ...

    async def states(self) -> list[StateRow]:
        """All changes of books' states."""
        ...

    async def names(self) -> list[tuple[str, str]]:
        """Exchanges and symbols of which there may be something."""
        ...

    async def book(self, exchange: str, symbol: str, at_ns: int) -> BookRow | None:
        """The newest book kept that isn't younger."""
        ...


class StoreSource:
    """Reads a store.

    Parameters
    ----------
    store : open; stays open
    collected : exchanges and symbols of which there may be something besides those with trades
    """

    def __init__(self, store: Store, collected: Collection[tuple[str, str]] = ()) -> None:
        self._store = store
        self._collected = collected

    async def series(self) -> list[SeriesSummary]:
        """See `Source`."""
        return await self._store.summarise()

    async def trades(
        self, exchange: str, symbol: str, start: datetime, end: datetime
    ) -> AsyncIterator[list[TradeRow]]:
        """See `Source`."""
        first, last = _nanoseconds(start), _nanoseconds(end) - 1
        beyond: OrderKey | None = None
        while True:
            rows = await self._store.read_trades(
                exchange, symbol, first, last, PAGE_ROWS, beyond=beyond
            )
            if rows:
                yield rows
            if len(rows) < PAGE_ROWS:
                return
            beyond = rows[-1].order_key

    async def bars(
        self, exchange: str, symbol: str, interval: str, start: datetime, end: datetime
    ) -> list[OhlcvBar]:
        """See `Source`."""
        last = end - timedelta(microseconds=1)
        return await self._store.get_ohlcv(symbol, exchange, interval, start, last, exact=True)

    async def gaps(self) -> list[GapRow]:
        """See `Source`."""
        exchanges = sorted({exchange for exchange, _ in await self.names()})
        return [gap for each in exchanges for gap in await self._store.read_gaps(each)]

    async def states(self) -> list[StateRow]:
        """See `Source`."""
        return [
            each for name in await self.names() for each in await self._store.read_states(*name)
        ]

    async def names(self) -> list[tuple[str, str]]:
        """See `Source`."""
        stored = {(series.exchange, series.symbol) for series in await self._store.summarise()}
        return sorted(stored | set(self._collected))

    async def book(self, exchange: str, symbol: str, at_ns: int) -> BookRow | None:
        """See `Source`."""
        return await self._store.read_book(exchange, symbol, at_ns)


class Item(NamedTuple):
    """One file to be."""

    exchange: str
    symbol: str | None
    """None for a file of gaps: it has those of all symbols."""
    day: date
    path: Path
    gaps: Sequence[GapRow] = ()
    """Where it is a file of gaps."""
    states: Sequence[StateRow] = ()


class Done(NamedTuple):
    """What has become of a file."""

    item: Item
    rows: int
    """0 where the day has none: there is no file then."""
    kept: bool
    """Whether it was there already, and whole."""


async def plan(
    source: Source,
    folder: Path,
    table: str,
    wanted: Wanted,
    first: date | None,
    last: date | None,
) -> list[Item]:
    """The files of what a source has, by exchange, symbol and day.

    Parameters
    ----------
    source : asked for its series; gaps and states are read here
    folder : where files go
    table : ``trades``, ``gaps``, ``states``, ``books``, or ``bars_`` and an interval
    wanted : which exchanges and symbols
    first, last : days (UTC), both included; None for no bound. Bars may begin before the trades
        that are left, and are looked for from `first` on.
    """
    if table == GAPS:
        gaps = _by_day(await source.gaps(), folder, table, wanted, first, last)
        return [item._replace(gaps=rows) for item, rows in gaps]
    if table == STATES:
        states = _by_day(await source.states(), folder, table, wanted, first, last)
        return [item._replace(states=rows) for item, rows in states]
    items = []
    if table == BOOKS:
        for name in await source.names():
            if wanted(*name):
                days = [day async for day in _book_days(source, *name, first, last)]
                items += [_item(folder, table, *name, day) for day in reversed(days)]
        return items
    for series in await source.series():
        if not wanted(series.exchange, series.symbol):
            continue
        begin, until = _day(series.first_ns), _day(series.last_ns)
        day = begin if first is None else first if table != TRADES else max(begin, first)
        until = until if last is None else min(until, last)
        while day <= until:
            items.append(_item(folder, table, series.exchange, series.symbol, day))
            day += _DAY
    return items


async def _book_days(
    source: Source, exchange: str, symbol: str, first: date | None, last: date | None
) -> AsyncIterator[date]:
    """Days with books, newest first."""
    at_ns = INT64_MAX if last is None else _nanoseconds(_begin(last) + _DAY) - 1
    while (book := await source.book(exchange, symbol, at_ns)) is not None:
        day = _day(book.timestamp_ns)
        if first is not None and day < first:
            return
        yield day
        at_ns = _nanoseconds(_begin(day)) - 1


def _by_day(
    rows: Sequence[R],
    folder: Path,
    table: str,
    wanted: Wanted,
    first: date | None,
    last: date | None,
) -> list[tuple[Item, list[R]]]:
    """Files and their rows, by the day of our time; see `plan`.

    Gaps of all symbols are together: some concern all of them.
    """
    found: dict[tuple[str, str | None, date], list[R]] = {}
    for row in rows:
        day = _day(row.received_ns)
        symbol = None if table == GAPS else row.symbol
        chosen = (first is None or first <= day) and (last is None or day <= last)
        if chosen and wanted(row.exchange, symbol):
            found.setdefault((row.exchange, symbol, day), []).append(row)
    return [(_item(folder, table, *key), rows) for key, rows in found.items()]


def _item(folder: Path, table: str, exchange: str, symbol: str | None, day: date) -> Item:
    names = [f"exchange={exchange}", *([f"symbol={symbol}"] if symbol else []), f"date={day}"]
    return Item(exchange, symbol, day, folder.joinpath(table, *names, "part.parquet"))


async def export(
    source: Source, items: Sequence[Item], table: str, *, overwrite: bool
) -> AsyncIterator[Done]:
    """Write files, telling of each.

    A file that was written after its day's end is left as it is, unless it has open gaps.

    Parameters
    ----------
    source : where to read
    items : of `plan`
    table : as for `plan`
    overwrite : write all again

    Raises
    ------
    StoreError
        the source failed, a file can't be written, or a value has too many digits for a file
    """
    for item in items:
        if not overwrite and _is_whole(item, table):
            yield Done(item, 0, kept=True)
            continue
        try:
            with Scratch() as scratch:
                await _gather(scratch, source, item, table)
                if scratch.count:
                    scratch.write(item.path)
        except OSError as error:
            raise StoreError(f"{item.path} can't be written: {error}") from error
        except duckdb.Error as error:
            raise StoreError(f"{item.path} can't be made: {error}") from error
        yield Done(item, scratch.count, kept=False)


async def _gather(scratch: Scratch, source: Source, item: Item, table: str) -> None:
    scratch.add_gaps(item.gaps)
    scratch.add_states(item.states)
    start = _begin(item.day)
    if item.symbol is None or table in (GAPS, STATES):
        return
    series = item.exchange, item.symbol
    if table == TRADES:
        async for page in source.trades(*series, start, start + _DAY):
            scratch.add_trades(page)
    elif table == BOOKS:
        await _gather_books(scratch, source, *series, start)
    else:
        interval = table.removeprefix("bars_")
        scratch.add_bars(await source.bars(*series, interval, start, start + _DAY))


async def _gather_books(
    scratch: Scratch, source: Source, exchange: str, symbol: str, start: datetime
) -> None:
    """Step from book to book, backwards: that is how all sources give them."""
    start_ns, at_ns = _nanoseconds(start), _nanoseconds(start + _DAY) - 1
    books: list[BookRow] = []
    book = await source.book(exchange, symbol, at_ns)
    while book is not None and book.timestamp_ns >= start_ns:
        books.append(book)
        if len(books) == PAGE_BOOKS:
            scratch.add_books(books)
            books = []
        book = await source.book(exchange, symbol, book.timestamp_ns - 1)
    scratch.add_books(books)


def _is_whole(item: Item, table: str) -> bool:
    try:
        written_ns = item.path.stat().st_mtime_ns
    except OSError:
        return False
    written_late = written_ns >= _nanoseconds(_begin(item.day) + _DAY)
    return written_late and not (table == GAPS and has_open_gaps(item.path))


def _day(time_ns: int) -> date:
    return (_EPOCH + timedelta(seconds=time_ns // NS_PER_SECOND)).date()


def _begin(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1) * NS_PER_SECOND
