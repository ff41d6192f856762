"""Rings' records to events and books, by the same rules as a stream server's clients have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from alphapulse.client.books import Books, BookShelf, LocalBook
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.desk import Desk
from alphapulse.client.events import StreamEvent
from alphapulse.client.keeping import KeptBook
from alphapulse.client.messages import Subscribe, Unsubscribe
from alphapulse.client.record_feed import Ring, take_book_record
from alphapulse.client.wishes import Wishes
from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.delta import decode, decode_header
from alphapulse.errors import ProtocolError, RecordError
from alphapulse.model import (
    BookDelta,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    Instrument,
    InstrumentDefined,
    Overrun,
    Reason,
    RecordFlag,
    RecordType,
    StateChange,
    Trade,
)
from alphapulse.shm import Batch, RawRecord


class Attached(NamedTuple):
    """A ring is being read from here on."""

    exchange: str
    epoch: int
    instruments: Mapping[int, Instrument]
    states: Mapping[int, BookState]


class Alive(NamedTuple):
    """What became of a ring's writer."""

    exchange: str
    state: Reason | None
    """``DISCONNECTED``, ``SILENT``, or None where it is at work again."""


class Lapped(NamedTuple):
    """Records were lost; the books' states as the ring's directory has them."""

    overrun: Overrun
    states: Mapping[int, BookState]


LocalEntry = Batch | Attached | Alive | Lapped


class Market:
    """One symbol of one exchange: its book, and what is wanted of it."""

    def __init__(self, instrument: Instrument, book: KeptBook) -> None:
        self.instrument = instrument
        self.book = book
        self.sequence = 0
        self.trades = False
        self.states = False
        self.depth: int | None = None
        """Levels a side, 0 for all; None where the book isn't subscribed to."""
        self.restart = Reason.SUBSCRIBED
        """Why the next snapshot comes, if it is one for newcomers."""


