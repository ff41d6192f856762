"""Follows one venue's ring and writes what it gives, batch by batch."""

from __future__ import annotations

import asyncio
import random

from alphapulse import metrics
from alphapulse.clock import NO_TIME, NS_PER_SECOND, monotonic_ns, wall_ns
from alphapulse.config import Settings, StoreSettings
from alphapulse.errors import RingError, RingNotFound, StoreError
from alphapulse.history import GapRow, overrun_row
from alphapulse.log import get_logger
from alphapulse.model import Channel, Overrun, Reason
from alphapulse.shm import Position, RingReader, list_rings
from alphapulse.store.repository import Store, WriteBatch
from alphapulse.store.taking import Collected, Taking

LOOK_SECONDS = 1.0
"""Longest wait for news of the ring."""
POSITION_NS = NS_PER_SECOND
"""Longest time that the place in the ring goes unwritten while nothing is written with it."""
TELL_NS = 100_000_000
"""How often metrics are set."""
SPACING_NS = 500_000
"""Least time between two looks at a ring under load, so that a batch holds several trades."""
LOAD_WINDOW_NS = 100_000_000
LOAD_LOOKS = 100
"""Looks within a window that make a load: a thousand a second."""
HEARD_AMONG = 1000
"""A symbol's newest trades, among which one from a ring is looked for."""
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0

BEGINNING = Position(0, 0)
"""Written when a ring was closed by its writer and read to its end: nothing of it is missing."""

log = get_logger(__name__)


