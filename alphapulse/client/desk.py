"""What the feeds of one client share: its books, and which of them need a snapshot."""

from __future__ import annotations

from alphapulse.client.books import Books, BookShelf
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.events import OVERALL
from alphapulse.client.keeping import KeptBook
from alphapulse.clock import wall_ns
from alphapulse.delta import LevelStage
from alphapulse.model import BookState, Instrument, Reason, RecordFlag, StateChange


class Desk:
    """The books of a client.

    Attributes
    ----------
    stage : scratch memory that all books share
    wanted : (exchange, symbol) of books that are wrong and of which a snapshot is to be asked for
    """

    def __init__(self) -> None:
        self.stage = LevelStage()
        self.shelf: BookShelf[KeptBook] = BookShelf()
        self.consolidated: dict[str, ConsolidatedBook] = {}
        self.wanted: list[tuple[str, str]] = []
        self._trades: dict[tuple[str, str], int] = {}
        self._again: dict[tuple[str, str], int] = {}

    @property
    def books(self) -> Books[KeptBook]:
        """Books of single exchanges."""
        return self.shelf

    def book(self, exchange: str, symbol: str) -> KeptBook:
        """A book, known from now on."""
        book = self.shelf.find(exchange, symbol)
        if book is None:
            book = self.shelf.put(KeptBook(exchange, symbol, self.stage))
        return book

    def all_of(self, symbol: str) -> ConsolidatedBook:
        """A book across venues, known from now on."""
        book = self.consolidated.get(symbol)
        if book is None:
            book = self.consolidated[symbol] = ConsolidatedBook(symbol)
        return book

    def ask(self, book: KeptBook | ConsolidatedBook) -> None:
        """Want a snapshot of a book, once until it comes."""
        if not book.asked:
            book.asked = True
            self.wanted.append((book.exchange, book.symbol))

    def broken(
        self,
        book: KeptBook,
        instrument: Instrument,
        reason: Reason,
        sequence: int,
        *,
        ask: bool = True,
    ) -> StateChange:
        """A book can't go on: hide it, want a snapshot, and give the event that says so."""
        book.tell(BookState.INVALID, reason)
        if ask:
            self.ask(book)
        return StateChange(
            exchange=book.exchange,
            sequence=sequence,
            received_ns=wall_ns(),
            flags=RecordFlag.MADE,
            instrument=instrument,
            state=BookState.INVALID,
            reason=reason,
        )

    def is_new_trade(self, exchange: str, symbol: str, sequence: int) -> bool:
        """Whether a trade wasn't given before the connection was lost."""
        key = exchange, symbol
        if self._again:
            before = self._again.get(key)
            if before is not None:
                if sequence <= before:
                    return False
                del self._again[key]
        self._trades[key] = sequence
        return True

    def resumed_trades(self, exchanges: set[str]) -> None:
        """Missed trades come, and maybe some that aren't missed."""
        for key, sequence in self._trades.items():
            if key[0] in exchanges:
                self._again[key] = sequence

    def forget_trades(self, exchange: str) -> None:
        """Sequences of trades mean something else from now on."""
        for key in [key for key in self._again if key[0] == exchange]:
            del self._again[key]

    def suspend(self) -> None:
        """The connection is lost."""
        for book in self.shelf.values():
            book.suspend()
            book.asked = False
        for shared in self.consolidated.values():
            shared.tell(BookState.STALE, Reason.DISCONNECTED)
            shared.asked = False
        self.wanted.clear()

    def restarted(self, exchange: str, epoch: int) -> None:
        """What follows is of this epoch; books of another one begin anew."""
        for book in self.shelf.values():
            if book.exchange == exchange and book.live and book.epoch != epoch:
                book.tell(BookState.STALE, Reason.RESTARTED)

    def subscribed(
        self, exchanges: tuple[str, ...], symbols: tuple[str, ...], resumed: set[str]
    ) -> None:
        """Books were subscribed to: those that go on are shown, of the others a snapshot comes."""
        for book in self._matching(exchanges, symbols):
            if book.exchange in resumed:
                book.restore(resumed=True)
                if book.lapsed:
                    self.ask(book)
            else:
                book.expect()
        for shared in self._matching_shared(exchanges, symbols):
            shared.tell(BookState.SYNCING, Reason.SUBSCRIBED)

    def unsubscribed(self, exchanges: tuple[str, ...], symbols: tuple[str, ...]) -> None:
        """Nothing comes of these books any more."""
        for book in self._matching(exchanges, symbols):
            book.expect()  # whoever still holds it doesn't see an old book
            self.shelf.remove((book.exchange, book.symbol))
        for shared in self._matching_shared(exchanges, symbols):
            shared.tell(BookState.SYNCING, Reason.SUBSCRIBED)
            del self.consolidated[shared.symbol]

    def _matching(self, exchanges: tuple[str, ...], symbols: tuple[str, ...]) -> list[KeptBook]:
        return [
            book
            for book in self.shelf.values()
            if matches(exchanges, book.exchange) and matches(symbols, book.symbol)
        ]

    def _matching_shared(
        self, exchanges: tuple[str, ...], symbols: tuple[str, ...]
    ) -> list[ConsolidatedBook]:
        if OVERALL not in exchanges:
            return []
        return [book for book in self.consolidated.values() if matches(symbols, book.symbol)]


def matches(names: tuple[str, ...], name: str) -> bool:
    """Whether a list of names, as answers have it, means this one."""
    return name in names or "*" in names
