"""A book as its subscribers know it: in one format, at one depth, every so often.

Its events are encoded once for all of them. What they are made from differs: subscribers of the
whole book, each change told, get the ring's deltas as they are (`WholeView`); of others the view
remembers the levels that it has shown last, and tells the difference (`TopView` does that).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from alphapulse.clock import monotonic_ns, wall_ns
from alphapulse.delta import BookView, LevelStage, TopView
from alphapulse.model import BookState, Instrument, Reason, StateChange
from alphapulse.shm import RawRecord
from alphapulse.stream import binary, messages
from alphapulse.stream._text import delta_json
from alphapulse.stream.client import Group, Item, Kind
from alphapulse.stream.frames import binary_frame, text_frame
from alphapulse.stream.items import told_state
from alphapulse.stream.messages import Times
from alphapulse.stream.requests import FULL, Format, Look
from alphapulse.stream.timetable import Timetable

if TYPE_CHECKING:
    from alphapulse.stream._fanout import Outbox
    from alphapulse.stream.client import Client

Changes = Iterable[tuple[int, int, int, int]]
"""(side, price, size, action), scaled and numbered as in the model."""


class Shared(NamedTuple):
    """What the books of a hub have in common."""

    stage: LevelStage
    """Scratch memory."""
    timetable: Timetable
    epoch: int
    """Of the consolidated books: Unix milliseconds of the stream's beginning."""


class Moment(NamedTuple):
    """A book as of its latest change."""

    book: BookView
    instrument: Instrument
    epoch: int
    times: Times


class Advance(NamedTuple):
    """A change of the book."""

    record: RawRecord
    """As the ring has it."""
    changes: Changes
    """What it says; empty where no view asked for it."""
    times: Times
    now_ns: int
    """Monotonic time."""


class Lapse:
    """What tells a client that a book's changes are left out, until a snapshot comes.

    Told to that client alone, these states have no place in the ring: their sequence is 0.

    Parameters
    ----------
    instrument : by which the client knows the book
    format_ : of what it is told
    """

    def __init__(self, instrument: Instrument, format_: Format) -> None:
        self._instrument = instrument
        self._format = format_

    def stale(self) -> Item:
        """The book isn't current any more."""
        return self._told(BookState.STALE)

    def live(self) -> Item:
        """It is again; goes behind the snapshot."""
        return self._told(BookState.LIVE)

    def _told(self, state: BookState) -> Item:
        change = StateChange(
            exchange=self._instrument.exchange,
            sequence=0,
            received_ns=wall_ns(),
            instrument=self._instrument,
            state=state,
            reason=Reason.LAPPED,
        )
        return told_state(change).item(self._format)


