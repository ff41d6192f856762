"""Level changes that a venue sends together."""

from __future__ import annotations

from collections.abc import Iterable

from alphapulse.simulators.book import Change, VenueBook

NS_PER_MILLISECOND = 1_000_000


class Batch:
    """The changes of one book since its last batch: the last size of each level."""

    __slots__ = ("book", "first_id", "last_id", "levels", "t_ns")

    def __init__(self, book: VenueBook, first_id: int) -> None:
        self.book = book
        self.levels: dict[tuple[int, int], int] = {}
        """Size by (side, price), in the order of their first change."""
        self.first_id = first_id
        """Number of the first change."""
        self.last_id = first_id
        """Number of the last change."""
        self.t_ns = 0
        """Time of the last change."""


class Batches:
    """Batches of all books, which end at the same moments.

    Parameters
    ----------
    milliseconds : how long changes wait for others; 0 where they don't
    """

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds
        self.due_ns: int | None = None
        """Market time at which what waits must be sent; None if nothing does."""
        self._waiting: dict[str, Batch] = {}

    def add(self, book: VenueBook, changes: Iterable[Change], t_ns: int) -> None:
        """Let changes wait; they must be the book's latest."""
        changes = tuple(changes)
        batch = self._waiting.get(book.venue_symbol)
        if batch is None:
            batch = Batch(book, book.update_id - len(changes) + 1)
            self._waiting[book.venue_symbol] = batch
        for side, price, size, _ in changes:
            batch.levels[side, price] = size
        batch.last_id = book.update_id
        batch.t_ns = t_ns
        if self.due_ns is None:
            self.due_ns = t_ns + self.milliseconds * NS_PER_MILLISECOND

    def take(self, until_ns: int | None = None) -> list[Batch]:
        """What waits, if it is due by then; with None in any case."""
        if self.due_ns is None or (until_ns is not None and self.due_ns > until_ns):
            return []
        batches = list(self._waiting.values())
        self._waiting.clear()
        self.due_ns = None
        return batches
