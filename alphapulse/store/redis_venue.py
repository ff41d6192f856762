"""Writing one venue's history to Redis: one transaction a batch, in one round trip.

Each transaction raises the venue's ``commits``, which is watched: what this process remembers of
the venue holds as long as nobody else has written, and a transaction built on anything older is
refused. The watch for the next transaction is sent behind the one before, so that a transaction
costs one round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import redis.asyncio
import redis.exceptions

from alphapulse.errors import StoreError
from alphapulse.history import TradeRow
from alphapulse.model import IdKind
from alphapulse.shm import Position
from alphapulse.store._entries import TradeStream, append_all
from alphapulse.store.books import dump_book
from alphapulse.store.entries import (
    NS_PER_MS,
    EntryId,
    Keys,
    fill_text,
    gap_fields,
    pairs,
    parse_entry_id,
    state_fields,
)
from alphapulse.store.identity import Series, sift, text_ids
from alphapulse.store.redis_bars import MOST_PARTS, BarWriter, beyond_marks
from alphapulse.store.redis_gaps import index_gaps
from alphapulse.store.redis_link import Link, Request
from alphapulse.store.redis_trim import Limits, sweep, trim
from alphapulse.store.repository import WriteBatch

ATTEMPTS = 5
"""Tries of a transaction in whose way others come."""
SECONDS_BETWEEN_BARS = 1.0
"""How often a series' bars are stored, and the series trimmed, while it gets something new."""
BAR_TURNS = 20
"""Transactions among which a venue's series are shared out in that time: to store the bars of all
of them at once would keep trades waiting for milliseconds."""
SECONDS_BETWEEN_SWEEPS = 3600.0
"""How often series are trimmed that got nothing."""
ROWS_AT_ONCE = 256
"""Trades that are packed before Redis gets them, and other tasks have their turn."""


class _Known:
    """What this process remembers of a venue, as of a number of commits."""

    def __init__(self, commits: int, series: dict[str, Series]) -> None:
        self.commits = commits
        self.series = series
        self.listed = set(series)
        """Symbols that Redis has in ``series``."""
        self.trades: dict[str, TradeStream] = {}
        """By symbol."""
        self.others: dict[str, EntryId] = {}
        """Newest ids of other streams, by key."""
        self.checked = False
        """Whether the place in the ring was found to be the one that was written."""

    def next_id(self, key: str, time_ns: int) -> str:
        """Id of a stream's next entry: that of the time, unless the newest one is later."""
        before, ms = self.others[key], time_ns // NS_PER_MS
        after = EntryId(ms, 0) if ms > before.ms else EntryId(before.ms, before.number + 1)
        self.others[key] = after
        return f"{after.ms}-{after.number}"


