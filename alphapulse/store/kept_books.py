"""Which books of a ring are kept: each live one, at an interval.

The ring repeats a live book's snapshot every half minute. Longer intervals take what comes, and for
shorter ones the books are followed change by change. Time is the ring's, so that a writer that
catches up keeps what it would have kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from alphapulse.clock import NO_TIME, NS_PER_SECOND
from alphapulse.delta import BookView
from alphapulse.errors import BookError, RecordError
from alphapulse.history import BookRow
from alphapulse.model import BookState, Instrument, RecordFlag, RecordType
from alphapulse.shm import RawRecord

REPEAT_SECONDS = 30
"""Longest time between two snapshots of a live book in the ring."""


class KeptBooks:
    """The books of one venue.

    Parameters
    ----------
    exchange : the venue
    interval_seconds : how often a book is kept; 0 for as often as the ring has it whole
    levels : how many a side
    """

    def __init__(self, exchange: str, interval_seconds: float, levels: int) -> None:
        self._exchange = exchange
        self._interval_ns = int(interval_seconds * NS_PER_SECOND)
        self._levels = levels
        self._follows = 0 < interval_seconds < REPEAT_SECONDS
        self._scratch = BookView()
        self._followed: dict[str, tuple[BookView, Instrument]] = {}
        """Books that are followed, by symbol."""
        self._waiting: dict[str, tuple[int, BookRow]] = {}
        """Books that are due, by symbol, and of when; given once they are known to be live."""
        self._live: set[str] = set()
        self._kept: dict[str, tuple[int, int]] = {}
        """By symbol, when a book was kept last and its version."""
        self._now_ns = NO_TIME
        """The time in the ring."""
        self._look_ns = NO_TIME
        """When some followed book may be due."""

    @property
    def types(self) -> tuple[RecordType, ...]:
        """Records that `take` wants."""
        if self._follows:
            return RecordType.SNAPSHOT, RecordType.DELTA
        return (RecordType.SNAPSHOT,)

    def take(self, record: RawRecord, instruments: Mapping[int, Instrument]) -> None:
        """Take in a snapshot or a delta.

        Raises
        ------
        RecordError
            it is neither, or of an instrument that was never announced
        """
        instrument = instruments.get(record.instrument)
        if instrument is None:
            raise RecordError(f"a book of instrument {record.instrument}, never announced")
        symbol = instrument.symbol
        self._now_ns = record.published_ns
        if record.flags & RecordFlag.REPEAT:
            self._live.add(symbol)
        if self._follows:
            self._follow(record, instrument)
        elif self._due(symbol):
            self._scratch.invalidate()
            self._scratch.apply(record.data)
            self._waiting[symbol] = self._now_ns, self._row(self._scratch, instrument)

    def tell(self, symbol: str, state: BookState) -> None:
        """Take in a change of state."""
        if state is BookState.LIVE:
            self._live.add(symbol)
            self._look_ns = NO_TIME
        else:
            self._live.discard(symbol)
            self._waiting.pop(symbol, None)
            self._followed.pop(symbol, None)

    def lose(self) -> None:
        """Records were lost: what was known of the books' states is of no use."""
        self._live.clear()
        self._waiting.clear()
        self._followed.clear()

    def next(self) -> BookRow | None:
        """A book to be kept now, if there is one; one at a time, since its text takes a while."""
        if self._follows:
            return self._next_followed()
        for symbol, (of_ns, row) in self._waiting.items():
            if symbol in self._live:
                del self._waiting[symbol]
                self._kept[symbol] = of_ns, row.version
                return row
        return None

    def _due(self, symbol: str) -> bool:
        kept = self._kept.get(symbol)
        return kept is None or self._now_ns - kept[0] >= self._interval_ns

    def _follow(self, record: RawRecord, instrument: Instrument) -> None:
        symbol = instrument.symbol
        followed = self._followed.get(symbol)
        if followed is None:
            if record.type != RecordType.SNAPSHOT:
                return
            followed = self._followed[symbol] = BookView(), instrument
        try:
            followed[0].apply(record.data)
        except BookError:
            # It goes on from the next snapshot, as after records that were lost.
            del self._followed[symbol]

    def _next_followed(self) -> BookRow | None:
        if self._now_ns < self._look_ns:
            return None
        for symbol, (view, instrument) in self._followed.items():
            if symbol in self._live and self._due(symbol):
                before = self._kept.get(symbol)
                self._kept[symbol] = self._now_ns, view.version
                if before is None or before[1] != view.version:
                    return self._row(view, instrument)
        kept = [self._kept[symbol][0] for symbol in self._followed if symbol in self._kept]
        self._look_ns = min(kept, default=self._now_ns) + self._interval_ns
        return None

    def _row(self, view: BookView, instrument: Instrument) -> BookRow:
        known = view.exchange_ns != NO_TIME
        return BookRow(
            exchange=self._exchange,
            symbol=instrument.symbol,
            version=view.version,
            timestamp_ns=view.exchange_ns if known else view.received_ns,
            price_exponent=instrument.price_exponent,
            size_exponent=instrument.size_exponent,
            bids=view.bids(self._levels),
            asks=view.asks(self._levels),
        )
