"""The Redis store: a stream per venue and symbol, written in transactions (docs/store.md).

A venue's keys share a hash tag, so that a transaction holds in a cluster. Writing is a
`VenueWriter`'s for each venue; here is what reads.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from alphapulse import metrics
from alphapulse.config import StoreSettings
from alphapulse.config.values import RedisUrl, masked
from alphapulse.errors import StoreError
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
from alphapulse.shm import Position
from alphapulse.store.bars import STORED, Part
from alphapulse.store.books import load_book
from alphapulse.store.entries import NS_PER_MS, Entry, Keys, state_of
from alphapulse.store.recent import KEPT
from alphapulse.store.redis_bars import BarReader
from alphapulse.store.redis_gaps import GapReader
from alphapulse.store.redis_link import ANSWER_TIMEOUT_SECONDS
from alphapulse.store.redis_newest import NewestTrades
from alphapulse.store.redis_reader import StreamReader, done
from alphapulse.store.redis_trim import Limits
from alphapulse.store.redis_venue import VenueWriter
from alphapulse.store.repository import Repository, WriteBatch

CONNECT_TIMEOUT_SECONDS = 5.0
SUMMARY_SECONDS = 1.0
"""How long a summary is given again, unless this process has written since."""
METERS_SECONDS = 0.25
"""How soon metrics tell of an operation."""
DAY_SECONDS = 86400
PAGE = 100
"""Entries of states read at once."""
PAGE_BOOKS = 4
"""Books read at once, of which nearly always the first is the one that is asked for."""

log = get_logger(__name__)


class RedisStore(Repository):
    """History in Redis 7 or Valkey; made by `open`.

    Parameters
    ----------
    writers : makes the connections that write, one for each venue, and one that asks for the
        newest trades; of RESP 2
    reader : client for reading
    prefix : first part of all keys' names
    limits : what is kept
    address : for messages, without password
    """

    pace_seconds = 0.0

    def __init__(
        self,
        writers: redis.asyncio.ConnectionPool,
        reader: redis.asyncio.Redis,
        prefix: str,
        limits: Limits,
        address: str,
    ) -> None:
        self._writers = writers
        self._reader = reader
        self._prefix = prefix
        self._limits = limits
        self._address = address
        self._venues: dict[str, VenueWriter] = {}
        self._meters: dict[str, _Meters] = {}
        self._sharing: asyncio.TimerHandle | None = None
        self._newest = NewestTrades(writers, reader, prefix)
        self._summary: tuple[float, list[SeriesSummary]] | None = None
        self._closed = False

    @classmethod
    async def open(cls, settings: StoreSettings, prefix: str) -> RedisStore:
        """A store at the address of the settings; it may be down as yet.

        Parameters
        ----------
        settings : section ``store`` of the settings
        prefix : ``ring.prefix`` of the settings; installations with different ones don't meet
        """
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_timeout": ANSWER_TIMEOUT_SECONDS,
        }
        # A transaction that may have been committed must not be sent again blindly.
        writers = redis.asyncio.ConnectionPool.from_url(
            settings.redis_url, retry=Retry(NoBackoff(), 0), **options
        )
        reader = redis.asyncio.Redis.from_url(
            settings.redis_url, retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), 2), **options
        )
        limits = Limits(
            age_seconds=int(settings.retention_days * DAY_SECONDS),
            bar_ages_seconds=_bar_ages(settings),
            entries=settings.max_trades,
            books=settings.book_interval_seconds > 0,
        )
        address = str(masked(settings.redis_url, RedisUrl))
        return cls(writers, reader, prefix, limits, address)

    async def append(self, batch: WriteBatch) -> int:
        """See `Store`."""
        with self._operation("append"):
            venue = self._venues.get(batch.exchange)
            if venue is None:
                venue = self._venues[batch.exchange] = self._writer_of(batch.exchange)
            new = await venue.append(batch)
        self._summary = None
        return new

    def _writer_of(self, exchange: str) -> VenueWriter:
        async def enlist() -> None:
            await done(self._reader.sadd(self._exchanges, exchange))

        keys = Keys(self._prefix, exchange)
        return VenueWriter(self._writers, keys, exchange, self._limits, enlist)

    async def position(self, exchange: str) -> Position | None:
        """See `Store`."""
        key = Keys(self._prefix, exchange).position
        with self._operation("position"):
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
        unbounded = newest and start_ns is None and end_ns is None and beyond is None
        if unbounded and limit is not None and limit <= KEPT:
            with self._operation("read_newest"):
                return await self._newest.read(exchange, symbol, limit)
        reader = StreamReader(self._reader, Keys(self._prefix, exchange), exchange, symbol)
        with self._operation("read_trades"):
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
        """See `Store`."""
        reader = BarReader(self._reader, Keys(self._prefix, exchange), exchange, symbol)
        with self._operation("read_bars"):
            return await reader.read(interval_ns, start_ns, end_ns, limit, newest)

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
        start_ns, end_ns = narrowed(start_ns, end_ns, beyond, newest)

        def wanted(gap: GapRow) -> bool:
            if beyond is not None and not (
                gap.order_key < beyond if newest else gap.order_key > beyond
            ):
                return False
            concerned = symbol is None or gap.symbol in (None, symbol)
            return concerned and _within(gap.received_ns, start_ns, end_ns)

        reader = GapReader(self._reader, Keys(self._prefix, exchange), exchange)
        with self._operation("read_gaps"):
            rows = await reader.read((start_ns, end_ns), limit, newest, wanted)
        return at_most(limit, sorted(rows, key=lambda gap: gap.order_key), newest)

    async def read_states(
        self,
        exchange: str,
        symbol: str,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int | None = None,
    ) -> list[StateRow]:
        """See `History`."""
        key = Keys(self._prefix, exchange).states(symbol)
        states: list[StateRow] = []
        with self._operation("read_states"):
            async for _, fields in self._backwards(key, start_ns):
                state = state_of(fields, exchange, symbol)
                if _within(state.received_ns, start_ns, end_ns):
                    states.append(state)
                if len(states) == limit:
                    break
        return sorted(states, key=lambda state: state.received_ns)

    async def read_book(
        self, exchange: str, symbol: str, at_ns: int | None = None
    ) -> BookRow | None:
        """See `History`."""
        keys = Keys(self._prefix, exchange)
        with self._operation("read_book"):
            text = await done(self._reader.get(keys.book(symbol)))
            latest = None if text is None else load_book(text)
            if latest is None or at_ns is None or latest.timestamp_ns <= at_ns:
                return latest
            async for _, fields in self._backwards(keys.books(symbol), None, at_ns, PAGE_BOOKS):
                book = load_book(fields[b"book"])
                if book.timestamp_ns <= at_ns:
                    return book
        return None

    async def _backwards(
        self, key: str, start_ns: int | None, end_ns: int | None = None, page: int = PAGE
    ) -> AsyncIterator[Entry]:
        """Entries of a stream, newest first; of those whose ids are of the span."""
        first = "-" if start_ns is None else str(max(start_ns, 0) // NS_PER_MS)
        last = "+" if end_ns is None else str(max(end_ns, 0) // NS_PER_MS)
        while True:
            entries: list[Entry] = await done(self._reader.xrevrange(key, last, first, count=page))
            for entry in entries:
                yield entry
            if len(entries) < page:
                return
            last = f"({entries[-1][0].decode()}"

    async def summarise(self) -> list[SeriesSummary]:
        """See `History`; at most `SUMMARY_SECONDS` old."""
        self._check_open()
        if self._summary is not None and time.monotonic() < self._summary[0]:
            return self._summary[1]
        found: list[SeriesSummary] = []
        with self._operation("summarise"):
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
        with self._operation("ping"):
            await done(self._reader.ping())

    async def close(self) -> None:
        """Store the bars that are outstanding and close the connections. May be called twice."""
        if self._closed:
            return
        self._closed = True
        venues, self._venues = self._venues, {}
        for exchange, venue in venues.items():
            try:
                await venue.close()
            except (redis.exceptions.RedisError, OSError, StoreError) as error:
                # They are made of the trades again.
                log.info("bars not stored on closing", exchange=exchange, problem=str(error))
        if self._sharing is not None:
            self._sharing.cancel()
        self._share_meters()
        await self._newest.close()
        await self._writers.aclose()
        await self._reader.aclose()

    @property
    def _exchanges(self) -> str:
        return f"{self._prefix}:exchanges"

    def _operation(self, name: str) -> _Operation:
        """Count and time an operation; its failures become `StoreError`."""
        self._check_open()
        meters = self._meters.get(name)
        if meters is None:
            meters = self._meters[name] = _Meters(name)
        if self._sharing is None:
            later = asyncio.get_running_loop().call_later
            self._sharing = later(METERS_SECONDS, self._share_meters)
        return _Operation(meters, self._address)

    def _check_open(self) -> None:
        # The library would connect again, and nobody would close that.
        if self._closed:
            raise StoreError("the store is closed")

    def _share_meters(self) -> None:
        self._sharing = None
        for meters in self._meters.values():
            meters.share()


class _Meters:
    """What is counted of one kind of operation; shared now and then, since that has its price."""

    def __init__(self, name: str) -> None:
        self.succeeded = metrics.REDIS_OPERATIONS.bind(operation=name, status="ok")
        self.failed = metrics.REDIS_OPERATIONS.bind(operation=name, status="error")
        self.milliseconds = metrics.REDIS_OPERATION_LATENCY.bind(operation=name)
        self.took: list[float] = []
        """Milliseconds of operations that succeeded and aren't shared yet."""

    def share(self) -> None:
        """Tell what succeeded since the last time."""
        if self.took:
            self.succeeded.inc(len(self.took))
            for milliseconds in self.took:
                self.milliseconds.observe(milliseconds)
            self.took.clear()


class _Operation:
    """An operation while it lasts."""

    def __init__(self, meters: _Meters, address: str) -> None:
        self._meters = meters
        self._address = address
        self._began = time.perf_counter()

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        milliseconds = (time.perf_counter() - self._began) * 1000
        if error is None:
            self._meters.took.append(milliseconds)
        else:
            self._meters.failed.inc()
            self._meters.milliseconds.observe(milliseconds)
        if isinstance(error, redis.exceptions.RedisError | OSError):
            raise StoreError(f"Redis at {self._address} failed: {error}") from error


def _bar_ages(settings: StoreSettings) -> dict[str, int]:
    """For how many seconds bars are kept, by interval; for ever without.

    Those of a second take as much memory as trades, and stay no longer.
    """
    days = dict.fromkeys(STORED, settings.bar_retention_days)
    days[STORED[0]] = min(
        settings.bar_retention_days or math.inf, settings.retention_days or math.inf
    )
    return {
        interval: int(age * DAY_SECONDS) for interval, age in days.items() if 0 < age < math.inf
    }


def _within(time_ns: int, start_ns: int | None, end_ns: int | None) -> bool:
    return (start_ns is None or time_ns >= start_ns) and (end_ns is None or time_ns <= end_ns)
