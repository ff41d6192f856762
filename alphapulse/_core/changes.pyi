from collections.abc import Iterable, Iterator

class ChangeSet:
    """Net changes of a book: at most one per side and price, bids best first, then asks.

    Owned by a `Book` or a `TopView`, and valid until that one's next operation.
    """

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        """(side, price, size, action): side 1 bid, 2 ask; action 1 add, 2 update, 3 remove."""
    def assign(self, changes: Iterable[tuple[int, int, int, int]]) -> None:
        """Replace the content by (side, price, size, action).

        Raises
        ------
        ValueError
            a value is out of range, size and action contradict each other, or the order isn't
            that of a change set
        """
