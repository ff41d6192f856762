"""One venue's feed: the events of all its connections, turned into the records of its ring.

Does no I/O and keeps no timers. `session.py` brings it frames from sockets, `alphapulse normalize`
from a recording; `wanted` says which symbols need a new snapshot from the venue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.collectors import events
from alphapulse.collectors.publisher import Counts, Publisher
from alphapulse.collectors.sync import SequencedBook, StreamedBook, SyncedBook
from alphapulse.collectors.trades import TradeLog
from alphapulse.collectors.venue import Channel, Venue, printable
from alphapulse.delta import (
    BAD_CHECKSUM,
    NOT_PLAIN,
    TAKEN,
    BookTracker,
    ChecksumRule,
    Encoder,
    FastPath,
    LevelStage,
)
from alphapulse.errors import (
    BookError,
    FixedPointError,
    PrecisionError,
    RingTooSmall,
    SymbolError,
)
from alphapulse.model import BookState, Instrument, Reason
from alphapulse.model import Channel as GapChannel
from alphapulse.shm import RingWriter
from alphapulse.symbols import SymbolMap

Complain = Callable[[str | None, str], None]
"""``complain(venue_symbol, problem)``: something that the venue sent can't be used."""


class Timed(NamedTuple):
    """What a frame brought, and when.

    Parameters
    ----------
    events : its events
    decoded_ns : when it had been decoded, with nothing done about it yet
    exchange_ns : the venue's times of what is new in it
    """

    events: Sequence[events.VenueEvent]
    decoded_ns: int
    exchange_ns: Sequence[int]


