"""How feeds keep a client's books: from records, or from levels that were read from JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alphapulse.client.books import LocalBook
from alphapulse.delta import BookView, LevelStage, TopView
from alphapulse.errors import BookError, RangeError
from alphapulse.model import Action, BookSide, BookState, Change, Instrument, Reason

if TYPE_CHECKING:
    from typing_extensions import Buffer


class KeptBook(LocalBook):
    """A `LocalBook` with what changes it.

    Parameters
    ----------
    exchange, symbol : whose
    stage : scratch memory, shared by all books of a feed
    """

    def __init__(self, exchange: str, symbol: str, stage: LevelStage) -> None:
        super().__init__(exchange, symbol, BookView(stage=stage))
        self._stage = stage
        self._top: TopView | None = None
        self.asked = False
        """Whether the server was asked for a snapshot that hasn't come yet."""
        self._resumed = False

    @property
    def held(self) -> BookView:
        """The book, whether it may be shown or not."""
        return self._view

    @property
    def lapsed(self) -> bool:
        """Whether the server has left out changes, and the snapshot is still to come."""
        return (self._state, self._reason) == (BookState.STALE, Reason.LAPPED)

    @property
    def scale(self) -> Instrument | None:
        """The instrument of the latest snapshot, whether the book may be shown or not."""
        return self._instrument

    def take_record(
        self, record: Buffer, instrument: Instrument, *, epoch: int, sequence: int, reset: bool
    ) -> bool:
        """Take a snapshot record (`reset`) or delta record; False for a repeat of what is held.

        Raises
        ------
        RecordError, BookError
            as `BookView.apply`; the book then waits for a snapshot
        """
        view = self._view
        try:
            if not view.apply(record):
                return False
        except BaseException:
            view.invalidate()
            raise
        if reset:
            self._loaded(instrument, epoch, view.reason)
        self._version = view.version
        self.sequence = sequence
        return True

    def load_levels(
        self, instrument: Instrument, *, version: int, reason: Reason, epoch: int, sequence: int
    ) -> None:
        """Replace the book by the levels on the stage."""
        view = self._view
        view.book.load(self._stage)
        view.version = self._version = version
        view.reason = reason
        view.ready = True
        self.sequence = sequence
        self._loaded(instrument, epoch, reason)

    def change_levels(
        self, instrument: Instrument, *, version: int, prev_version: int, sequence: int
    ) -> tuple[Change, ...]:
        """Apply the levels on the stage as one delta; returns its changes.

        Raises
        ------
        BookError
            it doesn't continue this book, which then waits for a snapshot
        """
        view = self._view
        try:
            if not view.ready or self._instrument is None:
                raise BookError("a delta without a snapshot before it")
            if prev_version != view.version:
                raise BookError(f"a delta that follows version {prev_version}, not {view.version}")
            self._rescale(self._instrument, instrument)
            if view.book.apply(self._stage) != len(self._stage):
                raise BookError("a delta that contradicts the book")
        except BookError:
            view.invalidate()
            raise
        view.version = self._version = version
        self.sequence = sequence
        return changes_of(view.book.changes)

    def set_times(self, exchange_ns: int, received_ns: int) -> None:
        """When the latest change was."""
        self._view.exchange_ns = exchange_ns
        self._view.received_ns = received_ns

    def follow(self, depth: int) -> None:
        """Show the best `depth` levels a side only; 0 for all."""
        self._depth = depth
        self._top = TopView(depth) if depth else None

    def load_top(self) -> None:
        """Begin the part that is shown with the book as it is."""
        if self._top is not None:
            self._top.load(self._view.book)

    def advance_top(self) -> tuple[Change, ...]:
        """What the latest delta changed in the part that is shown."""
        assert self._top is not None
        return changes_of(self._top.changes) if self._top.advance(self._view.book) else ()

    @property
    def shown_version(self) -> int:
        """Version of the latest event, whether the book may be shown or not."""
        return self._version

    def show_version(self, version: int) -> None:
        """The part that is shown has this version."""
        self._version = version

    def tell(self, state: BookState, reason: Reason) -> None:
        """Somebody who knows says what the book is."""
        self._state, self._reason = state, reason
        if state is not BookState.LIVE:
            self._view.invalidate()
            self._resumed = False

    def expect(self) -> None:
        """A snapshot is to come."""
        self._suspended = False
        self.tell(BookState.SYNCING, Reason.SUBSCRIBED)

    def suspend(self) -> None:
        """Nothing more is known of the book for now; it may go on from here later."""
        self._suspended = True

    def restore(self, *, resumed: bool = False) -> None:
        """It goes on where it was suspended.

        Parameters
        ----------
        resumed : deltas may come once more that the book has already
        """
        self._suspended = False
        self._resumed = resumed and self._view.ready

    def has(self, version: int) -> bool:
        """Whether a delta to this version is one that came before the connection was lost."""
        if self._resumed and version > self._view.version:
            self._resumed = False
        return self._resumed

    def _loaded(self, instrument: Instrument, epoch: int, reason: Reason) -> None:
        self._instrument = instrument
        self.epoch = epoch
        self._state = BookState.LIVE
        self._reason = reason
        self._suspended = False
        self._resumed = False
        self.asked = False

    def _rescale(self, held: Instrument, wanted: Instrument) -> None:
        """Multiply the book up to the scale of the levels on the stage."""
        prices = wanted.price_exponent - held.price_exponent
        sizes = wanted.size_exponent - held.size_exponent
        if prices < 0 or sizes < 0:
            raise BookError("a delta on a coarser scale than the book's")
        if prices or sizes:
            try:
                self._view.book.rescale(prices, sizes)
            except RangeError as error:
                raise BookError(f"the book can't take the delta's scale: {error}") from None
        self._instrument = wanted


def changes_of(changes: Iterable[tuple[int, int, int, int]]) -> tuple[Change, ...]:
    """The model's changes of a native change set."""
    return tuple(
        Change(BookSide(side), price, size, Action(action)) for side, price, size, action in changes
    )
