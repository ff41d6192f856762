"""One symbol's book on its way from the venue's frames to the ring, and whether it is right.

States run ``syncing -> live -> stale | invalid -> syncing``. ``stale`` means that news may have
been missed, ``invalid`` that the book is known or likely to be wrong; both need a new snapshot.
Only a live book publishes deltas. What the book wants of the session (a resubscription, a REST
snapshot) it says by calling ``want``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import msgspec

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.collectors.events import BookSnapshotEvent, BookUpdateEvent
from alphapulse.collectors.publisher import Publisher
from alphapulse.delta import BookTracker, Encoder
from alphapulse.errors import ChecksumMismatch, CrossedBook, PrecisionError, RangeError
from alphapulse.fixed import INT64_MAX, MAX_EXPONENT, rescale
from alphapulse.model import BookState, Channel, Instrument, Reason

MAX_BUFFERED_FRAMES = 20_000
MAX_BUFFERED_BYTES = 32 << 20
MAX_BUFFERED_SECONDS = 300

MAX_AHEAD_SECONDS = 30
"""For so long a snapshot may be ahead of the updates: it overtook them, or we are late."""

NO_ID = -1
"""In place of an update's id that isn't known."""

Want = Callable[[str, Reason], None]
"""``want(venue_symbol, reason)``: the book needs a new snapshot from the venue."""


MOST_RESCALES = 32
"""Changes of a symbol's exponents in a collector's life: each takes an instrument id."""


class SyncedBook(ABC):
    """A symbol's book and its state.

    Parameters
    ----------
    tracker : the book itself
    publisher : where records go
    want : how to ask for a new snapshot
    next_id : gives instrument ids that were never used
    """

    def __init__(
        self,
        tracker: BookTracker,
        publisher: Publisher,
        want: Want,
        next_id: Callable[[], int],
    ) -> None:
        self.tracker = tracker
        self.state = BookState.SYNCING
        self.reason = Reason.STARTED
        self._publisher = publisher
        self._want = want
        self._next_id = next_id
        self._listed = tracker.instrument
        self._rescales = 0
        self._loaded = False
        self._snapshot_id = NO_ID
        self._snapshot_ns = NO_TIME

    @property
    def instrument(self) -> Instrument:
        return self.tracker.instrument

    def announce(self, received_ns: int) -> None:
        """Publish the instrument and where its book stands, as a new ring needs it."""
        self._publisher.instrument(self.instrument, received_ns)
        if self.state is BookState.LIVE:
            self._publisher.write(self.tracker.repeat(received_ns=received_ns))
        self._publisher.state(self.instrument, self.state, self.reason, received_ns)

    def repeat(self, received_ns: int) -> None:
        """Publish the current book once more, for newcomers."""
        if self.state is BookState.LIVE:
            self._publisher.write(self.tracker.repeat(received_ns=received_ns))

    def redefine(self, news: Instrument, received_ns: int) -> None:
        """Take news of the instrument from the venue's metadata; exponents only grow.

        Raises
        ------
        RangeError
            a price or size of the book doesn't fit the new exponents; nothing has changed
        """
        held = self.instrument
        price_exponent = max(held.price_exponent, news.price_exponent)
        size_exponent = max(held.size_exponent, news.size_exponent)
        if (price_exponent, size_exponent) != (held.price_exponent, held.size_exponent):
            self.rescale(price_exponent, size_exponent, received_ns)
        self._listed = news

    def widen(self, error: PrecisionError, received_ns: int) -> None:
        """Give the instrument the decimal places that a value lacks.

        Raises
        ------
        FixedPointError
            no instrument can have them, or not this one any more; nothing has changed
        """
        if error.needed > MAX_EXPONENT or self._rescales >= MOST_RESCALES:
            raise error
        held = self.instrument
        if error.field == "price":
            self.rescale(error.needed, held.size_exponent, received_ns)
        else:
            self.rescale(held.price_exponent, error.needed, received_ns)

    def rescale(self, price_exponent: int, size_exponent: int, received_ns: int) -> None:
        """Go on under a new instrument with these exponents.

        Raises
        ------
        RangeError
            a price or size of the book doesn't fit the new exponents; nothing has changed
        """
        instrument = _rescaled(self.instrument, price_exponent, size_exponent, self._next_id)
        record = b""
        if self.tracker.ready:
            record = bytes(self.tracker.rescaled(instrument, received_ns=received_ns))
        else:
            self.tracker.instrument = instrument
        self._rescales += 1
        self._publisher.instrument(instrument, received_ns)
        if self.state is BookState.LIVE:
            self._publisher.write(record)
        self._publisher.state(instrument, self.state, Reason.RESCALED, received_ns)

    def fail(self, state: BookState, reason: Reason, received_ns: int) -> None:
        """The book can't be trusted any more: tell it, and ask for a new snapshot."""
        self.tracker.invalidate()
        self._enter(state, reason, received_ns)
        self._want(self.instrument.venue_symbol, reason)

    def malformed(self, received_ns: int) -> None:
        """A frame that may have been a change of this book couldn't be used."""
        self.fail(BookState.INVALID, Reason.MALFORMED, received_ns)

    def resyncing(self, reason: Reason, received_ns: int) -> None:
        """A new snapshot has been asked for."""
        self._enter(BookState.SYNCING, reason, received_ns)

    @abstractmethod
    def reconnected(self) -> None:
        """A new connection begins with this symbol."""

    def _enter(self, state: BookState, reason: Reason, received_ns: int) -> None:
        if state is not self.state:
            self.state, self.reason = state, reason
            self.tracker.live = state is BookState.LIVE
            self._publisher.state(self.instrument, state, reason, received_ns)

    @abstractmethod
    def snapshot(self, event: BookSnapshotEvent, received_ns: int) -> None:
        """Take the whole book from the venue.

        Raises
        ------
        FixedPointError
            a price or size can't be used; the book is as before
        """

    @abstractmethod
    def update(self, event: BookUpdateEvent, received_ns: int) -> None:
        """Take changed levels from the venue.

        Raises
        ------
        FixedPointError
            a price or size can't be used; the book is as before
        """

    def _load(self, event: BookSnapshotEvent, received_ns: int) -> bool:
        """Make a snapshot the book; False if it is wrong in itself."""
        reason = Reason.RESYNCED if self._loaded else Reason.SUBSCRIBED

        def load() -> Encoder:
            return self.tracker.load(
                event.parts,
                reason=reason,
                checksum=event.checksum,
                limit=event.limit,
                exchange_ns=event.exchange_ns,
                received_ns=received_ns,
            )

        def load_narrowed() -> Encoder:
            try:
                return load()
            except RangeError:
                # Wrong digits may have grown the exponents until nothing fits any more.
                if not self._narrow(received_ns):
                    raise
                return load()

        if not self._checked(load_narrowed, event.checksum, received_ns):
            return False
        self._loaded = True
        self._enter(BookState.LIVE, reason, received_ns)
        return True

    def _apply(self, event: BookUpdateEvent, received_ns: int) -> bool:
        """Apply an update to a live book; False if the book turned out to be wrong."""

        def update() -> Encoder | None:
            return self.tracker.update(
                event.parts,
                checksum=event.checksum,
                exchange_ns=event.exchange_ns,
                received_ns=received_ns,
            )

        return self._checked(update, event.checksum, received_ns)

    def _checked(
        self, change: Callable[[], Encoder | None], checksum: int | None, received_ns: int
    ) -> bool:
        """Change the book and publish the record; False, and a new state, if it is wrong now."""
        counts = self._publisher.counts
        try:
            record = self._precise(change, received_ns)
        except ChecksumMismatch:
            self._publisher.checksum_failed(self.instrument)
            self.fail(BookState.INVALID, Reason.CHECKSUM, received_ns)
            return False
        except CrossedBook:
            # Looked at once the checksum is known to match.
            counts.checksums_ok += checksum is not None
            self.fail(BookState.INVALID, Reason.CROSSED, received_ns)
            return False
        counts.checksums_ok += checksum is not None
        if record is not None:
            self._publisher.write(record)
        return True

    def _precise(self, change: Callable[[], Encoder | None], received_ns: int) -> Encoder | None:
        """Change the book, first giving it the decimal places that it turns out to lack."""
        # Once for the price and once for the size; a third time can't come.
        for _ in range(2):
            try:
                return change()
            except PrecisionError as error:
                if self.tracker.rule is not None:
                    # A checksum counts digits: a venue that has one keeps to its precision.
                    raise
                self.widen(error, received_ns)
        return change()

    def _begin(self, event: BookSnapshotEvent, received_ns: int) -> bool:
        """Make a snapshot the book that numbered updates go on from; False if it is wrong."""
        last_id = _last_id(event)
        if not self._load(event, received_ns):
            return False
        self.tracker.last_id = self._snapshot_id = last_id
        self._snapshot_ns = received_ns
        return True

    def _continue(self, event: BookUpdateEvent, received_ns: int) -> bool:
        """Apply a numbered update to a live book; False if the book must begin anew before it."""
        first, last = _ids(event)
        held = self.tracker.last_id
        if held != NO_ID and first > held + 1:
            self._gap(first, received_ns)
            return False
        if last > held:
            if self._apply(event, received_ns):
                self.tracker.last_id = last
        elif self._counts_anew(event, received_ns):
            self.fail(BookState.INVALID, Reason.GAP, received_ns)
            return False
        return True

    def _counts_anew(self, event: BookUpdateEvent, received_ns: int) -> bool:
        """Whether an update is older by its ids alone: the venue counts anew, or an id was wrong.

        Updates tell by their times. A snapshot may bear none, but updates soon go on from it.
        """
        if self.tracker.last_id == self._snapshot_id:
            return received_ns > self._snapshot_ns + MAX_AHEAD_SECONDS * NS_PER_SECOND
        return event.exchange_ns > self.tracker.exchange_ns > NO_TIME

    def _gap(self, first: int, received_ns: int) -> None:
        missed = first - self.tracker.last_id - 1
        self._publisher.gap(
            self.instrument,
            Channel.ORDERBOOK,
            Reason.GAP,
            received_ns,
            first=self.tracker.last_id + 1,
            last=first - 1,
            count=missed,
        )
        self.fail(BookState.INVALID, Reason.GAP, received_ns)

    def _narrow(self, received_ns: int) -> bool:
        """Go back to the listed exponents, if there is no book and they were grown since."""
        held, listed = self.instrument, self._listed
        grown = (held.price_exponent, held.size_exponent) != (
            listed.price_exponent,
            listed.size_exponent,
        )
        if grown and not self.tracker.ready:
            self.rescale(listed.price_exponent, listed.size_exponent, received_ns)
            return True
        return False


