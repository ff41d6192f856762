"""One symbol of one exchange: its book, its state, its views, and who gets what of it."""

from __future__ import annotations

from collections.abc import Container, Iterator

import msgspec

from alphapulse.clock import NO_TIME, monotonic_ns, wall_ns
from alphapulse.delta import BookView, decode
from alphapulse.errors import BookError, RecordError
from alphapulse.fixed import format_decimal
from alphapulse.log import get_logger
from alphapulse.model import (
    BookDelta,
    BookState,
    Channel,
    Gap,
    Instrument,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.shm import RawRecord
from alphapulse.stream import binary
from alphapulse.stream.client import Client
from alphapulse.stream.items import Audience, Told, record_item, told_gap, told_state, told_trade
from alphapulse.stream.messages import Times
from alphapulse.stream.pool import Pool, Touched
from alphapulse.stream.quotes import Quote, Quotes
from alphapulse.stream.requests import Channel as Subscribed
from alphapulse.stream.requests import Format, Look
from alphapulse.stream.viewing import Views
from alphapulse.stream.views import Advance, Changes, Moment, Shared, View

log = get_logger(__name__)

_LIVE = BookState.LIVE


class Market:
    """A book, kept from its ring's records, and its subscribers.

    A book is live for subscribers from its snapshot until its state is another or its ring fails.

    Parameters
    ----------
    instrument : the newest of the symbol
    epoch : of the ring
    shared : with other markets
    pool : of the markets of the same symbol
    """

    channels: tuple[Subscribed, ...] = ("trades", "orderbook", "state", "bbo")
    """What can be subscribed to here."""

    def __init__(self, instrument: Instrument, epoch: int, shared: Shared, pool: Pool) -> None:
        self.instrument = instrument
        self.exchange = instrument.exchange
        self.symbol = instrument.symbol
        self.epoch = epoch
        self.traders = Audience()
        self.watchers = Audience()
        """Clients of the channel ``state``."""
        self.views: Views[View] = Views(self, self._view)
        self.state = StateChange(
            exchange=instrument.exchange,
            sequence=0,
            instrument=instrument,
            state=BookState.SYNCING,
            reason=Reason.STARTED,
        )
        """As subscribers were told last."""
        self.made_sequence = 0
        """Of the ring's last record when the stream itself changed the state, or asked for it."""
        self.book = BookView(stage=shared.stage)
        self.times = Times(NO_TIME, NO_TIME, 0)
        """Of the book's latest change."""
        self._shared = shared
        self._pool = pool
        self._placed = True
        """Whether the instrument is one of the epoch."""
        self._announced: dict[int, bytes] = {}
        """Instrument records of the epoch, by instrument id."""
        self._in_ring: StateChange | None = None
        self._suspended = False
        self._restart = Reason.SUBSCRIBED
        self.quotes = Quotes(self.exchange, self.symbol, self._quote, shared)
        pool.enter(self)

    @property
    def live(self) -> bool:
        """Whether subscribers may be sent the book."""
        return self.book.ready and not self._suspended

    @property
    def shown(self) -> bool:
        """Whether subscribers have been told that the book is live."""
        return self.book.ready and not self._suspended and self.state.state is _LIVE

    def renew(self, epoch: int) -> None:
        """The ring is another: what was announced in the one before says nothing any more."""
        self.epoch = epoch
        self._announced.clear()
        self._placed = False
        self.made_sequence = 0
        self.times = self.times._replace(sequence=0)
        self.state = msgspec.structs.replace(self.state, sequence=0)

    def begin(self, state: BookState | None, reason: Reason) -> None:
        """Start over, in a new epoch or after a loss: the book needs a snapshot.

        Parameters
        ----------
        state : of the book as the ring's directory has it; None where records will tell
        reason : of the snapshot to come
        """
        if self.state.state is BookState.LIVE:
            self.fail(BookState.STALE, reason, self.times.sequence)
        self.book.invalidate()
        self._restart = reason
        self._in_ring = None
        if state is not None:
            # The directory doesn't keep reasons: the state is told once more, for newcomers.
            self.ring_state(self._state(state, Reason.REPEATED, self.times.sequence), None)

    def adopt(self, instrument: Instrument) -> None:
        """An instrument of the symbol is known; the book keeps the scale that it began with."""
        self._placed = True
        if not self.book.ready:
            self.instrument = instrument
            self.state = msgspec.structs.replace(self.state, instrument=instrument)

    def define(self, instrument: Instrument, record: bytes | None = None) -> None:
        """Announce an instrument of the symbol to those who get records, once.

        Parameters
        ----------
        record : of the ring; None where that went by before
        """
        if instrument.id in self._announced:
            return
        self.adopt(instrument)
        data = binary.encode_instrument(instrument) if record is None else record
        self._announced[instrument.id] = data
        for client in self._binary_clients():
            client.send(record_item(data))

    def snapshot(self, record: RawRecord, instrument: Instrument) -> None:
        """Take a snapshot record; repeats are for newcomers only."""
        try:
            if not self.book.apply(record.data):
                return
        except RecordError as error:
            self._lose(error, record.sequence)
            return
        repeated = self.book.reason is Reason.REPEATED
        reason = self._restart if repeated else self.book.reason
        self.define(instrument)
        self.instrument = instrument
        self.times = Times(record.exchange_ns, record.received_ns, record.sequence)
        self._suspended = False
        self._restart = Reason.RESYNCED
        self._show(reason, None if repeated else bytes(record.data))
        told_live = self.state.state is BookState.LIVE
        if self._in_ring is not None and self._in_ring.state is BookState.LIVE and not told_live:
            self._make(BookState.LIVE, reason, record.sequence)

    def delta(self, record: RawRecord) -> None:
        """Take a delta record."""
        if not self.book.ready:
            return
        changes: Changes = ()
        touched: Touched = ()
        if self._pool.views or self.views.decode:
            changes = self._changes(record)
            touched = self._pool.before(self, changes)
        times = Times(record.exchange_ns, record.received_ns, record.sequence)
        try:
            self.book.apply_delta(record, record.instrument, times.exchange_ns, times.received_ns)
        except (BookError, RecordError) as error:
            self._lose(error, times.sequence)
            return
        self.times = times
        if self.views:
            advance = Advance(record, changes, times, monotonic_ns())
            for view in self.views.values():
                view.advance(advance)
        self.quotes.changed(times)
        self._pool.changed(self, touched)

    def trade(self, trade: Trade, record: RawRecord) -> None:
        """Tell a trade."""
        if self.traders:
            self.define(trade.instrument)
            self.traders.deliver(told_trade(trade, bytes(record.data)))

    def gap(self, gap: Gap, instrument: Instrument, record: RawRecord) -> None:
        """Tell a loss of trades or of the book's updates."""
        self.define(instrument)
        told = told_gap(gap, bytes(record.data))
        if gap.channel is Channel.TRADES:
            self.traders.deliver(told)
            return
        for look, view in self.views.items():
            view.clients.deliver(told.item(look.format))
        self._tell_others(told)

    def ring_state(self, state: StateChange, record: RawRecord | None) -> None:
        """Take a state record; that a book is live is told with or after its snapshot."""
        self._in_ring = state
        if state.state is not BookState.LIVE:
            self.book.invalidate()
        elif not self.book.ready:
            return
        if record is None:
            self.made_sequence = state.sequence
        self._tell(state, None if record is None else bytes(record.data))

    def fail(self, state: BookState, reason: Reason, sequence: int) -> None:
        """The book can't be trusted until its next snapshot.

        Parameters
        ----------
        sequence : of the ring's last record
        """
        self.book.invalidate()
        self._suspended = False
        self._restart = reason
        if self.state.state is not state:
            self._make(state, reason, sequence)

    def suspend(self, reason: Reason, sequence: int) -> None:
        """Nothing comes from the ring: the book may be old."""
        if self.live:
            self._suspended = True
            self._make(BookState.STALE, reason, sequence)

    def restore(self, reason: Reason, sequence: int) -> None:
        """The ring goes on where it was before `suspend`."""
        if self._suspended:
            self._suspended = False
            self._show(reason, None)
            self._make(BookState.LIVE, reason, sequence)

    def join(
        self,
        client: Client,
        channel: Subscribed,
        look: Look | None,
        *,
        follows: bool = False,
        known: Container[int] = (),
    ) -> None:
        """Make a client a subscriber of a channel, or none of it.

        Parameters
        ----------
        look : how; None for no subscription
        follows : the client has the book as it is now, and needs no snapshot
        known : instruments whose records it was given
        """
        if look is not None and look.format == "binary" and not self._decodes(client):
            for number, record in self._announced.items():
                if number not in known:
                    client.send(record_item(record))
        if channel == "trades":
            self.traders.join(client, look and look.format)
        elif channel == "state":
            self.watchers.join(client, look and look.format)
        elif channel == "bbo":
            self.quotes.join(client, look)
        else:
            owed = self.views.unwatch(client)
            if look is not None:
                view = self.views.watch(client, look)
                if self.live and not follows:
                    client.owe(view, Reason.SUBSCRIBED)
            if owed and (look is not None or client in self.watchers):
                self.remind(client)

    def greet(self, client: Client, channels: tuple[Subscribed, ...]) -> None:
        """Tell a new subscriber of these channels how things are, besides the book itself."""
        live = self.state.state is BookState.LIVE
        if "state" in channels or ("orderbook" in channels and not live):
            self.remind(client)

    def remind(self, client: Client) -> None:
        """Tell a subscriber of the book or its state the state as it was told last."""
        wanted = self._format(client)
        if wanted == "binary":
            if not self._placed:
                return  # nothing can be said of it before its ring has announced it
            self.define(self.state.instrument)
        view = client.views.get(self)
        item = told_state(self.state).item(wanted)
        client.send_state(item, view, self.state.state is BookState.LIVE)

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self.traders.join(client, None)
        self.watchers.join(client, None)
        self.quotes.join(client, None)
        self.views.unwatch(client)

    def _view(self, look: Look) -> View:
        view = View(look, self._moment(), self._shared)
        if not self.live:
            view.halt()
        return view

    def _moment(self) -> Moment:
        return Moment(self.book, self.instrument, self.epoch, self.times)

    def _show(self, reason: Reason, record: bytes | None) -> None:
        """Send all subscribers the whole book, as the record has it if there is one."""
        now = self._moment()
        for view in self.views.values():
            view.reset(now)
            view.show(reason, record)
        if self.shown:
            self._renewed(reason)

    def _renewed(self, reason: Reason) -> None:
        """Tell those who look at best prices or at several exchanges that the book is another."""
        times = Times(self.state.exchange_ns, self.state.received_ns, self.state.sequence)
        self.quotes.changed(self.times if self.shown else times)
        self._pool.renewed(self, reason)

    def _quote(self) -> Quote:
        state = self.state.state.text
        if not self.shown:
            return Quote(None, None, state)
        places = self.instrument.price_exponent, self.instrument.size_exponent
        bid, ask = (
            level
            and (format_decimal(level[0], places[0]), format_decimal(level[1], places[1]), None)
            for level in self.book.book.best()
        )
        return Quote(bid, ask, state)

    def _make(self, state: BookState, reason: Reason, sequence: int) -> None:
        """Tell a state that no record tells."""
        self.made_sequence = sequence
        self._tell(self._state(state, reason, sequence), None)

    def _tell(self, state: StateChange, record: bytes | None) -> None:
        self.state = state
        if record is not None or self._placed:
            self.define(state.instrument)
        live = state.state is BookState.LIVE
        told = told_state(state, record)
        for look, view in self.views.items():
            if not live:
                view.halt()
            if self._placed or look.format == "json":
                view.clients.tell(told.item(look.format), view, live)
        self._tell_others(told)
        self._renewed(state.reason)

    def _state(self, state: BookState, reason: Reason, sequence: int) -> StateChange:
        """A state that no record tells, as of now."""
        return StateChange(
            exchange=self.exchange,
            sequence=sequence,
            received_ns=wall_ns(),
            instrument=self.instrument,
            state=state,
            reason=reason,
        )

    def _lose(self, error: BookError | RecordError, sequence: int) -> None:
        log.warning(
            "book lost until its next snapshot",
            exchange=self.exchange,
            symbol=self.symbol,
            problem=str(error),
        )
        self.fail(BookState.INVALID, Reason.MALFORMED, sequence)

    def _changes(self, record: RawRecord) -> Changes:
        known = {record.instrument: self.instrument}
        event = decode(record.data, known, self.exchange)
        assert isinstance(event, BookDelta), "the book has applied it as a delta"
        return event.changes

    def _tell_others(self, told: Told) -> None:
        """Tell the clients of the state that aren't subscribed to the book."""
        for name, group in self.watchers.groups():
            for client in group if self._placed or name == "json" else ():
                if self not in client.views:
                    client.send(told.item(name))

    def _format(self, client: Client) -> Format:
        """In which format a client is told the state."""
        view = client.views.get(self)
        if view is not None:
            return view.look.format
        return "binary" if client in self.watchers.binary else "json"

    def _decodes(self, client: Client) -> bool:
        """Whether a client gets any records of this market already."""
        view = client.views.get(self)
        return (
            (view is not None and view.look.format == "binary")
            or client in self.traders.binary
            or client in self.watchers.binary
        )

    def _binary_clients(self) -> Iterator[Client]:
        """Each client that gets records, once."""
        found = dict.fromkeys(self.traders.binary)
        found.update(dict.fromkeys(self.watchers.binary))
        for look, view in self.views.items():
            if look.format == "binary":
                found.update(dict.fromkeys(view.clients))
        return iter(found)
