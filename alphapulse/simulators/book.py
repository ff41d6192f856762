"""The venue's own book of one pair: every level, and the trades that it remembers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from alphapulse.simulators.specs import PairSpec

BID = 0
ASK = 1


class Change(NamedTuple):
    """What happened to one level, scaled; size 0 removes it."""

    side: int
    """``BID`` or ``ASK``."""
    price: int
    size: int
    rank: int
    """How many better levels the side had, 0 for the best; of a removed level before, of others
    after the change."""


class Fill(NamedTuple):
    """One match, scaled."""

    trade_id: int
    t_ns: int
    price: int
    size: int
    buy: bool
    """Whether the taker bought."""
    order: int
    """Counts taker orders; the matches of one order share it."""


class LevelSide:
    """One side of a book: keys sorted with the best at the end, sizes by price.

    Changes happen near the best price, so keeping it at the end moves little memory.
    """

    __slots__ = ("keys", "sign", "sizes")

    def __init__(self, side: int) -> None:
        self.sign = 1 if side == BID else -1
        self.keys: list[int] = []
        """``sign * price``, ascending."""
        self.sizes: dict[int, int] = {}

    def set(self, price: int, size: int) -> int:
        """Set a level's absolute size, 0 removes it; gives its rank, -1 if nothing was there."""
        keys, sizes = self.keys, self.sizes
        key = price * self.sign
        at = bisect_left(keys, key)
        if price in sizes:
            rank = len(keys) - 1 - at
            if size:
                sizes[price] = size
            else:
                del keys[at], sizes[price]
            return rank
        if not size:
            return -1
        keys.insert(at, key)
        sizes[price] = size
        return len(keys) - 1 - at

    def best(self) -> int:
        """Price of the best level. Raises `IndexError` if there is none."""
        return self.keys[-1] * self.sign

    def at(self, rank: int) -> int:
        """Price of the level with that many better ones."""
        return self.keys[-1 - rank] * self.sign

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(price, size), best first."""
        sign, sizes = self.sign, self.sizes
        for key in reversed(self.keys):
            yield key * sign, sizes[key * sign]

    def top(self, count: int | None) -> list[tuple[int, int]]:
        """The best levels, best first; all with None."""
        return list(islice(self, count))


class VenueBook:
    """One pair at one venue.

    Parameters
    ----------
    spec : the pair
    first_trade_id : id of the first match
    first_update_id : number of the first level change
    memory : how many matches are kept for REST
    """

    def __init__(
        self, spec: PairSpec, *, first_trade_id: int, first_update_id: int, memory: int
    ) -> None:
        self.spec = spec
        self.venue_symbol = spec.symbol
        """As the venue writes it; set by the simulator of the venue."""
        self.bids = LevelSide(BID)
        self.asks = LevelSide(ASK)
        self.update_id = first_update_id
        """Number of the last level change, +1 each."""
        self.sequence = first_update_id * 3
        """Number of the last event of the pair, level changes and matches alike."""
        self.next_trade_id = first_trade_id
        self.next_order = first_trade_id // 2
        self.fills: deque[Fill] = deque(maxlen=memory)
        """The latest matches, oldest first."""

    def side(self, side: int) -> LevelSide:
        """Bids or asks."""
        return self.asks if side else self.bids

    def change(self, side: int, price: int, size: int) -> Change:
        """Set a level and count the change."""
        self.update_id += 1
        self.sequence += 1
        return Change(side, price, size, (self.asks if side else self.bids).set(price, size))

    def fill(self, t_ns: int, price: int, sizes: list[int], buy: bool) -> tuple[Fill, ...]:
        """Record the matches of one taker order, all at one price."""
        first, order = self.next_trade_id, self.next_order
        self.next_trade_id += len(sizes)
        self.next_order += 1
        self.sequence += len(sizes)
        # No two at the same time, so that a time can serve as a cursor.
        if self.fills:
            t_ns = max(t_ns, self.fills[-1].t_ns + 1)
        made = tuple(
            Fill(first + i, t_ns + i, price, size, buy, order) for i, size in enumerate(sizes)
        )
        self.fills.extend(made)
        return made

    def fills_from(self, trade_id: int) -> list[Fill]:
        """Remembered matches with that id or a later one, oldest first."""
        return list(islice(self.fills, self._index(trade_id), None))

    def fills_before(self, trade_id: int) -> list[Fill]:
        """Remembered matches with an earlier id, oldest first."""
        return list(islice(self.fills, self._index(trade_id)))

    def fills_after(self, t_ns: int) -> list[Fill]:
        """Remembered matches later than that time, oldest first."""
        return list(islice(self.fills, bisect_right(self.fills, t_ns, key=_TIME), None))

    def _index(self, trade_id: int) -> int:
        oldest = self.fills[0].trade_id if self.fills else self.next_trade_id
        return min(max(trade_id - oldest, 0), len(self.fills))


_TIME = attrgetter("t_ns")
