"""Binary messages, one record each, to events and books."""

from __future__ import annotations

from alphapulse.client.desk import Desk
from alphapulse.client.events import StreamEvent
from alphapulse.client.keeping import KeptBook
from alphapulse.delta import Header, decode, decode_header
from alphapulse.errors import BookError, RecordError
from alphapulse.model import (
    BookDelta,
    BookSnapshot,
    Gap,
    Instrument,
    InstrumentDefined,
    Reason,
    RecordType,
    StateChange,
    Trade,
)
from alphapulse.shm import ring_id


class Ring:
    """An exchange's records as far as they need a context."""

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        self.epoch = 0
        self.instruments: dict[int, Instrument] = {}

    def begin(self, epoch: int) -> bool:
        """Ids have another meaning in another epoch; whether it is another."""
        if epoch == self.epoch:
            return False
        self.epoch = epoch
        self.instruments.clear()
        return True


class RecordFeed:
    """Turns the stream's records into objects, and keeps the books that they describe.

    Parameters
    ----------
    desk : the client's books
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._rings: dict[int, Ring] = {}

    def begin(self, exchange: str, epoch: int) -> bool:
        """The exchange's records are of this epoch from now on; whether it is another."""
        return self._ring(exchange).begin(epoch)

    def take(self, record: bytes) -> list[StreamEvent]:
        """Events of a record; none for instruments and for records that say nothing new.

        Raises
        ------
        RecordError
            the bytes are no record
        """
        header = decode_header(record)
        ring = self._rings.get(header.ring_id)
        if header.type == RecordType.INSTRUMENT:
            self._announce(record)
            return []
        if ring is None:
            raise RecordError(f"a record of ring {header.ring_id}, which wasn't announced")
        if header.type in (RecordType.SNAPSHOT, RecordType.DELTA):
            return self._book_record(record, header, ring)
        event = decode(record, ring.instruments, ring.exchange)
        if isinstance(event, Trade):
            new = self._desk.is_new_trade(ring.exchange, event.symbol, event.sequence)
            return [event] if new else []
        if isinstance(event, StateChange):
            self._desk.book(ring.exchange, event.symbol).tell(event.state, event.reason)
        return [event] if isinstance(event, StateChange | Gap) else []

    def _ring(self, exchange: str) -> Ring:
        number = ring_id(exchange)
        ring = self._rings.get(number)
        if ring is None:
            ring = self._rings[number] = Ring(exchange)
        return ring

    def _announce(self, record: bytes) -> None:
        event = decode(record, {}, "")
        assert isinstance(event, InstrumentDefined)
        instrument = event.instrument
        self._ring(instrument.exchange).instruments[instrument.id] = instrument

    def _book_record(self, record: bytes, header: Header, ring: Ring) -> list[StreamEvent]:
        instrument = ring.instruments.get(header.instrument)
        if instrument is None:
            raise RecordError(f"instrument {header.instrument} of {ring.exchange} is unknown")
        book = self._desk.book(ring.exchange, instrument.symbol)
        return take_book_record(self._desk, book, record, header, ring)


def take_book_record(
    desk: Desk, book: KeptBook, record: bytes, header: Header, ring: Ring, *, ask: bool = True
) -> list[StreamEvent]:
    """Apply a snapshot or delta record to its book, and give its event.

    Parameters
    ----------
    desk : the client's books
    book : which the record is about
    record, header : the record
    ring : it is from
    ask : want a snapshot where the book can't go on
    """
    reset = header.type == RecordType.SNAPSHOT
    if book.asked and not reset:
        return []
    instrument = ring.instruments[header.instrument]
    try:
        event = decode(record, ring.instruments, ring.exchange)
        assert isinstance(event, BookSnapshot | BookDelta)
        if not reset and book.has(event.version):
            return []
        taken = book.take_record(
            record, instrument, epoch=ring.epoch, sequence=header.sequence, reset=reset
        )
    except BookError:
        return [desk.broken(book, instrument, Reason.GAP, header.sequence, ask=ask)]
    except RecordError:
        return [desk.broken(book, instrument, Reason.MALFORMED, header.sequence, ask=ask)]
    return [event] if taken else []
