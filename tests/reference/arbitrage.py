"""Opportunities in plain Python: fractions, and books taken apart into single lots."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import lcm
from typing import NamedTuple

Side = Mapping[Fraction, Fraction]
"""Sizes by price."""


class Book(NamedTuple):
    """A live book and when it changed, in nanoseconds."""

    bids: Side
    asks: Side
    delay_ns: int | None
    """From the venue's to our time; None where unknown."""


class Deal(NamedTuple):
    """What buying of one book and selling to another comes to."""

    volume: Fraction
    bought: Fraction
    sold: Fraction
    buy_fee: Fraction
    sell_fee: Fraction
    profit: Fraction
    buy_limit: Fraction
    sell_limit: Fraction


class Rules(NamedTuple):
    """Fees and limits, in basis points and nanoseconds."""

    fees_bps: Mapping[str, Fraction]
    min_bps: Fraction
    max_age_ns: int
    max_skew_ns: int
    depth: int


def deal(buy: Book, sell: Book, buy_fee: Fraction, sell_fee: Fraction, rules: Rules) -> Deal | None:
    """The best deal, lot by lot; fees are shares of the amounts. None where no lot is worth it."""
    asks = sorted(buy.asks.items())[: rules.depth]
    bids = sorted(sell.bids.items(), reverse=True)[: rules.depth]
    sizes = [size for _, size in (*asks, *bids)]
    if not sizes:
        return None
    lot = Fraction(1, lcm(*(size.denominator for size in sizes)))
    ask_lots = [price for price, size in asks for _ in range(int(size / lot))]
    bid_lots = [price for price, size in bids for _ in range(int(size / lot))]
    taken = []
    for ask, bid in zip(ask_lots, bid_lots, strict=False):
        gain = bid * (1 - sell_fee) - ask * (1 + buy_fee)
        if gain <= 0 or gain / ask * 10_000 < rules.min_bps:
            break
        taken.append((ask, bid))
    if not taken:
        return None
    bought = sum((ask for ask, _ in taken), Fraction()) * lot
    sold = sum((bid for _, bid in taken), Fraction()) * lot
    return Deal(
        volume=len(taken) * lot,
        bought=bought,
        sold=sold,
        buy_fee=bought * buy_fee,
        sell_fee=sold * sell_fee,
        profit=sold - sold * sell_fee - bought - bought * buy_fee,
        buy_limit=taken[-1][0],
        sell_limit=taken[-1][1],
    )


class Oracle:
    """All books of one symbol; everything is computed anew each time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.books: dict[str, Book] = {}
        self.seen_ns: dict[str, int] = {}
        self.least_ns: dict[str, int] = {}

    def set(self, exchange: str, book: Book) -> None:
        self.books[exchange] = book
        if book.delay_ns is not None:
            self.least_ns[exchange] = min(book.delay_ns, self.least_ns.get(exchange, book.delay_ns))

    def lose(self, exchange: str) -> None:
        self.books.pop(exchange, None)

    def deals(self, now_ns: int) -> dict[tuple[str, str], Deal]:
        """By the exchanges to buy and to sell at."""
        found = {}
        for buyer, buy in self.books.items():
            for seller, sell in self.books.items():
                if buyer != seller and self._credible(buyer, seller, now_ns):
                    best = deal(buy, sell, self._fee(buyer), self._fee(seller), self.rules)
                    if best is not None:
                        found[buyer, seller] = best
        return found

    def _fee(self, exchange: str) -> Fraction:
        return self.rules.fees_bps[exchange] / 10_000

    def _credible(self, buyer: str, seller: str, now_ns: int) -> bool:
        for exchange in (buyer, seller):
            if exchange not in self.seen_ns or exchange not in self.rules.fees_bps:
                return False
            if now_ns - self.seen_ns[exchange] > self.rules.max_age_ns:
                return False
        lags = [
            delay_ns - self.least_ns[exchange]
            for exchange in (buyer, seller)
            if (delay_ns := self.books[exchange].delay_ns) is not None
        ]
        return len(lags) < 2 or abs(lags[0] - lags[1]) <= self.rules.max_skew_ns