class LocalFeed:
    """Takes what a `LocalClient` reads, in order.

    All books of the rings are kept, subscribed to or not, so that a subscription begins at once.
    """

    def __init__(self) -> None:
        self._desk = Desk()
        self._shown: BookShelf[KeptBook] = BookShelf()
        self._rings: dict[str, Ring] = {}
        self._markets: dict[tuple[str, str], Market] = {}
        self._silent: set[str] = set()
        self._wishes = Wishes()

    @property
    def books(self) -> Books[LocalBook]:
        """The books subscribed to, by (exchange, symbol)."""
        return self._shown

    @property
    def consolidated(self) -> Mapping[str, ConsolidatedBook]:
        """Rings have none."""
        return self._desk.consolidated

    @property
    def epochs(self) -> dict[str, int]:
        """Of the rings that are read, by exchange."""
        return {name: ring.epoch for name, ring in self._rings.items()}

    def symbols(self, exchanges: Iterable[str]) -> set[str]:
        """Symbols that some exchanges have."""
        wanted = set(exchanges)
        return {symbol for exchange, symbol in self._markets if exchange in wanted}

    def subscribe(self, request: Subscribe) -> list[StreamEvent]:
        """Take a wish; the events that it begins with."""
        self._wishes.add(request)
        events: list[StreamEvent] = []
        for market in self._matching(request):
            self._apply_wishes(market)
            if "orderbook" in request.channels:
                events += self._begin(market)
            if "state" in request.channels:
                events += self._present_state(market, events)
        return events

    def unsubscribe(self, request: Unsubscribe) -> None:
        """Take wishes back."""
        self._wishes.add(request)
        for market in self._matching(request):
            self._apply_wishes(market)

    def again(
        self, exchanges: tuple[str, ...] | None, symbols: tuple[str, ...] | None
    ) -> list[StreamEvent] | None:
        """The subscribed books once more; None where none fits."""
        request = Subscribe(channels=("orderbook",), exchanges=exchanges, symbols=symbols)
        markets = [market for market in self._matching(request) if market.depth is not None]
        if not markets:
            return None
        return [event for market in markets for event in self._begin(market, Reason.REQUESTED)]

    def take(self, entry: LocalEntry) -> Iterator[StreamEvent]:
        """Events of what was read; when one is given, the books are as of it.

        Raises
        ------
        ProtocolError
            a record can't be decoded
        """
        if isinstance(entry, Batch):
            return self._batch(entry)
        if isinstance(entry, Attached):
            return self._attach(entry)
        if isinstance(entry, Lapped):
            return self._lapped(entry)
        return self._alive(entry)

    # Rings

    def _attach(self, entry: Attached) -> Iterator[StreamEvent]:
        known = entry.exchange in self._rings
        yield from self._start(
            entry.exchange,
            entry.epoch,
            entry.instruments,
            entry.states,
            Reason.RESTARTED if known else Reason.SUBSCRIBED,
        )

    def _start(
        self,
        exchange: str,
        epoch: int,
        instruments: Mapping[int, Instrument],
        states: Mapping[int, BookState],
        reason: Reason,
    ) -> Iterator[StreamEvent]:
        """Books begin anew, in a new ring or after a loss."""
        self._silent.discard(exchange)
        ring = self._rings.setdefault(exchange, Ring(exchange))
        ring.begin(epoch)
        for market in self._of(exchange):
            if market.book.live:
                yield from self._fail(market, BookState.STALE, reason)
            market.restart = reason
            market.book.held.invalidate()
        for number, instrument in instruments.items():
            ring.instruments[number] = instrument
            market = self._market(instrument)
            state = states.get(number, BookState.SYNCING)
            if state is not BookState.LIVE and market.book.state is not state:
                yield from self._fail(market, state, Reason.REPEATED)

    def _lapped(self, entry: Lapped) -> Iterator[StreamEvent]:
        overrun = entry.overrun
        yield overrun.as_gap(wall_ns())
        ring = self._rings[overrun.exchange]
        if overrun.reason is Reason.LAPPED:
            yield from self._start(
                ring.exchange, ring.epoch, dict(ring.instruments), entry.states, Reason.LAPPED
            )

    def _alive(self, entry: Alive) -> Iterator[StreamEvent]:
        exchange = entry.exchange
        if entry.state is Reason.DISCONNECTED:
            self._silent.discard(exchange)
            for market in self._of(exchange):
                yield from self._fail(market, BookState.STALE, Reason.DISCONNECTED)
                market.restart = Reason.DISCONNECTED
        elif entry.state is Reason.SILENT:
            yield from self._suspend(exchange)
        else:
            yield from self._restore(exchange)

    def _suspend(self, exchange: str) -> Iterator[StreamEvent]:
        if exchange in self._silent:
            return
        self._silent.add(exchange)
        for market in self._of(exchange):
            if market.book.live:
                market.book.suspend()
                yield from self._told(market, BookState.STALE, Reason.SILENT)

    def _restore(self, exchange: str) -> Iterator[StreamEvent]:
        if exchange not in self._silent:
            return
        self._silent.discard(exchange)
        for market in self._of(exchange):
            market.book.restore()
            if market.book.live:
                yield from self._begin(market, Reason.RESYNCED)
                yield from self._told(market, BookState.LIVE, Reason.RESYNCED)

    # Records

    def _batch(self, batch: Batch) -> Iterator[StreamEvent]:
        ring = self._rings[batch.exchange]
        if batch.epoch != ring.epoch:
            yield from self._start(
                batch.exchange, batch.epoch, batch.instruments, {}, Reason.RESTARTED
            )
        elif batch.exchange in self._silent:
            yield from self._restore(batch.exchange)
        for record in batch:
            try:
                events = self._record(record, ring)
            except RecordError as error:
                raise ProtocolError(str(error), bytes(record.data)) from error
            yield from events

    def _record(self, record: RawRecord, ring: Ring) -> list[StreamEvent]:
        kind = record.type
        if kind == RecordType.HEARTBEAT:
            return []
        if kind in (RecordType.SNAPSHOT, RecordType.DELTA):
            return self._book_record(record, ring)
        event = decode(record.data, ring.instruments, ring.exchange)
        if isinstance(event, InstrumentDefined):
            ring.instruments[event.instrument.id] = event.instrument
            self._market(event.instrument)
        elif isinstance(event, Trade):
            return [event] if self._market(event.instrument).trades else []
        elif isinstance(event, StateChange):
            return self._state(event)
        elif isinstance(event, Gap):
            return [event] if self._concerned(event) else []
        return []

    def _book_record(self, record: RawRecord, ring: Ring) -> list[StreamEvent]:
        instrument = ring.instruments.get(record.instrument)
        if instrument is None:
            raise RecordError(f"instrument {record.instrument} of {ring.exchange} is unknown")
        market = self._market(instrument)
        market.sequence = record.sequence
        book = market.book
        if record.type == RecordType.DELTA and not book.held.ready:
            return []  # it was found wrong; the ring repeats every live book's snapshot
        before = book.shown_version
        data = bytes(record.data)
        header = decode_header(data)
        events = take_book_record(self._desk, book, data, header, ring, ask=False)
        if market.depth is None:
            return []
        return [told for event in events for told in self._view(market, event, before)]

    def _view(self, market: Market, event: StreamEvent, before: int) -> Iterator[StreamEvent]:
        """A book's event as its subscription's depth shows it."""
        depth = market.depth
        assert depth is not None
        book = market.book
        if isinstance(event, BookSnapshot):
            book.load_top()
            reason = market.restart if event.reason is Reason.REPEATED else event.reason
            market.restart = Reason.RESYNCED
            yield msgspec.structs.replace(
                event,
                reason=reason,
                bids=event.bids[:depth] if depth else event.bids,
                asks=event.asks[:depth] if depth else event.asks,
            )
        elif isinstance(event, BookDelta) and depth:
            changes = book.advance_top()
            book.show_version(event.version if changes else before)
            if changes:
                yield msgspec.structs.replace(event, prev_version=before, changes=changes)
        else:
            yield event

    def _state(self, event: StateChange) -> list[StreamEvent]:
        market = self._market(event.instrument)
        market.sequence = event.sequence
        market.book.tell(event.state, event.reason)
        wanted = market.states or market.depth is not None
        return [event] if wanted else []

    def _concerned(self, gap: Gap) -> bool:
        if gap.instrument is None or gap.channel is Channel.RING:
            return self._wishes.concern(gap.exchange)
        market = self._market(gap.instrument)
        if gap.channel is Channel.TRADES:
            return market.trades
        return market.states or market.depth is not None

    # Markets

    def _market(self, instrument: Instrument) -> Market:
        key = instrument.exchange, instrument.symbol
        market = self._markets.get(key)
        if market is None:
            book = KeptBook(instrument.exchange, instrument.symbol, self._desk.stage)
            market = self._markets[key] = Market(instrument, book)
            self._apply_wishes(market)
        market.instrument = instrument
        return market

    def _apply_wishes(self, market: Market) -> None:
        exchange, symbol = market.book.exchange, market.book.symbol
        market.trades = self._wishes.find("trades", exchange, symbol) is not None
        market.states = self._wishes.find("state", exchange, symbol) is not None
        wish = self._wishes.find("orderbook", exchange, symbol)
        if wish is None:
            market.depth = None
            market.book.follow(0)
            self._shown.remove((exchange, symbol))
            return
        depth = wish.depth if isinstance(wish.depth, int) else 0
        if depth != market.depth:
            market.depth = depth
            market.book.follow(depth)
            market.book.show_version(market.book.held.version)
        if self._shown.find(exchange, symbol) is None:
            self._shown.put(market.book)

    def _matching(self, request: Subscribe | Unsubscribe) -> list[Market]:
        exchanges, symbols = request.exchanges, request.symbols
        return [
            market
            for (exchange, symbol), market in self._markets.items()
            if (exchanges is None or exchange in exchanges)
            and (symbols is None or symbol in symbols)
        ]

    def _of(self, exchange: str) -> list[Market]:
        return [market for key, market in self._markets.items() if key[0] == exchange]

    def _begin(self, market: Market, reason: Reason = Reason.SUBSCRIBED) -> list[StreamEvent]:
        """The book as it is, or its state where it isn't live."""
        book = market.book
        if not book.live:
            return self._present_state(market, [])
        book.load_top()
        return [
            BookSnapshot(
                exchange=book.exchange,
                sequence=book.sequence,
                exchange_ns=book.exchange_ns,
                received_ns=book.received_ns,
                flags=RecordFlag.MADE,
                instrument=book.instrument,
                version=book.version,
                reason=reason,
                bids=book.scaled_bids(),
                asks=book.scaled_asks(),
            )
        ]

    def _present_state(self, market: Market, told: list[StreamEvent]) -> list[StreamEvent]:
        """The event that tells what the book is now, unless it was told just before."""
        if told and isinstance(told[-1], StateChange) and told[-1].symbol == market.book.symbol:
            return []
        return [self._made_state(market, market.book.state, market.book.reason)]

    def _fail(self, market: Market, state: BookState, reason: Reason) -> Iterator[StreamEvent]:
        told_before = market.book.state is state
        market.book.restore()
        market.book.tell(state, reason)
        if not told_before:
            yield from self._told(market, state, reason)

    def _told(self, market: Market, state: BookState, reason: Reason) -> Iterator[StreamEvent]:
        if market.states or market.depth is not None:
            yield self._made_state(market, state, reason)

    @staticmethod
    def _made_state(market: Market, state: BookState, reason: Reason) -> StateChange:
        return StateChange(
            exchange=market.book.exchange,
            sequence=market.sequence,
            exchange_ns=NO_TIME,
            received_ns=wall_ns(),
            flags=RecordFlag.MADE,
            instrument=market.instrument,
            state=state,
            reason=reason,
        )
