from typing import Any, TypeAlias

import numpy.typing as npt
from typing_extensions import Buffer

from alphapulse._core.changes import ChangeSet
from alphapulse._core.levels import LevelStage

MAX_LEVELS_PER_SIDE: int
"""How large a side may grow; a venue that sends more isn't describing a market."""

Rows: TypeAlias = Buffer | npt.NDArray[Any]

class Book:
    """Both sides of an order book, in scaled integers.

    Levels come in a `LevelStage`, or as rows of native int64 (side, price, size) in any
    C-contiguous buffer: an array of shape (n, 3), or a NumPy array of
    ``np.dtype([("side", "i8"), ("price", "i8"), ("size", "i8")])``. Side 1 is bid, 2 ask; a row
    with another side, a price below 1 or a negative size is a ValueError that leaves the book as
    it was.

    Parameters
    ----------
    depth : levels a side that are kept; 0 for all
    """

    changes: ChangeSet
    """What the latest `apply` or `set_level` changed; empty after `load` and `rescale`."""

    def __init__(self, depth: int = 0) -> None: ...
    @property
    def depth(self) -> int: ...
    @property
    def bid_count(self) -> int: ...
    @property
    def ask_count(self) -> int: ...
    @property
    def crossed(self) -> bool:
        """Whether both sides have levels and the best bid isn't below the best ask."""
    @property
    def best_bid(self) -> int | None:
        """Price of the best bid, None where there is none."""
    @property
    def best_ask(self) -> int | None:
        """Price of the best ask, None where there is none."""
    @property
    def nbytes(self) -> int:
        """Memory that the levels take, room for more included."""
    def clear(self) -> None:
        """Remove all levels."""
    def load(self, levels: LevelStage | Rows) -> None:
        """Replace the book by these levels, in any order.

        Of a price that comes twice the last size counts.

        Raises
        ------
        BookError
            more levels than `MAX_LEVELS_PER_SIDE`; the book is as before
        """
    def apply(self, levels: LevelStage | Rows) -> int:
        """Apply one message: its levels in their order, then truncation to `depth`.

        Sizes are absolute, 0 removes; removing an absent level is normal.

        Returns
        -------
        int
            the number of net changes, to be found in `changes`

        Raises
        ------
        BookError
            a side could grow beyond `MAX_LEVELS_PER_SIDE`; the book is as before
        """
    def set_level(self, side: int, price: int, size: int) -> int:
        """`apply` a message of one level.

        Raises
        ------
        ValueError
            the side is neither 1 nor 2, the price below 1 or the size negative
        """
    def best(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """(price, size) of the best bid and the best ask, None where a side is empty."""
    def bids(self, limit: int = 0) -> tuple[tuple[int, int], ...]:
        """(price, size), highest price first; `limit` 0 for all."""
    def asks(self, limit: int = 0) -> tuple[tuple[int, int], ...]:
        """(price, size), lowest price first; `limit` 0 for all."""
    def size_at(self, side: int, price: int) -> int:
        """Size of one level, 0 where there is none."""
    def kraken_checksum(self, price_shift: int = 0, size_shift: int = 0) -> int:
        """CRC-32 over the digits of the ten best asks, then the ten best bids.

        Source: Kraken, WebSocket API v2, "Book Checksum".

        Parameters
        ----------
        price_shift, size_shift : the venue's precision minus the instrument's exponent, -18 to 18:
            so many zeros are added to the digits, or taken away as far as they are zeros
        """
    def digest(self) -> int:
        """64-bit digest of all levels, to compare books; not cryptographic."""
    def rescale(self, price_places: int, size_places: int) -> None:
        """Multiply all prices and sizes by powers of ten, 0 to 18.

        Raises
        ------
        RangeError
            a value would not fit int64; the book is as before
        """
