"""Writing one venue's history to Redis: one transaction a batch, in one round trip.

Each transaction raises the venue's ``commits``, which is watched: what this process remembers of
the venue holds as long as nobody else has written, and a transaction built on anything older is
refused. The watch for the next transaction is sent behind the one before, so that a transaction
costs one round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import redis.asyncio
import redis.exceptions

from alphapulse.errors import StoreError
from alphapulse.history import TradeRow
from alphapulse.model import IdKind
from alphapulse.store._entries import TradePacker
from alphapulse.store.books import dump_book
from alphapulse.store.entries import (
    NS_PER_MS,
    Keys,
    fill_text,
    gap_fields,
    pairs,
    parse_entry_id,
    state_fields,
)
from alphapulse.store.identity import Series, sift, text_ids
from alphapulse.store.redis_bars import MOST_PARTS, BarWriter
from alphapulse.store.redis_link import Link, Request, checked
from alphapulse.store.redis_trim import Limits, sweep, trim
from alphapulse.store.repository import WriteBatch

ATTEMPTS = 5
"""Tries of a transaction in whose way others come."""
SECONDS_BETWEEN_BARS = 1.0
"""How often bars are stored, and series trimmed that got something new."""
SECONDS_BETWEEN_SWEEPS = 3600.0
"""How often series are trimmed that got nothing."""
ROWS_AT_ONCE = 256
"""Trades that are packed before Redis gets them, and other tasks have their turn."""


class _Stream:
    """A stream and the id of its newest entry."""

    def __init__(self, key: str, ms: int, number: int) -> None:
        self.key = key
        self.ms = ms
        self.number = number
        self.packer = TradePacker(key)

    @property
    def last(self) -> str:
        """Id of the newest entry."""
        return f"{self.ms}-{self.number}"

    def next(self, timestamp_ns: int) -> None:
        """Go on to the next id: that of the time, unless the newest one is later."""
        ms = timestamp_ns // NS_PER_MS
        if ms > self.ms:
            self.ms, self.number = ms, 0
        else:
            self.number += 1


class _Known:
    """What this process remembers of a venue, as of a number of commits."""

    def __init__(self, commits: int, series: dict[str, Series]) -> None:
        self.commits = commits
        self.series = series
        self.streams: dict[str, _Stream] = {}


class VenueWriter:
    """Writes what belongs to one venue, the batches of several tasks one after the other.

    Parameters
    ----------
    pool : makes connections, of RESP 2
    keys : names of the venue's keys
    exchange : its name
    limits : what is kept
    """

    def __init__(
        self, pool: redis.asyncio.ConnectionPool, keys: Keys, exchange: str, limits: Limits
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._exchange = exchange
        self._limits = limits
        self._bars = BarWriter(keys, exchange, limits.bar_ages_seconds)
        self._lock = asyncio.Lock()
        self._link: Link | None = None
        self._known: _Known | None = None
        self._bars_due = 0.0
        self._sweep_due = 0.0

    async def append(self, batch: WriteBatch, *, all_bars: bool = False) -> int:
        """See `Store.append`; raises redis-py's exceptions, too.

        Parameters
        ----------
        batch : what to write
        all_bars : store the bars of what was written before, however short ago that was done
        """
        async with self._lock:
            for _ in range(ATTEMPTS):
                try:
                    new = await self._transact(batch, all_bars)
                except BaseException:
                    # Whether it was committed isn't known: look again before the next one.
                    await self._forget()
                    raise
                if new is not None:
                    return new
        raise StoreError(f"another writer keeps changing the history of {self._exchange}")

    async def close(self) -> None:
        """Store the bars of what was written, if this process knows it, and disconnect."""
        if self._known is not None and self._bars.pending:
            await self.append(WriteBatch(exchange=self._exchange), all_bars=True)
        async with self._lock:
            await self._forget()

    async def _forget(self) -> None:
        self._known = None
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connected(self) -> Link:
        """A connection that watches ``commits``."""
        if self._link is None or self._link.closed:
            await self._forget()
            self._link = await Link.open(self._pool)
            request = Request()
            request.add("WATCH", self._keys.commits)
            await self._link.ask(request)
        return self._link

    async def _transact(self, batch: WriteBatch, all_bars: bool) -> int | None:
        """Write a batch; how many of its trades were new, None if somebody else came in between."""
        link = await self._connected()
        known = self._known or await self._load(link)
        texts = await self._look_up(link, known, batch)
        request = Request()
        request.add("MULTI")
        now = time.monotonic()
        if all_bars or now >= self._bars_due or self._bars.pending > MOST_PARTS:
            await self._store_bars(link, request, known, now)
        new = sift(batch.trades, known.series, texts)
        await self._add_trades(link, request, known, new)
        self._add_others(request, known, batch)
        request.add("INCR", self._keys.commits)
        request.add("EXEC")
        request.add("WATCH", self._keys.commits)
        request.add("GET", self._keys.commits)
        link.send(request.take())
        # Redis is at work meanwhile; if it fails, this is forgotten.
        self._bars.take(new)
        answers = checked(await link.answers(request.count))
        done, commits = answers[-3], answers[-1]
        if done is None:
            self._known = None
            return None
        known.commits = checked(done)[-1]
        # Somebody may have written between the transaction and the watch.
        self._known = known if int(commits) == known.commits else None
        return len(new)

    async def _load(self, link: Link) -> _Known:
        request = Request()
        request.add("GET", self._keys.commits)
        request.add("HGETALL", self._keys.series)
        commits, texts = await link.ask(request)
        series = {name.decode(): Series.load(text) for name, text in pairs(texts).items()}
        known = _Known(int(commits or 0), series)
        await self._learn(link, known, [self._keys.trades(symbol) for symbol in series])
        await self._bars.load(link, series)
        return known

    async def _learn(self, link: Link, known: _Known, names: Iterable[str]) -> None:
        """Ask for the last ids of streams."""
        unknown = [name for name in names if name not in known.streams]
        request = Request()
        for name in unknown:
            request.add("XINFO", "STREAM", name)
        if unknown:
            link.send(request.take())
            for name, about in zip(unknown, await link.answers(request.count), strict=True):
                known.streams[name] = _stream(name, about)

    async def _look_up(self, link: Link, known: _Known, batch: WriteBatch) -> set[tuple[str, str]]:
        """Learn what the batch needs of streams; the text ids among its own that are there."""
        names = {self._keys.trades(row.symbol) for row in batch.trades}
        names |= {self._keys.states(row.symbol) for row in batch.states}
        names |= {self._keys.books(row.symbol) for row in batch.books}
        if not names <= known.streams.keys():
            await self._learn(link, known, names)
        texts = text_ids(batch.trades)
        if not texts:
            return set()
        request = Request()
        for symbol, trade_id in texts:
            request.add("ZSCORE", self._keys.texts(symbol), trade_id)
        scores = await link.ask(request)
        return {text for text, score in zip(texts, scores, strict=True) if score is not None}

    async def _store_bars(self, link: Link, request: Request, known: _Known, now: float) -> None:
        """Store the bars of all that was appended, and trim what has bars."""
        self._bars_due = now + SECONDS_BETWEEN_BARS
        parts = await self._bars.prepare(link)
        streams = {name: known.streams[self._keys.trades(name)] for name, _ in parts}
        self._bars.add(request, parts, {name: stream.last for name, stream in streams.items()})
        if now >= self._sweep_due:
            self._sweep_due = now + SECONDS_BETWEEN_SWEEPS
            await sweep(link, request, self._keys, known.series, self._limits)
        else:
            for stream in streams.values():
                trim(request, stream.key, self._limits)

    async def _add_trades(
        self, link: Link, request: Request, known: _Known, new: list[TradeRow]
    ) -> None:
        streams = {row.symbol: known.streams[self._keys.trades(row.symbol)] for row in new}
        for count, row in enumerate(new, 1):
            stream = streams[row.symbol]
            stream.next(row.timestamp_ns)
            request.add_packed(stream.packer.pack(row, stream.ms, stream.number))
            ms = row.timestamp_ns // NS_PER_MS
            if ms != stream.ms:
                request.add("ZADD", self._keys.late(row.symbol), str(ms), stream.last)
            if row.id_kind is IdKind.TEXT:
                request.add("ZADD", self._keys.texts(row.symbol), str(ms), row.trade_id)
            if count % ROWS_AT_ONCE == 0:
                link.send(request.take())
                await asyncio.sleep(0)
        if streams:
            texts = [part for name in streams for part in (name, known.series[name].dump())]
            request.add("HSET", self._keys.series, *texts)

    def _add_others(self, request: Request, known: _Known, batch: WriteBatch) -> None:
        for gap in batch.gaps:
            self._add_entry(request, self._keys.gaps, "*", gap_fields(gap))
        for fill in batch.fills:
            request.add("HSET", self._keys.fills, fill.id, fill_text(fill))
        for state in batch.states:
            stream = known.streams[self._keys.states(state.symbol)]
            stream.next(state.received_ns)
            self._add_entry(request, stream.key, stream.last, state_fields(state))
        for book in batch.books:
            text = dump_book(book)
            request.add("SET", self._keys.book(book.symbol), text)
            if self._limits.books:
                stream = known.streams[self._keys.books(book.symbol)]
                stream.next(book.timestamp_ns)
                self._add_entry(request, stream.key, stream.last, {"book": text})
        if batch.position is not None:
            epoch, sequence = map(str, batch.position)
            request.add("HSET", self._keys.position, "epoch", epoch, "sequence", sequence)

    def _add_entry(
        self, request: Request, key: str, entry_id: str, fields: Mapping[str, str | int]
    ) -> None:
        words = (str(word) for field in fields.items() for word in field)
        request.add("XADD", key, entry_id, *words)
        trim(request, key, self._limits)


def _stream(name: str, about: Any) -> _Stream:
    """A stream as ``XINFO`` tells of it; an error says that there is none."""
    if isinstance(about, redis.exceptions.ResponseError):
        if "no such key" not in str(about):
            raise about
        return _Stream(name, 0, 0)
    return _Stream(name, *parse_entry_id(pairs(about)[b"last-generated-id"]))
