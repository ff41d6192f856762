"""Plain-Python twin of the native book: two dictionaries, sorted when asked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

BID, ASK = 1, 2
ADD, UPDATE, REMOVE = 1, 2, 3
INT64_MAX = 2**63 - 1

Staged = Sequence[tuple[int, int, int]]
Changes = list[tuple[int, int, int, int]]


def net_changes(before: dict[int, dict[int, int]], after: dict[int, dict[int, int]]) -> Changes:
    """(side, price, size, action) of two pairs of sides, bids best first, then asks."""
    changes = []
    for side in (BID, ASK):
        prices = sorted(before[side].keys() | after[side].keys(), reverse=side == BID)
        for price in prices:
            old, new = before[side].get(price, 0), after[side].get(price, 0)
            if old != new:
                action = ADD if old == 0 else UPDATE if new else REMOVE
                changes.append((side, price, new, action))
    return changes


class ReferenceBook:
    """The twin of `alphapulse._core.book.Book`."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.sides: dict[int, dict[int, int]] = {BID: {}, ASK: {}}
        self.changes: Changes = []

    def _put(self, stage: Staged) -> None:
        for side, price, size in stage:
            if size:
                self.sides[side][price] = size
            else:
                self.sides[side].pop(price, None)
        if self.depth:
            for side in (BID, ASK):
                self.sides[side] = dict(self.levels(side, self.depth))

    def load(self, stage: Staged) -> None:
        self.sides = {BID: {}, ASK: {}}
        self._put(stage)
        self.changes = []

    def apply(self, stage: Staged) -> int:
        before = {side: dict(levels) for side, levels in self.sides.items()}
        self._put(stage)
        self.changes = net_changes(before, self.sides)
        return len(self.changes)

    def levels(self, side: int, limit: int = 0) -> tuple[tuple[int, int], ...]:
        ordered = sorted(self.sides[side].items(), reverse=side == BID)
        return tuple(ordered[: limit or None])

    def bids(self, limit: int = 0) -> tuple[tuple[int, int], ...]:
        return self.levels(BID, limit)

    def asks(self, limit: int = 0) -> tuple[tuple[int, int], ...]:
        return self.levels(ASK, limit)

    @property
    def crossed(self) -> bool:
        bids, asks = self.bids(1), self.asks(1)
        return bool(bids and asks) and bids[0][0] >= asks[0][0]

    def kraken_checksum(self, price_shift: int = 0, size_shift: int = 0) -> int:
        text = "".join(
            shifted(price, price_shift) + shifted(size, size_shift)
            for price, size in (*self.asks(10), *self.bids(10))
        )
        return zlib.crc32(text.encode())

    def digest(self) -> int:
        words = []
        for levels in (self.bids(), self.asks()):
            words.append(len(levels))
            for level in levels:
                words.extend(level)
        value = 0xCBF29CE484222325
        for word in words:
            value = (value ^ word) * 0x100000001B3 % 2**64
            value ^= value >> 32
        return value

    def rescale(self, price_places: int, size_places: int) -> None:
        rescaled = {
            side: {
                price * 10**price_places: size * 10**size_places for price, size in levels.items()
            }
            for side, levels in self.sides.items()
        }
        for levels in rescaled.values():
            for level in levels.items():
                if max(level) > INT64_MAX:
                    raise OverflowError(level)
        self.sides = rescaled
        self.changes = []


def shifted(value: int, shift: int) -> str:
    """Digits with `shift` zeros added, or so many taken away as far as they are zeros."""
    digits = str(value)
    if shift >= 0:
        return digits + "0" * shift
    while shift < 0 and digits.endswith("0"):
        digits = digits[:-1]
        shift += 1
    return digits
