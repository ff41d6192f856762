"""Live books: every ring's records, applied as they come."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from alphapulse import metrics
from alphapulse.api.traffic import Traffic
from alphapulse.clock import wall_ns
from alphapulse.delta import BookView, LevelStage, decode
from alphapulse.errors import BookError, RecordError, RingError, RingNotFound
from alphapulse.log import get_logger
from alphapulse.model import (
    BookState,
    Instrument,
    Level,
    Reason,
    RecordType,
    StateChange,
)
from alphapulse.shm import Batch, RawRecord, RingReader, bits_of, list_rings
from alphapulse.shm.registry import STUCK_AFTER_NS

SCAN_SECONDS = 1.0
"""How often new rings are looked for."""
READ_SECONDS = 0.1
"""How often the rings are read while nobody asks: seldom enough to cost little, and often enough
that little is left to read when somebody does."""
READ_RECORDS = 512
"""Records taken before other tasks have their turn."""
GIVEN_UP_SECONDS = 2.0
"""Pause before a ring that couldn't be read is opened again."""

_SERVICE = "api"
_TAKEN = bits_of(RecordType.SNAPSHOT, RecordType.DELTA, RecordType.STATE)

_FAULTS = {
    Reason.STOPPED: "its collector isn't running",
    Reason.SILENT: "its collector is stuck",
}

log = get_logger(__name__)


class LiveBook(NamedTuple):
    """A book as of now; without levels, version and time unless it is live."""

    exchange: str
    state: BookState
    reason: Reason | None
    instrument: Instrument | None
    version: int | None = None
    exchange_ns: int | None = None
    received_ns: int | None = None
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()


class _Book:
    """One symbol's book and state, as its ring's records tell them."""

    def __init__(self, stage: LevelStage) -> None:
        self.view = BookView(stage=stage)
        self.reason: Reason | None = None
        self.timely = False
        """Whether the latest change was a delta."""


class LiveView(NamedTuple):
    """A live book itself; it changes as its ring is read."""

    view: BookView
    instrument: Instrument
    timely: bool
    """Whether its latest change was sent when it happened, as deltas are."""


class Ring:
    """One venue's ring: a reader and the books that it feeds.

    Parameters
    ----------
    venue, prefix : tell the ring

    Raises
    ------
    RingNotFound
        there is none
    """

    def __init__(self, venue: str, prefix: str) -> None:
        self.venue = venue
        self.reader = RingReader(venue, prefix=prefix)
        self._epoch = self.reader.epoch
        self._states = dict(self.reader.states)
        self._stage = LevelStage()
        self._published_ns = self.reader.heartbeat_ns
        self._books: dict[str, _Book] = {}
        self._changed: dict[str, None] = {}
        self.traffic: dict[str, Traffic] = {}
        """By symbol."""
        self._lag = metrics.RING_LAG.bind(service=_SERVICE, exchange=venue)
        self._overruns = metrics.RING_OVERRUNS.bind(service=_SERVICE, exchange=venue)

    async def run(self) -> None:
        """Keep the books until cancelled. Raises `RingError` where the ring is no use."""
        while True:
            await self.catch_up()
            self._lag.set(self.reader.lag)
            await asyncio.sleep(READ_SECONDS)

    async def catch_up(self) -> None:
        """Take in what is in the ring by now. Raises `RingError` where the ring is no use."""
        until = self.reader.position.sequence + self.reader.lag
        epoch = self.reader.epoch
        while batch := self.reader.read(READ_RECORDS):
            self._take(batch)
            if self.reader.epoch == epoch and self.reader.position.sequence >= until:
                break
            await asyncio.sleep(0)

    def problem(self) -> str | None:
        """Why what this ring gave isn't current, if so."""
        fault = self._fault()
        return None if fault is None else _FAULTS[fault]

    def seen_ns(self) -> int:
        """Until when the books are known to be as they are: wall time of a sign of life."""
        return self.reader.heartbeat_ns if not self.reader.lag else self._published_ns

    def take_changed(self) -> list[str]:
        """Symbols whose books have changed since the last call."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def live_view(self, symbol: str) -> LiveView | None:
        """The book as the ring has it, whether its collector is at work or not; None if not live.

        Parameters
        ----------
        symbol : one of `take_changed`
        """
        book = self._books.get(symbol)
        if book is None or not book.view.ready:
            return None
        instrument = self.reader.instruments.get(book.view.instrument_id)
        if instrument is None or self._states.get(instrument.id) is not BookState.LIVE:
            return None
        return LiveView(book.view, instrument, book.timely)

    def symbols(self) -> dict[str, Instrument]:
        """The newest instrument of each symbol."""
        return {instrument.symbol: instrument for instrument in self.reader.instruments.values()}

    def states(self) -> dict[str, BookState]:
        """Each symbol's state as it may be shown."""
        fault = self._fault()
        return {
            symbol: self._show(instrument, 0, fault).state
            for symbol, instrument in self.symbols().items()
        }

    def book(self, symbol: str, depth: int) -> LiveBook:
        """A book's best levels, if it is live.

        Parameters
        ----------
        symbol : one of `symbols`
        depth : levels a side
        """
        return self._show(self.symbols()[symbol], depth, self._fault())

    def _fault(self) -> Reason | None:
        if not self.reader.writer_alive:
            return Reason.STOPPED
        stuck = wall_ns() - self.reader.heartbeat_ns > STUCK_AFTER_NS
        return Reason.SILENT if stuck else None

    def _show(self, instrument: Instrument, depth: int, fault: Reason | None) -> LiveBook:
        if fault is not None:
            return LiveBook(self.venue, BookState.STALE, fault, instrument)
        book = self._books.get(instrument.symbol)
        reason = book.reason if book else None
        state = self._states.get(instrument.id, BookState.SYNCING)
        if state is not BookState.LIVE:
            return LiveBook(self.venue, state, reason, instrument)
        if book is None or not book.view.ready or book.view.instrument_id != instrument.id:
            # The ring has it; its records are on their way to us.
            return LiveBook(self.venue, BookState.SYNCING, reason, instrument)
        view = book.view
        bids, asks = (view.bids(depth), view.asks(depth)) if depth else ((), ())
        times = view.exchange_ns, view.received_ns
        return LiveBook(self.venue, state, reason, instrument, view.version, *times, bids, asks)

    def close(self) -> None:
        """Leave the ring."""
        self.reader.close()

    def _take(self, batch: Batch) -> None:
        if batch.overrun is not None:
            self._overruns.inc()
        if batch.overrun is not None or batch.epoch != self._epoch:
            self._epoch = batch.epoch
            self._states = dict(self.reader.states)
            for symbol, book in self._books.items():
                book.view.invalidate()
                self._changed[symbol] = None
        if len(batch):
            self._published_ns = batch.published_ns
        for record in batch.of_types(_TAKEN):
            try:
                self._take_record(record, batch)
            except (BookError, RecordError) as error:
                log.warning("a record can't be used", exchange=self.venue, problem=str(error))
        # Of trades, of which there may be many, only this is wanted.
        instruments = batch.instruments
        for number, delay_ns in batch.delays(RecordType.TRADE):
            if number in instruments:
                self._traffic_of(instruments[number].symbol).latency.add(delay_ns)

    def _take_record(self, record: RawRecord, batch: Batch) -> None:
        symbol = _instrument(record, batch).symbol
        book = self._book_of(symbol)
        if record.type == RecordType.STATE:
            event = decode(record.data, batch.instruments, self.venue)
            if isinstance(event, StateChange):
                book.reason = event.reason
                self._states[record.instrument] = event.state
                if event.state is not BookState.LIVE:
                    book.view.invalidate()
            return
        traffic = self._traffic_of(symbol)
        if record.type == RecordType.SNAPSHOT:
            traffic.take_snapshot(record)
        else:
            traffic.take_update(record)
        if record.type == RecordType.SNAPSHOT or book.view.ready:
            book.view.apply(record.data)
            book.timely = record.type == RecordType.DELTA
        if record.type == RecordType.SNAPSHOT and book.view.reason is not Reason.REPEATED:
            book.reason = book.view.reason

    def _traffic_of(self, symbol: str) -> Traffic:
        traffic = self.traffic.get(symbol)
        if traffic is None:
            traffic = self.traffic[symbol] = Traffic()
        return traffic

    def _book_of(self, symbol: str) -> _Book:
        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = _Book(self._stage)
        self._changed[symbol] = None  # asked for by what changes it
        return book


