"""One symbol of one exchange: its book, its state, its views, and who gets what of it."""

from __future__ import annotations

from alphapulse.clock import NO_TIME, monotonic_ns, wall_ns
from alphapulse.delta import BookView, LevelStage, decode
from alphapulse.errors import BookError, RecordError
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
from alphapulse.stream.client import Client, Group, Item, Kind
from alphapulse.stream.frames import text_frame
from alphapulse.stream.messages import Times, encode_gap, encode_state, encode_trade
from alphapulse.stream.requests import FULL
from alphapulse.stream.views import Changes, View

log = get_logger(__name__)


def event_item(text: str) -> Item:
    """An event's frame, to be sent whatever happens."""
    return Item(text_frame(text), Kind.EVENT, None, monotonic_ns())


class Market:
    """A book, kept from its ring's records, and its subscribers.

    A book is live for subscribers from its snapshot until its state is another or its ring fails.

    Parameters
    ----------
    instrument : the newest of the symbol
    epoch : of the ring
    stage : scratch memory shared by all books
    """

    def __init__(self, instrument: Instrument, epoch: int, stage: LevelStage) -> None:
        self.instrument = instrument
        self.epoch = epoch
        self.traders: Group[Client] = Group()
        self.watchers: Group[Client] = Group()
        """Clients of the channel ``state``."""
        self.views: dict[int, View] = {}
        """By depth; those that have clients."""
        self.state = StateChange(
            exchange=instrument.exchange,
            sequence=0,
            instrument=instrument,
            state=BookState.SYNCING,
            reason=Reason.STARTED,
        )
        """As subscribers were told last."""
        self._book = BookView(stage=stage)
        self._times = Times(NO_TIME, NO_TIME, 0)
        self._in_ring: StateChange | None = None
        self._suspended = False
        self._restart = Reason.SUBSCRIBED

    @property
    def live(self) -> bool:
        """Whether subscribers may be sent the book."""
        return self._book.ready and not self._suspended

    def begin(
        self, instrument: Instrument, epoch: int, state: BookState | None, reason: Reason
    ) -> None:
        """Start over, in a new epoch or after a loss: the book needs a snapshot.

        Parameters
        ----------
        instrument : the newest of the symbol
        epoch : of the ring
        state : of the book as the ring's directory has it; None where records will tell
        reason : of the snapshot to come
        """
        if self.state.state is BookState.LIVE:
            self.fail(BookState.STALE, reason, self._times.sequence)
        self._book.invalidate()
        self._restart = reason
        self.instrument = instrument
        self.epoch = epoch
        self._in_ring = None
        if state is not None:
            # The directory doesn't keep reasons: the state is told once more, for newcomers.
            self.ring_state(self._state(state, Reason.REPEATED, self._times.sequence))

    def snapshot(self, record: RawRecord, instrument: Instrument) -> None:
        """Take a snapshot record; repeats are for newcomers only."""
        try:
            if not self._book.apply(record.data):
                return
        except RecordError as error:
            self._lose(error, record.sequence)
            return
        repeated = self._book.reason is Reason.REPEATED
        reason = self._restart if repeated else self._book.reason
        self.instrument = instrument
        self._times = Times(record.exchange_ns, record.received_ns, record.sequence)
        self._suspended = False
        self._restart = Reason.RESYNCED
        self._show(reason)
        told_live = self.state.state is BookState.LIVE
        if self._in_ring is not None and self._in_ring.state is BookState.LIVE and not told_live:
            self._tell(self._state(BookState.LIVE, reason, record.sequence))

    def delta(self, record: RawRecord) -> None:
        """Take a delta record."""
        if not self._book.ready:
            return
        try:
            self._book.apply(record.data)
        except (BookError, RecordError) as error:
            self._lose(error, record.sequence)
            return
        self._times = Times(record.exchange_ns, record.received_ns, record.sequence)
        now_ns = monotonic_ns()
        version = self._book.version
        for depth, view in self.views.items():
            changes: Changes = self._changes(record) if depth == FULL else ()
            item = view.advance(version, self._times, changes, now_ns)
            if item is not None:
                view.clients.deliver(item)

    def trade(self, trade: Trade) -> None:
        """Tell a trade."""
        if self.traders:
            self.traders.deliver(event_item(encode_trade(trade)))

    def gap(self, gap: Gap) -> None:
        """Tell a loss of trades or of the book's updates."""
        item = event_item(encode_gap(gap))
        if gap.channel is Channel.TRADES:
            self.traders.deliver(item)
            return
        for view in self.views.values():
            view.clients.deliver(item)
        self._send_others(item)

    def ring_state(self, state: StateChange) -> None:
        """Take a state record; that a book is live is told with or after its snapshot."""
        self._in_ring = state
        if state.state is not BookState.LIVE:
            self._book.invalidate()
        elif not self._book.ready:
            return
        self._tell(state)

    def fail(self, state: BookState, reason: Reason, sequence: int) -> None:
        """The book can't be trusted until its next snapshot.

        Parameters
        ----------
        sequence : of the ring's last record
        """
        self._book.invalidate()
        self._suspended = False
        self._restart = reason
        if self.state.state is not state:
            self._tell(self._state(state, reason, sequence))

    def suspend(self, reason: Reason, sequence: int) -> None:
        """Nothing comes from the ring: the book may be old."""
        if self.live:
            self._suspended = True
            self._tell(self._state(BookState.STALE, reason, sequence))

    def restore(self, reason: Reason, sequence: int) -> None:
        """The ring goes on where it was before `suspend`."""
        if self._suspended:
            self._suspended = False
            self._show(reason)
            self._tell(self._state(BookState.LIVE, reason, sequence))

    def watch(self, client: Client, depth: int) -> View:
        """Subscribe a client to the book at a depth, and owe it a snapshot if there is a book."""
        view = self.views.get(depth)
        if view is None:
            view = View(depth, self._book, self.instrument, self.epoch, self._times)
            self.views[depth] = view
        view.clients.add(client)
        if self.live:
            client.owe(view, Reason.SUBSCRIBED)
        return view

    def unwatch(self, client: Client, view: View) -> None:
        """Take a client's book subscription back."""
        view.clients.discard(client)
        client.forget(view)
        if not view.clients:
            self.views.pop(view.depth, None)

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self.traders.discard(client)
        self.watchers.discard(client)
        view = client.views.pop(self, None)
        if view is not None:
            self.unwatch(client, view)

    def state_item(self) -> Item:
        """The state as subscribers were told last."""
        return event_item(encode_state(self.state))

    def _show(self, reason: Reason) -> None:
        """Owe all subscribers the whole book."""
        for view in self.views.values():
            view.reset(self._book, self.instrument, self.epoch, self._times)
            view.clients.owe(view, reason)

    def _tell(self, state: StateChange) -> None:
        self.state = state
        live = state.state is BookState.LIVE
        item = self.state_item()
        for view in self.views.values():
            view.clients.tell(item, view, live)
        self._send_others(item)

    def _state(self, state: BookState, reason: Reason, sequence: int) -> StateChange:
        """A state that no record tells, as of now."""
        return StateChange(
            exchange=self.instrument.exchange,
            sequence=sequence,
            received_ns=wall_ns(),
            instrument=self.instrument,
            state=state,
            reason=reason,
        )

    def _lose(self, error: BookError | RecordError, sequence: int) -> None:
        log.warning(
            "book lost until its next snapshot",
            exchange=self.instrument.exchange,
            symbol=self.instrument.symbol,
            problem=str(error),
        )
        self.fail(BookState.INVALID, Reason.MALFORMED, sequence)

    def _changes(self, record: RawRecord) -> Changes:
        known = {self.instrument.id: self.instrument}
        event = decode(record.data, known, self.instrument.exchange)
        assert isinstance(event, BookDelta), "the book has applied it as a delta"
        return event.changes

    def _send_others(self, item: Item) -> None:
        """Send to the clients of the state that aren't subscribed to the book."""
        for client in self.watchers:
            if not any(client in view.clients for view in self.views.values()):
                client.send(item)