class View:
    """A book at one look.

    Its version is that of its latest event: a change of the book beyond its depth is none of the
    view, and a snapshot made after it still bears the version before.

    Parameters
    ----------
    look : how it is shown
    now : the book, which is live
    shared : with other books
    """

    def __init__(self, look: Look, now: Moment, shared: Shared) -> None:
        self.look = look
        self.clients: Group[Client] = Group()
        self._shared = shared
        self._snapshots: dict[Reason, list[Item]] = {}
        whole = look.depth == FULL and not look.conflate_ms
        self._top = None if whole else TopView(look.depth)
        self.lapse: Lapse | None = None
        """Of the whole book, with which a client may go on after a lost connection."""
        self._told_ns = 0
        self._late: Times | None = None
        """Of the book's latest change, if it is to be told when the time has come."""
        self._scheduled = False
        self.reset(now)

    @property
    def decodes(self) -> bool:
        """Whether `advance` needs to know what a delta says."""
        return self._top is None and self.look.format == "json"

    @property
    def passes(self) -> bool:
        """Whether it tells the ring's own records."""
        return self._top is None and self.look.format == "binary"

    def reset(self, now: Moment) -> None:
        """Begin anew with a live book."""
        self._book, self._instrument, self._epoch, self._times = now
        self._version = now.book.version
        self._names = messages.encode_names(self._instrument).encode()
        self._snapshots.clear()
        self._late = None
        self._halted = False
        if self._top is None:
            self.lapse = Lapse(self._instrument, self.look.format)
        else:
            self._told_ns = monotonic_ns()
            self._top.load(self._book.book)

    def serves(self, client: Outbox) -> bool:
        """Whether the client is subscribed to this view, of a live book."""
        return client in self.clients and self._book.ready and not self._halted

    def show(self, reason: Reason, record: bytes | None) -> None:
        """Send all subscribers the book, after `reset`.

        Parameters
        ----------
        record : the ring's snapshot that it was reset by; None for another reason
        """
        if self._top is not None or record is None:
            self.clients.owe(self, reason)
            return
        # Whole books are in the order of the ring's sequences: a client may resume after any event.
        if self.passes:
            self._snapshots[reason] = [Item(binary_frame(record), Kind.SNAPSHOT, self, 0)]
        if self.clients:
            self.clients.present(self.snapshot(reason), self, reason)

    def advance(self, change: Advance) -> None:
        """Follow a change of the book."""
        if self.look.conflate_ms:
            self._defer(change)
        elif self._top is None:
            self._tell(change.changes, change.times, change.now_ns, change.record)
        elif self._top.advance(self._book.book):
            self._tell(self._top.changes, change.times, change.now_ns)

    def halt(self) -> None:
        """The book isn't live any more: what hasn't been told of it won't be."""
        self._late = None
        self._halted = True

    def due(self, now_ns: int) -> None:
        """Tell what has changed since the event before."""
        self._scheduled = False
        times, self._late = self._late, None
        if times is None or self._top is None or not self.clients:
            return
        if self._top.advance(self._book.book):
            self._told_ns = now_ns
            self._tell(self._top.changes, times, now_ns)

    def snapshot(self, reason: Reason) -> list[Item]:
        """The view as of its latest event, in one or more frames."""
        items = self._snapshots.get(reason)
        if items is None:
            frames = self._records(reason) if self.look.format == "binary" else self._texts(reason)
            items = [Item(frame, Kind.SNAPSHOT, self, 0) for frame in frames]
            self._snapshots[reason] = items
        return items

    def drop_snapshots(self) -> None:
        """Free the frames that are kept for clients who ask at the same time."""
        self._snapshots.clear()

    def _defer(self, change: Advance) -> None:
        self._late = change.times
        if not self._scheduled:
            self._scheduled = True
            self._shared.timetable.add(self._told_ns + self.look.conflate_ms * 1_000_000, self)

    def _tell(
        self, changes: Changes, times: Times, now_ns: int, record: RawRecord | None = None
    ) -> None:
        version, before = self._book.version, self._version
        instrument = self._instrument
        if self.look.format == "json":
            places = instrument.price_exponent, instrument.size_exponent
            frame = text_frame(delta_json(self._names, version, before, times, changes, *places))
        elif record is None:
            assert self._top is not None, "a whole view has the ring's record"
            frame = binary_frame(
                binary.encode_delta(self._top.changes, version, before, times, instrument)
            )
        else:
            frame = binary_frame(bytes(record.data))
        self._version = version
        self._times = times
        self._snapshots.clear()
        self.clients.deliver(Item(frame, Kind.DELTA, self, now_ns, self.lapse))

    def _texts(self, reason: Reason) -> Iterable[bytes]:
        head = messages.snapshot_head(
            self._instrument, self._version, reason, self._times, self._epoch
        )
        shown = self._book.book if self._top is None else self._top
        whole = self.look.depth == FULL
        texts = messages.encode_parts(
            head, shown.bids(), shown.asks(), self._instrument, marked=whole
        )
        return map(text_frame, texts)

    def _records(self, reason: Reason) -> Iterable[bytes]:
        book = self._book.book
        if self.look.conflate_ms:
            # The view is as its subscribers know it, which isn't the book of now.
            assert self._top is not None
            book = binary.book_of(self._top, self._shared.stage)
        record = binary.encode_snapshot(
            book,
            self._book,
            self.look.depth,
            self._version,
            reason,
            self._times,
            self._instrument,
        )
        return (binary_frame(record),)
