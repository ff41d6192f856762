"""Books made of two sorted dictionaries, as Python programs keep them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

Change: TypeAlias = tuple[int, int, int]
"""(side, price, size): side 1 bid, 2 ask; size 0 removes."""

Place: TypeAlias = tuple[Callable[[int], tuple[Any, Any]], int]


class DictBook:
    """A book in two sorted dictionaries, size by price.

    Parameters
    ----------
    bids, asks : the dictionaries
    best_bid, best_ask : a method that gives the level at a place, and the best one's place
    """

    def __init__(self, bids: Any, asks: Any, best_bid: Place, best_ask: Place) -> None:
        self._sides = (None, bids, asks)
        self._best_bid = best_bid
        self._best_ask = best_ask

    def best_prices(self) -> list[Any]:
        """Best bid and best ask."""
        return [level_at(place)[0] for level_at, place in (self._best_bid, self._best_ask)]

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
        sides = self._sides
        (bid_at, best_bid), (ask_at, best_ask) = self._best_bid, self._best_ask
        for ((number, price, size),) in messages:
            side: Any = sides[number]
            if size:
                side[price] = size
            elif price in side:
                del side[price]
            bid_at(best_bid)[0]
            ask_at(best_ask)[0]

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


def order_book(bids: dict[Any, Any], asks: dict[Any, Any]) -> DictBook:
    """A book of order-book, the C extension that cryptofeed uses."""
    from order_book import OrderBook

    book = OrderBook()
    book.bids = bids
    book.asks = asks
    bid_side, ask_side = book.bids, book.asks
    return DictBook(bid_side, ask_side, (bid_side.index, 0), (ask_side.index, 0))


def sorted_containers(bids: dict[Any, Any], asks: dict[Any, Any]) -> DictBook:
    """A book of two `sortedcontainers.SortedDict`."""
    from sortedcontainers import SortedDict

    bid_side, ask_side = SortedDict(bids), SortedDict(asks)
    return DictBook(bid_side, ask_side, (bid_side.peekitem, -1), (ask_side.peekitem, 0))
