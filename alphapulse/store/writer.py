"""From the rings into the store: each venue's trades, gaps and latest books, in batches.

What comes in while a batch is being written makes the next one, so that a light load waits for
nothing, unless the store asks for a pace because its transactions are dear. The place in the ring
is written with the data and read back after every failure: while the store is away nothing is held
here, the ring is the buffer, and what it no longer holds by then is written down as a gap.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

from alphapulse import metrics
from alphapulse.clock import NO_TIME, NS_PER_SECOND, monotonic_ns, wall_ns
from alphapulse.config import Settings, StoreSettings
from alphapulse.delta import BookView, decode
from alphapulse.errors import RecordError, RingError, RingNotFound, StoreError
from alphapulse.history import BookRow, GapRow, TradeRow, gap_row, overrun_row, trade_row
from alphapulse.log import get_logger
from alphapulse.model import Gap, Overrun, Reason, RecordType, Trade
from alphapulse.shm import Batch, Position, RawRecord, RingReader, list_rings
from alphapulse.store.repository import Store, WriteBatch

SCAN_SECONDS = 1.0
"""How often new rings are looked for."""
POSITION_NS = NS_PER_SECOND
"""Longest time that the place in the ring goes unwritten while nothing but books comes."""
BOOK_LEVELS = 100
"""Levels a side that are kept of the latest book."""
READ_RECORDS = 1024
"""Records taken from the ring at once."""
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0

BEGINNING = Position(0, 0)
"""Written when a ring was closed by its writer and read to its end: nothing is outstanding."""

_WANTED = frozenset({RecordType.TRADE, RecordType.GAP, RecordType.SNAPSHOT})

log = get_logger(__name__)


async def run_store_writer(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Write what all rings of ``ring.prefix`` give into the store, until told to stop.

    Rings may come, go and be replaced. What is in the rings by the time of stopping is written
    before this returns, if the store answers.

    Parameters
    ----------
    settings : sections ``ring`` and ``store`` are used
    store : where to write
    stop : ends this when set
    """
    followers: dict[str, _Follower] = {}
    tasks: dict[str, asyncio.Task[None]] = {}
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while True:
            # Asked before the look: what has a ring by the time of stopping is followed, too.
            stopping = stop.is_set()
            for ring in list_rings(prefix=settings.ring.prefix):
                if ring.venue not in tasks and not ring.problem:
                    followers[ring.venue] = _Follower(ring.venue, settings, store, stop)
                    tasks[ring.venue] = asyncio.create_task(followers[ring.venue].run())
            if stopping:
                break
            done, _ = await asyncio.wait(
                {stopped, *tasks.values()},
                timeout=SCAN_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for venue in [venue for venue, task in tasks.items() if task in done]:
                tasks.pop(venue).result()
        for follower in followers.values():
            follower.nudge()
        await asyncio.gather(*tasks.values())
    finally:
        stopped.cancel()
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


class _Collected:
    """What is to be written next."""

    def __init__(self) -> None:
        self.trades: list[TradeRow] = []
        self.gaps: list[GapRow] = []
        self.books: dict[str, BookRow] = {}
        self.drained = False
        """Whether the ring had no more."""

    def __bool__(self) -> bool:
        return bool(self.trades or self.gaps or self.books)


class _Follower:
    """Follows one venue's ring.

    Parameters
    ----------
    venue : its name
    settings, store, stop : as for `run_store_writer`
    """

    def __init__(
        self,
        venue: str,
        settings: Settings,
        store: Store,
        stop: asyncio.Event,
    ) -> None:
        self._venue = venue
        self._prefix = settings.ring.prefix
        self._settings: StoreSettings = settings.store
        self._store = store
        self._stop = stop
        self._scratch = BookView()
        self._seen_ns = NO_TIME
        self._wait = BACKOFF_FIRST_SECONDS
        self._sleep: asyncio.Timeout | None = None
        self._rows = metrics.STORE_ROWS.bind(exchange=venue)
        self._lag = metrics.STORE_LAG.bind(exchange=venue)
        self._overruns = metrics.RING_OVERRUNS.bind(service="store", exchange=venue)

    async def run(self) -> None:
        """Follow the ring until it is gone and read, or the writer is stopped."""
        while True:
            try:
                await self._session()
            except RingNotFound:
                return
            except (StoreError, RingError, PermissionError) as error:
                log.warning(
                    "history is not being written", exchange=self._venue, problem=str(error)
                )
            else:
                return
            if self._stop.is_set():
                return
            await self._within(self._wait * random.uniform(0.5, 1.5), _never())
            self._wait = min(self._wait * 2, BACKOFF_MAX_SECONDS)

    async def _session(self) -> None:
        """From the position in the store to the first failure."""
        position = await self._store.position(self._venue)
        self._seen_ns = await self._last_heard_ns()
        reader = self._resume(position)
        oldest = reader is None
        if reader is None:
            reader = RingReader(self._venue, prefix=self._prefix, start="oldest")
        try:
            if oldest:
                await self._note_beginning(reader.position)
            written, written_ns = position, monotonic_ns()
            while True:
                stopping = self._stop.is_set()
                # Asked before the last look: nothing is written behind a ring's end.
                ended = self._is_over(reader)
                collected = self._collect(reader)
                over = ended and collected.drained
                due = stopping or monotonic_ns() - written_ns >= POSITION_NS
                if collected or due:
                    self._lag.set(reader.lag)
                position = BEGINNING if over else reader.position
                if collected or over or (due and position != written):
                    await self._write(collected, position)
                    written, written_ns = position, monotonic_ns()
                if over or (stopping and collected.drained):
                    return
                if collected.drained:
                    await self._rest(reader, written_something=bool(collected))
                await asyncio.sleep(0)
        finally:
            reader.close()

    async def _last_heard_ns(self) -> int:
        """Our time of the last trade that was written from a ring: what is lost came later."""
        heard_ns = NO_TIME
        for series in await self._store.summarise():
            if series.exchange == self._venue:
                newest = await self._store.read_trades(
                    self._venue, series.symbol, limit=READ_RECORDS, newest=True
                )
                times = [row.received_ns for row in newest if not row.filled]
                heard_ns = max([heard_ns, *times])
        return heard_ns

    def _resume(self, position: Position | None) -> RingReader | None:
        """A reader at the stored position; None where there is none of use."""
        if position is None or position == BEGINNING:
            return None
        try:
            return RingReader(self._venue, prefix=self._prefix, start=position)
        except ValueError as error:
            # The store knows of records that the ring never had: it comes from another machine.
            log.warning("the stored position is void", exchange=self._venue, problem=str(error))
            return None

    async def _note_beginning(self, position: Position) -> None:
        """Write down what the ring had lost before it was followed at all."""
        lost = position.sequence - 1
        if lost > 0:
            overrun = Overrun(
                exchange=self._venue,
                epoch=position.epoch,
                first=1,
                last=lost,
                count=lost,
                reason=Reason.STARTED,
            )
            gap = overrun_row(overrun, NO_TIME, wall_ns())
            await self._store.append(
                WriteBatch(exchange=self._venue, gaps=[gap], position=position)
            )

    def _is_over(self, reader: RingReader) -> bool:
        """Whether the ring was closed by its writer and removed, with no successor."""
        if reader.writer_alive:
            return False
        return all(ring.venue != self._venue for ring in list_rings(prefix=self._prefix))

    def _collect(self, reader: RingReader) -> _Collected:
        """Take what the ring has, up to a batch."""
        collected = _Collected()
        until_ns = monotonic_ns() + self._settings.batch_timeout_ms * 1_000_000
        room = self._settings.buffer_size
        while room > 0:
            batch = reader.read(min(room, READ_RECORDS))
            if not batch:
                collected.drained = True
                break
            self._take(batch, collected)
            room = self._settings.buffer_size - len(collected.trades)
            if monotonic_ns() >= until_ns:
                break
        return collected

    def _take(self, batch: Batch, collected: _Collected) -> None:
        if batch.overrun is not None:
            self._overruns.inc()
            log.warning(
                "records lost before they were stored",
                exchange=self._venue,
                count=batch.overrun.count,
                reason=batch.overrun.reason.text,
            )
            collected.gaps.append(overrun_row(batch.overrun, self._seen_ns, wall_ns()))
        for record in batch:
            if record.type in _WANTED:
                try:
                    self._take_record(record, batch, collected)
                except RecordError as error:
                    log.warning(
                        "a record can't be stored", exchange=self._venue, problem=str(error)
                    )
            if record.received_ns != NO_TIME:
                self._seen_ns = record.received_ns

    def _take_record(self, record: RawRecord, batch: Batch, collected: _Collected) -> None:
        if record.type == RecordType.SNAPSHOT:
            book = self._book(record, batch)
            collected.books[book.symbol] = book
            return
        event = decode(record.data, batch.instruments, self._venue)
        if isinstance(event, Trade):
            collected.trades.append(trade_row(event))
        elif isinstance(event, Gap):
            collected.gaps.append(gap_row(event))

    def _book(self, record: RawRecord, batch: Batch) -> BookRow:
        instrument = batch.instruments.get(record.instrument)
        if instrument is None:
            raise RecordError(f"a snapshot of instrument {record.instrument}, never announced")
        self._scratch.invalidate()
        self._scratch.apply(record.data)
        known = record.exchange_ns != NO_TIME
        return BookRow(
            exchange=self._venue,
            symbol=instrument.symbol,
            version=self._scratch.version,
            timestamp_ns=record.exchange_ns if known else record.received_ns,
            price_exponent=instrument.price_exponent,
            size_exponent=instrument.size_exponent,
            bids=self._scratch.bids(BOOK_LEVELS),
            asks=self._scratch.asks(BOOK_LEVELS),
        )

    async def _write(self, collected: _Collected, position: Position) -> None:
        batch = WriteBatch(
            exchange=self._venue,
            trades=collected.trades,
            gaps=collected.gaps,
            books=list(collected.books.values()),
            position=position,
        )
        self._rows.inc(await self._store.append(batch))
        self._wait = BACKOFF_FIRST_SECONDS

    def nudge(self) -> None:
        """End a wait for news: the writer was told to stop."""
        if self._sleep is not None:
            self._sleep.reschedule(asyncio.get_running_loop().time())

    async def _rest(self, reader: RingReader, *, written_something: bool) -> None:
        """Wait for the next batch's time, and for news if the last one brought none."""
        if self._store.pace_seconds:
            await self._within(self._store.pace_seconds, _never())
        elif not written_something:
            await self._within(SCAN_SECONDS, reader.ready())

    async def _within(self, seconds: float, event: Awaitable[None]) -> None:
        """Wait for something for a while, or until somebody nudges."""
        try:
            async with asyncio.timeout(seconds) as self._sleep:
                await event
        except TimeoutError:
            return
        finally:
            self._sleep = None


def _never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()
