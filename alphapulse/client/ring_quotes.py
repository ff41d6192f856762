"""One ring's books, kept for the arbitrage engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from alphapulse.arbitrage import Engine
from alphapulse.delta import BookView, LevelStage, decode
from alphapulse.errors import BookError, RecordError
from alphapulse.log import get_logger
from alphapulse.model import BookState, Instrument, RecordType, StateChange
from alphapulse.shm import Batch, RawRecord, RingReader

log = get_logger(__name__)


class _Book:
    """A symbol's book, and what of it the engine hasn't been told yet."""

    def __init__(self, instrument: Instrument, stage: LevelStage) -> None:
        self.view = BookView(stage=stage)
        self.instrument = instrument
        self.state = BookState.SYNCING
        self.timely = False
        """Whether the latest change was a delta."""

    @property
    def live(self) -> bool:
        return self.view.ready and self.state is BookState.LIVE


class RingQuotes:
    """Reads a ring, and tells an engine how its books are.

    Parameters
    ----------
    reader : of the ring; closed by `close`
    engine : to be told
    symbols : that are of interest, all where None
    stage : scratch memory shared by the books of a thread
    """

    def __init__(
        self,
        reader: RingReader,
        engine: Engine,
        symbols: Collection[str] | None,
        stage: LevelStage,
    ) -> None:
        self.reader = reader
        self._engine = engine
        self._venue = engine.venue(reader.venue)
        self._symbols = symbols
        self._stage = stage
        self._epoch = reader.epoch
        self._books: dict[str, _Book] = {}
        self._changed: dict[str, _Book] = {}
        self._scales: dict[str, Instrument] = {}
        self._start(reader.instruments)

    @property
    def live_books(self) -> int:
        """How many of the books are live."""
        return sum(book.live for book in self._books.values())

    def advance(self) -> int:
        """Take in what is in the ring by now; the number of records.

        Raises
        ------
        RingError
            the ring is no use
        """
        reader, epoch = self.reader, self.reader.epoch
        until = reader.position.sequence + reader.lag
        count = 0
        while batch := reader.read():
            self._take(batch)
            count += len(batch)
            if reader.epoch == epoch and reader.position.sequence >= until:
                break
        return count

    def tell(self) -> None:
        """Tell the engine what has changed."""
        if not self.reader.lag:
            self._venue.seen_ns = max(self._venue.seen_ns, self.reader.heartbeat_ns)
        for symbol, book in self._changed.items():
            view, instrument = book.view, book.instrument
            quote = self._venue.quotes.get(symbol)
            if not book.live:
                if quote is not None:
                    quote.lose()
                continue
            if quote is None or self._scales.get(symbol) is not instrument:
                self._scales[symbol] = instrument
                exponents = instrument.price_exponent, instrument.size_exponent
                quote = self._engine.quote(self._venue.exchange, symbol, view.book, *exponents)
            quote.update(view.version, view.exchange_ns, view.received_ns, timely=book.timely)
        self._changed.clear()

    def check(self) -> None:
        """Whether the ring has a writer; if not, its books are worth nothing."""
        if not self.reader.writer_alive and not self.reader.lag:
            self._venue.lose()

    def close(self) -> None:
        """Leave the ring."""
        self._venue.lose()
        self.reader.close()

    def _start(self, instruments: Mapping[int, Instrument]) -> None:
        """Begin anew, with the states that the ring's directory has."""
        for symbol, book in self._books.items():
            book.view.invalidate()
            book.state = BookState.SYNCING
            self._changed[symbol] = book
        # In order of their ids, so that of a symbol's instruments the newest counts.
        for number, state in sorted(self.reader.states.items()):
            instrument = instruments.get(number)
            if instrument is not None and self._wants(instrument):
                self._book(instrument).state = state

    def _take(self, batch: Batch) -> None:
        if batch.overrun is not None or batch.epoch != self._epoch:
            self._epoch = batch.epoch
            self._start(batch.instruments)
        record = None
        for record in batch:
            try:
                self._record(record, batch)
            except (BookError, RecordError) as error:
                log.warning("a record can't be used", exchange=batch.exchange, problem=str(error))
        if record is not None:
            self._venue.seen_ns = max(self._venue.seen_ns, record.published_ns)

    def _record(self, record: RawRecord, batch: Batch) -> None:
        kind = record.type
        if kind not in (RecordType.SNAPSHOT, RecordType.DELTA, RecordType.STATE):
            return
        instrument = batch.instruments.get(record.instrument)
        if instrument is None:
            raise RecordError(f"instrument {record.instrument} was never announced")
        if not self._wants(instrument):
            return
        book = self._book(instrument)
        self._changed[instrument.symbol] = book
        if kind == RecordType.STATE:
            event = decode(record.data, batch.instruments, batch.exchange)
            assert isinstance(event, StateChange), "its type says so"
            book.state = event.state
            if event.state is not BookState.LIVE:
                book.view.invalidate()
        elif kind == RecordType.SNAPSHOT:
            if book.view.apply(record.data):
                book.timely = False
        elif book.view.ready:
            book.view.apply(record.data)
            book.timely = True

    def _book(self, instrument: Instrument) -> _Book:
        book = self._books.get(instrument.symbol)
        if book is None:
            book = self._books[instrument.symbol] = _Book(instrument, self._stage)
        book.instrument = instrument
        return book

    def _wants(self, instrument: Instrument) -> bool:
        return self._symbols is None or instrument.symbol in self._symbols
