"""A consumer's book: kept from records alone, checked version by version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alphapulse._core import decoder
from alphapulse._core.book import Book
from alphapulse._core.levels import LevelStage
from alphapulse._core.topview import TopView
from alphapulse.errors import BookError, RecordError
from alphapulse.model import Level, Reason, RecordFlag, RecordType

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BookView", "TopView"]


class BookView:
    """The book that snapshot and delta records of one symbol describe.

    For subscribers that see the best N levels only, a `TopView` per N turns the book's changes
    into those of the view: ``top.load(view.book)`` after a snapshot, ``top.advance(view.book)``
    after a delta.

    Parameters
    ----------
    stage : scratch memory, to be shared among the views of a thread
    """

    def __init__(self, *, stage: LevelStage | None = None) -> None:
        self.book = Book()
        self.version = 0
        self.instrument_id = 0
        """Of the snapshot that the book began with: it tells the scale."""
        self.reason = Reason.STARTED
        """Of the latest snapshot."""
        self.depth = 0
        """Levels a side subscribed to at the venue, 0 for all."""
        self.trusted_bid: int | None = None
        self.trusted_ask: int | None = None
        self.exchange_ns = 0
        self.received_ns = 0
        self.ready = False
        """Whether there is a book; False until the first snapshot and after a failure."""
        self._stage = LevelStage() if stage is None else stage

    def apply(self, record: Buffer) -> bool:
        """Take in one snapshot or delta record.

        Returns
        -------
        bool
            False where the record is a repeat of what the view holds already

        Raises
        ------
        RecordError
            the bytes are no snapshot or delta record
        BookError
            a delta doesn't continue this book: there is none, its version is another, or its
            content contradicts the book; the view then waits for a snapshot
        """
        header = decoder.read_header(record)
        kind, flags, instrument_id = header[1:4]
        if kind == RecordType.DELTA:
            self.apply_delta(record, instrument_id, header[6], header[7])
            return True
        if kind == RecordType.SNAPSHOT:
            if flags & RecordFlag.REPEAT and self._holds(record, instrument_id):
                return False
            self._load(record, instrument_id)
        else:
            raise RecordError(f"a record of type {kind} says nothing about a book's levels")
        self.exchange_ns, self.received_ns = header[6], header[7]
        return True

    def invalidate(self) -> None:
        """Forget the book: it takes a snapshot to go on."""
        self.ready = False
        self.book.clear()

    def best(self) -> tuple[Level | None, Level | None]:
        """Best bid and best ask, scaled; None where a side is empty."""
        bid, ask = self.book.best()
        return (
            None if bid is None else Level._make(bid),
            None if ask is None else Level._make(ask),
        )

    def bids(self, limit: int = 0) -> tuple[Level, ...]:
        """Scaled bids, highest price first; `limit` 0 for all."""
        return tuple(map(Level._make, self.book.bids(limit)))

    def asks(self, limit: int = 0) -> tuple[Level, ...]:
        """Scaled asks, lowest price first; `limit` 0 for all."""
        return tuple(map(Level._make, self.book.asks(limit)))

    def _holds(self, record: Buffer, instrument_id: int) -> bool:
        return (
            self.ready
            and instrument_id == self.instrument_id
            and decoder.peek_version(record) == self.version
        )

    def _load(self, record: Buffer, instrument_id: int) -> None:
        version, reason, depth, self.trusted_bid, self.trusted_ask = decoder.load_snapshot(
            record, self.book, self._stage
        )
        try:
            self.reason = Reason(reason)
        except ValueError as error:
            self.invalidate()
            raise RecordError(f"a snapshot: {error}") from None
        self.version = version
        self.depth = depth
        self.instrument_id = instrument_id
        self.ready = True

    def apply_delta(
        self, record: Buffer, instrument_id: int, exchange_ns: int, received_ns: int
    ) -> None:
        """Take in what is known to be a delta record, and whose header was read.

        Raises
        ------
        RecordError, BookError
            as `apply`
        """
        try:
            if not self.ready:
                raise BookError("a delta without a snapshot before it")
            if instrument_id != self.instrument_id:
                raise BookError(
                    f"a delta of instrument {instrument_id} for a book of {self.instrument_id}"
                )
            self.version = decoder.apply_delta(record, self.book, self._stage, self.version)
        except BookError:
            self.invalidate()
            raise
        self.exchange_ns, self.received_ns = exchange_ns, received_ns