def _instrument(record: RawRecord, batch: Batch) -> Instrument:
    instrument = batch.instruments.get(record.instrument)
    if instrument is None:
        raise RecordError(f"instrument {record.instrument} was never announced")
    return instrument


class LiveMarkets:
    """The rings of a prefix, followed as they come and go; an asynchronous context manager.

    Parameters
    ----------
    prefix : of the rings
    """

    def __init__(self, prefix: str) -> None:
        self.rings: dict[str, Ring] = {}
        """By venue; those of venues whose ring is gone stay, as not alive."""
        self._prefix = prefix
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._scanner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LiveMarkets:
        self._scan()
        self._scanner = asyncio.create_task(self._scan_on(), name="rings")
        return self

    async def __aexit__(self, *error: object) -> None:
        tasks = [*self._tasks.values(), *([self._scanner] if self._scanner else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for ring in self.rings.values():
            ring.close()

    async def catch_up(self, venue: str | None = None) -> None:
        """Take in what is in the rings by now, or in that of one venue."""
        for name, ring in list(self.rings.items()):
            if venue in (None, name):
                # The ring's own task sees the same, and lets go of it.
                with contextlib.suppress(RingError):
                    await ring.catch_up()

    @property
    def failed(self) -> asyncio.Task[None]:
        """Ends only if following the rings has failed for good."""
        if self._scanner is None:
            raise RuntimeError("the rings aren't being followed")
        return self._scanner

    async def _scan_on(self) -> None:
        while True:
            await asyncio.sleep(SCAN_SECONDS)
            self._scan()

    def _scan(self) -> None:
        for info in list_rings(prefix=self._prefix):
            if info.venue not in self._tasks and not info.problem:
                task = asyncio.create_task(self._follow(info.venue), name=f"ring-{info.venue}")
                self._tasks[info.venue] = task
        for venue, task in list(self._tasks.items()):
            if task.done():
                self._tasks.pop(venue).result()

    async def _follow(self, venue: str) -> None:
        try:
            ring = Ring(venue, self._prefix)
        except RingNotFound:
            return
        except (RingError, PermissionError) as error:
            await self._give_up(venue, error)
            return
        before, self.rings[venue] = self.rings.get(venue), ring
        if before is not None:
            ring.traffic = before.traffic
            before.close()
        try:
            await ring.run()
        except RingError as error:
            self.rings.pop(venue).close()
            await self._give_up(venue, error)

    async def _give_up(self, venue: str, error: Exception) -> None:
        log.warning("the ring can't be read", exchange=venue, problem=str(error))
        await asyncio.sleep(GIVEN_UP_SECONDS)
