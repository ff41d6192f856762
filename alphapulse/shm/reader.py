"""The reading end of a venue's ring: a cursor that outlives the ring's writer."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Literal, NamedTuple

from alphapulse._core.cursor import Cursor
from alphapulse._core.records import Records
from alphapulse._core.segment import OPEN, SUPERSEDED
from alphapulse.clock import monotonic_ns
from alphapulse.errors import RingCorrupt, RingError, RingNotFound
from alphapulse.model import BookState, Event, Instrument, Overrun, Reason
from alphapulse.shm import slots
from alphapulse.shm.alarm import Alarm
from alphapulse.shm.attachment import Attachment
from alphapulse.shm.batch import Batch, Origin, make_batch
from alphapulse.shm.names import (
    DEFAULT_PREFIX,
    FOLDER,
    retired_epochs,
    retired_name,
    ring_name,
)
from alphapulse.shm.segment import open_segment
from alphapulse.shm.watcher import Watcher

_SLICE_NS = 100_000_000
"""The longest sleep before a look for the next writer's ring."""
_LONGEST_SLICE_NS = 1_000_000_000
"""The same while the writer is there, which wakes whoever sleeps: a wake-up may have been lost."""
_SLOTLESS_SLICE_NS = 2_000_000
"""The same for a reader without a slot, whom the writer doesn't wake."""
_LOOK_NS = 50_000_000
"""The least time between two looks at the file system."""

LONGEST_PAUSE_NS = 10_000_000
"""Longest pause of `RingReader.ready`: nothing ends it early."""


class Position(NamedTuple):
    """A place in a venue's rings: the next sequence wanted."""

    epoch: int
    sequence: int


