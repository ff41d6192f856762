"""History as Parquet files, one for each symbol and day, exact.

A day is read in pages into a scratch database (in ``TMPDIR``) and written from there, so that
memory stays bounded. A file takes its name only when it is whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb
import numpy as np

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.errors import StoreError
from alphapulse.history import OrderKey, SeriesSummary, TradeRow
from alphapulse.model import IdKind
from alphapulse.repository import OhlcvBar
from alphapulse.store import tables
from alphapulse.store.repository import Store

PAGE_ROWS = 20_000
"""Trades read at once."""
MEMORY_LIMIT = "256MB"
"""Of the scratch database."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)

_CREATE_TRADES = """
CREATE TABLE trades (
    "timestamp" TIMESTAMP_NS NOT NULL,
    received TIMESTAMP_NS,
    trade_id VARCHAR NOT NULL,
    id_kind VARCHAR NOT NULL,
    price DECIMAL(38, 18) NOT NULL,
    volume DECIMAL(38, 18) NOT NULL,
    side VARCHAR NOT NULL,
    matches UINTEGER,
    filled BOOLEAN NOT NULL
)
"""

# A decimal times a power of ten has the digits of both: exact up to 38.
_INSERT_TRADES = """
INSERT INTO trades SELECT
    make_timestamp_ns(timestamp_ns),
    CASE WHEN received_ns <> $no_time THEN make_timestamp_ns(received_ns) END,
    trade_id,
    CAST($kinds AS VARCHAR[])[id_kind + 1],
    price::DECIMAL(19, 0) * CAST($powers AS DECIMAL(19, 18)[])[price_exponent + 1],
    size::DECIMAL(19, 0) * CAST($powers AS DECIMAL(19, 18)[])[size_exponent + 1],
    CASE side WHEN 2 THEN 'sell' ELSE 'buy' END,
    nullif(matches, 0),
    filled
FROM new_trades
"""

_CREATE_BARS = """
CREATE TABLE bars (
    "timestamp" TIMESTAMP_NS NOT NULL,
    open DECIMAL(38, 18) NOT NULL,
    high DECIMAL(38, 18) NOT NULL,
    low DECIMAL(38, 18) NOT NULL,
    close DECIMAL(38, 18) NOT NULL,
    volume DECIMAL(38, 18) NOT NULL,
    trades BIGINT NOT NULL
)
"""

_INSERT_BARS = """
INSERT INTO bars
SELECT make_timestamp_ns(timestamp_ns), open, high, low, close, volume, trades FROM new_bars
"""

_COPY = "COPY {table} TO '{path}' (FORMAT parquet, COMPRESSION zstd)"

_VALUES = {
    "no_time": NO_TIME,
    "kinds": [kind.text for kind in IdKind],
    "powers": [f"1e-{exponent}" for exponent in range(19)],
}


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


class StoreSource:
    """Reads a store.

    Parameters
    ----------
    store : open; stays open
    """

    def __init__(self, store: Store) -> None:
        self._store = store

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


class Item(NamedTuple):
    """One file to be."""

    exchange: str
    symbol: str
    day: date
    path: Path


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
    wanted: Callable[[SeriesSummary], bool],
    first: date | None,
    last: date | None,
) -> list[Item]:
    """The files of what a source has, by series and day.

    Parameters
    ----------
    source : asked for its series
    folder : where files go
    table : ``trades``, or ``bars_`` and an interval
    wanted : which series
    first, last : days (UTC), both included; None for no bound. Bars may begin before the trades
        that are left, and are looked for from `first` on.
    """
    items = []
    for series in filter(wanted, await source.series()):
        begin, until = _day(series.first_ns), _day(series.last_ns)
        day = begin if first is None else first if table != "trades" else max(begin, first)
        until = until if last is None else min(until, last)
        names = f"exchange={series.exchange}", f"symbol={series.symbol}"
        while day <= until:
            path = folder.joinpath(table, *names, f"date={day}", "part.parquet")
            items.append(Item(series.exchange, series.symbol, day, path))
            day += _DAY
    return items


async def export(
    source: Source, items: Sequence[Item], table: str, *, overwrite: bool
) -> AsyncIterator[Done]:
    """Write files, telling of each.

    A file that was written after its day's end is left as it is.

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
        if not overwrite and _is_whole(item):
            yield Done(item, 0, kept=True)
            continue
        try:
            with _scratch() as database:
                rows = await _gather(database, source, item, table)
                if rows:
                    _write(database, item.path, "trades" if table == "trades" else "bars")
        except OSError as error:
            raise StoreError(f"{item.path} can't be written: {error}") from error
        except duckdb.Error as error:
            raise StoreError(f"{item.path} can't be made: {error}") from error
        yield Done(item, rows, kept=False)


async def _gather(
    database: duckdb.DuckDBPyConnection, source: Source, item: Item, table: str
) -> int:
    start = _begin(item.day)
    span = start, start + _DAY
    if table != "trades":
        interval = table.removeprefix("bars_")
        bars = await source.bars(item.exchange, item.symbol, interval, *span)
        if bars:
            _add_bars(database, bars)
        return len(bars)
    database.execute(_CREATE_TRADES)
    count = 0
    async for page in source.trades(item.exchange, item.symbol, *span):
        columns = tables.trade_columns(page, [0] * len(page), 0)
        columns["trade_id"] = np.array([row.trade_id for row in page], object)
        database.register("new_trades", columns)
        database.execute(_INSERT_TRADES, _VALUES)
        database.unregister("new_trades")
        count += len(page)
    return count


def _add_bars(database: duckdb.DuckDBPyConnection, bars: Sequence[OhlcvBar]) -> None:
    database.execute(_CREATE_BARS)
    times = [int(bar.timestamp * NS_PER_SECOND) for bar in bars]
    columns = {
        "timestamp_ns": np.array(times, np.int64),
        "trades": np.array([bar.trades for bar in bars], np.int64),
    }
    for name in ("open", "high", "low", "close", "volume"):
        columns[name] = np.array([f"{getattr(bar, name):f}" for bar in bars], object)
    database.register("new_bars", columns)
    database.execute(_INSERT_BARS)


@contextmanager
def _scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    with tempfile.TemporaryDirectory(prefix="alphapulse-export-") as scratch:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(f"{scratch}/scratch.duckdb", config=config) as database:
            yield database


def _write(database: duckdb.DuckDBPyConnection, path: Path, table: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        if not Path("/proc", left.suffix[1:]).exists():
            left.unlink(missing_ok=True)
    # The name begins with a dot: whoever reads the folder meanwhile doesn't see it.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        database.execute(_COPY.format(table=table, path=str(unfinished).replace("'", "''")))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_whole(item: Item) -> bool:
    try:
        written_ns = item.path.stat().st_mtime_ns
    except OSError:
        return False
    return written_ns >= _nanoseconds(_begin(item.day) + _DAY)


def _day(time_ns: int) -> date:
    return (_EPOCH + timedelta(seconds=time_ns // NS_PER_SECOND)).date()


def _begin(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1) * NS_PER_SECOND
