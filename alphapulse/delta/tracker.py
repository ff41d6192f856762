"""From a venue's frames to records: the book, its version, truncation and checksum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from alphapulse._core.book import Book
from alphapulse._core.encoder import Encoder
from alphapulse._core.levels import LevelLayout, LevelStage
from alphapulse._core.tracker import TrackedBook
from alphapulse.clock import NO_TIME
from alphapulse.errors import BookError, ChecksumMismatch, CrossedBook, PrecisionError
from alphapulse.model import BookSide, Instrument, Reason, RecordFlag

if TYPE_CHECKING:
    from typing_extensions import Buffer

Part: TypeAlias = "tuple[LevelLayout, BookSide | None, Buffer]"
"""A list of levels in a frame: how it is written, its side unless each level has one, its JSON."""


class ChecksumRule(msgspec.Struct, frozen=True):
    """How a venue computes its book's checksum: CRC-32 over digits, as Kraken does.

    Parameters
    ----------
    price_digits, size_digits : decimal places that the venue writes, whatever the instrument's
        current exponents
    """

    price_digits: int
    size_digits: int

    def compute(self, book: Book, instrument: Instrument) -> int:
        """The checksum of a book in the instrument's scale."""
        return book.kraken_checksum(
            self.price_digits - instrument.price_exponent,
            self.size_digits - instrument.size_exponent,
        )


