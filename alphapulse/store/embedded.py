"""The embedded store: a DuckDB file, for one process.

DuckDB's calls block, so they run in threads: one writes, a few read, each with a cursor of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from alphapulse.clock import wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.fixed import INT64_MAX
from alphapulse.history import (
    BookRow,
    GapRow,
    OrderKey,
    SeriesSummary,
    StateRow,
    TradeRow,
    at_most,
    narrowed,
)
from alphapulse.log import get_logger
from alphapulse.model import IdKind
from alphapulse.shm import Position
from alphapulse.store import tables
from alphapulse.store.bars import Part, regrouped
from alphapulse.store.books import dump_book, load_book
from alphapulse.store.embedded_bars import BarTables
from alphapulse.store.embedded_file import connect, transaction
from alphapulse.store.embedded_retention import Retention, reclaim
from alphapulse.store.embedded_summaries import Summaries, counted, with_added
from alphapulse.store.embedded_trades import read_span
from alphapulse.store.identity import Series, sift, text_ids
from alphapulse.store.recent import KEPT, RecentTrades
from alphapulse.store.repository import Repository, WriteBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]

T = TypeVar("T")

READERS = 2
"""Threads that answer queries."""
WRITER_NICENESS = 5
"""How far the writer's thread gives way where CPUs are scarce: someone waits for each answer, and
what has to be written can wait for a moment. It still gets a quarter of a CPU."""

_TIMES_MIN = -INT64_MAX

log = get_logger(__name__)


class EmbeddedStore(Repository):
    """History in a DuckDB file; made by `open`.

    Parameters
    ----------
    database : the open file, its tables there
    settings : section ``store``
    read_only : whether nothing is written
    """

    def __init__(
        self, database: duckdb.DuckDBPyConnection, settings: StoreSettings, *, read_only: bool
    ) -> None:
        self._database = database
        self._retention = Retention(settings)
        self._read_only = read_only
        self._writer = ThreadPoolExecutor(1, "store-writer", _give_way)
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self._local = threading.local()
        # A transaction takes milliseconds of CPU time, however small it is.
        self.pace_seconds = settings.batch_timeout_ms / 1000
        self._series_ids: dict[tuple[str, str], int] = {}
        self._placed: set[str] = set()
        self._seen: dict[str, dict[str, Series]] | None = None
        self._entries = 0
        self._gap_id = 0
        # As committed; replaced, never changed.
        self._held: Summaries = {}
        self._bars = BarTables()
        self._recent = RecentTrades()
        self._upkeep: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, settings: StoreSettings, *, read_only: bool = False) -> EmbeddedStore:
        """Open the file of the settings, or create it.

        Parameters
        ----------
        settings : section ``store``
        read_only : change nothing, not even by retention; several processes may read a file that
            none writes

        Raises
        ------
        StoreError
            another process has it open, it can't be created, or it is of another version
        """
        database = await asyncio.to_thread(connect, settings, read_only=read_only)
        store = cls(database, settings, read_only=read_only)
        try:
            await store._run(store._writer, store._start)
        except BaseException:
            await store.close()
            raise
        if not read_only and store._retention.limited:
            sweep = partial(store._run, store._writer, store._sweep)
            store._upkeep = asyncio.create_task(store._retention.run(sweep))
        return store

    def _start(self) -> None:
        cursor = self._cursor()
        self._load(cursor)
        self._bars.load(cursor, self._entries, write=not self._read_only)

    async def append(self, batch: WriteBatch) -> int:
        """See `Store`."""
        if self._read_only:
            raise StoreError("the store is open for reading only")
        return await self._run(self._writer, lambda: self._commit(batch))

    async def position(self, exchange: str) -> Position | None:
        """See `Store`."""
        query = "SELECT epoch, sequence FROM positions WHERE exchange = ?"
        rows = await self._read(query, [exchange])
        return Position(*rows[0]) if rows else None

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
        """See `History`."""
        key = exchange, symbol
        if newest and start_ns is None and end_ns is None and beyond is None:
            known = await self._newest(key, limit)
            if known is not None:
                return known
        span = _span(*narrowed(start_ns, end_ns, beyond, newest))
        read = partial(self._read_trades, key, span, limit, newest=newest, beyond=beyond)
        return await self._run(self._readers, read)

    async def _newest(self, key: tuple[str, str], limit: int | None) -> list[TradeRow] | None:
        self._check_open()
        known = self._recent.read(key, limit)
        if known is None and limit is not None and limit <= KEPT and key in self._held:
            # In the writer's thread, so that nothing is added between reading and keeping.
            await self._run(self._writer, lambda: self._keep_newest(key))
            known = self._recent.read(key, limit)
        return known

    def _keep_newest(self, key: tuple[str, str]) -> None:
        self._recent.put(key, self._read_trades(key, _span(None, None), KEPT, newest=True))

    def _read_trades(
        self,
        key: tuple[str, str],
        span: tuple[int, int],
        limit: int | None,
        *,
        newest: bool,
        beyond: OrderKey | None = None,
    ) -> list[TradeRow]:
        series, held = self._series_ids.get(key), self._held.get(key)
        trades: list[TradeRow] = []
        if series is None or held is None:
            return trades
        start, end = max(span[0], held.first_ns), min(span[1], held.last_ns)
        width = None
        if limit is not None:
            # The time that holds a few more on the average.
            width = 5 * limit * (held.last_ns - held.first_ns) // (4 * held.trades)
        for window in _windows(start, end, width, newest):
            trades = read_span(
                self._cursor(), key, series, window, limit, newest=newest, beyond=beyond
            )
            if len(trades) == limit:
                break
        return trades

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
        """See `Store`."""
        series = self._series_ids.get((exchange, symbol))
        known = None if series is None else self._bars.span(series)
        if series is None or known is None:
            return []
        start, end = _span(start_ns, end_ns)
        start, end = max(start, known[0] - interval_ns), min(end, known[1])
        width = None if limit is None else limit * interval_ns
        parts: list[Part] = []
        for window in _windows(start, end, width, newest):
            read = partial(self._bars.read, self._cursor, series, interval_ns, *window)
            parts = regrouped(await self._run(self._readers, read), interval_ns)
            if limit is not None and len(parts) >= limit:
                return at_most(limit, parts, newest)
        return parts

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
        """See `History`."""
        start, end = _span(*narrowed(start_ns, end_ns, beyond, newest))
        values = {"exchange": exchange, "start": start, "end": end, "symbol": symbol}
        query = tables.select_gaps(newest, beyond is not None)
        if beyond is not None:
            values |= {"time": beyond[0], "text": beyond[2]}
        rows = await self._read(query, {**values, "limit": _limit(limit)})
        found = [tables.gap_of(row, exchange) for row in rows]
        return found[::-1] if newest else found

    async def read_states(
        self,
        exchange: str,
        symbol: str,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
    ) -> list[StateRow]:
        """See `History`."""
        values = [exchange, symbol, *_span(start_ns, end_ns), _limit(limit)]
        rows = await self._read(tables.SELECT_STATES, values)
        return [tables.state_of(row, exchange, symbol) for row in reversed(rows)]

    async def read_book(
        self, exchange: str, symbol: str, at_ns: int | None = None
    ) -> BookRow | None:
        """See `History`."""
        _, at = _span(None, at_ns)
        values = {"exchange": exchange, "symbol": symbol, "at": at}
        rows = await self._read(tables.SELECT_BOOK, values)
        return load_book(rows[0][0]) if rows else None

    async def summarise(self) -> list[SeriesSummary]:
        """See `History`."""
        self._check_open()
        return [self._held[key] for key in sorted(self._held)]

    async def ping(self) -> None:
        """See `History`."""
        await self._read("SELECT 1", [])

    async def close(self) -> None:
        """Wait for what is under way, then close the file. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        if not self._read_only:
            self._writer.submit(self._finish)
        self._writer.shutdown()
        self._readers.shutdown()
        self._database.close()

    def _finish(self) -> None:
        try:
            self._bars.write(self._cursor(), self._entries)
        except duckdb.Error as error:
            # They are made of the trades again when the file is opened.
            log.warning("the latest bars are not written", problem=str(error))

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    async def _read(self, query: str, values: Any) -> list[tuple[Any, ...]]:
        return await self._run(
            self._readers, lambda: self._cursor().execute(query, values).fetchall()
        )

    async def _run(self, threads: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        self._check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, job)
        except duckdb.Error as error:
            raise StoreError(f"the embedded database failed: {error}") from error

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._database.cursor()
        return cursor

    def _commit(self, batch: WriteBatch) -> int:
        cursor = self._cursor()
        try:
            with transaction(cursor):
                new, columns = self._append(cursor, batch)
        except BaseException:
            # What is noted in memory may be ahead of the file now.
            self._seen = None
            raise
        if new:
            self._entries += len(new)
            self._held = with_added(self._held, columns, self._series_ids)
            self._recent.add(new)
            self._bars.add(columns)
        if self._bars.due:
            self._bars.write(cursor, self._entries)
        return len(new)

    def _load(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Series]]:
        seen: dict[str, dict[str, Series]] = {}
        ids = {}
        by_id = {}
        cursor.execute("SELECT id, exchange, symbol, ids FROM series")
        for number, exchange, symbol, text in cursor.fetchall():
            ids[exchange, symbol] = number
            by_id[number] = seen.setdefault(exchange, {})[symbol] = Series.load(text)
        cursor.execute(tables.SELECT_HIGHEST)
        for number, kind, highest in cursor.fetchall():
            by_id[number].extend(IdKind(kind), highest)
        cursor.execute("SELECT exchange FROM positions")
        self._placed = {exchange for (exchange,) in cursor.fetchall()}
        ((self._entries,),) = cursor.execute(tables.SELECT_ENTRIES).fetchall()
        self._series_ids, self._seen = ids, seen
        self._held = counted(cursor)
        return seen

    def _append(
        self, cursor: duckdb.DuckDBPyConnection, batch: WriteBatch
    ) -> tuple[list[TradeRow], Columns]:
        """Write a batch; its trades that are new, and as columns if there are any."""
        seen = self._load(cursor) if self._seen is None else self._seen
        series = seen.setdefault(batch.exchange, {})
        new = sift(batch.trades, series, self._known_texts(cursor, batch))
        columns = self._insert_trades(cursor, batch.exchange, new, series) if new else {}
        for gap in batch.gaps:
            # By the time, so that no id comes again after the newest gap was deleted.
            self._gap_id = max(self._gap_id + 1, wall_ns())
            cursor.execute(tables.INSERT_GAP, tables.gap_values(gap, self._gap_id))
        for fill in batch.fills:
            cursor.execute(tables.FILL_GAP, tables.fill_values(fill, batch.exchange))
        for state in batch.states:
            cursor.execute(tables.INSERT_STATE, tables.state_values(state))
        for book in batch.books:
            values = [book.exchange, book.symbol, book.timestamp_ns, dump_book(book)]
            cursor.execute(tables.INSERT_BOOK, values)
        if batch.position is not None:
            self._place(cursor, batch.exchange, batch.position)
        return new, columns

    def _place(self, cursor: duckdb.DuckDBPyConnection, exchange: str, position: Position) -> None:
        if exchange in self._placed:
            query = "UPDATE positions SET epoch = ?, sequence = ? WHERE exchange = ?"
        else:
            query = "INSERT INTO positions (epoch, sequence, exchange) VALUES (?, ?, ?)"
            self._placed.add(exchange)
        cursor.execute(query, [*position, exchange])

    def _insert_trades(
        self,
        cursor: duckdb.DuckDBPyConnection,
        exchange: str,
        rows: list[TradeRow],
        series: dict[str, Series],
    ) -> Columns:
        for symbol in dict.fromkeys(row.symbol for row in rows):
            known = self._series_ids.get((exchange, symbol))
            if known is None:
                known = len(self._series_ids) + 1
                values: list[Any] = [known, exchange, symbol, series[symbol].dump()]
                cursor.execute("INSERT INTO series VALUES (?, ?, ?, ?)", values)
                self._series_ids[exchange, symbol] = known
            elif series[symbol].changed:
                # That the highest range goes on is told by the trades themselves (`_load`).
                values = [series[symbol].dump(), known]
                cursor.execute("UPDATE series SET ids = ? WHERE id = ?", values)
        numbers = [self._series_ids[exchange, row.symbol] for row in rows]
        new_trades = tables.trade_columns(rows, numbers, self._entries)
        # DuckDB finds the variable that the statement names: to register a view takes longer.
        cursor.execute(tables.insert_trades(new_trades))
        return new_trades

    def _known_texts(
        self, cursor: duckdb.DuckDBPyConnection, batch: WriteBatch
    ) -> set[tuple[str, str]]:
        known = set()
        for symbol, trade_id in text_ids(batch.trades):
            cursor.execute(
                "SELECT 1 FROM trades WHERE series = ? AND id_kind = 2 AND trade_text = ? LIMIT 1",
                [self._series_ids.get((batch.exchange, symbol), 0), trade_id],
            )
            if cursor.fetchall():
                known.add((symbol, trade_id))
        return known

    def _sweep(self) -> bool:
        """Delete a piece of what is old; whether there is more."""
        cursor = self._cursor()
        # No trade is deleted that bars don't have.
        self._bars.write(cursor, self._entries)
        if self._retention.delete_trades(cursor, self._note_ids):
            self._recent.clear()
            return True
        if self._retention.delete_others(cursor, self._bars):
            self._held = counted(cursor)
        reclaim(cursor)
        return False

    def _note_ids(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Write which trades were seen; trades that are deleted don't tell it any more."""
        seen = self._load(cursor) if self._seen is None else self._seen
        for (exchange, symbol), number in self._series_ids.items():
            values = [seen[exchange][symbol].dump(), number]
            cursor.execute("UPDATE series SET ids = ? WHERE id = ?", values)


def _give_way() -> None:
    thread = threading.get_native_id()
    try:
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, before + WRITER_NICENESS)
    except OSError as error:
        # As in containers that allow no such call. Queries wait a little longer then.
        log.info("the history's writer doesn't give way to queries", problem=str(error))


def _windows(start: int, end: int, width: int | None, newest: bool) -> Iterator[tuple[int, int]]:
    """Ever longer spans from one end of a span, the last one whole; none of an empty span."""
    while width is not None and width < end - start:
        yield (end - width, end) if newest else (start, start + width)
        width = (width + 1) * 16
    if start <= end:
        yield start, end


def _span(start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
    start = _TIMES_MIN if start_ns is None else max(start_ns, _TIMES_MIN)
    end = INT64_MAX if end_ns is None else min(end_ns, INT64_MAX)
    return start, end


def _limit(limit: int | None) -> int:
    return INT64_MAX if limit is None else limit
