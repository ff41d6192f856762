"""How much can be bought of one book and sold to another at a profit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Scaled = tuple[int, int]
"""Price and size of a level, on exponents that both books share."""


class Fill(NamedTuple):
    """What the two trades come to; amounts are sums of price times size, before fees."""

    volume: int
    bought: int
    sold: int
    buy_limit: int
    """The highest price paid."""
    sell_limit: int
    """The lowest price got."""
    asks_used_up: bool
    """No ask is left after those that were counted."""
    bids_used_up: bool

    def rescale(self, price_factor: int, size_factor: int) -> Fill:
        """The same on larger exponents."""
        both = price_factor * size_factor
        return self._replace(
            volume=self.volume * size_factor,
            bought=self.bought * both,
            sold=self.sold * both,
            buy_limit=self.buy_limit * price_factor,
            sell_limit=self.sell_limit * price_factor,
        )


def match(
    asks: Iterable[Scaled], bids: Iterable[Scaled], needs: int, gets: int, margin: int
) -> Fill | None:
    """Match asks and bids, best first, while each further unit makes at least what it has to.

    A unit bought at price ``a`` and sold at ``b`` counts if ``b * gets >= a * needs + margin``.

    Parameters
    ----------
    asks, bids : of the two books, best first, sizes above 0
    needs, gets, margin : see `Terms`

    Returns
    -------
    Fill or None
        None where not even the best prices are profitable
    """
    ask_levels, bid_levels = iter(asks), iter(bids)
    ask, ask_left = next(ask_levels, (0, 0))
    bid, bid_left = next(bid_levels, (0, 0))
    volume = bought = sold = buy_limit = sell_limit = 0
    while ask_left and bid_left and bid * gets >= ask * needs + margin:
        size = min(ask_left, bid_left)
        volume += size
        bought += ask * size
        sold += bid * size
        buy_limit, sell_limit = ask, bid
        ask_left -= size
        bid_left -= size
        if not ask_left:
            ask, ask_left = next(ask_levels, (0, 0))
        if not bid_left:
            bid, bid_left = next(bid_levels, (0, 0))
    if not volume:
        return None
    return Fill(volume, bought, sold, buy_limit, sell_limit, not ask_left, not bid_left)
