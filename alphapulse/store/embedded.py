"""The embedded store: a DuckDB file, for one process.

DuckDB's calls block, so they run in threads: one writes, a few read, each with a cursor of its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.config import StoreSettings
from alphapulse.errors import StoreError
from alphapulse.fixed import INT64_MAX
from alphapulse.history import BookRow, GapRow, OrderKey, SeriesSummary, TradeRow, narrowed
from alphapulse.log import get_logger
from alphapulse.model import IdKind
from alphapulse.shm import Position
from alphapulse.store import tables
from alphapulse.store.bars import Part, regrouped, span_of_bars
from alphapulse.store.books import dump_book, load_book
from alphapulse.store.identity import Series, sift, text_ids
from alphapulse.store.recent import KEPT, RecentTrades
from alphapulse.store.repository import Repository, WriteBatch

T = TypeVar("T")

READERS = 2
"""Threads that answer queries."""
DATABASE_THREADS = 2
"""Threads that DuckDB may use for one query."""
SECONDS_BETWEEN_SWEEPS = 3600.0
"""How often trades older than the retention are deleted."""

_TIMES_MIN = -INT64_MAX
_LOCK_HOLDER = re.compile(r"\(PID (\d+)\)")

log = get_logger(__name__)


class EmbeddedStore(Repository):
    """History in a DuckDB file; made by `open`.

    Parameters
    ----------
    database : the open file, its tables there
    retention_ns : age at which trades are deleted, 0 for never
    pace_seconds : see `Store`; a transaction takes milliseconds of CPU time, however small it is
    """

    def __init__(
        self, database: duckdb.DuckDBPyConnection, retention_ns: int, pace_seconds: float
    ) -> None:
        self._database = database
        self._retention_ns = retention_ns
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self._local = threading.local()
        self.pace_seconds = pace_seconds
        self._series_ids: dict[tuple[str, str], int] = {}
        self._placed: set[str] = set()
        self._seen: dict[str, dict[str, Series]] | None = None
        # What summaries tell: as committed, and as it will be after the transaction under way.
        self._held: dict[tuple[str, str], SeriesSummary] = {}
        self._coming: dict[tuple[str, str], SeriesSummary] = {}
        self._recent = RecentTrades()
        self._added: list[TradeRow] = []
        self._swept = False
        self._next_sweep = 0.0
        self._closed = False

    @classmethod
    async def open(cls, settings: StoreSettings) -> EmbeddedStore:
        """Open the file of the settings, or create it.

        Raises
        ------
        StoreError
            another process has it open, it can't be created, or it is of another version
        """
        database = await asyncio.to_thread(_connect, settings)
        retention_ns = int(settings.retention_days * 86400) * NS_PER_SECOND
        store = cls(database, retention_ns, settings.batch_timeout_ms / 1000)
        await store._write(store._load)
        return store

    async def append(self, batch: WriteBatch) -> int:
        """See `Store`."""
        return await self._write(lambda cursor: self._append(cursor, batch))

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
        series = self._series_ids.get((exchange, symbol))
        if series is None:
            return []
        if newest and start_ns is None and end_ns is None and beyond is None:
            return await self._read_newest((exchange, symbol), series, limit)
        span = _span(*narrowed(start_ns, end_ns, beyond, newest))
        query = tables.select_trades(newest, beyond is not None)
        rows = await self._read(query, [series, *span, *(beyond or ()), _limit(limit)])
        trades = [tables.trade_of(row, exchange, symbol) for row in rows]
        return trades[::-1] if newest else trades

    async def _read_newest(
        self, key: tuple[str, str], series: int, limit: int | None
    ) -> list[TradeRow]:
        known = self._recent.read(key, limit)
        if known is None and limit is not None and limit <= KEPT:
            # In the writer's thread, so that nothing is added between reading and keeping.
            await self._run(self._writer, lambda: self._keep_newest(key, series))
            known = self._recent.read(key, limit)
        if known is not None:
            return known
        values = [series, *_span(None, None), _limit(limit)]
        rows = await self._read(tables.select_trades(True, False), values)
        return [tables.trade_of(row, *key) for row in reversed(rows)]

    def _keep_newest(self, key: tuple[str, str], series: int) -> None:
        query = tables.select_trades(True, False)
        rows = self._cursor().execute(query, [series, *_span(None, None), KEPT]).fetchall()
        self._recent.put(key, [tables.trade_of(row, *key) for row in reversed(rows)])

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
        if series is None:
            return []
        span = _span(*span_of_bars(interval_ns, start_ns, end_ns))
        direction = -1 if newest else 1
        rows = await self._read(
            tables.SELECT_PARTS, [interval_ns, interval_ns, series, *span, direction, _limit(limit)]
        )
        return regrouped(map(tables.part_of, rows), interval_ns)

    async def read_gaps(
        self, exchange: str, start_ns: int | None = None, end_ns: int | None = None
    ) -> list[GapRow]:
        """See `History`."""
        rows = await self._read(tables.SELECT_GAPS, [exchange, *_span(start_ns, end_ns)])
        return [tables.gap_of(row, exchange) for row in rows]

    async def read_book(
        self, exchange: str, symbol: str, at_ns: int | None = None
    ) -> BookRow | None:
        """See `History`; only the latest book is kept."""
        query = (
            "SELECT body FROM books WHERE exchange = ? AND symbol = ? AND timestamp_ns <= ? "
            "ORDER BY timestamp_ns DESC LIMIT 1"
        )
        rows = await self._read(query, [exchange, symbol, INT64_MAX if at_ns is None else at_ns])
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
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._database.close()

    async def _write(self, job: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await self._run(self._writer, lambda: self._in_transaction(job))

    async def _read(self, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
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

    def _in_transaction(self, job: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        cursor = self._cursor()
        cursor.execute("BEGIN")
        self._coming, self._added, self._swept = self._held, [], False
        try:
            result = job(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            # What is noted in memory may be ahead of the file now.
            self._seen = None
            self._roll_back(cursor)
            raise
        self._held = self._coming
        if self._swept:
            self._recent.clear()
        self._recent.add(self._added)
        return result

    def _roll_back(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.execute("ROLLBACK")
        except duckdb.Error as error:
            # A failed COMMIT has ended the transaction already.
            log.debug("nothing to roll back", problem=str(error))

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
        self._series_ids, self._seen = ids, seen
        self._coming = _summaries(cursor)
        return seen

    def _append(self, cursor: duckdb.DuckDBPyConnection, batch: WriteBatch) -> int:
        seen = self._load(cursor) if self._seen is None else self._seen
        series = seen.setdefault(batch.exchange, {})
        new = sift(batch.trades, series, self._known_texts(cursor, batch))
        if new:
            self._insert_trades(cursor, batch.exchange, new, series)
        for gap in batch.gaps:
            cursor.execute(
                "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tables.gap_values(gap)
            )
        for book in batch.books:
            key = [book.exchange, book.symbol]
            cursor.execute("DELETE FROM books WHERE exchange = ? AND symbol = ?", key)
            values = [*key, book.timestamp_ns, dump_book(book)]
            cursor.execute("INSERT INTO books VALUES (?, ?, ?, ?)", values)
        if batch.position is not None:
            self._place(cursor, batch.exchange, batch.position)
        self._added = new
        self._coming = _with_trades(self._coming, new)
        self._sweep(cursor, seen)
        return len(new)

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
        ids = [self._series_ids[exchange, row.symbol] for row in rows]
        cursor.register("new_trades", tables.trade_columns(rows, ids))
        try:
            cursor.execute(tables.INSERT_TRADES)
        finally:
            cursor.unregister("new_trades")

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

    def _sweep(self, cursor: duckdb.DuckDBPyConnection, seen: dict[str, dict[str, Series]]) -> None:
        if not self._retention_ns or time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + SECONDS_BETWEEN_SWEEPS
        oldest = wall_ns() - self._retention_ns
        for (exchange, symbol), number in self._series_ids.items():
            values = [seen[exchange][symbol].dump(), number]
            cursor.execute("UPDATE series SET ids = ? WHERE id = ?", values)
        cursor.execute("DELETE FROM trades WHERE timestamp_ns < ?", [oldest])
        cursor.execute("DELETE FROM gaps WHERE received_ns < ?", [oldest])
        self._coming = _summaries(cursor)
        self._swept = True


def _connect(settings: StoreSettings) -> duckdb.DuckDBPyConnection:
    path = Path(settings.path)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{settings.memory_limit_bytes}B",
        "threads": DATABASE_THREADS,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    try:
        database = duckdb.connect(str(path), config=config)
    except duckdb.Error as error:
        raise StoreError(_problem(path, str(error))) from error
    try:
        database.execute(tables.SCHEMA)
        row = database.execute("SELECT schema_version FROM about").fetchone()
        if row is None:
            database.execute("INSERT INTO about VALUES (?)", [tables.SCHEMA_VERSION])
        elif row[0] != tables.SCHEMA_VERSION:
            raise StoreError(
                f"{path} has tables of version {row[0]}, this program needs "
                f"{tables.SCHEMA_VERSION}; set store.path to another file"
            )
    except duckdb.Error as error:
        database.close()
        raise StoreError(_problem(path, str(error))) from error
    except StoreError:
        database.close()
        raise
    return database


def _summaries(cursor: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], SeriesSummary]:
    """What the tables hold, counted: it takes a scan of all trades."""
    rows = map(SeriesSummary._make, cursor.execute(tables.SELECT_SUMMARY).fetchall())
    return {(row.exchange, row.symbol): row for row in rows}


def _with_trades(
    held: dict[tuple[str, str], SeriesSummary], new: list[TradeRow]
) -> dict[tuple[str, str], SeriesSummary]:
    """Summaries after trades were added."""
    by_series: dict[tuple[str, str], list[int]] = {}
    for trade in new:
        by_series.setdefault((trade.exchange, trade.symbol), []).append(trade.timestamp_ns)
    found = dict(held)
    for key, times in by_series.items():
        first, last, count = min(times), max(times), len(times)
        if key in held:
            before = held[key]
            first, last = min(first, before.first_ns), max(last, before.last_ns)
            count += before.trades
        found[key] = SeriesSummary(*key, count, first, last)
    return found


def _problem(path: Path, text: str) -> str:
    holder = _LOCK_HOLDER.search(text)
    if "lock" not in text:
        return f"{path} can't be opened as a database: {text}"
    who = f"process {holder[1]}" if holder else "another process"
    return (
        f"{path} is open in {who}, and the embedded database serves one process at a time; "
        "stop that one, set store.path to another file, or use Redis (store.redis_url)"
    )


def _span(start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
    start = _TIMES_MIN if start_ns is None else max(start_ns, _TIMES_MIN)
    end = INT64_MAX if end_ns is None else min(end_ns, INT64_MAX)
    return start, end


def _limit(limit: int | None) -> int:
    return INT64_MAX if limit is None else limit
