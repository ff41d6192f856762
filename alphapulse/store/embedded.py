"""The embedded store: a DuckDB file, for one process.

DuckDB's calls block, so they run in threads: one writes, a few read, each with a cursor of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from alphapulse.clock import NS_PER_SECOND, wall_ns
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
    narrowed,
)
from alphapulse.log import get_logger
from alphapulse.model import IdKind
from alphapulse.shm import Position
from alphapulse.store import tables
from alphapulse.store.bars import STORED, Part, regrouped
from alphapulse.store.books import dump_book, load_book
from alphapulse.store.embedded_bars import BarTables
from alphapulse.store.embedded_file import connect, transaction
from alphapulse.store.embedded_trades import read_span
from alphapulse.store.identity import Series, sift, text_ids
from alphapulse.store.recent import KEPT, RecentTrades
from alphapulse.store.repository import Repository, WriteBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

READERS = 2
"""Threads that answer queries."""
WRITER_NICENESS = 5
"""How far the writer's thread gives way where CPUs are scarce: someone waits for each answer, and
what has to be written can wait for a moment. It still gets a quarter of a CPU."""
SECONDS_BETWEEN_SWEEPS = 3600.0
"""How often what is older than the retention is deleted."""
ROWS_AT_ONCE = 100_000
"""Trades deleted in one transaction, about; others go on in between."""

_TIMES_MIN = -INT64_MAX
_DAY_NS = 86400 * NS_PER_SECOND

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
        self._retention_ns = int(settings.retention_days * _DAY_NS)
        self._bar_retention_ns = int(settings.bar_retention_days * _DAY_NS)
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
        # What summaries tell: as committed, and as it will be after the transaction under way.
        self._held: dict[tuple[str, str], SeriesSummary] = {}
        self._coming: dict[tuple[str, str], SeriesSummary] = {}
        self._bars = BarTables()
        self._recent = RecentTrades()
        self._added: list[TradeRow] = []
        self._columns: dict[str, NDArray[Any]] = {}
        self._swept = False
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
        if not read_only and (store._retention_ns or store._bar_retention_ns):
            store._upkeep = asyncio.create_task(store._keep_up())
        return store

    def _start(self) -> None:
        cursor = self._cursor()
        self._load(cursor)
        self._held = self._coming
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
        known = self._recent.read(key, limit)
        if known is None and limit is not None and limit <= KEPT:
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
                return parts[-limit:] if newest else parts[:limit]
        return parts

    async def read_gaps(
        self, exchange: str, start_ns: int | None = None, end_ns: int | None = None
    ) -> list[GapRow]:
        """See `History`."""
        rows = await self._read(tables.SELECT_GAPS, [exchange, *_span(start_ns, end_ns)])
        return [tables.gap_of(row, exchange) for row in rows]

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
        if self._closed:
            raise StoreError("the store is closed")
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

    async def _read(self, query: str, values: Any) -> list[tuple[Any, ...]]:
        return await self._run(
            self._readers, lambda: self._cursor().execute(query, values).fetchall()
        )

    async def _run(self, threads: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
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
        self._coming, self._added = self._held, []
        try:
            with transaction(cursor):
                self._append(cursor, batch)
        except BaseException:
            # What is noted in memory may be ahead of the file now.
            self._seen = None
            raise
        self._held = self._coming
        if self._added:
            self._entries += len(self._added)
            self._recent.add(self._added)
            self._bars.add(self._columns)
        if self._bars.due:
            self._bars.write(cursor, self._entries)
        return len(self._added)

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
        self._coming = _summaries(cursor)
        return seen

    def _append(self, cursor: duckdb.DuckDBPyConnection, batch: WriteBatch) -> None:
        seen = self._load(cursor) if self._seen is None else self._seen
        series = seen.setdefault(batch.exchange, {})
        new = sift(batch.trades, series, self._known_texts(cursor, batch))
        if new:
            self._insert_trades(cursor, batch.exchange, new, series)
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
        self._added = new
        if new:
            keys = {(batch.exchange, row.symbol) for row in new}
            self._coming = self._with_trades(self._coming, keys)

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
    ) -> None:
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
        new_trades = self._columns = tables.trade_columns(rows, numbers, self._entries)
        # DuckDB finds the variable that the statement names: to register a view takes longer.
        cursor.execute(tables.insert_trades(new_trades))

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

    def _with_trades(
        self, held: dict[tuple[str, str], SeriesSummary], keys: set[tuple[str, str]]
    ) -> dict[tuple[str, str], SeriesSummary]:
        """Summaries after the trades in `_columns`, of these series, were added."""
        found = dict(held)
        all_times, numbers = self._columns["timestamp_ns"], self._columns["series"]
        for key in keys:
            times = all_times[numbers == self._series_ids[key]]
            first, last, count = int(times.min()), int(times.max()), len(times)
            if key in held:
                before = held[key]
                first, last = min(first, before.first_ns), max(last, before.last_ns)
                count += before.trades
            found[key] = SeriesSummary(*key, count, first, last)
        return found

    async def _keep_up(self) -> None:
        """Delete what is older than the retention, in pieces, for as long as the store is open."""
        while True:
            try:
                while await self._run(self._writer, self._sweep):
                    pass
            except StoreError as error:
                log.warning("old history is not being deleted", problem=str(error))
            await asyncio.sleep(SECONDS_BETWEEN_SWEEPS)

    def _sweep(self) -> bool:
        """Delete a piece; whether there is more."""
        cursor = self._cursor()
        now = wall_ns()
        # No trade is deleted that bars don't have.
        self._bars.write(cursor, self._entries)
        if self._retention_ns and self._sweep_trades(cursor, now - self._retention_ns):
            return True
        with transaction(cursor):
            if self._retention_ns:
                for query in tables.DELETE_OLD:
                    cursor.execute(query, [now - self._retention_ns])
                # Those of a second, of which there are many, live no longer than the trades.
                self._bars.forget(cursor, STORED[:1], now - self._retention_ns)
            if self._bar_retention_ns:
                self._bars.forget(cursor, STORED, now - self._bar_retention_ns)
        if self._swept:
            self._held = _summaries(cursor)
            self._swept = False
        try:
            # Gives the space of deleted rows to later ones; also done as the log grows.
            cursor.execute("CHECKPOINT")
        except duckdb.TransactionException as error:
            log.debug("no checkpoint now", problem=str(error))
        return False

    def _sweep_trades(self, cursor: duckdb.DuckDBPyConnection, oldest_ns: int) -> bool:
        """Delete some trades that are older; whether there were any."""
        bounds = [oldest_ns, ROWS_AT_ONCE]
        ((last_ns,),) = cursor.execute(tables.SELECT_OLD, bounds).fetchall()
        if last_ns is None:
            return False
        with transaction(cursor):
            seen = self._load(cursor) if self._seen is None else self._seen
            for (exchange, symbol), number in self._series_ids.items():
                # The trades tell no more where the highest range ends.
                values = [seen[exchange][symbol].dump(), number]
                cursor.execute("UPDATE series SET ids = ? WHERE id = ?", values)
            cursor.execute("DELETE FROM trades WHERE timestamp_ns <= ?", [last_ns])
        self._swept = True
        self._recent.clear()
        return True


def _give_way() -> None:
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, before + WRITER_NICENESS)


def _summaries(cursor: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], SeriesSummary]:
    """What the tables hold, counted: it takes a scan of all trades."""
    rows = map(SeriesSummary._make, cursor.execute(tables.SELECT_SUMMARY).fetchall())
    return {(row.exchange, row.symbol): row for row in rows}


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
