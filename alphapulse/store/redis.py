"""The Redis store: a stream per venue and symbol, written in transactions (docs/store.md).

A venue's keys share a hash tag, so that a transaction holds in a cluster. Each transaction raises
the venue's ``commits``, which is watched: what this process remembers of the venue holds as long as
nobody else has written, and a transaction built on anything older is refused.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import redis.asyncio
import redis.exceptions
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from alphapulse import metrics
from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.config import StoreSettings
from alphapulse.config.values import RedisUrl, masked
from alphapulse.errors import StoreError
from alphapulse.history import BookRow, GapRow, OrderKey, SeriesSummary, TradeRow
from alphapulse.shm import Position
from alphapulse.store.bars import Part, parts_of, span_of_bars
from alphapulse.store.books import dump_book, load_book
from alphapulse.store.entries import (
    NS_PER_MS,
    Entry,
    EntryId,
    Keys,
    gap_fields,
    gap_of,
    parse_entry_id,
    trade_fields,
)
from alphapulse.store.identity import Series, sift, text_ids
from alphapulse.store.redis_reader import PAGE, StreamReader, done
from alphapulse.store.repository import Repository, WriteBatch

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_TIMEOUT_SECONDS = 10.0
SECONDS_BETWEEN_SWEEPS = 3600.0
"""How often trades older than the retention are deleted."""
SUMMARY_SECONDS = 1.0
"""How long a summary is given again, unless this process has written since."""
ATTEMPTS = 5
"""Tries of a transaction in whose way others come."""


class _Known:
    """What this process remembers of a venue, as of a number of commits."""

    def __init__(self, commits: bytes | None) -> None:
        self.commits = int(commits or 0)
        self.series: dict[str, Series] = {}
        self.last: dict[str, EntryId] = {}


class RedisStore(Repository):
    """History in Redis 7 or Valkey; made by `open`.

    Parameters
    ----------
    writer, reader : clients, connected on first use; the first one tries everything only once
    prefix : first part of all keys' names
    retention_ns : age at which trades are deleted, 0 for never
    address : for messages, without password
    """

    pace_seconds = 0.0

    def __init__(
        self,
        writer: redis.asyncio.Redis,
        reader: redis.asyncio.Redis,
        prefix: str,
        retention_ns: int,
        address: str,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._prefix = prefix
        self._retention_ns = retention_ns
        self._address = address
        self._known: dict[str, _Known] = {}
        self._next_sweep: dict[tuple[str, str], float] = {}
        self._summary: tuple[float, list[SeriesSummary]] | None = None

    @classmethod
    async def open(cls, settings: StoreSettings, prefix: str) -> RedisStore:
        """A store at the address of the settings; it may be down as yet.

        Parameters
        ----------
        settings : section ``store`` of the settings
        prefix : ``ring.prefix`` of the settings; installations with different ones don't meet
        """
        # A transaction that may have been committed must not be sent again blindly.
        writer = _connect(settings.redis_url, Retry(NoBackoff(), 0))
        reader = _connect(settings.redis_url, Retry(ExponentialBackoff(cap=0.1, base=0.01), 2))
        address = str(masked(settings.redis_url, RedisUrl))
        retention_ns = int(settings.retention_days * 86400) * NS_PER_SECOND
        return cls(writer, reader, prefix, retention_ns, address)

    async def append(self, batch: WriteBatch) -> int:
        """See `Store`."""
        async with self._operation("append"):
            if batch.exchange not in self._known:
                await done(self._reader.sadd(self._exchanges, batch.exchange))
            for _ in range(ATTEMPTS):
                try:
                    async with self._writer.pipeline(transaction=True) as pipe:
                        return await self._transact(pipe, batch)
                except redis.exceptions.WatchError:
                    self._known.pop(batch.exchange, None)
                except BaseException:
                    # Whether it was committed isn't known: look again before the next one.
                    self._known.pop(batch.exchange, None)
                    raise
        raise StoreError(
            f"another writer keeps changing the history of {batch.exchange} at {self._address}"
        )

    async def position(self, exchange: str) -> Position | None:
        """See `Store`."""
        key = Keys(self._prefix, exchange).position
        async with self._operation("position"):
            epoch, sequence = await done(self._reader.hmget(key, ["epoch", "sequence"]))
        return None if epoch is None else Position(int(epoch), int(sequence))

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
        reader = StreamReader(self._reader, Keys(self._prefix, exchange), exchange, symbol)
        async with self._operation("read_trades"):
            return await reader.read(start_ns, end_ns, limit, newest, beyond)

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
        """See `Store`. Trades are read page by page, so that memory stays bounded."""
        start, end = span_of_bars(interval_ns, start_ns, end_ns)
        found: list[Part] = []
        size = PAGE
        while True:
            rows = await self.read_trades(exchange, symbol, start, end, size, newest=newest)
            page = parts_of(rows, interval_ns)
            whole = len(rows) < size
            if not whole and len(page) == 1:
                size *= 4
                continue
            if not whole:
                # The page may end amid this bar: the next page begins with it.
                cut = page.pop(0 if newest else -1).begin_ns
                start, end = (start, cut + interval_ns - 1) if newest else (cut, end)
            found = page + found if newest else found + page
            if whole or (limit is not None and len(found) >= limit):
                break
        if limit is None:
            return found
        return found[-limit:] if newest else found[:limit]

    async def read_gaps(
        self, exchange: str, start_ns: int | None = None, end_ns: int | None = None
    ) -> list[GapRow]:
        """See `History`."""
        async with self._operation("read_gaps"):
            entries: list[Entry] = await done(
                self._reader.xrange(Keys(self._prefix, exchange).gaps)
            )
        gaps = [gap_of(fields, exchange) for _, fields in entries]
        return sorted(
            (
                gap
                for gap in gaps
                if (start_ns is None or gap.received_ns >= start_ns)
                and (end_ns is None or gap.received_ns <= end_ns)
            ),
            key=lambda gap: gap.received_ns,
        )

    async def read_book(
        self, exchange: str, symbol: str, at_ns: int | None = None
    ) -> BookRow | None:
        """See `History`; only the latest book is kept."""
        async with self._operation("read_book"):
            text = await done(self._reader.get(Keys(self._prefix, exchange).book(symbol)))
        book = None if text is None else load_book(text)
        return book if book is None or at_ns is None or book.timestamp_ns <= at_ns else None

    async def summarise(self) -> list[SeriesSummary]:
        """See `History`; at most `SUMMARY_SECONDS` old."""
        if self._summary is not None and time.monotonic() < self._summary[0]:
            return self._summary[1]
        found: list[SeriesSummary] = []
        async with self._operation("summarise"):
            for name in sorted(await done(self._reader.smembers(self._exchanges))):
                exchange = name.decode()
                keys = Keys(self._prefix, exchange)
                for symbol in sorted(await done(self._reader.hkeys(keys.series))):
                    summary = await self._summarise(keys, exchange, symbol.decode())
                    found += [summary] if summary else []
        self._summary = time.monotonic() + SUMMARY_SECONDS, found
        return found

    async def _summarise(self, keys: Keys, exchange: str, symbol: str) -> SeriesSummary | None:
        reader = StreamReader(self._reader, keys, exchange, symbol)
        first = await reader.read(None, None, 1, False)
        last = await reader.read(None, None, 1, True)
        count = await done(self._reader.xlen(keys.trades(symbol)))
        if not (first and last):
            return None
        return SeriesSummary(exchange, symbol, count, first[0].timestamp_ns, last[0].timestamp_ns)

    async def ping(self) -> None:
        """See `History`."""
        async with self._operation("ping"):
            await done(self._reader.ping())

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._writer.aclose()
        await self._reader.aclose()

    @property
    def _exchanges(self) -> str:
        return f"{self._prefix}:exchanges"

    @asynccontextmanager
    async def _operation(self, operation: str) -> AsyncIterator[None]:
        began = time.perf_counter()
        status = "error"
        try:
            yield
            status = "ok"
        except (redis.exceptions.RedisError, OSError) as error:
            raise StoreError(f"Redis at {self._address} failed: {error}") from error
        finally:
            metrics.REDIS_OPERATIONS.bind(operation=operation, status=status).inc()
            milliseconds = (time.perf_counter() - began) * 1000
            metrics.REDIS_OPERATION_LATENCY.bind(operation=operation).observe(milliseconds)

    async def _transact(self, pipe: Pipeline, batch: WriteBatch) -> int:
        keys = Keys(self._prefix, batch.exchange)
        await pipe.watch(keys.commits)
        commits: bytes | None = await done(pipe.get(keys.commits))
        known = self._known.get(batch.exchange)
        if known is None or known.commits != int(commits or 0):
            known = await _load(pipe, keys, commits)
        new = sift(batch.trades, known.series, await _known_texts(pipe, keys, batch))
        pipe.multi()
        for row in new:
            _add_trade(pipe, keys, known, row)
        touched = {row.symbol for row in new}
        if touched:
            texts = {symbol: known.series[symbol].dump() for symbol in touched}
            pipe.hset(keys.series, mapping=cast("dict[Any, Any]", texts))
        for gap in batch.gaps:
            pipe.xadd(keys.gaps, gap_fields(gap))
        for book in batch.books:
            pipe.set(keys.book(book.symbol), dump_book(book))
        if batch.position is not None:
            pipe.hset(keys.position, mapping=cast("dict[Any, Any]", batch.position._asdict()))
        for symbol in touched:
            self._sweep(pipe, keys, batch.exchange, symbol)
        pipe.incr(keys.commits)
        answers = await pipe.execute()
        known.commits = answers[-1]
        self._known[batch.exchange] = known
        self._summary = None
        return len(new)

    def _sweep(self, pipe: Pipeline, keys: Keys, exchange: str, symbol: str) -> None:
        now = time.monotonic()
        if not self._retention_ns or now < self._next_sweep.get((exchange, symbol), 0):
            return
        self._next_sweep[exchange, symbol] = now + SECONDS_BETWEEN_SWEEPS
        oldest_ms = (wall_ns() - self._retention_ns) // NS_PER_MS
        pipe.xtrim(keys.trades(symbol), minid=str(oldest_ms), approximate=True)
        pipe.xtrim(keys.gaps, minid=str(oldest_ms), approximate=True)
        # What is late was appended under a later id: its entry may outlast its time a little.
        pipe.zremrangebyscore(keys.late(symbol), "-inf", oldest_ms)
        pipe.zremrangebyscore(keys.texts(symbol), "-inf", oldest_ms)


def _connect(url: str, retry: Retry) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=ANSWER_TIMEOUT_SECONDS,
        retry=retry,
    )


def _add_trade(pipe: Pipeline, keys: Keys, known: _Known, row: TradeRow) -> None:
    entry_id = known.last.get(row.symbol, EntryId(0, 0)).next(row.timestamp_ns)
    known.last[row.symbol] = entry_id
    pipe.xadd(keys.trades(row.symbol), trade_fields(row), id=str(entry_id))
    ms = row.timestamp_ns // NS_PER_MS
    if ms != entry_id.ms:
        pipe.zadd(keys.late(row.symbol), {str(entry_id): ms})
    if text_ids([row]):
        pipe.zadd(keys.texts(row.symbol), {row.trade_id: ms})


async def _load(pipe: Pipeline, keys: Keys, commits: bytes | None) -> _Known:
    known = _Known(commits)
    texts: dict[bytes, bytes] = await done(pipe.hgetall(keys.series))
    for name, text in texts.items():
        symbol = name.decode()
        known.series[symbol] = Series.load(text)
        if await done(pipe.exists(keys.trades(symbol))):
            about = await done(pipe.xinfo_stream(keys.trades(symbol)))
            known.last[symbol] = parse_entry_id(about["last-generated-id"])
    return known


async def _known_texts(pipe: Pipeline, keys: Keys, batch: WriteBatch) -> set[tuple[str, str]]:
    known = set()
    for symbol, trade_id in text_ids(batch.trades):
        if await done(pipe.zscore(keys.texts(symbol), trade_id)) is not None:
            known.add((symbol, trade_id))
    return known
