"""What a client has missed: read once more from the ring, up to where everyone else is.

While that goes on the client isn't a member of the markets concerned. It becomes one at the moment
when it has been given the last record that the stream itself has taken, and so misses none and gets
none twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, auto

from alphapulse.clock import NO_TIME, monotonic_ns, wall_ns
from alphapulse.delta import HEADER_SIZE, decode
from alphapulse.errors import RecordError, RingError
from alphapulse.log import get_logger
from alphapulse.model import (
    BookSnapshot,
    BookState,
    Event,
    Gap,
    Instrument,
    Reason,
    RecordFlag,
    RecordType,
    StateChange,
)
from alphapulse.model import Channel as GapChannel
from alphapulse.shm import Batch, Position, RawRecord, RingReader
from alphapulse.stream import answers, binary, messages
from alphapulse.stream.client import Client, Item, Kind
from alphapulse.stream.frames import binary_frame, text_frame
from alphapulse.stream.items import event_item, record_item, told_state
from alphapulse.stream.requests import FULL, Channel, Format, Look, ResumePoint
from alphapulse.stream.venue import Venue

log = get_logger(__name__)

PORTION = 256
"""Records of a client's turn."""

MAX_READERS = 8
"""Readers at a time; other clients wait for theirs."""

ROOM_BYTES = 256 * 1024
"""A client for which more waits isn't given records of the past."""

KEPT_BYTES = 8 * 1024 * 1024
"""Of events that are kept, for clients that have missed the same."""

_GAP_CHANNEL = HEADER_SIZE
"""Where a gap record's channel is."""

Pair = tuple[Channel, str]
"""Channel and symbol."""


class Progress(Enum):
    """How a client's turn ended."""

    MORE = auto()
    """There is more to read at once."""
    WAITING = auto()
    """For the client, for a reader, or for the stream itself to come as far."""
    DONE = auto()
    LOST = auto()
    """The ring doesn't hold the records any more."""


class Past:
    """The rings' past, for all clients that have missed some of it.

    Parameters
    ----------
    open_ring : opens a reader at a position
    """

    def __init__(self, open_ring: Callable[[str, Position], RingReader]) -> None:
        self._open = open_ring
        self.readers = 0
        self._frames: OrderedDict[tuple[str, int, int], list[bytes]] = OrderedDict()
        self._kept_bytes = 0

    def open(self, exchange: str, position: Position) -> RingReader | None:
        """A reader, to be given to `close`; None where there is no such position."""
        try:
            reader = self._open(exchange, position)
        except (RingError, PermissionError, ValueError):
            return None
        self.readers += 1
        return reader

    def close(self, reader: RingReader) -> None:
        """Free a reader."""
        self.readers -= 1
        reader.close()

    def frames(
        self, exchange: str, epoch: int, sequence: int, make: Callable[[], list[bytes]]
    ) -> list[bytes]:
        """Frames of a record's JSON, which aren't made anew for each client."""
        key = exchange, epoch, sequence
        frames = self._frames.get(key)
        if frames is None:
            frames = self._frames[key] = make()
            self._kept_bytes += sum(map(len, frames))
            while self._kept_bytes > KEPT_BYTES:
                _, dropped = self._frames.popitem(last=False)
                self._kept_bytes -= sum(map(len, dropped))
        return frames

    def forget(self) -> None:
        """Free what is kept."""
        self._frames.clear()
        self._kept_bytes = 0