class RingReader(Cursor[Batch]):
    """A reader of one venue's ring; it moves on by itself to the rings of later writers.

    Books begin with a snapshot, and after an `Overrun` with a new one. Not for use by several
    threads at a time, save for `close`.

    Parameters
    ----------
    venue : name of the exchange
    prefix : first part of the segment's name
    start : ``"latest"``: the live books' latest snapshots and all from now on, no past trades;
        ``"oldest"``: all that is surely there; or the position to resume at
    spin_ns : how long `wait` polls before it sleeps; a sleeper wakes some 30 us late, a poller
        needs a core

    Raises
    ------
    RingNotFound
        there is no such ring
    RingCorrupt
        its segment contradicts itself
    ValueError
        a name that can't be, or a position beyond the ring's end
    """

    def __init__(
        self,
        venue: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        start: Literal["latest", "oldest"] | Position = "latest",
        spin_ns: int = 0,
    ) -> None:
        self.venue = venue
        self.name = ring_name(prefix, venue)
        self._path = FOLDER / self.name
        self._spin_ns = spin_ns
        self._pending: Overrun | None = None
        self._slot: slots.Slot | None = None
        self._watcher: Watcher | None = None
        self._awaited = -1
        """The sequence that `when_ready` was last called for."""
        self._longest_ns = _SLICE_NS
        self._nudged = False
        self._alarm: Alarm | None = None
        self._here = self._begin(start)
        self._closed = False
        self._go_on()
        self._take_slot()

    def _begin(self, start: Literal["latest", "oldest"] | Position) -> Attachment:
        current = self._open(self.name)
        try:
            if isinstance(start, Position):
                return self._resume(current, start)
            if start == "latest":
                current.consumer.seek_latest()
            elif start == "oldest":
                current.consumer.seek_oldest()
            else:
                raise ValueError(f"start {start!r}: 'latest', 'oldest' or a Position")
        except BaseException:
            current.close()
            raise
        return current

    def _resume(self, current: Attachment, start: Position) -> Attachment:
        if start.epoch == current.epoch:
            current.consumer.seek(start.sequence)
            return current
        try:
            before = self._open(retired_name(self.name, start.epoch))
            before.consumer.seek(start.sequence)
        except RingNotFound:
            self._pending = Overrun(
                exchange=self.venue,
                epoch=start.epoch,
                first=start.sequence,
                last=None,
                count=None,
                reason=Reason.RESTARTED,
            )
            return self._first_after(start.epoch, current)
        current.close()
        return before

    def _open(self, name: str) -> Attachment:
        mapping = open_segment(FOLDER / name)
        try:
            return Attachment(self.venue, mapping)
        except BaseException:
            mapping.close()
            raise

    def _first_after(self, epoch: int, current: Attachment) -> Attachment:
        """The oldest segment of a later epoch that is still there."""
        for other in retired_epochs(self.name):
            if epoch < other < current.epoch:
                try:
                    found = self._open(retired_name(self.name, other))
                except (RingNotFound, RingCorrupt):
                    continue  # removed at this moment, or no use: the next one then
                current.close()
                return found
        return current

    def _read_on(self, limit: int, found: Records | tuple[int, int, int] | None) -> Batch:
        """What `read` gives where that isn't merely the next records."""
        self._check_open()
        while self._pending is None:
            here = self._here
            if isinstance(found, Batch):
                here.refresh()
                return found
            if isinstance(found, tuple):
                return self._lapped(here, *found)
            if not self._advance():
                return here.nothing
            if self._pending is None:
                found = self._here.consumer.next(limit)
        overrun, self._pending = self._pending, None
        self._go_on()
        origin = Origin(self.venue, overrun.epoch, self._here.instruments)
        return make_batch(origin, overrun)

    def _go_on(self) -> None:
        """Let `read` and `wait` look at the present ring first, unless an overrun is to be told."""
        here = self._here
        self._follow(None if self._pending else here.consumer, here.nothing, self._spin_ns)

    def _lapped(self, here: Attachment, first: int, last: int, count: int) -> Batch:
        here.refresh()
        overrun = Overrun(
            exchange=self.venue,
            epoch=here.epoch,
            first=first,
            last=last,
            count=count,
            reason=Reason.LAPPED,
        )
        return make_batch(here.origin, overrun)

    def _advance(self) -> bool:
        """Move to the next epoch if this one is over and read; whether that was done."""
        here = self._here
        if here.segment.ended != SUPERSEDED:
            now_ns = monotonic_ns()
            if now_ns < self.look_at_ns:
                return False
            self.look_at_ns = now_ns + _LOOK_NS
            self._take_slot()
            if here.segment.ended == OPEN and not here.abandoned():
                return False
        # Asked after the end was seen: nothing more is committed behind it.
        if not here.consumer.drained:
            return False
        try:
            current = self._open(self.name)
        except RingNotFound:
            return False
        if current.epoch <= here.epoch:
            current.close()
            return False
        before = current.segment.predecessor
        if before is not None and before[0] != here.epoch:
            current = self._first_after(here.epoch, current)
            before = current.segment.predecessor
        if before is not None and before[0] != here.epoch:
            self._pending = Overrun(
                exchange=self.venue,
                epoch=before[0],
                first=1,
                last=None,
                count=None,
                reason=Reason.RESTARTED,
            )
        self._here = current
        self._go_on()
        here.close()
        self._take_slot()
        return True

    def _take_slot(self) -> None:
        """Have a slot in the readers' segment that the present writer looks at, if possible."""
        path = slots.readers_path(self.name)
        if self._slot is None or not self._slot.is_at(path):
            if self._slot is not None:
                self._slot.close()
            self._slot = slots.claim(self.name)
        if self._slot is not None:
            self._here.consumer.use_slot(self._slot.page, self._slot.index)

    def _has_news(self) -> bool:
        """Whether `read` would give something."""
        while self._pending is None and self._here.consumer.drained:
            if not self._advance():
                return False
        return True

    def _slice_ns(self) -> int:
        """How long to sleep next: ever longer, as long as there is a writer that wakes."""
        if self._slot is None:
            return _SLOTLESS_SLICE_NS
        if self._here.segment.ended != OPEN:
            return _SLICE_NS
        slice_ns = self._longest_ns
        self._longest_ns = min(slice_ns * 2, _LONGEST_SLICE_NS)
        return slice_ns

    def _wait_on(self, timeout: float | None, spun_ns: int) -> bool:
        """`wait` for what may take longer than a spin; so long has been spun already."""
        until_ns = None if timeout is None else monotonic_ns() + int(timeout * 1e9) - spun_ns
        spin_ns = self._spin_ns - spun_ns
        self._longest_ns = _SLICE_NS
        while not self._closed:
            ended = self._here.segment.ended  # before the look, so that no end is slept through
            if self._has_news():
                return True
            slice_ns = self._slice_ns()
            if until_ns is not None:
                slice_ns = min(slice_ns, until_ns - monotonic_ns())
            if slice_ns <= 0:
                return False
            spins_ns = min(spin_ns, slice_ns)
            spin_ns -= spins_ns
            self._here.consumer.wait(spins_ns, 0 if spin_ns else slice_ns, ended)
        return False

    async def ready(self, timeout_seconds: float | None = None, *, pause_ns: int = 0) -> None:
        """Return when `read` would give something, after a timeout, or when `nudge` is called.

        Parameters
        ----------
        timeout_seconds : None for no limit
        pause_ns : sleep for that long first, up to `LONGEST_PAUSE_NS`: whoever can't use each
            record at once is woken less often, and costs the writer no wake-ups meanwhile
        """
        self._nudged = False
        if pause_ns > 0:
            if self._alarm is None:
                self._alarm = Alarm()
            await self._alarm.sleep(min(pause_ns, LONGEST_PAUSE_NS))
        until_ns = None if timeout_seconds is None else monotonic_ns() + int(timeout_seconds * 1e9)
        spin_ns, self._longest_ns = self._spin_ns, _SLICE_NS
        while not (self._closed or self._nudged):
            here = self._here
            if not here.consumer.drained:
                return
            ended = here.segment.ended
            if self._has_news():
                return
            slice_ns = self._slice_ns()
            if until_ns is not None:
                slice_ns = min(slice_ns, until_ns - monotonic_ns())
                if slice_ns <= 0:
                    return
            if self._watcher is None:
                self._watcher = Watcher(f"ring-{self.name}", self._spin_ns > 0)
            spins_ns = min(spin_ns, slice_ns)
            spin_ns -= spins_ns
            timeout_ns = 0 if spin_ns else slice_ns
            await self._watcher.news(self._here.consumer, spins_ns, timeout_ns, ended)

    def when_ready(self, call: Callable[[], None]) -> None:
        """Have the running event loop call this once, soon, when there may be something to read.

        For whoever doesn't await `ready`. It is called now and then where there is nothing, too,
        so that `read` looks for the next writer's ring, and when the reader is closed.
        """
        here = self._here
        sequence = here.consumer.sequence
        if sequence != self._awaited:
            self._awaited, self._longest_ns = sequence, _SLICE_NS
        ended = here.segment.ended
        if self._closed or not here.consumer.drained:
            asyncio.get_running_loop().call_soon(call)
            return
        if self._watcher is None:
            self._watcher = Watcher(f"ring-{self.name}", self._spin_ns > 0)
        spin_ns, slice_ns = self._spin_ns, self._slice_ns()
        self._watcher.watch(call, here.consumer, min(spin_ns, slice_ns), slice_ns, ended)

    def nudge(self) -> None:
        """Have a `ready` that waits return. For the thread of its event loop."""
        self._nudged = True
        if self._watcher is not None:
            self._watcher.interrupt()

    def __iter__(self) -> Iterator[Event]:
        """Events as they come, without end; an `Overrun` is one of them."""
        while not self._closed:
            batch = self.read()
            if batch:
                yield from batch.events()
            else:
                self.wait()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not self._closed:
            batch = self.read()
            for event in batch.events():
                yield event
            if batch:
                await asyncio.sleep(0)  # others of the loop have their turn while this catches up
            else:
                await self.ready()

    @property
    def position(self) -> Position:
        """Where a later reader would go on: behind the records given so far."""
        return Position(self._here.epoch, self._here.consumer.sequence)

    @property
    def epoch(self) -> int:
        """Of the ring that is being read: Unix milliseconds of its creation."""
        return self._here.epoch

    @property
    def instruments(self) -> Mapping[int, Instrument]:
        """The epoch's instruments by id, those included whose records came before the start."""
        self._here.refresh()
        return self._here.instruments

    @property
    def states(self) -> Mapping[int, BookState]:
        """The epoch's books' states as the writer has them now, by instrument id."""
        return self._here.states()

    @property
    def lag(self) -> int:
        """Records of this epoch that were written and not given yet."""
        here = self._here
        return max(here.segment.sequence + 1 - here.consumer.sequence, 0)

    @property
    def writer_alive(self) -> bool:
        """Whether the ring's writer still holds its lock."""
        self._check_open()
        return self._here.mapping.owned()

    @property
    def heartbeat_ns(self) -> int:
        """When the writer last said that it is at work."""
        return self._here.segment.heartbeat_ns

    @property
    def closed(self) -> bool:
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise RingError(f"the reader of ring {self.name!r} is closed")

    def close(self) -> None:
        """Free the slot and end the thread, if any; records given out stay valid."""
        self._close(join=True)

    def _close(self, *, join: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._follow(None, self._here.nothing, 0)
        if self._watcher is not None:
            self._watcher.stop(join=join)
        if self._alarm is not None:
            self._alarm.close()
        if self._slot is not None:
            self._slot.close()
        self._here.close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if not getattr(self, "_closed", True):
            warn(f"the reader of ring {self.name!r} wasn't closed", ResourceWarning, source=self)
            self._close(join=False)

    def __enter__(self) -> RingReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
