"""A client's books as its user sees them: only while they are known to be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Generic, NamedTuple, TypeVar

from alphapulse.delta import BookView
from alphapulse.errors import BookNotLive
from alphapulse.model import BookState, Instrument, Level, Reason


class PriceLevel(NamedTuple):
    """One price level, exact."""

    price: Decimal
    size: Decimal


class LocalBook:
    """One symbol's book at one exchange, as of the last event that was taken from the client.

    What it shows (`best_bid`, `bids`, ...) raises `BookNotLive` unless `live` is true.

    Attributes
    ----------
    exchange, symbol : whose
    epoch : of the exchange's ring; versions of different epochs have nothing in common
    sequence : place in the ring of the latest event
    """

    def __init__(self, exchange: str, symbol: str, view: BookView) -> None:
        self.exchange = exchange
        self.symbol = symbol
        self.epoch = 0
        self.sequence = 0
        self._view = view
        self._depth = 0
        self._version = 0
        self._instrument: Instrument | None = None
        self._state = BookState.SYNCING
        self._reason = Reason.STARTED
        self._suspended = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.exchange} {self.symbol} {self.state.text}>"

    @property
    def live(self) -> bool:
        """Whether the book is known to be right."""
        return self._view.ready and not self._suspended and self._state is BookState.LIVE

    @property
    def state(self) -> BookState:
        """As told last; ``stale`` while the connection is lost."""
        if self._suspended:
            return BookState.STALE
        waits = self._state is BookState.LIVE and not self._view.ready
        return BookState.SYNCING if waits else self._state

    @property
    def reason(self) -> Reason:
        """Why the book is in its state."""
        return Reason.DISCONNECTED if self._suspended else self._reason

    @property
    def version(self) -> int:
        """Of the latest event. Raises `BookNotLive`."""
        self._check()
        return self._version

    @property
    def instrument(self) -> Instrument:
        """What the scaled integers are scaled by. Raises `BookNotLive`."""
        return self._check()

    @property
    def received_ns(self) -> int:
        """When the collector received the latest change; nanoseconds since the epoch."""
        return self._view.received_ns

    @property
    def exchange_ns(self) -> int:
        """The venue's time of the latest change, ``clock.NO_TIME`` where it gave none."""
        return self._view.exchange_ns

    @property
    def best_bid(self) -> PriceLevel | None:
        """Highest bid, None where there is none. Raises `BookNotLive`."""
        return _exact(self._check(), self._view.best()[0])

    @property
    def best_ask(self) -> PriceLevel | None:
        """Lowest ask, None where there is none. Raises `BookNotLive`."""
        return _exact(self._check(), self._view.best()[1])

    @property
    def mid(self) -> Decimal | None:
        """Half-way between best bid and best ask; None where a side is empty."""
        bid, ask = self.best_bid, self.best_ask
        return None if bid is None or ask is None else (bid.price + ask.price) / 2

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid; None where a side is empty."""
        bid, ask = self.best_bid, self.best_ask
        return None if bid is None or ask is None else ask.price - bid.price

    def bids(self, limit: int = 0) -> list[PriceLevel]:
        """Bids, highest first; `limit` 0 for all. Raises `BookNotLive`."""
        return _exact_levels(self._check(), self.scaled_bids(limit))

    def asks(self, limit: int = 0) -> list[PriceLevel]:
        """Asks, lowest first; `limit` 0 for all. Raises `BookNotLive`."""
        return _exact_levels(self._check(), self.scaled_asks(limit))

    def scaled_bids(self, limit: int = 0) -> tuple[Level, ...]:
        """`bids` as integers, scaled by the exponents of `instrument`."""
        self._check()
        return self._view.bids(self._limit(limit))

    def scaled_asks(self, limit: int = 0) -> tuple[Level, ...]:
        """`asks` as integers, scaled by the exponents of `instrument`."""
        self._check()
        return self._view.asks(self._limit(limit))

    def _limit(self, limit: int) -> int:
        return min(limit, self._depth) if limit and self._depth else limit or self._depth

    def _check(self) -> Instrument:
        if not self.live or self._instrument is None:
            raise BookNotLive(self.exchange, self.symbol, self.state.text, self.reason.text)
        return self._instrument


def _exact(instrument: Instrument, level: Level | None) -> PriceLevel | None:
    if level is None:
        return None
    return PriceLevel(instrument.price(level.price), instrument.size(level.size))


def _exact_levels(instrument: Instrument, levels: tuple[Level, ...]) -> list[PriceLevel]:
    price, size = instrument.price, instrument.size
    return [PriceLevel(price(level.price), size(level.size)) for level in levels]


AnyBook = TypeVar("AnyBook", bound=LocalBook, covariant=True)
KeptBook = TypeVar("KeptBook", bound=LocalBook)


class Books(Mapping[tuple[str, str], AnyBook], Generic[AnyBook]):
    """The books that a client knows of, by (exchange, symbol), whether live or not."""

    def __init__(self) -> None:
        self._books: dict[tuple[str, str], AnyBook] = {}

    def __getitem__(self, key: tuple[str, str]) -> AnyBook:
        try:
            return self._books[key]
        except KeyError:
            known = ", ".join(f"{exchange} {symbol}" for exchange, symbol in self._books)
            raise KeyError(f"no book of {key!r}; there are {known or 'none yet'}") from None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._books)

    def __len__(self) -> int:
        return len(self._books)

    @property
    def live(self) -> list[AnyBook]:
        """Those that can be shown."""
        return [book for book in self._books.values() if book.live]


class BookShelf(Books[KeptBook]):
    """`Books` as feeds fill them."""

    def find(self, exchange: str, symbol: str) -> KeptBook | None:
        """A book, if it is known."""
        return self._books.get((exchange, symbol))

    def put(self, book: KeptBook) -> KeptBook:
        """Add a book."""
        self._books[book.exchange, book.symbol] = book
        return book

    def remove(self, key: tuple[str, str]) -> None:
        """Forget a book, if it is known."""
        self._books.pop(key, None)
