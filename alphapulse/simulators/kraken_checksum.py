"""Kraken's book checksum, kept up with the book at little cost."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from alphapulse.simulators.book import ASK, BID, Change, VenueBook

CHECKSUM_LEVELS = 10


class TopLevels:
    """The digits of a book's best ten levels a side.

    Each part of the checksum's text is a level's price and quantity without point and leading
    zeros: the digits of the scaled integers.
    """

    def __init__(self, book: VenueBook) -> None:
        self._book = book
        # Of the best levels of bids and asks: prices, and digits.
        self._prices: tuple[list[int], list[int]] = ([], [])
        self._digits: tuple[list[str], list[str]] = ([], [])
        self._checksum: int | None = None
        self._complete()

    def follow(self, changes: Iterable[Change]) -> None:
        """Take over changes that the book has already, all of them since the last call."""
        dirty = False
        for side, price, size, rank in changes:
            prices, digits = self._prices[side], self._digits[side]
            # A change below what is held here doesn't matter: what moves up is read afterwards.
            held = len(prices)
            if not 0 <= rank <= held or rank >= CHECKSUM_LEVELS or (not size and rank == held):
                continue
            dirty = True
            if not size:
                del prices[rank], digits[rank]
            elif rank < held and prices[rank] == price:
                digits[rank] = f"{price}{size}"
            else:
                prices.insert(rank, price)
                digits.insert(rank, f"{price}{size}")
        if dirty:
            self._checksum = None
            self._complete()

    def checksum(self) -> int:
        """CRC32 over asks, then bids, best first."""
        if self._checksum is None:
            bids, asks = self._digits
            self._checksum = crc32("".join(asks + bids).encode())
        return self._checksum

    def _complete(self) -> None:
        """Ten levels a side, or all there are."""
        for side in (BID, ASK):
            prices, digits = self._prices[side], self._digits[side]
            del prices[CHECKSUM_LEVELS:], digits[CHECKSUM_LEVELS:]
            levels = self._book.side(side)
            for rank in range(len(prices), min(CHECKSUM_LEVELS, len(levels))):
                price = levels.at(rank)
                prices.append(price)
                digits.append(f"{price}{levels.sizes[price]}")
