from alphapulse._core.book import Book
from alphapulse._core.changes import ChangeSet

class TopView:
    """The best levels of a book as somebody was last told of them.

    Parameters
    ----------
    depth : levels a side; 0 for all
    """

    changes: ChangeSet
    """What the latest `advance` changed, levels entering and leaving the view included."""

    def __init__(self, depth: int = 0) -> None: ...
    @property
    def depth(self) -> int: ...
    def load(self, book: Book) -> None:
        """Take over the book's best levels; `changes` is empty then."""
    def advance(self, book: Book) -> int:
        """Take over the book's best levels; returns the number of net changes since before."""
    def bids(self) -> tuple[tuple[int, int], ...]:
        """(price, size), highest price first."""
    def asks(self) -> tuple[tuple[int, int], ...]:
        """(price, size), lowest price first."""