class Follower:
    """Follows one venue's ring.

    What comes in while a batch is being written makes the next one. The place in the ring is
    written with the data and read back after every failure: while the store is away nothing is held
    here, the ring is the buffer, and what it no longer holds by then is written down as a gap.

    Parameters
    ----------
    venue : its name
    settings : sections ``ring`` and ``store`` are used
    store : where to write
    stop : ends this when set, once what the ring has by then is written
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
        self._wait = BACKOFF_FIRST_SECONDS
        self._reader: RingReader | None = None
        self._stored: Position | None = None
        """The place in the ring that the store is known to have had."""
        self._rows = metrics.STORE_ROWS.bind(exchange=venue)
        self._new = 0
        """Rows that the metric doesn't tell yet."""
        self._lag = metrics.STORE_LAG.bind(exchange=venue)

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
            await self._pause(self._wait * random.uniform(0.5, 1.5))
            self._wait = min(self._wait * 2, BACKOFF_MAX_SECONDS)

    def nudge(self) -> None:
        """End a wait for news: the writer was told to stop."""
        if self._reader is not None:
            self._reader.nudge()

    async def _session(self) -> None:
        """From the position in the store to the first failure."""
        position = await self._store.position(self._venue)
        forgotten = self._has_forgotten(position)
        reader = self._resume(position)
        oldest = reader is None
        if reader is None:
            reader = RingReader(self._venue, prefix=self._prefix, start="oldest")
        try:
            heard_ns = await self._last_heard_ns()
            if oldest:
                successor = position == BEGINNING
                await self._note_beginning(reader.position, successor, forgotten, heard_ns)
            self._reader = reader
            await self._follow(reader, position, heard_ns)
        finally:
            self._tell(reader.lag)
            self._reader = None
            reader.close()

    def _tell(self, lag: int) -> None:
        self._lag.set(lag)
        self._rows.inc(self._new)
        self._new = 0

    async def _follow(self, reader: RingReader, written: Position | None, heard_ns: int) -> None:
        taking = Taking(self._venue, self._settings, heard_ns)
        pace = Pace()
        written_ns = told_ns = monotonic_ns()
        idle = True
        goal: Position | None = None
        while True:
            stopping = self._stop.is_set()
            if stopping and goal is None:
                # What the ring has by now. A busy one is never empty.
                goal = Position(reader.epoch, reader.position.sequence + reader.lag)
            # Asked before the last look: nothing is written behind a ring's end.
            ended = idle and self._is_over(reader)
            now_ns = pace.look()
            collected = taking.collect(reader, now_ns)
            over = ended and collected.empty
            due = stopping or now_ns - written_ns >= POSITION_NS
            position = BEGINNING if over else reader.position
            if collected or over or (due and position != written):
                await self._write(collected, position)
                written, written_ns = position, now_ns
            if now_ns >= told_ns or stopping:
                self._tell(reader.lag)
                told_ns = now_ns + TELL_NS
            if over or (goal and (collected.empty or _has_reached(reader.position, goal))):
                return
            idle = collected.empty
            if collected.drained and not stopping:
                await self._rest(reader, pace)
            elif not collected:
                await asyncio.sleep(0)

    async def _last_heard_ns(self) -> int:
        """Our time of the last trade that was written from a ring: what is lost came later."""
        heard_ns = NO_TIME
        for series in await self._store.summarise():
            if series.exchange == self._venue:
                newest = await self._store.read_trades(
                    self._venue, series.symbol, limit=HEARD_AMONG, newest=True
                )
                times = [row.received_ns for row in newest if not row.filled]
                heard_ns = max([heard_ns, *times])
        return heard_ns

    def _has_forgotten(self, position: Position | None) -> bool:
        """Whether the store has lost all that it held, going by the place that it tells now."""
        before = self._stored
        if position is None:
            if before is not None:
                log.error(
                    "the store has come back empty: of what it held, only what the ring still has "
                    "is written again",
                    exchange=self._venue,
                )
            else:
                log.info("nothing is stored as yet: the history begins here", exchange=self._venue)
            return before is not None
        self._stored = position
        if before is not None and BEGINNING != position < before:
            log.warning(
                "the store has lost the latest of what it held; what the ring still has is "
                "written again",
                exchange=self._venue,
            )
        return False

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

    async def _note_beginning(
        self, position: Position, successor: bool, forgotten: bool, heard_ns: int
    ) -> None:
        """Write down what was lost before the ring was followed at all.

        Parameters
        ----------
        position : where reading begins
        successor : whether there was a ring before, read to its end: nobody has collected since
        forgotten : whether the store has lost what it held
        heard_ns : our time of the last trade that was written
        """
        gaps = []
        if forgotten:
            gaps.append(self._boundless(Reason.STARTED, NO_TIME))
        if successor and heard_ns != NO_TIME:
            gaps.append(self._boundless(Reason.RESTARTED, heard_ns))
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
            gaps.append(overrun_row(overrun, heard_ns if successor else NO_TIME, wall_ns()))
        if gaps:
            await self._store.append(WriteBatch(exchange=self._venue, gaps=gaps, position=position))
            self._stored = position

    def _boundless(self, reason: Reason, since_ns: int) -> GapRow:
        """A loss of which only its time is known."""
        return GapRow(
            exchange=self._venue,
            symbol=None,
            channel=Channel.RING,
            reason=reason,
            first=None,
            last=None,
            count=None,
            since_ns=since_ns,
            received_ns=wall_ns(),
        )

    def _is_over(self, reader: RingReader) -> bool:
        """Whether the ring was closed by its writer and removed, with no successor."""
        if reader.writer_alive:
            return False
        return all(ring.venue != self._venue for ring in list_rings(prefix=self._prefix))

    async def _write(self, collected: Collected, position: Position) -> None:
        batch = WriteBatch(
            exchange=self._venue,
            trades=collected.trades,
            gaps=collected.gaps,
            books=collected.books,
            states=collected.states,
            position=position,
        )
        self._new += await self._store.append(batch)
        self._stored = position
        self._wait = BACKOFF_FIRST_SECONDS

    async def _rest(self, reader: RingReader, pace: Pace) -> None:
        """Wait for the next batch's time, and for news."""
        if self._store.pace_seconds:
            await self._pause(self._store.pace_seconds)
        if not self._stop.is_set():
            await reader.ready(LOOK_SECONDS, pause_ns=pace.pause_ns())

    async def _pause(self, seconds: float) -> None:
        """Wait for a while, or until the writer is told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


def _has_reached(place: Position, goal: Position) -> bool:
    """Whether a place is that of the goal or behind it: a ring is read to its end before others."""
    return place.epoch != goal.epoch or place.sequence >= goal.sequence


class Pace:
    """How often to look at the ring: whenever there is news, but more seldom under load."""

    def __init__(self) -> None:
        self._last_ns = self._window_ns = monotonic_ns()
        self._looks = 0
        self._loaded = False

    def look(self) -> int:
        """Count a look, which is now; the time of it."""
        now_ns = self._last_ns = monotonic_ns()
        self._looks += 1
        if self._looks >= LOAD_LOOKS:
            self._loaded = True
        if now_ns - self._window_ns >= LOAD_WINDOW_NS:
            self._loaded = self._looks >= LOAD_LOOKS
            self._window_ns = now_ns
            self._looks = 0
        return now_ns

    def pause_ns(self) -> int:
        """How long not to look."""
        return self._last_ns + SPACING_NS - monotonic_ns() if self._loaded else 0