class Replay:
    """The records of one exchange that one client has missed.

    Parameters
    ----------
    past : of the rings
    client, venue : whose
    point : the last record that the client has seen
    pairs : what it has subscribed to
    look : how
    """

    def __init__(
        self,
        past: Past,
        client: Client,
        venue: Venue,
        point: ResumePoint,
        pairs: Iterable[Pair],
        look: Look,
    ) -> None:
        self.client = client
        self.venue = venue
        self.point = point
        self.pairs = set(pairs)
        """What the client is to become a subscriber of."""
        goes_on = look.depth == FULL and not look.conflate_ms
        self.books = {
            symbol for channel, symbol in self.pairs if channel == "orderbook" and goes_on
        }
        """Symbols of the books that the client goes on with; others begin with a snapshot."""
        self._past = past
        self.format: Format = look.format
        self._next = Position(point.epoch, point.sequence + 1)
        self._reader: RingReader | None = None
        self._batch: Batch | None = None
        self._records: Iterator[RawRecord] = iter(())
        """Those of the batch that weren't looked at yet."""
        self._epoch = point.epoch
        self._told_epoch = venue.epoch if venue.epoch == point.epoch else 0
        """Of what the client gets next, as far as it knows; 0 where it could be either."""
        self._instruments: Mapping[int, Instrument] = {}
        self.announced: set[int] = set()
        """Instruments whose records the client was given."""
        self._stale: set[str] = set()
        """Symbols whose state, as it was given, isn't live."""

    def begin(self) -> bool:
        """Whether the ring holds the records; if not, nothing more is to be done with this."""
        if not self.venue.epoch:
            return False
        if self._caught_up():
            return not self._ahead() or self._written()
        progress = self._fetch()
        if self._past.readers > MAX_READERS:
            self.close()
        return progress is not Progress.LOST

    def step(self) -> Progress:
        """Give the client some of the records."""
        if self._full():
            return self._held_up()
        if self._batch is None and self._caught_up():
            return self._done()
        if self._reader is None and self._past.readers >= MAX_READERS:
            return Progress.WAITING
        return self._read()

    def close(self) -> None:
        """Let go of the ring."""
        self._batch = None
        if self._reader is not None:
            self._past.close(self._reader)
            self._reader = None

    def tell_epoch(self, epoch: int) -> None:
        """Tell the epoch of what comes next, if it is another."""
        if epoch != self._told_epoch:
            self._told_epoch = epoch
            self.client.send(event_item(answers.epoch(self.venue.exchange, epoch)))

    def gap(self) -> Gap:
        """What the client isn't given."""
        first = self._next.sequence
        same = self._next.epoch == self.venue.epoch
        last = self.venue.sequence if same and self.venue.sequence >= first else None
        return Gap(
            exchange=self.venue.exchange,
            sequence=self.venue.sequence,
            received_ns=wall_ns(),
            instrument=None,
            channel=GapChannel.RING,
            reason=Reason.LAPPED if same else Reason.RESTARTED,
            first=first,
            last=last,
            count=None if last is None else last - first + 1,
            since_ns=NO_TIME,
        )

    def _caught_up(self) -> bool:
        """Whether the stream itself has taken no record that the client is still to get."""
        venue = self.venue
        return self._next.epoch == venue.epoch and self._next.sequence > venue.sequence

    def _done(self) -> Progress:
        """The client may become a member, unless it has seen more than the stream has."""
        self.close()
        return Progress.WAITING if self._ahead() else Progress.DONE

    def _ahead(self) -> bool:
        """Whether the client has seen records that the stream is still to take."""
        return self._next.sequence > self.venue.sequence + 1

    def _written(self) -> bool:
        """Whether what the client says that it has seen is in the ring."""
        reader = self._past.open(self.venue.exchange, self._next)
        if reader is not None:
            self._past.close(reader)
        return reader is not None

    def _full(self) -> bool:
        return self.client.sink.paused or self.client.waiting_bytes > ROOM_BYTES

    def _held_up(self) -> Progress:
        """What is to become of a client that is full: one that takes data has room soon."""
        return Progress.WAITING if self.client.sink.paused else Progress.MORE

    def _read(self) -> Progress:
        """Handle a portion of the ring."""
        if self._batch is None:
            progress = self._fetch()
            if progress is not None:
                return progress
        batch = self._batch
        assert batch is not None
        if batch.epoch > self.venue.epoch:
            return Progress.WAITING
        if batch.epoch != self._epoch:
            self._end_epoch()
            self._epoch = batch.epoch
        self.tell_epoch(batch.epoch)
        self._instruments = batch.instruments
        for record in self._records:
            if batch.epoch == self.venue.epoch and record.sequence > self.venue.sequence:
                break
            self._next = Position(batch.epoch, record.sequence + 1)
            try:
                self._give(record, batch)
            except RecordError as error:
                log.warning("record skipped", exchange=self.venue.exchange, problem=str(error))
            if self._full():
                return self._held_up()
        self._batch = None
        return self._done() if self._caught_up() else Progress.MORE

    def _fetch(self) -> Progress | None:
        """Read the next batch; None if there is one."""
        if self._reader is None:
            self._reader = self._past.open(self.venue.exchange, self._next)
            if self._reader is None:
                return Progress.LOST
        limit = PORTION
        if self._next.epoch == self.venue.epoch:
            limit = min(limit, self.venue.sequence + 1 - self._next.sequence)
        try:
            batch = self._reader.read(limit)
        except RingError as error:
            log.warning("ring given up", exchange=self.venue.exchange, problem=str(error))
            return Progress.LOST
        if batch.overrun is not None:
            return Progress.LOST
        if not batch:
            return Progress.WAITING
        self._batch = batch
        self._records = iter(batch)
        return None

    def _end_epoch(self) -> None:
        """The ring ended here, and another began."""
        exchange = self.venue.exchange
        newest = {each.symbol: each for each in self._instruments.values()}
        for symbol, instrument in newest.items():
            if symbol in self._stale or not self._wants_state(symbol):
                continue
            state = StateChange(
                exchange=exchange,
                sequence=self._next.sequence - 1,
                received_ns=wall_ns(),
                instrument=instrument,
                state=BookState.STALE,
                reason=Reason.RESTARTED,
            )
            self._announce(instrument)
            self.client.send(told_state(state).item(self.format))
        self.announced.clear()
        self._stale.clear()

    def _give(self, record: RawRecord, batch: Batch) -> None:
        """Give the client a record, if it is one that it wants."""
        kind = record.type
        instrument = batch.instruments.get(record.instrument)
        if not self._wants(record, instrument):
            return
        if kind == RecordType.STATE and instrument is not None:
            self._note_state(record, instrument)
        waits = Kind.SNAPSHOT if kind == RecordType.SNAPSHOT else Kind.EVENT
        if self.format == "binary":
            if kind == RecordType.INSTRUMENT:
                self.announced.add(record.instrument)
            elif instrument is not None:
                self._announce(instrument)
            frames = [binary_frame(bytes(record.data))]
        else:
            frames = self._past.frames(
                batch.exchange, batch.epoch, record.sequence, lambda: _frames(record, batch)
            )
        now_ns = monotonic_ns()
        for frame in frames:
            self.client.send(Item(frame, waits, None, now_ns))

    def _wants(self, record: RawRecord, instrument: Instrument | None) -> bool:
        kind = record.type
        if kind == RecordType.GAP and (instrument is None or _channel(record) == GapChannel.RING):
            return True
        if instrument is None:
            return False
        symbol = instrument.symbol
        if kind == RecordType.SNAPSHOT and record.flags & RecordFlag.REPEAT:
            return False
        if kind in (RecordType.DELTA, RecordType.SNAPSHOT):
            return symbol in self.books
        if kind == RecordType.STATE:
            return self._wants_state(symbol)
        trades = ("trades", symbol) in self.pairs
        if kind == RecordType.GAP:
            return trades if _channel(record) == GapChannel.TRADES else self._wants_state(symbol)
        if kind == RecordType.INSTRUMENT:
            return trades or self._wants_state(symbol)
        return kind == RecordType.TRADE and trades

    def _wants_state(self, symbol: str) -> bool:
        return symbol in self.books or ("state", symbol) in self.pairs

    def _note_state(self, record: RawRecord, instrument: Instrument) -> None:
        event = decode(record.data, {record.instrument: instrument}, instrument.exchange)
        if isinstance(event, StateChange) and event.state is BookState.LIVE:
            self._stale.discard(instrument.symbol)
        else:
            self._stale.add(instrument.symbol)

    def _announce(self, instrument: Instrument) -> None:
        if self.format == "binary" and instrument.id not in self.announced:
            self.announced.add(instrument.id)
            self.client.send(record_item(binary.encode_instrument(instrument)))


def _channel(record: RawRecord) -> int:
    """Where the loss is that a gap record tells."""
    return record.data[_GAP_CHANNEL]


def _frames(record: RawRecord, batch: Batch) -> list[bytes]:
    """A record as JSON, of a book in parts."""
    event = decode(record.data, batch.instruments, batch.exchange)
    return [text_frame(text) for text in _texts(event, batch.epoch)]


def _texts(event: Event | None, epoch: int) -> list[str]:
    if isinstance(event, BookSnapshot):
        times = messages.Times(event.exchange_ns, event.received_ns, event.sequence)
        head = messages.snapshot_head(event.instrument, event.version, event.reason, times, epoch)
        return messages.encode_parts(head, event.bids, event.asks, event.instrument, marked=True)
    text = None if event is None else messages.encode_event(event, epoch)
    return [] if text is None else [text]
