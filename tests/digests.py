"""Clients of the stream whose books are compared, version by version, with the rings' own.

What is compared are digests: a sum over the levels, exact numbers included, that a change of one
level changes. `Truth` has those of every version that a ring has told of; a `Copy` is what a client
made of its messages.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from alphapulse.model import (
    Action,
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    StateChange,
)
from alphapulse.shm import RingReader

Side = dict[Decimal, Decimal]
Key = tuple[str, int, str]
"""Exchange, epoch, symbol."""

DEPTH = 10
"""Levels a side of the views that are compared, besides whole books."""
KEPT = 20_000
"""Versions of a book of which a ring's digests are kept."""

_MASK = (1 << 64) - 1


def level(side: BookSide, price: Decimal, size: Decimal) -> int:
    """What a level adds to its book's digest."""
    return hash((int(side), price, size))


def digest(bids: Iterable[tuple[Decimal, Decimal]], asks: Iterable[tuple[Decimal, Decimal]]) -> int:
    """The digest of some levels."""
    found = sum(level(BookSide.BID, *one) for one in bids)
    return (found + sum(level(BookSide.ASK, *one) for one in asks)) & _MASK


class Book:
    """Levels, and their digest, kept as they change."""

    def __init__(self) -> None:
        self.version = 0
        self.ready = False
        self._sides: dict[BookSide, Side] = {BookSide.BID: {}, BookSide.ASK: {}}
        self._digest = 0

    @property
    def digest(self) -> int:
        """Of the whole book."""
        return self._digest & _MASK

    def top(self, depth: int) -> int:
        """The digest of the best levels."""
        bids, asks = self._sides[BookSide.BID], self._sides[BookSide.ASK]
        return digest(heapq.nlargest(depth, bids.items()), heapq.nsmallest(depth, asks.items()))

    def load(
        self,
        bids: Iterable[tuple[Decimal, Decimal]],
        asks: Iterable[tuple[Decimal, Decimal]],
        version: int,
    ) -> None:
        """Begin anew."""
        self._sides = {BookSide.BID: dict(bids), BookSide.ASK: dict(asks)}
        self._digest = digest(*(side.items() for side in self._sides.values()))
        self.version = version
        self.ready = True

    def change(self, side: BookSide, price: Decimal, size: Decimal, action: Action) -> None:
        """One change of a delta."""
        levels = self._sides[side]
        before = levels.pop(price, None)
        assert (before is None) is (action is Action.ADD), f"{action.text} of {price}: {before}"
        if before is not None:
            self._digest -= level(side, price, before)
        if action is not Action.REMOVE:
            levels[price] = size
            self._digest += level(side, price, size)
        else:
            assert size == 0


class Digests(NamedTuple):
    """Of a book's version."""

    whole: int
    top: int


class Truth:
    """What one ring says, record by record.

    Parameters
    ----------
    reader : from the ring's beginning on
    """

    def __init__(self, reader: RingReader) -> None:
        self.venue = reader.venue
        self.digests: dict[Key, dict[int, Digests]] = {}
        self.states: dict[str, BookState] = {}
        self.counts: Counter[str] = Counter()
        self.books: dict[str, Book] = {}
        self.epoch = 0
        self._reader = reader

    def read(self) -> None:
        """Take all that is there."""
        while batch := self._reader.read():
            assert batch.overrun is None or batch.overrun.reason.text == "restarted", batch.overrun
            if batch.epoch != self.epoch:
                self.epoch = batch.epoch
                self.counts["epochs"] += 1
                self.books.clear()
                self.states.clear()
            for event in batch.events():
                self._take(event)

    def latest(self, symbol: str) -> int:
        """Version of a book as it is now; 0 while there is none."""
        book = self.books.get(symbol)
        return book.version if book is not None else 0

    def close(self) -> None:
        """Let go of the ring."""
        self._reader.close()

    def _take(self, event: object) -> None:
        if isinstance(event, BookSnapshot):
            self._snapshot(event)
        elif isinstance(event, BookDelta):
            instrument = event.instrument
            book = self.books[instrument.symbol]
            assert event.prev_version == book.version
            for change in event.changes:
                price, size = instrument.price(change.price), instrument.size(change.size)
                book.change(change.side, price, size, change.action)
            book.version = event.version
            self._note(instrument.symbol, book)
            self.counts["deltas"] += 1
        elif isinstance(event, StateChange):
            self.states[event.instrument.symbol] = event.state
            self.counts[event.state.text] += 1

    def _snapshot(self, event: BookSnapshot) -> None:
        instrument = event.instrument
        book = self.books.setdefault(instrument.symbol, Book())
        before = book.digest if book.version == event.version else None
        book.load(
            [(instrument.price(price), instrument.size(size)) for price, size in event.bids],
            [(instrument.price(price), instrument.size(size)) for price, size in event.asks],
            event.version,
        )
        assert before is None or before == book.digest, "a repeat differs"
        self._note(instrument.symbol, book)

    def _note(self, symbol: str, book: Book) -> None:
        versions = self.digests.setdefault((self.venue, self.epoch, symbol), {})
        versions[book.version] = Digests(book.digest, book.top(DEPTH))
        while len(versions) > KEPT:
            del versions[next(iter(versions))]


class Seen(NamedTuple):
    """A client's book at some moment."""

    client: str
    key: Key
    version: int
    whole: bool
    digest: int


class Checker:
    """Compares what clients have with what the rings say.

    Parameters
    ----------
    truths : by exchange
    """

    def __init__(self, truths: dict[str, Truth]) -> None:
        self.truths = truths
        self.compared: Counter[str] = Counter()
        """By client."""
        self.differences: list[Seen] = []
        self.early: list[Seen] = []
        """Of versions that the truth hasn't come to."""

    def see(self, seen: Seen) -> None:
        """A client has a new version of a book."""
        if not self._compare(seen):
            self.early.append(seen)

    def catch_up(self) -> None:
        """Read the rings, and compare what was too early."""
        for truth in self.truths.values():
            truth.read()
        self.early = [seen for seen in self.early if not self._compare(seen)]

    def _compare(self, seen: Seen) -> bool:
        exchange = seen.key[0]
        digests = self.truths[exchange].digests.get(seen.key, {}).get(seen.version)
        if digests is None:
            return False
        self.compared[seen.client] += 1
        if seen.digest != (digests.whole if seen.whole else digests.top):
            self.differences.append(seen)
        return True