class VenueWriter:
    """Writes what belongs to one venue, the batches of several tasks one after the other.

    Parameters
    ----------
    pool : makes connections, of RESP 2
    keys : names of the venue's keys
    exchange : its name
    limits : what is kept
    enlist : makes sure that the venue is in the list of exchanges, which may be on another node
    """

    def __init__(
        self,
        pool: redis.asyncio.ConnectionPool,
        keys: Keys,
        exchange: str,
        limits: Limits,
        enlist: Callable[[], Awaitable[object]],
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._exchange = exchange
        self._limits = limits
        self._enlist = enlist
        self._bars = BarWriter(keys, exchange, limits.bar_ages_seconds)
        self._begin = Request()
        self._begin.add("MULTI")
        self._commit = Request()
        self._commit.add("INCR", keys.commits)
        self._commit.add("EXEC")
        self._commit.add("WATCH", keys.commits)
        self._commit.add("GET", keys.commits)
        self._lock = asyncio.Lock()
        self._link: Link | None = None
        self._known: _Known | None = None
        self._place: Position | None = None
        """Place in the ring that was written last, unless whoever writes has to ask for it."""
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
                    if batch.position is not None:
                        self._place = None
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

    async def _connect(self) -> Link:
        """A new connection, which watches ``commits``."""
        await self._forget()
        link = self._link = await Link.open(self._pool)
        request = Request()
        request.add("WATCH", self._keys.commits)
        await link.ask(request)
        return link

    async def _transact(self, batch: WriteBatch, all_bars: bool) -> int | None:
        """Write a batch; how many of its trades were new, None if somebody else came in between."""
        link = self._link
        if link is None or link.closed:
            link = await self._connect()
        known = self._known
        if known is None:
            known = await self._load(link)
        if batch.position is not None and not known.checked:
            await self._check_place(link)
            known.checked = True
        symbols = {row.symbol for row in batch.trades}
        if batch.states or batch.books or batch.gaps or not symbols <= known.trades.keys():
            await self._look_up(link, known, batch)
        texts = text_ids(batch.trades)
        stored_texts = await self._find(link, texts) if texts else set()
        request = Request()
        request.add_packed(self._begin.pieces, self._begin.count)
        now = time.monotonic()
        if all_bars or self._bars.pending > MOST_PARTS:
            await self._store_bars(link, request, known, self._bars.symbols())
        elif now >= self._bars_due:
            waiting = self._bars.symbols()
            turns = min(len(waiting), BAR_TURNS) or 1
            self._bars_due = now + SECONDS_BETWEEN_BARS / turns
            share = waiting[: -(-len(waiting) // turns)]
            await self._store_bars(link, request, known, share)
        new = sift(batch.trades, known.series, stored_texts)
        for symbol in symbols - known.listed:
            known.listed.add(symbol)
            request.add("HSET", self._keys.series, symbol, Series().dump())
        for begin in range(0, len(new), ROWS_AT_ONCE):
            if begin:
                link.send(request.take())
                await asyncio.sleep(0)
            self._add_trades(request, known, new[begin : begin + ROWS_AT_ONCE])
        self._add_others(request, known, batch)
        request.add_packed(self._commit.pieces, self._commit.count)
        link.send(request.take())
        # Redis is at work meanwhile; if it fails, this is forgotten.
        self._bars.take(new)
        done, _, commits = await link.executed(request.count, 3)
        if done is None:
            self._known = None
            return None
        known.commits = done[-1]
        # Somebody may have written between the transaction and the watch.
        self._known = known if int(commits) == known.commits else None
        self._place = batch.position or self._place
        return len(new)

    async def _check_place(self, link: Link) -> None:
        """See that Redis hasn't forgotten what it had answered for, as a crash may make it do.

        Raises
        ------
        StoreError
            it has: what comes next depends on the place in the ring that it knows of
        """
        if self._place is None:
            return
        request = Request()
        request.add("HMGET", self._keys.position, "epoch", "sequence")
        [(epoch, sequence)] = await link.ask(request)
        if epoch is None or (int(epoch), int(sequence)) != self._place:
            raise StoreError(
                f"Redis no longer holds all that it had stored of {self._exchange}, "
                "as after a crash; what the ring still has is written again"
            )

    async def _load(self, link: Link) -> _Known:
        await self._enlist()
        request = Request()
        request.add("GET", self._keys.commits)
        request.add("HGETALL", self._keys.series)
        commits, texts = await link.ask(request)
        series = {name.decode(): Series.load(text) for name, text in pairs(texts).items()}
        known = _Known(int(commits or 0), series)
        await self._learn(link, known, series, ())
        await index_gaps(link, self._keys)
        self._bars.clear()
        async for rows in beyond_marks(link, self._keys, self._exchange, series):
            # Ranges of ids are stored with the bars.
            sift(rows, series, set())
            self._bars.take(rows)
        return known

    async def _learn(
        self, link: Link, known: _Known, symbols: Iterable[str], keys: Iterable[str]
    ) -> None:
        """Ask for the newest ids of streams: of these symbols' trades, and of others."""
        streams = {self._keys.trades(symbol): symbol for symbol in symbols}
        for key in (*streams, *keys):
            last = await _last_id(link, key)
            if key in streams:
                known.trades[streams[key]] = TradeStream(key, *last)
            else:
                known.others[key] = last

    async def _look_up(self, link: Link, known: _Known, batch: WriteBatch) -> None:
        """Learn what the batch needs of streams."""
        symbols = {row.symbol for row in batch.trades} - known.trades.keys()
        keys = {self._keys.states(row.symbol) for row in batch.states}
        keys |= {self._keys.books(row.symbol) for row in batch.books}
        keys |= {self._keys.gaps} if batch.gaps else set()
        await self._learn(link, known, symbols, keys - known.others.keys())

    async def _find(self, link: Link, texts: list[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of these text ids are there already."""
        request = Request()
        for symbol, trade_id in texts:
            request.add("ZSCORE", self._keys.texts(symbol), trade_id)
        scores = await link.ask(request)
        return {text for text, score in zip(texts, scores, strict=True) if score is not None}

    async def _store_bars(
        self, link: Link, request: Request, known: _Known, symbols: list[str]
    ) -> None:
        """Store the bars of all that was appended of these series, and trim what has bars."""
        parts = await self._bars.prepare(link, symbols)
        self._bars.add(request, parts, {symbol: known.trades[symbol].last for symbol in symbols})
        for symbol in symbols:
            # What the marks cover; the ids of the trades beyond are found there.
            request.add("HSET", self._keys.series, symbol, known.series[symbol].dump())
        now = time.monotonic()
        if now >= self._sweep_due:
            self._sweep_due = now + SECONDS_BETWEEN_SWEEPS
            await sweep(link, request, self._keys, known.series, self._limits)
        else:
            for symbol in symbols:
                trim(request, self._keys.trades(symbol), self._limits)

    def _add_trades(self, request: Request, known: _Known, rows: list[TradeRow]) -> None:
        commands, noted = append_all(rows, known.trades)
        request.add_packed(commands, len(commands))
        for row, late_id in noted:
            ms = str(row.timestamp_ns // NS_PER_MS)
            if late_id is not None:
                request.add("ZADD", self._keys.late(row.symbol), ms, late_id)
            if row.id_kind is IdKind.TEXT:
                request.add("ZADD", self._keys.texts(row.symbol), ms, row.trade_id)

    def _add_others(self, request: Request, known: _Known, batch: WriteBatch) -> None:
        for gap in batch.gaps:
            entry_id = known.next_id(self._keys.gaps, gap.received_ns)
            self._add_entry(request, self._keys.gaps, entry_id, gap_fields(gap))
            ms = str(gap.received_ns // NS_PER_MS)
            request.add("ZADD", self._keys.gap_times, ms, entry_id)
        for fill in batch.fills:
            request.add("HSET", self._keys.fills, fill.id, fill_text(fill))
        for state in batch.states:
            key = self._keys.states(state.symbol)
            entry_id = known.next_id(key, state.received_ns)
            self._add_entry(request, key, entry_id, state_fields(state))
        for book in batch.books:
            text = dump_book(book)
            request.add("SET", self._keys.book(book.symbol), text)
            if self._limits.books:
                key = self._keys.books(book.symbol)
                entry_id = known.next_id(key, book.timestamp_ns)
                self._add_entry(request, key, entry_id, {"book": text})
        if batch.position is not None:
            epoch, sequence = map(str, batch.position)
            request.add("HSET", self._keys.position, "epoch", epoch, "sequence", sequence)

    def _add_entry(
        self, request: Request, key: str, entry_id: str, fields: Mapping[str, str | int]
    ) -> None:
        words = (str(word) for field in fields.items() for word in field)
        request.add("XADD", key, entry_id, *words)
        trim(request, key, self._limits)


async def _last_id(link: Link, key: str) -> EntryId:
    """The id of a stream's newest entry, trimmed ones included; 0 where there is no stream."""
    request = Request()
    request.add("XINFO", "STREAM", key)
    try:
        [about] = await link.ask(request)
    except redis.exceptions.ResponseError as error:
        if "no such key" not in str(error):
            raise
        return EntryId(0, 0)
    return parse_entry_id(pairs(about)[b"last-generated-id"])