class StreamedBook(SyncedBook):
    """A book whose snapshots come as frames among its updates (Coinbase, Kraken).

    Where the venue numbers updates, each has to continue what came before.
    """

    def reconnected(self) -> None:
        """Its snapshot comes with the subscription: nothing of before was kept."""

    def snapshot(self, event: BookSnapshotEvent, received_ns: int) -> None:
        self._begin(event, received_ns)

    def update(self, event: BookUpdateEvent, received_ns: int) -> None:
        # Updates of an earlier subscription may still arrive while the snapshot is on its way.
        if self.state is not BookState.LIVE:
            return
        if event.last_id is None:
            self._apply(event, received_ns)
        else:
            self._continue(event, received_ns)


class SequencedBook(SyncedBook):
    """A book made of numbered updates on top of a REST snapshot (Binance.US).

    The stream is opened first and its updates are kept; the snapshot must then fall into them.
    One that is too old is asked for again and the kept updates stay, or it would never fit.
    """

    def __init__(
        self,
        tracker: BookTracker,
        publisher: Publisher,
        want: Want,
        next_id: Callable[[], int],
    ) -> None:
        super().__init__(tracker, publisher, want, next_id)
        self._buffer: deque[tuple[BookUpdateEvent, int]] = deque()
        self._buffered_bytes = 0
        self._suspect = False

    def update(self, event: BookUpdateEvent, received_ns: int) -> None:
        if self._suspect:
            self._settle(_ids(event)[0], received_ns)
        if self.state is not BookState.LIVE:
            self._keep(event, received_ns)
            if len(self._buffer) == 1 and self.state is BookState.SYNCING:
                self._want(self.instrument.venue_symbol, self.reason)
        elif not self._continue(event, received_ns):
            self._keep(event, received_ns)

    def snapshot(self, event: BookSnapshotEvent, received_ns: int) -> None:
        last_id = _last_id(event)
        if last_id == NO_ID:
            raise ValueError("a snapshot of a sequenced book needs the id of its last update")
        if self.state is BookState.LIVE and last_id <= self.tracker.last_id:
            return
        if self._suspect and last_id < self.tracker.last_id:
            self._want(self.instrument.venue_symbol, self.reason)
            return
        self._suspect = False
        while self._buffer and _ids(self._buffer[0][0])[1] <= last_id:
            self._drop_oldest()
        if self._buffer and _ids(self._buffer[0][0])[0] > last_id + 1:
            # Older than what was kept: ask again, and go on keeping.
            self._want(self.instrument.venue_symbol, self.reason)
            return
        if self._begin(event, received_ns):
            self._replay()

    def fail(self, state: BookState, reason: Reason, received_ns: int) -> None:
        super().fail(state, reason, received_ns)
        self._suspect = False
        self._clear()

    def reconnected(self) -> None:
        # What an earlier connection left behind doesn't join on to what comes now.
        if self.state is not BookState.LIVE:
            self._clear()

    def malformed(self, received_ns: int) -> None:
        """As for every book, but the next update's ids will tell whether anything was lost."""
        if self.state is not BookState.LIVE:
            return
        self._suspect = True
        self._enter(BookState.INVALID, Reason.MALFORMED, received_ns)
        self._want(self.instrument.venue_symbol, Reason.MALFORMED)

    def _settle(self, first: int, received_ns: int) -> None:
        """An update after an unusable frame: if it continues the book, nothing was lost."""
        self._suspect = False
        if first <= self.tracker.last_id + 1:
            self._publisher.write(
                self.tracker.reset(reason=Reason.RESYNCED, received_ns=received_ns)
            )
            self._enter(BookState.LIVE, Reason.RESYNCED, received_ns)
        else:
            self.tracker.invalidate()

    def _replay(self) -> None:
        """Apply the kept updates that follow the snapshot; they may have a gap of their own."""
        while self._buffer and self.state is BookState.LIVE:
            event, received_ns = self._buffer[0]
            first, last = _ids(event)
            if first > self.tracker.last_id + 1:
                rest = list(self._buffer)
                self._gap(first, received_ns)
                for kept, kept_ns in rest:
                    self._keep(kept, kept_ns)
                return
            self._drop_oldest()
            if self._apply(event, received_ns):
                self.tracker.last_id = last

    def _keep(self, event: BookUpdateEvent, received_ns: int) -> None:
        """Keep an update for after the snapshot; the oldest go where there are too many."""
        self._buffer.append((event, received_ns))
        self._buffered_bytes += _size(event)
        oldest_ns = received_ns - MAX_BUFFERED_SECONDS * NS_PER_SECOND
        while (
            len(self._buffer) > MAX_BUFFERED_FRAMES
            or self._buffered_bytes > MAX_BUFFERED_BYTES
            or (self._buffer and self._buffer[0][1] < oldest_ns)
        ):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        event, _ = self._buffer.popleft()
        self._buffered_bytes -= _size(event)

    def _clear(self) -> None:
        self._buffer.clear()
        self._buffered_bytes = 0


def _ids(event: BookUpdateEvent) -> tuple[int, int]:
    if event.first_id is None or event.last_id is None:
        raise ValueError("a numbered update needs the ids of its first and last change")
    return event.first_id, event.last_id


def _last_id(event: BookSnapshotEvent) -> int:
    """Of the snapshot's last update, `NO_ID` where it says none."""
    if event.last_id is None:
        return NO_ID
    if not 0 <= event.last_id <= INT64_MAX:
        raise ValueError(f"{event.last_id} can't be the id of a snapshot's last update")
    return event.last_id


def _size(event: BookUpdateEvent) -> int:
    return sum(len(memoryview(part.raw)) for part in event.parts)


def _rescaled(
    instrument: Instrument, price_exponent: int, size_exponent: int, next_id: Callable[[], int]
) -> Instrument:
    """The instrument at other exponents, under an id of its own."""
    return msgspec.structs.replace(
        instrument,
        id=next_id(),
        price_exponent=price_exponent,
        size_exponent=size_exponent,
        price_increment=rescale(
            instrument.price_increment, instrument.price_exponent, price_exponent
        ),
        size_increment=rescale(instrument.size_increment, instrument.size_exponent, size_exponent),
    )
