"""Which trades a store has: ids as ranges, since venues count their trades."""

from collections.abc import Iterable, Sequence

from alphapulse.history import TradeRow
from alphapulse.model import IdKind

MOST_RANGES: int
"""Ranges remembered for one kind of id of one symbol.

Where a venue's ids aren't consecutive, each trade is a range of its own: an unseen id below the
oldest ranges is then taken as seen, so that what is remembered stays bounded.
"""

class IdRanges:
    """A set of integers of 64 bits, as disjoint ranges in ascending order.

    Parameters
    ----------
    ranges : (first, last) pairs, ascending, not touching each other
    most : how many are kept at most; beyond it the two lowest become one
    """

    changed: bool
    """Whether anything but the highest range's end has changed since `pairs` was asked for."""

    def __init__(self, ranges: Iterable[Sequence[int]] = (), most: int = ...) -> None: ...
    def extend(self, last: int) -> None:
        """Let the highest range end there, if it ends before."""

    def add(self, number: int) -> bool:
        """Add a number. False if it was there already."""

    def pairs(self) -> list[tuple[int, int]]:
        """The ranges, (first, last), ascending."""

class Series:
    """What a store has seen of one venue's symbol.

    Parameters
    ----------
    ids : ranges of integer ids by kind
    """

    def __init__(self, ids: dict[IdKind, IdRanges] | None = None) -> None: ...
    @classmethod
    def load(cls, text: str | bytes) -> Series:
        """From what `dump` gave."""

    def dump(self) -> str:
        """As JSON: ``{"trade": [[first, last], ...]}``."""

    @property
    def changed(self) -> bool:
        """Whether `dump` would now give more than an extension of each kind's highest range."""

    def extend(self, kind: IdKind, highest: int) -> None:
        """Note that the highest range of a kind, which is known, goes on to this id."""

    def add(self, kind: IdKind, number: int) -> bool:
        """Note an integer id. False if it was noted before."""

def sift(
    rows: Iterable[TradeRow], series: dict[str, Series], texts: set[tuple[str, str]]
) -> list[TradeRow]:
    """The rows that are new, each once, in their order; all of them are noted.

    Parameters
    ----------
    rows : of one exchange
    series : by symbol; missing ones are added
    texts : (symbol, id) of the text ids that the store has already; new ones are added
    """