class BookTracker(TrackedBook):
    """One instrument's book as its venue's frames make it, and the record for each frame.

    A record is written by `load`, `update`, `repeat`, `reset` and `rescaled`; the encoder that they
    return holds it until the next call of any tracker that shares the encoder. A tracker without a
    book, or with one that was found wrong, refuses everything but `load`.

    Parameters
    ----------
    instrument : its exponents scale the book, its id goes into the records
    depth : levels a side subscribed to at the venue, to which the book is cut; 0 for all
    checksum : how the venue's checksum is computed; None where it sends none
    stage, encoder : scratch memory, to be shared among the trackers of a thread
    """

    def __init__(
        self,
        instrument: Instrument,
        *,
        depth: int = 0,
        checksum: ChecksumRule | None = None,
        stage: LevelStage | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(
            LevelStage() if stage is None else stage, Encoder() if encoder is None else encoder
        )
        self.instrument = instrument
        self.depth = depth
        self.rule = checksum
        self.book = Book(depth)
        self.trusted_bid: int | None = None
        self.trusted_ask: int | None = None
        self.exchange_ns = NO_TIME

    @property
    def instrument(self) -> Instrument:
        """By which the book is scaled; it may be replaced while there is no book."""
        return self._instrument

    @instrument.setter
    def instrument(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.scale(instrument.id, instrument.price_exponent, instrument.size_exponent)

    @property
    def rule(self) -> ChecksumRule | None:
        """How the venue's checksum is computed; None where it sends none."""
        return self._rule

    @rule.setter
    def rule(self, rule: ChecksumRule | None) -> None:
        self._rule = rule
        if rule is None:
            self.check_by(None)
        else:
            self.check_by(rule.price_digits, rule.size_digits)

    def load(
        self,
        parts: Sequence[Part],
        *,
        reason: Reason,
        checksum: int | None = None,
        limit: int = 0,
        exchange_ns: int = NO_TIME,
        received_ns: int = NO_TIME,
    ) -> Encoder:
        """Replace the book by a venue's snapshot.

        Parameters
        ----------
        parts : the frame's lists of levels
        reason : goes into the record
        checksum : as the venue sent it, if it did
        limit : levels a side at which the venue cuts its snapshots off, 0 where it doesn't; a
            side that has as many is only trusted as far as its last level
        exchange_ns, received_ns : times of the frame

        Returns
        -------
        Encoder
            a snapshot record, version one up

        Raises
        ------
        FixedPointError
            the frame can't be read, or not at the instrument's exponents; nothing changed
        ChecksumMismatch, CrossedBook
            the snapshot is wrong: it isn't taken over, and the tracker has no book
        """
        self._parse(parts)
        book = Book(self.depth)
        book.load(self.stage)
        self.ready = False
        self._verify(book, checksum)
        self.book = book
        bids, asks = book.bid_count, book.ask_count
        self.trusted_bid = book.bids()[-1][0] if 0 < limit <= bids else None
        self.trusted_ask = book.asks()[-1][0] if 0 < limit <= asks else None
        return self._publish_reset(reason, exchange_ns, received_ns)

    def update(
        self,
        parts: Sequence[Part],
        *,
        checksum: int | None = None,
        exchange_ns: int = NO_TIME,
        received_ns: int = NO_TIME,
    ) -> Encoder | None:
        """Apply a frame's changes to the book.

        Returns
        -------
        Encoder or None
            a delta record, version one up; None where the frame left the book as it was

        Raises
        ------
        FixedPointError
            the frame can't be read, or not at the instrument's exponents; nothing changed
        ChecksumMismatch, CrossedBook
            the book is wrong, and of no use until the next `load`
        BookError
            there is no book to update
        """
        self._require_book()
        self._parse(parts)
        book = self.book
        changed = book.apply(self.stage)
        if checksum is not None or book.crossed:
            self.ready = False
            self._verify(book, checksum)
            self.ready = True
        if not changed:
            return None
        self.version += 1
        self.exchange_ns = exchange_ns
        return self.encoder.delta(
            book.changes,
            self.instrument.id,
            self.version,
            self.version - 1,
            exchange_ns=exchange_ns,
            received_ns=received_ns,
        )

    def repeat(self, received_ns: int = NO_TIME) -> Encoder:
        """Snapshot of the current version for newcomers, flagged ``repeat``.

        Raises
        ------
        BookError
            there is no book to repeat
        """
        self._require_book()
        return self._snapshot(Reason.REPEATED, received_ns, RecordFlag.REPEAT)

    def rescaled(self, instrument: Instrument, *, received_ns: int = NO_TIME) -> Encoder:
        """Go on with another instrument of the same pair, whose exponents are larger.

        Returns
        -------
        Encoder
            a snapshot record for the new instrument, version one up, reason ``rescaled``

        Raises
        ------
        RangeError
            a price or size doesn't fit int64 any more; nothing changed
        ValueError
            an exponent is smaller than it was
        BookError
            there is no book to rescale
        """
        self._require_book()
        price_places = instrument.price_exponent - self.instrument.price_exponent
        size_places = instrument.size_exponent - self.instrument.size_exponent
        self.book.rescale(price_places, size_places)
        self.instrument = instrument
        factor = 10**price_places
        if self.trusted_bid is not None:
            self.trusted_bid *= factor
        if self.trusted_ask is not None:
            self.trusted_ask *= factor
        return self._publish_reset(Reason.RESCALED, self.exchange_ns, received_ns)

    def reset(self, *, reason: Reason, received_ns: int = NO_TIME) -> Encoder:
        """Resetting snapshot of the book as it stands, version one up.

        Raises
        ------
        BookError
            there is no book
        """
        self._require_book()
        return self._publish_reset(reason, self.exchange_ns, received_ns)

    def invalidate(self) -> None:
        """Refuse updates until the next `load`."""
        self.ready = False

    def _require_book(self) -> None:
        if not self.ready:
            raise BookError(f"{self.instrument.symbol} has no book until its next snapshot")

    def _parse(self, parts: Sequence[Part]) -> None:
        """Put a frame's levels on the stage.

        A `PrecisionError` tells the most decimal places that its field needs in the whole frame,
        so that a frame makes at most two rescales necessary.
        """
        stage = self.stage
        instrument = self.instrument
        widest: PrecisionError | None = None
        stage.clear()
        for layout, side, raw in parts:
            try:
                stage.parse(raw, layout, side, instrument.price_exponent, instrument.size_exponent)
            except PrecisionError as error:
                if widest is None or (error.field == widest.field and error.needed > widest.needed):
                    widest = error
        if widest is not None:
            raise widest

    def _verify(self, book: Book, checksum: int | None) -> None:
        if checksum is not None:
            if self.rule is None:
                raise ValueError(f"no checksum rule is set for {self.instrument.symbol}")
            computed = self.rule.compute(book, self.instrument)
            if computed != checksum:
                raise ChecksumMismatch(checksum, computed)
        if book.crossed:
            bid, ask = book.best()
            assert bid is not None
            assert ask is not None
            raise CrossedBook(self.instrument.price(bid[0]), self.instrument.price(ask[0]))

    def _publish_reset(self, reason: Reason, exchange_ns: int, received_ns: int) -> Encoder:
        self.ready = True
        self.version += 1
        self.exchange_ns = exchange_ns
        return self._snapshot(reason, received_ns, 0)

    def _snapshot(self, reason: Reason, received_ns: int, flags: int) -> Encoder:
        return self.encoder.snapshot(
            self.book,
            self.instrument.id,
            self.version,
            reason,
            self.depth,
            self.trusted_bid,
            self.trusted_ask,
            exchange_ns=self.exchange_ns,
            received_ns=received_ns,
            flags=flags,
        )