class Feed:
    """Books and trades of one venue on their way into its ring.

    Parameters
    ----------
    venue : the venue's protocol
    writer : the venue's ring
    symbols : unified symbols to follow; None: every symbol that the venue sends something about
    complain : told of every frame that can't be used
    """

    def __init__(
        self,
        venue: Venue,
        writer: RingWriter,
        *,
        symbols: Collection[str] | None,
        complain: Complain,
    ) -> None:
        self.venue = venue
        self.writer = writer
        self.publisher = Publisher(writer, venue.name, self._announce_all)
        self.instruments = SymbolMap(venue.name)
        self.books: dict[str, SyncedBook] = {}
        self.wanted: dict[str, Reason] = {}
        """Venue symbols whose book needs a new snapshot, and why."""
        self.status = events.VenueStatus.ONLINE
        self.trades: dict[str, TradeLog] = {}
        self._symbols = symbols
        self._complain = complain
        self._last_instrument_id = 0
        self._complained = False
        self._decoded_ns = NO_TIME
        self._stage = LevelStage()
        self._encoder = Encoder()
        self._by_id: dict[int, SyncedBook] = {}
        self._fast = FastPath(venue.plain_frames, writer)
        self._take_plain = self._fast.take
        self._alive_at: dict[str, tuple[float, int]] = {}
        """When a look last found a symbol alive, and its book's version then."""
        self._handlers: dict[type, Callable[..., None]] = {
            events.BookUpdateEvent: self._book_update,
            events.BookSnapshotEvent: self._book_snapshot,
            events.TradeEvent: self._trade,
            events.TradeMark: self._trade_mark,
            events.Alive: self._alive,
            events.Instruments: self._instruments,
            events.StatusEvent: self._status,
            events.Malformed: self._malformed,
        }

    @property
    def counts(self) -> Counts:
        """What the feed has seen and done since its start, as of now."""
        counts, fast = self.publisher.counts, self._fast
        return msgspec.structs.replace(
            counts,
            frames=counts.frames + fast.frames,
            bytes_in=counts.bytes_in + fast.bytes_in,
            records=counts.records + fast.records,
            bytes_out=counts.bytes_out + fast.bytes_out,
            checksums_ok=counts.checksums_ok + fast.checksums_ok,
        )

    def published_trades(self) -> Counter[str]:
        """Trades written to the ring since the start, by unified symbol."""
        found: Counter[str] = Counter()
        for log in self.trades.values():
            found[log.instrument.symbol] += log.published
        return found

    def started(self, now_ns: int) -> None:
        """Tell what the predecessor's end has cost, if there was one."""
        predecessor = self.writer.predecessor
        if predecessor is not None:
            self.publisher.gap(
                None,
                GapChannel.RING,
                Reason.RESTARTED,
                now_ns,
                first=predecessor.sequence + 1,
                since_ns=predecessor.published_ns,
            )

    def define(self, instruments: Iterable[Instrument], now_ns: int) -> None:
        """Take the venue's metadata, or news of it; begin with the symbols to follow."""
        for instrument in instruments:
            symbol = instrument.venue_symbol
            if symbol in self.books:
                self._redefine(self.books[symbol], instrument, now_ns)
                continue
            self.instruments.add(instrument)
            if self._symbols is not None and instrument.symbol in self._symbols:
                self._follow(instrument, now_ns)

    def rest_metadata(self, body: bytes, now_ns: int) -> bool:
        """Take the venue's metadata from its REST answer; False where it can't be used."""
        self._complained = False
        try:
            found = self.venue.parse_metadata(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._malformed(events.Malformed(None, f"{error} in the metadata", False), now_ns)
            return False
        for event in found:
            self._handle(self._handlers[type(event)], event, now_ns)
        return True

    def follow(self, venue_symbol: str, now_ns: int) -> None:
        """Begin with a symbol, unless it is followed already.

        Raises
        ------
        SymbolError
            the venue's metadata has no such symbol
        """
        if venue_symbol not in self.books:
            self._follow(self.instruments.by_venue_symbol(venue_symbol), now_ns)

    def receive(
        self, channel: Channel, data: bytes | memoryview, received_ns: int
    ) -> Sequence[events.VenueEvent]:
        """Take one frame of a connection; returns its events, for the session's own needs.

        A plain frame has none that the session would need.
        """
        try:
            outcome = self._take_plain(data, received_ns, channel.connection)
        except RingTooSmall as error:
            # The book has changed already: the enlarged ring begins with it.
            self.publisher.enlarge(error)
            return ()
        if outcome == TAKEN:
            return ()
        if outcome != NOT_PLAIN:
            self._disproved(outcome, received_ns)
            return ()
        found = channel.receive(data)
        self._decoded_ns = wall_ns()
        self.take(channel, found, len(data), received_ns)
        return found

    def receive_timed(self, channel: Channel, data: bytes | memoryview, received_ns: int) -> Timed:
        """As `receive`, and when."""
        fast = self._fast
        taken = fast.frames
        fast.timed = True
        try:
            found = self.receive(channel, data, received_ns)
        finally:
            fast.timed = False
        if fast.frames != taken:
            return Timed(found, fast.read_ns, (fast.exchange_ns,))
        times = [
            getattr(event, "exchange_ns", NO_TIME)
            for event in found
            if not getattr(event, "recent", False)
        ]
        return Timed(found, self._decoded_ns, times)

    def take(
        self, channel: Channel, found: list[events.VenueEvent], size: int, received_ns: int
    ) -> None:
        """Take the events of one frame of so many bytes."""
        counts = self.publisher.counts
        counts.frames += 1
        counts.bytes_in += size
        self._complained = False
        for event in found:
            handler = self._handlers.get(type(event))
            if handler is not None:
                self._handle(handler, event, received_ns)
            elif isinstance(event, events.SequenceBreak):
                self._sequence_break(channel, received_ns)

    def rest_snapshot(self, instrument: Instrument, body: bytes, received_ns: int) -> bool:
        """Take a REST snapshot of a sequenced book; False where it can't be used."""
        self._complained = False
        try:
            event = self.venue.parse_snapshot(instrument, body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            malformed = events.Malformed(
                instrument.venue_symbol, f"{error} in a REST snapshot", book=False
            )
            self._malformed(malformed, received_ns)
            return False
        self._handle(self._book_snapshot, event, received_ns)
        return True

    def opened(self, channel: Channel, now_ns: int) -> None:
        """A connection is open and its subscriptions have been sent."""
        for symbol in channel.symbols:
            book = self.books[symbol]
            self.trades[symbol].heard = True
            if book.state is not BookState.LIVE:
                book.resyncing(Reason.RECONNECTED, now_ns)
            book.reconnected()
            self.trades[symbol].reconnected()
            if self.venue.sequenced:
                if book.state is not BookState.LIVE:
                    self.wanted[symbol] = book.reason
            else:
                # Subscribing brings the snapshot.
                self.wanted.pop(symbol, None)

    def fail(self, symbols: Iterable[str], state: BookState, reason: Reason, now_ns: int) -> None:
        """The books of these venue symbols can't be trusted any more."""
        for symbol in symbols:
            book = self.books.get(symbol)
            if book is not None and book.state is BookState.LIVE:
                book.fail(state, reason, now_ns)

    def resyncing(self, symbol: str, now_ns: int) -> None:
        """The session has asked the venue for a new snapshot of a venue symbol."""
        reason = self.wanted.pop(symbol, Reason.REQUESTED)
        book = self.books[symbol]
        self.publisher.counts.resyncs += 1
        resyncs = self.publisher.tally(book.instrument).resyncs
        resyncs[reason] = resyncs.get(reason, 0) + 1
        self.trades[symbol].heard = True
        book.resyncing(reason, now_ns)

    def refuse(self, symbol: str, now_ns: int) -> None:
        """The venue refused to send the book of a venue symbol."""
        self.books[symbol].fail(BookState.STALE, Reason.REFUSED, now_ns)

    def silent_symbols(self, now: float) -> list[str]:
        """Live symbols without the sign of life that the venue promises for each.

        A heartbeat or a trade is one; so is a book that has changed since the last call. To be
        called several times a second.

        Parameters
        ----------
        now : in seconds, of a clock that only ever grows
        """
        seconds = self.venue.liveness.symbol_seconds
        if seconds is None or self.status is events.VenueStatus.MAINTENANCE:
            self._alive_at.clear()
            return []
        silent: list[str] = []
        for symbol, book in self.books.items():
            version = book.tracker.version
            alive_at, known_version = self._alive_at.get(symbol, (now, version))
            log = self.trades[symbol]
            if log.heard or version != known_version:
                alive_at = now
            self._alive_at[symbol] = alive_at, version
            log.heard = False
            if now - alive_at > seconds and book.state is BookState.LIVE:
                silent.append(symbol)
        return silent

    def repeat_due(self, now_ns: int) -> None:
        """Publish the books that newcomers would otherwise soon not find in the ring."""
        for instrument_id in self.writer.due(now_ns):
            book = self._by_id.get(instrument_id)
            if book is None:
                # Exponents have changed since.
                self._by_id = {book.instrument.id: book for book in self.books.values()}
                book = self._by_id[instrument_id]
            book.repeat(now_ns)

    def _disproved(self, outcome: int, received_ns: int) -> None:
        """The native path found a book wrong; nothing was published."""
        tracker = self._fast.culprit
        assert isinstance(tracker, BookTracker)
        book = self.books[tracker.instrument.venue_symbol]
        if outcome == BAD_CHECKSUM:
            self.publisher.checksum_failed(book.instrument)
            book.fail(BookState.INVALID, Reason.CHECKSUM, received_ns)
        else:
            book.fail(BookState.INVALID, Reason.CROSSED, received_ns)

    def _handle(
        self, handler: Callable[..., None], event: events.VenueEvent, received_ns: int
    ) -> None:
        try:
            handler(event, received_ns)
        except (FixedPointError, BookError, SymbolError, ValueError, OverflowError) as error:
            symbol = getattr(event, "venue_symbol", None)
            book = isinstance(event, events.BookUpdateEvent | events.BookSnapshotEvent)
            self._malformed(events.Malformed(symbol, str(error), book), received_ns)

    def _announce_all(self, received_ns: int) -> None:
        """Publish every instrument and book, as the beginning of a new ring."""
        for book in self.books.values():
            book.announce(received_ns)

    def _follow(self, instrument: Instrument, now_ns: int) -> SyncedBook:
        """Begin with an instrument; its book is syncing until its snapshot has come."""
        symbol = instrument.venue_symbol
        instrument = msgspec.structs.replace(instrument, id=self._next_id())
        digits = self.venue.checksum_digits(instrument)
        tracker = BookTracker(
            instrument,
            depth=self.venue.depth,
            checksum=ChecksumRule(*digits) if digits else None,
            stage=self._stage,
            encoder=self._encoder,
        )
        kind = SequencedBook if self.venue.sequenced else StreamedBook
        book = kind(tracker, self.publisher, self._want, self._next_id)
        self.books[symbol] = book
        log = self.trades[symbol] = TradeLog(tracker, self.publisher)
        self._fast.follow(symbol, tracker, log)
        book.announce(now_ns)
        return book

    def _followed(self, symbol: str, received_ns: int) -> SyncedBook:
        book = self.books.get(symbol)
        if book is not None:
            return book
        instrument = self.instruments.by_venue_symbol(symbol)
        if self._symbols is not None:
            raise ValueError(f"{symbol} was not subscribed to")
        return self._follow(instrument, received_ns)

    def _next_id(self) -> int:
        self._last_instrument_id += 1
        return self._last_instrument_id

    def _want(self, symbol: str, reason: Reason) -> None:
        self.wanted.setdefault(symbol, reason)

    def _redefine(self, book: SyncedBook, news: Instrument, now_ns: int) -> None:
        """News of a followed instrument: more decimal places, or other digits in its checksum."""
        try:
            book.redefine(news, now_ns)
        except FixedPointError as error:
            self._malformed(events.Malformed(news.venue_symbol, str(error), False), now_ns)
            return
        digits = self.venue.checksum_digits(news)
        if digits:
            book.tracker.rule = ChecksumRule(*digits)

    def _book_update(self, event: events.BookUpdateEvent, received_ns: int) -> None:
        self._followed(event.venue_symbol, received_ns).update(event, received_ns)

    def _book_snapshot(self, event: events.BookSnapshotEvent, received_ns: int) -> None:
        self._followed(event.venue_symbol, received_ns).snapshot(event, received_ns)

    def _trade(self, event: events.TradeEvent, received_ns: int) -> None:
        book = self._followed(event.venue_symbol, received_ns)
        log = self.trades[event.venue_symbol]
        log.heard = True
        for _ in range(2):
            try:
                log.trade(event, received_ns)
                return
            except PrecisionError as error:
                book.widen(error, received_ns)
        log.trade(event, received_ns)

    def _trade_mark(self, event: events.TradeMark, received_ns: int) -> None:
        self._followed(event.venue_symbol, received_ns)
        self.trades[event.venue_symbol].mark(event, received_ns)

    def _alive(self, event: events.Alive, received_ns: int) -> None:
        log = self.trades.get(event.venue_symbol or "")
        if log is not None:
            log.heard = True

    def _instruments(self, event: events.Instruments, received_ns: int) -> None:
        self.define(event.instruments, received_ns)

    def _sequence_break(self, channel: Channel, received_ns: int) -> None:
        """Messages of a connection are lost: any of its books may be wrong, any trade missing."""
        self.fail(channel.symbols, BookState.INVALID, Reason.GAP, received_ns)
        for symbol in channel.symbols:
            if symbol in self.trades:
                self.trades[symbol].broken(received_ns)

    def _status(self, event: events.StatusEvent, received_ns: int) -> None:
        self.status = event.status

    def _malformed(self, event: events.Malformed, received_ns: int) -> None:
        symbol = event.venue_symbol
        book = self.books.get(symbol or "")
        instrument = None if book is None else book.instrument
        self.publisher.malformed(instrument, again=self._complained)
        self._complained = True
        self._complain(symbol and printable(symbol, 64), printable(event.problem, 400))
        if event.book and book is not None and book.state is not BookState.INVALID:
            book.malformed(received_ns)
