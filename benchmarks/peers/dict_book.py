"""Books made of two sorted dictionaries, as Python programs keep them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

Change: TypeAlias = tuple[int, int, int]
"""(side, price, size): side 1 bid, 2 ask; size 0 removes."""


class DictBook:
    """A book in two sorted dictionaries, size by price.

    Parameters
    ----------
    bids, asks : the dictionaries
    best_bid, best_ask : give the best price
    """

    def __init__(
        self, bids: Any, asks: Any, best_bid: Callable[[], Any], best_ask: Callable[[], Any]
    ) -> None:
        self._sides = (None, bids, asks)
        self._best_bid = best_bid
        self._best_ask = best_ask

    def best_prices(self) -> list[Any]:
        """Best bid and best ask."""
        return [self._best_bid(), self._best_ask()]

    def single(self, messages: Sequence[Sequence[Change]]) -> None:
        """One change a message."""
        sides = self._sides
        for ((number, price, size),) in messages:
            side: Any = sides[number]
            if size:
                side[price] = size
            elif price in side:
                del side[price]

    def best(self, messages: Sequence[Sequence[Change]]) -> None:
        """One change a message, and the best prices read after it."""
        sides, best_bid, best_ask = self._sides, self._best_bid, self._best_ask
        for ((number, price, size),) in messages:
            side: Any = sides[number]
            if size:
                side[price] = size
            elif price in side:
                del side[price]
            best_bid()
            best_ask()

    def batch(self, messages: Sequence[Sequence[Change]]) -> None:
        """Several changes a message."""
        sides = self._sides
        for message in messages:
            for number, price, size in message:
                side: Any = sides[number]
                if size:
                    side[price] = size
                elif price in side:
                    del side[price]

    def text(self, messages: Sequence[bytes]) -> None:
        """Several changes of the bids a message, as JSON pairs of decimal text."""
        bids: Any = self._sides[1]
        decode = _PAIRS.decode
        for message in messages:
            for price_text, size_text in decode(message):
                price, size = Decimal(price_text), Decimal(size_text)
                if size:
                    bids[price] = size
                elif price in bids:
                    del bids[price]


_PAIRS = msgspec.json.Decoder(list[tuple[str, str]])


def order_book(bids: dict[int, int], asks: dict[int, int]) -> DictBook:
    """A book of order-book, the C extension that cryptofeed uses."""
    from order_book import OrderBook

    book = OrderBook()
    book.bids = bids
    book.asks = asks
    return DictBook(
        book.bids, book.asks, lambda: book.bids.index(0)[0], lambda: book.asks.index(0)[0]
    )


def sorted_containers(bids: dict[int, int], asks: dict[int, int]) -> DictBook:
    """A book of two `sortedcontainers.SortedDict`."""
    from sortedcontainers import SortedDict

    bid_side, ask_side = SortedDict(bids), SortedDict(asks)
    return DictBook(
        bid_side,
        ask_side,
        lambda: bid_side.peekitem(-1)[0],
        lambda: ask_side.peekitem(0)[0],
    )
